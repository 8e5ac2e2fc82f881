//! How much one peer, one client and all together may ask for.
//!
//! # Failed authentications
//!
//! Secrets have 256 random bits, so that nobody guesses one, throttled or not. The limits bound what failures cost
//! everyone else: verified hashes and signatures, and lines in the logs. Who can do what to whom leads to three rules:
//!
//! - A bucket belongs to an *address and a claimed client id*. If it belonged to the id alone, anyone could lock a
//!   client out by failing in its name. From another address they cannot. IPv6 addresses count by
//!   their /64, which is what one host gets.
//! - Another, wider one belongs to the *address alone*, so that changing names does not help.
//! - While a bucket is empty, an attempt is answered *before any work*, whether or not there is such a client
//!   and whether or not the credential is right. If the right one were let through, the answer to a
//!   throttled attempt would still tell right from wrong, and would still cost the work.
//!
//! The price: a client that shares its address with an attacker, or with a neighbour that has an outdated secret, waits
//! as they do, three seconds for each attempt. Tokens that it has stay good. All clients behind a proxy have one
//! address: there, let the proxy limit, and switch this off (`limits.failures`). Headers in which a proxy names the
//! peer are not believed, because anyone can send them.
//!
//! # Tokens
//!
//! Issued tokens count for the client that proved who it is, never for one that is merely named, for
//! the same reason. The limit comes after the proof; it protects the services that would verify the
//! client's tokens.
//!
//! # Shares
//!
//! One address has at most three quarters of the requests under way, and of the connections (`shares`). So a peer that
//! sends bodies a byte at a time, or nothing at all, does not shut everyone else out. With two addresses it could;
//! against those, the bounds in time remain.
//!
//! # Memory
//!
//! Everything is counted in tables of a fixed size (`buckets`). While nothing has failed, looking up costs one load of
//! an atomic.

mod buckets;
mod overload;
mod shares;
mod throttled;

pub(super) use self::overload::Overload;
pub(super) use self::shares::{Shares, Taken};
pub(super) use self::throttled::Throttled;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Timestamp};

use crate::server::limits::buckets::{Buckets, Rate};

/// Failures of one client id from one address: twenty at once, then one every three seconds.
const FAILURES_AS_CLIENT: Rate = Rate { every: Duration::from_secs(3), burst: 20 };

/// Failures from one address under any names: two hundred at once, then twenty a second.
const FAILURES_FROM_ADDRESS: Rate = Rate { every: Duration::from_millis(50), burst: 200 };

/// How many buckets are remembered; the fullest are forgotten first.
const BUCKETS: usize = 64 * 1024;

/// What is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Whether failed authentications are throttled.
    pub failures: bool,
    /// How many tokens a second one client gets, and ten times as many at once; `None` for no limit.
    pub tokens_per_client: Option<NonZeroU32>,
    /// How many requests may be without an answer at once, three quarters of them from one address. One
    /// over that is refused.
    pub requests: usize,
    /// How many connections there may be at once, three quarters of them from one address. One over that
    /// is closed.
    pub connections: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { failures: true, tokens_per_client: None, requests: 4096, connections: 8192 }
    }
}

/// What counts the failures and the tokens.
pub(super) struct Limits {
    failures: Option<Failures>,
    tokens: Option<Buckets>,
}

struct Failures {
    as_client: Buckets,
    from_address: Buckets,
}

impl Limits {
    pub(super) fn new(settings: &LimitSettings) -> Self {
        let failures = settings.failures.then(|| Failures {
            as_client: Buckets::new(BUCKETS, FAILURES_AS_CLIENT),
            from_address: Buckets::new(BUCKETS, FAILURES_FROM_ADDRESS),
        });
        let tokens = settings.tokens_per_client.map(|a_second| {
            let every = Duration::from_secs(1) / a_second.get();
            Buckets::new(BUCKETS, Rate { every, burst: a_second.get().saturating_mul(10) })
        });
        Self { failures, tokens }
    }

    /// Whether an attempt to authenticate goes on. This is asked before any work, and the answer is the same for every
    /// client id, known or not.
    pub(super) fn check_failures(
        &self,
        peer: Option<IpAddr>,
        client_id: &str,
        now: Timestamp,
    ) -> Result<(), Throttled> {
        let Some(failures) = &self.failures else { return Ok(()) };
        let origin = Origin::of(peer);
        failures.from_address.check(&origin, now)?;
        failures.as_client.check(&(origin, client_id), now)
    }

    /// Notes that an attempt failed: an unknown or disabled client, or a wrong credential.
    pub(super) fn note_failure(&self, peer: Option<IpAddr>, client_id: &str, now: Timestamp) {
        if let Some(failures) = &self.failures {
            let origin = Origin::of(peer);
            failures.from_address.take(&origin, now);
            failures.as_client.take(&(origin, client_id), now);
        }
    }

    /// Takes one token from what a client may have, once it has proved that it is the one.
    pub(super) fn take_token(&self, client: &ClientId, now: Timestamp) -> Result<(), Throttled> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        tokens.check(client, now)?;
        tokens.take(client, now);
        Ok(())
    }
}

/// Where attempts come from, as precisely as it tells hosts apart.
#[derive(Hash, PartialEq, Eq, Clone, Copy)]
enum Origin {
    Unknown,
    V4([u8; 4]),
    /// The first 64 bits: whoever has one address below them has all the others.
    V6([u8; 8]),
}

impl Origin {
    fn of(peer: Option<IpAddr>) -> Self {
        match peer.map(|peer| peer.to_canonical()) {
            None => Self::Unknown,
            Some(IpAddr::V4(address)) => Self::V4(address.octets()),
            Some(IpAddr::V6(address)) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Self::V6(network)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn limits() -> Limits {
        Limits::new(&LimitSettings::default())
    }

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().expect("an address"))
    }

    fn fail(limits: &Limits, peer: Option<IpAddr>, client_id: &str, times: u32) {
        for _ in 0..times {
            limits.note_failure(peer, client_id, NOW);
        }
    }

    #[test]
    fn failures_throttle_the_client_where_they_come_from_and_nowhere_else() {
        let limits = limits();
        let here = at("192.0.2.1");
        fail(&limits, here, "order", 19);
        assert_eq!(limits.check_failures(here, "order", NOW), Ok(()));
        fail(&limits, here, "order", 1);
        let throttled = limits.check_failures(here, "order", NOW).expect_err("twenty");
        assert_eq!(throttled.retry_after, Duration::from_secs(3));

        assert_eq!(limits.check_failures(at("192.0.2.2"), "order", NOW), Ok(()));
        assert_eq!(limits.check_failures(here, "billing", NOW), Ok(()));
        let mapped = at("::ffff:192.0.2.1");
        assert!(limits.check_failures(mapped, "order", NOW).is_err(), "the same address");

        let later = NOW + Duration::from_secs(3);
        assert_eq!(limits.check_failures(here, "order", later), Ok(()));
        limits.note_failure(here, "order", later);
        assert!(limits.check_failures(here, "order", later).is_err());
    }

    #[test]
    fn a_host_does_not_escape_within_its_network_or_under_other_names() {
        let limits = limits();
        fail(&limits, at("2001:db8::1"), "order", 20);
        assert!(limits.check_failures(at("2001:db8::2"), "order", NOW).is_err());
        assert_eq!(limits.check_failures(at("2001:db8:0:1::1"), "order", NOW), Ok(()));

        let there = at("198.51.100.7");
        for name in 0..200 {
            assert_eq!(limits.check_failures(there, "billing", NOW), Ok(()), "{name}");
            limits.note_failure(there, &format!("name-{name}"), NOW);
        }
        assert!(limits.check_failures(there, "billing", NOW).is_err());
        assert_eq!(limits.check_failures(there, "billing", NOW + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn tokens_are_limited_when_it_is_set_and_failures_are_not_when_it_is_not() {
        let limits = Limits::new(&LimitSettings {
            failures: false,
            tokens_per_client: NonZeroU32::new(2),
            ..LimitSettings::default()
        });
        let order: ClientId = "order".parse().expect("an id");
        for _ in 0..20 {
            assert_eq!(limits.take_token(&order, NOW), Ok(()));
        }
        let throttled = limits.take_token(&order, NOW).expect_err("ten times two at once");
        assert_eq!(throttled.retry_after, Duration::from_secs(1));
        let later = NOW + Duration::from_secs(1);
        assert_eq!(limits.take_token(&order, later), Ok(()));
        assert_eq!(limits.take_token(&order, later), Ok(()));
        assert!(limits.take_token(&order, later).is_err());

        fail(&limits, None, "order", 1000);
        assert_eq!(limits.check_failures(None, "order", NOW), Ok(()));
    }
}

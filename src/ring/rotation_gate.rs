//! Whether a planned rotation may go ahead: only when nobody who listens would refuse the tokens of
//! the key that signs from then on. Pure: it reads no clock, and knows what it is told.
//!
//! Two kinds of verifiers listen. Those on the trust stream say which epoch they hold. Those that poll
//! the JWKS say nothing: for them it counts how long ago a key set without `next` was last served.
//!
//! A model drives it as the server does: [`RotationGate::publish`] after each commit of the ring,
//! [`RotationGate::polled`] for each key set served, [`RotationGate::check`] where the rotation is
//! decided, with the verifiers connected then.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_mesh::claims::{Kid, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ring::{KeyInfo, KeyRing, KeyState};

/// How long a verifier on the stream may take to acknowledge what it was sent. Then it is let go, so
/// that it delays no rotation for longer.
pub const ACK_DEADLINE: Duration = Duration::from_secs(30);

/// How long verifiers that lost their stream may take to be back: longer than a session ever waits
/// before it tries again, with time for the try itself.
pub const RECONNECT_WINDOW: Duration = Duration::from_secs(30);

/// How long whoever polls the JWKS may keep it (`max-age`).
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(60);

/// How long after a key set without `next` was last served nobody can hold it any more. More than one
/// interval: a poller fetches the new set some time after the old one has become stale, by a timer
/// of its own and a clock that may run slower than ours, and the answer takes its time too.
pub const JWKS_GONE: Duration = Duration::from_secs(JWKS_MAX_AGE.as_secs() + 30);

/// Who ever listened to a store. Kept with it: after a start nobody is connected, and that does not
/// mean that there is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Listeners {
    /// Whether a verifier was ever connected to the trust stream.
    pub streamed: bool,
    /// Whether the JWKS was ever served to anyone.
    pub polled: bool,
}

/// A verifier on the trust stream, or one that was until lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamVerifier {
    /// Tells it from others.
    pub id: u64,
    /// The epoch that it acknowledged last; 0 for none yet.
    pub acked: u64,
    /// When it lost its stream, unless it was let go for not acknowledging. None while connected.
    pub left_at: Option<Timestamp>,
}

/// What has been published to whom, as far as rotations depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RotationGate {
    /// When verifiers from before the start began to come back, if there may be any.
    awaited_since: Option<Timestamp>,
    next: Kid,
    /// For each key in the key set an epoch that holds it, as have all since: the first one, or for
    /// keys from before the start the one at the start.
    published: BTreeMap<Kid, u64>,
    /// For each revoked key where it was, and the epoch that withdrew it.
    withdrawn: BTreeMap<Kid, (u64, u64)>,
    /// When a key set with `next` was last served to a poller.
    polled_with: Option<Timestamp>,
    /// When a key set without `next` was last served to a poller.
    polled_without: Option<Timestamp>,
}

/// Why a rotation would break someone, or may.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Blocked {
    /// Who has not acknowledged an epoch that holds `next`.
    pub behind: Vec<Behind>,
    /// How long verifiers may still take to be back after the start.
    pub reconnecting: Option<Duration>,
    /// How long someone who polls the JWKS may still hold a key set without `next`.
    pub polling: Option<Duration>,
}

/// A verifier that does not hold `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Behind {
    /// Which ([`StreamVerifier::id`]).
    pub id: u64,
    /// The epoch that it acknowledged last; 0 for none yet.
    pub acked: u64,
    /// The epoch that it would have to acknowledge. None while `next` has not been published.
    pub needed: Option<u64>,
    /// When it lost its stream, how long it is still waited for.
    pub waited_for: Option<Duration>,
}

impl RotationGate {
    /// A gate at the start of a process, which publishes this ring at this epoch.
    pub fn new(ring: &KeyRing, epoch: u64, listeners: Listeners, now: Timestamp) -> Self {
        // Nobody remembers what was served until just now: a key set with `next`, and one without it
        // unless `next` has been there for as long as the store.
        let polled = listeners.polled.then_some(now);
        Self {
            awaited_since: listeners.streamed.then_some(now),
            next: ring.next().key.kid().clone(),
            published: valid_kids(ring).map(|kid| (kid, epoch)).collect(),
            withdrawn: BTreeMap::new(),
            polled_with: polled,
            polled_without: polled.filter(|_| !is_first(ring)),
        }
    }

    /// Takes note of a ring that has been committed, as of the epoch that publishes it. Call it before
    /// anyone can be sent that epoch.
    pub fn publish(&mut self, ring: &KeyRing, epoch: u64) {
        let before = std::mem::take(&mut self.published);
        self.published = valid_kids(ring)
            .map(|kid| (kid.clone(), *before.get(&kid).unwrap_or(&epoch)))
            .collect();
        self.withdrawn.retain(|kid, _| ring.revoked_kids().any(|revoked| revoked == kid));
        for kid in ring.revoked_kids() {
            if let Some(first) = before.get(kid) {
                self.withdrawn.insert(kid.clone(), (*first, epoch));
            }
        }
        if *ring.next().key.kid() != self.next {
            self.next = ring.next().key.kid().clone();
            self.polled_without = self.polled_without.max(self.polled_with.take());
        }
    }

    /// Takes note that the key set of an epoch is about to be served to someone who polls.
    pub fn polled(&mut self, epoch: u64, now: Timestamp) {
        let with_next = self.published.get(&self.next).is_some_and(|first| *first <= epoch);
        let last = if with_next { &mut self.polled_with } else { &mut self.polled_without };
        *last = (*last).max(Some(now));
    }

    /// Whether a verifier that acknowledged this epoch holds a key, and would accept its tokens.
    pub fn is_held(&self, kid: &Kid, acked: u64) -> bool {
        self.published.get(kid).is_some_and(|first| *first <= acked)
            || self.withdrawn.get(kid).is_some_and(|(first, end)| (*first..*end).contains(&acked))
    }

    /// Whether `next` of this ring may sign. The ring may be one that is not published yet, and
    /// `listeners` are those known with it.
    ///
    /// # Errors
    /// When someone would refuse its tokens, or may: who, and until when.
    pub fn check(
        &self,
        ring: &KeyRing,
        listeners: Listeners,
        verifiers: &[StreamVerifier],
        now: Timestamp,
    ) -> Result<(), Blocked> {
        let needed = self.published.get(ring.next().key.kid()).copied();
        let polled_without = match needed {
            Some(_) => self.polled_without,
            // Whoever polls right now gets one without it.
            None => Some(now),
        };
        let blocked = Blocked {
            behind: verifiers.iter().filter_map(|one| behind(one, needed, now)).collect(),
            reconnecting: self
                .awaited_since
                .and_then(|started_at| left(started_at, RECONNECT_WINDOW, now)),
            polling: polled_without
                .filter(|_| listeners.polled)
                .and_then(|served_at| left(served_at, JWKS_GONE, now)),
        };
        if blocked == Blocked::default() { Ok(()) } else { Err(blocked) }
    }
}

impl Blocked {
    /// When it is worth another try.
    pub fn retry_in(&self) -> Duration {
        // Who is connected acknowledges within a round trip, if at all.
        let behind =
            self.behind.iter().map(|one| one.waited_for.unwrap_or(Duration::from_secs(2))).max();
        [behind, self.reconnecting, self.polling].into_iter().flatten().max().unwrap_or_default()
    }
}

fn behind(verifier: &StreamVerifier, needed: Option<u64>, now: Timestamp) -> Option<Behind> {
    if needed.is_some_and(|needed| verifier.acked >= needed) {
        return None;
    }
    let waited_for = match verifier.left_at {
        None => None,
        Some(left_at) => Some(left(left_at, RECONNECT_WINDOW, now)?),
    };
    Some(Behind { id: verifier.id, acked: verifier.acked, needed, waited_for })
}

/// What is left of a window; none once it is over. Times are whole seconds, cut off: that one of them
/// has passed shows only when the next has begun.
fn left(since: Timestamp, window: Duration, now: Timestamp) -> Option<Duration> {
    let over = since + window + Duration::from_secs(1);
    (now < over).then(|| over.since(now))
}

fn valid_kids(ring: &KeyRing) -> impl Iterator<Item = Kid> {
    let valid = |key: &KeyInfo| key.state != KeyState::Revoked;
    ring.keys().into_iter().filter(valid).map(|key| key.kid)
}

/// Whether `next` was made together with the first key of the store.
fn is_first(ring: &KeyRing) -> bool {
    let (next, active) = (ring.next(), ring.active());
    next.created_at == active.created_at
        && active.created_at == active.activated_at
        && ring.retired().is_empty()
        && ring.revoked().is_empty()
}

#[cfg(test)]
mod tests {
    use countersign_mesh::keys::SigningKey;

    use super::*;

    const NOBODY: Listeners = Listeners { streamed: false, polled: false };
    const STREAMS: Listeners = Listeners { streamed: true, polled: false };
    const POLLERS: Listeners = Listeners { streamed: false, polled: true };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_800_000_000 + seconds)
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn first_ring() -> KeyRing {
        KeyRing::new(key(1), key(2), at(0))
    }

    fn rotated(ring: &KeyRing, seed: u8, now: Timestamp) -> KeyRing {
        ring.rotate(key(seed), now, Duration::from_secs(90_000)).expect("time goes on")
    }

    fn connected(id: u64, acked: u64) -> StreamVerifier {
        StreamVerifier { id, acked, left_at: None }
    }

    #[test]
    fn without_anyone_who_ever_listened_it_is_open_at_once() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 1, NOBODY, at(0));
        assert_eq!(gate.check(&ring, NOBODY, &[], at(0)), Ok(()));
        let ring = rotated(&ring, 3, at(0));
        assert_eq!(gate.check(&ring, NOBODY, &[], at(0)), Ok(()), "published or not");
        gate.publish(&ring, 2);
        assert_eq!(gate.check(&ring, NOBODY, &[], at(0)), Ok(()));
    }

    #[test]
    fn every_connected_verifier_must_have_acknowledged_the_next_key() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 5, NOBODY, at(0));
        let now = at(31);
        let behind = |verifiers: &[StreamVerifier], gate: &RotationGate, ring| {
            let blocked = gate.check(ring, STREAMS, verifiers, now);
            blocked.err().map(|blocked| blocked.behind.iter().map(|one| one.id).collect::<Vec<_>>())
        };
        assert_eq!(behind(&[connected(1, 5), connected(2, 6)], &gate, &ring), None);
        assert_eq!(
            behind(&[connected(1, 4), connected(2, 5), connected(3, 0)], &gate, &ring),
            Some(vec![1, 3])
        );
        let ring = rotated(&ring, 3, at(31));
        assert_eq!(behind(&[connected(1, 9)], &gate, &ring), Some(vec![1]), "not published yet");
        gate.publish(&ring, 7);
        assert_eq!(behind(&[connected(1, 6)], &gate, &ring), Some(vec![1]));
        assert_eq!(behind(&[connected(1, 7)], &gate, &ring), None);
        gate.publish(&ring, 8);
        assert_eq!(behind(&[connected(1, 7)], &gate, &ring), None, "nothing changed for it");
    }

    #[test]
    fn a_verifier_that_lost_its_stream_is_waited_for_as_long_as_it_may_take_to_be_back() {
        let ring = first_ring();
        let gate = RotationGate::new(&ring, 5, NOBODY, at(0));
        let left = |acked| [StreamVerifier { id: 1, acked, left_at: Some(at(100)) }];
        let blocked = gate.check(&ring, STREAMS, &left(4), at(130)).expect_err("a second is left");
        assert_eq!(blocked.retry_in(), Duration::from_secs(1));
        assert_eq!(gate.check(&ring, STREAMS, &left(4), at(131)), Ok(()));
        assert_eq!(gate.check(&ring, STREAMS, &left(5), at(100)), Ok(()), "it had it");
    }

    #[test]
    fn after_a_start_verifiers_get_time_to_be_back_if_there_ever_were_any() {
        let ring = first_ring();
        let gate = RotationGate::new(&ring, 5, STREAMS, at(0));
        let blocked = gate.check(&ring, STREAMS, &[], at(30)).expect_err("a second is left");
        assert_eq!(blocked.reconnecting, Some(Duration::from_secs(1)));
        assert_eq!(gate.check(&ring, STREAMS, &[], at(31)), Ok(()));
        let gate = RotationGate::new(&ring, 5, NOBODY, at(0));
        assert_eq!(gate.check(&ring, STREAMS, &[], at(0)), Ok(()), "the first came afterwards");
    }

    #[test]
    fn a_key_set_without_the_next_key_is_waited_out_if_one_was_served() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 1, NOBODY, at(0));
        gate.polled(1, at(10));
        assert_eq!(gate.check(&ring, POLLERS, &[], at(10)), Ok(()), "none was without it");
        let ring = rotated(&ring, 3, at(11));
        let blocked = gate.check(&ring, POLLERS, &[], at(11)).expect_err("not published yet");
        assert_eq!(blocked.polling, Some(JWKS_GONE + Duration::from_secs(1)));
        gate.publish(&ring, 2);
        // Its set was read before the change and goes out after it.
        gate.polled(1, at(12));
        gate.polled(2, at(13));
        let blocked = gate.check(&ring, POLLERS, &[], at(12 + 90)).expect_err("a second is left");
        assert_eq!(
            (blocked.polling, blocked.retry_in()),
            (Some(Duration::from_secs(1)), Duration::from_secs(1))
        );
        assert_eq!(gate.check(&ring, POLLERS, &[], at(12 + 91)), Ok(()));

        let ring = rotated(&ring, 4, at(200));
        gate.publish(&ring, 3);
        assert_eq!(gate.check(&ring, POLLERS, &[], at(200)), Ok(()), "the last was long ago");
    }

    #[test]
    fn after_a_start_whoever_ever_polled_may_have_polled_just_before() {
        let started = |ring: &KeyRing, listeners| {
            let gate = RotationGate::new(ring, 5, listeners, at(150));
            move |ring: &KeyRing, now| gate.check(ring, listeners, &[], now)
        };
        let first = first_ring();
        assert_eq!(started(&first, POLLERS)(&first, at(150)), Ok(()), "it was always there");
        let second = rotated(&first, 3, at(100));
        let check = started(&second, POLLERS);
        assert!(check(&second, at(150 + 90)).is_err());
        assert_eq!(check(&second, at(150 + 91)), Ok(()));
        assert_eq!(started(&second, NOBODY)(&second, at(150)), Ok(()));

        let mut gate = RotationGate::new(&first, 5, POLLERS, at(150));
        gate.publish(&second, 6);
        assert!(
            gate.check(&second, POLLERS, &[], at(150)).is_err(),
            "one was without the new next"
        );
    }

    #[test]
    fn after_a_start_the_key_set_until_then_may_still_be_held() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 5, POLLERS, at(1000));
        assert_eq!(gate.check(&ring, POLLERS, &[], at(1001)), Ok(()));
        let ring = rotated(&ring, 3, at(1001));
        gate.publish(&ring, 6);
        assert!(gate.check(&ring, POLLERS, &[], at(1090)).is_err());
        assert_eq!(gate.check(&ring, POLLERS, &[], at(1091)), Ok(()));
    }

    #[test]
    fn who_holds_which_key_follows_from_what_it_acknowledged() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 5, NOBODY, at(0));
        let [active, next] = [ring.active().key.kid().clone(), ring.next().key.kid().clone()];
        let ring = rotated(&ring, 3, at(1));
        gate.publish(&ring, 6);
        let newest = ring.next().key.kid().clone();
        for (kid, first) in [(&active, 5), (&next, 5), (&newest, 6)] {
            assert!(gate.is_held(kid, first) && !gate.is_held(kid, first - 1));
        }
        let tail = Duration::from_secs(90_000);
        let ring = ring.revoke(next.as_str(), key(4), at(2), tail).expect("it is there");
        gate.publish(&ring, 7);
        assert!(
            gate.is_held(&next, 6) && !gate.is_held(&next, 7),
            "revoked, but not for everyone yet"
        );
        let ring = ring.expire(at(100_000)).expect("the retired key goes");
        gate.publish(&ring, 8);
        assert!(!gate.is_held(&active, 8) && !gate.is_held(&next, 6));
    }
}

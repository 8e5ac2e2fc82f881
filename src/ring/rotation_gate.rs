//! The gate of planned rotations: one passes only if no listener would refuse the tokens of the key that
//! signs from then on. It is pure: it reads no clock, and knows only what it is told.
//!
//! Two kinds of verifiers listen. Those on the trust stream acknowledge the epoch that they hold. Those
//! that poll the JWKS (RFC 7517 §5) acknowledge nothing, so the gate counts the time since a key set
//! without `next` was last served.
//!
//! The server and the model in `tests/model` drive the gate the same way: [`RotationGate::publish`]
//! after each commit of a ring, [`RotationGate::polled`] for each key set served, and
//! [`RotationGate::check`] where a rotation is decided, with the verifiers connected at that time.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_mesh::claims::{Kid, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ring::{KeyInfo, KeyRing, KeyState};

/// How long a verifier on the trust stream may take to acknowledge what it was sent. After that the server
/// disconnects it, so that it delays no rotation any longer.
pub const ACK_DEADLINE: Duration = Duration::from_secs(30);

/// How long the gate waits for a verifier that lost its stream. This is longer than a session ever waits
/// before it reconnects, and leaves time for the attempt itself.
pub const RECONNECT_WINDOW: Duration = Duration::from_secs(30);

/// How long a poller may cache the JWKS: the `max-age` that it is served with (RFC 9111 §5.2.2.1).
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(60);

/// How long pollers may go on using a key set after it was last served. Longer than [`JWKS_MAX_AGE`]: a
/// poller refetches some time after its copy has become stale, by its own timer and on a clock that may run
/// slower than ours, and the response takes time too.
pub const JWKS_GONE: Duration = Duration::from_secs(JWKS_MAX_AGE.as_secs() + 30);

/// Whether anyone has ever listened to a store. The store keeps this, because after a start nobody is
/// connected yet although there may be verifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Listeners {
    /// Whether a verifier was ever connected to the trust stream.
    pub streamed: bool,
    /// Whether the JWKS was ever served to anyone.
    pub polled: bool,
}

/// A verifier that is connected to the trust stream, or was until recently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamVerifier {
    /// Identifies it within this process.
    pub id: u64,
    /// The latest epoch that it acknowledged; 0 if none yet.
    pub acked: u64,
    /// When it lost its stream; `None` while it is connected. Verifiers that the server disconnected for not
    /// acknowledging are not passed to the gate at all.
    pub left_at: Option<Timestamp>,
}

/// What the gate remembers of what was published, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RotationGate {
    /// When the process started, if verifiers from before may still have to reconnect.
    awaited_since: Option<Timestamp>,
    next: Kid,
    /// For each key of the key set, the epoch from which on every epoch holds it: the first one with the
    /// key, or the epoch at the start of the process for older keys.
    published: BTreeMap<Kid, u64>,
    /// For each revoked key, the epoch from which on it was held, and the epoch that withdrew it.
    withdrawn: BTreeMap<Kid, (u64, u64)>,
    /// When a key set with `next` was last served to a poller.
    polled_with: Option<Timestamp>,
    /// When a key set without `next` was last served to a poller.
    polled_without: Option<Timestamp>,
}

/// Why a rotation has to wait: who would refuse the tokens of the next key, or might.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Blocked {
    /// The verifiers that have not acknowledged an epoch that holds `next`.
    pub behind: Vec<Behind>,
    /// How much longer verifiers may take to reconnect after the start of the process.
    pub reconnecting: Option<Duration>,
    /// How much longer a poller may use a JWKS without `next`.
    pub polling: Option<Duration>,
}

/// A verifier that does not hold `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Behind {
    /// Its [`StreamVerifier::id`].
    pub id: u64,
    /// The latest epoch that it acknowledged; 0 if none yet.
    pub acked: u64,
    /// The epoch that it must acknowledge. `None` while `next` has not been published.
    pub needed: Option<u64>,
    /// How much longer the gate waits for it to reconnect. `None` while it is connected.
    pub waited_for: Option<Duration>,
}

impl RotationGate {
    /// Makes the gate at the start of a process that publishes this ring at this epoch.
    pub fn new(ring: &KeyRing, epoch: u64, listeners: Listeners, now: Timestamp) -> Self {
        // What was served before the start is forgotten, so assume the worst: a poller fetched a key set
        // just now, both with `next` and without. Only if `next` is as old as the store can there be none
        // without it.
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

    /// Notes that a ring was committed and is published with this epoch. Call it before anyone can be sent
    /// that epoch; otherwise an acknowledgement could arrive for an epoch that the gate does not know.
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
            // Every key set served so far lacks the new `next`, also those that had the old one.
            self.next = ring.next().key.kid().clone();
            self.polled_without = self.polled_without.max(self.polled_with.take());
        }
    }

    /// Notes that the key set of this epoch is about to be served to a poller.
    pub fn polled(&mut self, epoch: u64, now: Timestamp) {
        // The epoch counts, not the order of calls: a key set that was read before a rotation may be served
        // after it.
        let with_next = self.published.get(&self.next).is_some_and(|first| *first <= epoch);
        let last = if with_next { &mut self.polled_with } else { &mut self.polled_without };
        *last = (*last).max(Some(now));
    }

    /// Whether a verifier that acknowledged this epoch last holds the key and accepts its tokens.
    pub fn is_held(&self, kid: &Kid, acked: u64) -> bool {
        self.published.get(kid).is_some_and(|first| *first <= acked)
            || self.withdrawn.get(kid).is_some_and(|(first, end)| (*first..*end).contains(&acked))
    }

    /// Checks whether the `next` key of this ring may begin to sign. The ring may be committed and not yet
    /// published; `listeners` is the state of the same commit.
    ///
    /// # Errors
    /// When someone would refuse the tokens of `next`, or might. [`Blocked`] says who, and for how long.
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
            // Not published yet: a poller that fetches right now gets a key set without `next`.
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
    /// How long to wait before the rotation is worth another try.
    pub fn retry_in(&self) -> Duration {
        // A connected verifier acknowledges within a round trip, if at all; 2 s are ample for that.
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

/// What is left of a window that began at `since`; `None` once it is over.
///
/// Timestamps are whole seconds, rounded down, so `since` may be almost a second later than it says. The
/// window is therefore counted one second longer.
fn left(since: Timestamp, window: Duration, now: Timestamp) -> Option<Duration> {
    let over = since + window + Duration::from_secs(1);
    (now < over).then(|| over.since(now))
}

fn valid_kids(ring: &KeyRing) -> impl Iterator<Item = Kid> {
    let valid = |key: &KeyInfo| key.state != KeyState::Revoked;
    ring.keys().into_iter().filter(valid).map(|key| key.kid)
}

/// Whether the ring is the first of its store: then no key set without `next` was ever served.
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
    fn the_gate_is_open_at_once_if_nobody_ever_listened() {
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
    fn the_gate_waits_one_reconnect_window_for_a_verifier_that_lost_its_stream() {
        let ring = first_ring();
        let gate = RotationGate::new(&ring, 5, NOBODY, at(0));
        let left = |acked| [StreamVerifier { id: 1, acked, left_at: Some(at(100)) }];
        let blocked = gate.check(&ring, STREAMS, &left(4), at(130)).expect_err("a second is left");
        assert_eq!(blocked.retry_in(), Duration::from_secs(1));
        assert_eq!(gate.check(&ring, STREAMS, &left(4), at(131)), Ok(()));
        assert_eq!(
            gate.check(&ring, STREAMS, &left(5), at(100)),
            Ok(()),
            "it already held the key"
        );
    }

    #[test]
    fn after_a_start_the_gate_waits_for_verifiers_only_if_one_ever_connected() {
        let ring = first_ring();
        let gate = RotationGate::new(&ring, 5, STREAMS, at(0));
        let blocked = gate.check(&ring, STREAMS, &[], at(30)).expect_err("a second is left");
        assert_eq!(blocked.reconnecting, Some(Duration::from_secs(1)));
        assert_eq!(gate.check(&ring, STREAMS, &[], at(31)), Ok(()));
        let gate = RotationGate::new(&ring, 5, NOBODY, at(0));
        assert_eq!(
            gate.check(&ring, STREAMS, &[], at(0)),
            Ok(()),
            "the first verifier came after the start"
        );
    }

    #[test]
    fn the_gate_waits_until_no_poller_can_hold_a_key_set_without_the_next_key() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 1, NOBODY, at(0));
        gate.polled(1, at(10));
        assert_eq!(
            gate.check(&ring, POLLERS, &[], at(10)),
            Ok(()),
            "no key set without it was served"
        );
        let ring = rotated(&ring, 3, at(11));
        let blocked = gate.check(&ring, POLLERS, &[], at(11)).expect_err("not published yet");
        assert_eq!(blocked.polling, Some(JWKS_GONE + Duration::from_secs(1)));
        gate.publish(&ring, 2);
        // This key set was read before the rotation and is served after it.
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
        assert_eq!(
            gate.check(&ring, POLLERS, &[], at(200)),
            Ok(()),
            "the last one without it was served long ago"
        );
    }

    #[test]
    fn after_a_start_the_gate_assumes_that_a_poller_fetched_just_before_it() {
        let started = |ring: &KeyRing, listeners| {
            let gate = RotationGate::new(ring, 5, listeners, at(150));
            move |ring: &KeyRing, now| gate.check(ring, listeners, &[], now)
        };
        let first = first_ring();
        assert_eq!(started(&first, POLLERS)(&first, at(150)), Ok(()), "every key set had it");
        let second = rotated(&first, 3, at(100));
        let check = started(&second, POLLERS);
        assert!(check(&second, at(150 + 90)).is_err());
        assert_eq!(check(&second, at(150 + 91)), Ok(()));
        assert_eq!(started(&second, NOBODY)(&second, at(150)), Ok(()));

        let mut gate = RotationGate::new(&first, 5, POLLERS, at(150));
        gate.publish(&second, 6);
        assert!(
            gate.check(&second, POLLERS, &[], at(150)).is_err(),
            "the key set before the start lacks the new next"
        );
    }

    #[test]
    fn a_rotation_after_a_start_waits_for_pollers_of_the_key_set_before_it() {
        let ring = first_ring();
        let mut gate = RotationGate::new(&ring, 5, POLLERS, at(1000));
        assert_eq!(gate.check(&ring, POLLERS, &[], at(1001)), Ok(()));
        let ring = rotated(&ring, 3, at(1001));
        gate.publish(&ring, 6);
        assert!(gate.check(&ring, POLLERS, &[], at(1090)).is_err());
        assert_eq!(gate.check(&ring, POLLERS, &[], at(1091)), Ok(()));
    }

    #[test]
    fn the_acknowledged_epoch_tells_which_keys_a_verifier_holds() {
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
            "a verifier holds a revoked key until it acknowledges the revocation"
        );
        let ring = ring.expire(at(100_000)).expect("the retired key goes");
        gate.publish(&ring, 8);
        assert!(!gate.is_held(&active, 8) && !gate.is_held(&next, 6));
    }
}

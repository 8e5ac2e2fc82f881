//! The lifecycle of signing keys: every change takes `now` and returns a new ring.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{Kid, Timestamp};
use countersign_mesh::keys::{KeySet, PublicKey, SigningKey};
use serde::{Deserialize, Serialize};

/// All signing keys with their states. There is always exactly one `next` and one `active` key.
#[derive(Debug, Clone)]
pub struct KeyRing {
    next: NextKey,
    active: ActiveKey,
    /// Newest first.
    retired: Vec<RetiredKey>,
    /// Newest first.
    revoked: Vec<RevokedKey>,
}

/// A key that is published but does not sign yet.
#[derive(Debug, Clone)]
pub struct NextKey {
    /// The key.
    pub key: Arc<SigningKey>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The one key that signs.
#[derive(Debug, Clone)]
pub struct ActiveKey {
    /// The key.
    pub key: Arc<SigningKey>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it began to sign.
    pub activated_at: Timestamp,
}

/// A key that no longer signs, but whose tokens are still accepted. Its private half is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredKey {
    /// The public half.
    pub key: PublicKey,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it began to sign.
    pub activated_at: Timestamp,
    /// When it stopped signing.
    pub retired_at: Timestamp,
    /// When the last token that it can have signed has expired for every verifier.
    pub verifies_until: Timestamp,
}

/// A key whose tokens are rejected everywhere. Its private half is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedKey {
    /// The public half.
    pub key: PublicKey,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Timestamp,
    /// When the ring may forget it: from then on every token that it signed has expired.
    pub forget_at: Timestamp,
}

/// What callers may know about a key. It never contains the private half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its key id (`kid`, RFC 7515 §4.1.4).
    pub kid: Kid,
    /// Its state.
    pub state: KeyState,
    /// The public half.
    pub public_key: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it began to sign. `None` if it does not sign yet, or is revoked.
    pub activated_at: Option<Timestamp>,
    /// When it was retired or revoked.
    pub ended_at: Option<Timestamp>,
    /// When it leaves the ring.
    pub gone_at: Option<Timestamp>,
}

/// The states of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// Published, not yet signing.
    Next,
    /// The one key that signs.
    Active,
    /// No longer signing; its tokens are still accepted.
    Retired,
    /// Its tokens are rejected everywhere.
    Revoked,
}

/// The clock is earlier than a time that the ring already holds: it was set back, or it is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockBehind {
    /// What the clock says.
    pub now: Timestamp,
    /// The latest time at which a key of the ring was made or began to sign.
    pub newest: Timestamp,
}

impl fmt::Display for ClockBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the clock is {} seconds behind the newest signing key; set it right and try again",
            self.newest.since(self.now).as_secs(),
        )
    }
}

impl std::error::Error for ClockBehind {}

/// Why a key was not revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeKeyError {
    /// The ring has no key with this `kid`, or no longer has it.
    Unknown,
    /// The key is already revoked.
    AlreadyRevoked,
    /// See [`ClockBehind`].
    ClockBehind(ClockBehind),
}

impl KeyRing {
    /// Makes a ring of two fresh keys.
    pub fn new(active: SigningKey, next: SigningKey, now: Timestamp) -> Self {
        Self {
            next: NextKey { key: Arc::new(next), created_at: now },
            active: ActiveKey { key: Arc::new(active), created_at: now, activated_at: now },
            retired: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// Rebuilds a ring from its stored parts. The lists may come in any order.
    pub fn from_parts(
        active: ActiveKey,
        next: NextKey,
        mut retired: Vec<RetiredKey>,
        mut revoked: Vec<RevokedKey>,
    ) -> Self {
        retired.sort_by_key(|key| std::cmp::Reverse(key.retired_at));
        revoked.sort_by_key(|key| std::cmp::Reverse(key.revoked_at));
        Self { next, active, retired, revoked }
    }

    /// The key that will sign after the next rotation.
    pub fn next(&self) -> &NextKey {
        &self.next
    }

    /// The key that signs.
    pub fn active(&self) -> &ActiveKey {
        &self.active
    }

    /// The retired keys, newest first.
    pub fn retired(&self) -> &[RetiredKey] {
        &self.retired
    }

    /// The revoked keys, newest first.
    pub fn revoked(&self) -> &[RevokedKey] {
        &self.revoked
    }

    /// All keys: next, active, then the retired and the revoked ones, each newest first.
    pub fn keys(&self) -> Vec<KeyInfo> {
        let info = |key: &PublicKey, state, created_at| KeyInfo {
            kid: key.kid().clone(),
            state,
            public_key: *key.as_bytes(),
            created_at,
            activated_at: None,
            ended_at: None,
            gone_at: None,
        };
        let next = info(self.next.key.public(), KeyState::Next, self.next.created_at);
        let active = KeyInfo {
            activated_at: Some(self.active.activated_at),
            ..info(self.active.key.public(), KeyState::Active, self.active.created_at)
        };
        let retired = self.retired.iter().map(|key| KeyInfo {
            activated_at: Some(key.activated_at),
            ended_at: Some(key.retired_at),
            gone_at: Some(key.verifies_until),
            ..info(&key.key, KeyState::Retired, key.created_at)
        });
        let revoked = self.revoked.iter().map(|key| KeyInfo {
            ended_at: Some(key.revoked_at),
            gone_at: Some(key.forget_at),
            ..info(&key.key, KeyState::Revoked, key.created_at)
        });
        [next, active].into_iter().chain(retired).chain(revoked).collect()
    }

    /// How many retired keys a ring may hold before rotations are refused. With so many, its JWKS still
    /// stays below 256 KiB, the largest that a session reads.
    pub const MAX_RETIRED: usize = 1500;

    /// Whether one more key can retire.
    pub fn has_room(&self) -> bool {
        self.retired.len() < Self::MAX_RETIRED
    }

    /// The public keys that verifiers need: next, active and retired.
    pub fn key_set(&self) -> KeySet {
        [&self.next.key, &self.active.key]
            .into_iter()
            .map(|key| key.public().clone())
            .chain(self.retired.iter().map(|retired| retired.key.clone()))
            .collect()
    }

    /// Promotes `next`, retires `active`, and takes a fresh key as the new `next`.
    ///
    /// `tail` is how long a token can outlive the retirement of the key that signed it: the signing
    /// lease, the longest life of a token and the verifiers' leeway together.
    ///
    /// # Errors
    /// When the clock is behind a key of the ring.
    pub fn rotate(
        &self,
        fresh: SigningKey,
        now: Timestamp,
        tail: Duration,
    ) -> Result<Self, ClockBehind> {
        self.check_clock(now)?;
        let mut ring = self.promote(fresh, now);
        ring.retired.insert(
            0,
            RetiredKey {
                key: self.active.key.public().clone(),
                created_at: self.active.created_at,
                activated_at: self.active.activated_at,
                retired_at: now,
                verifies_until: now + tail,
            },
        );
        Ok(ring)
    }

    /// Revokes a key in any state. Revoking `active` promotes `next` and makes the fresh key the new
    /// `next`; revoking `next` replaces it with the fresh key. So the new ring has both again. For `tail`
    /// see [`KeyRing::rotate`].
    ///
    /// # Errors
    /// See [`RevokeKeyError`].
    pub fn revoke(
        &self,
        kid: &str,
        fresh: SigningKey,
        now: Timestamp,
        tail: Duration,
    ) -> Result<Self, RevokeKeyError> {
        self.check_clock(now).map_err(RevokeKeyError::ClockBehind)?;
        let revoked = |key: &PublicKey, created_at| RevokedKey {
            key: key.clone(),
            created_at,
            revoked_at: now,
            forget_at: now + tail,
        };
        let (mut ring, revoked) = if self.active.key.kid().as_str() == kid {
            (self.promote(fresh, now), revoked(self.active.key.public(), self.active.created_at))
        } else if self.next.key.kid().as_str() == kid {
            let mut ring = self.clone();
            ring.next = NextKey { key: Arc::new(fresh), created_at: now };
            (ring, revoked(self.next.key.public(), self.next.created_at))
        } else if let Some(at) = self.retired.iter().position(|key| key.key.kid().as_str() == kid) {
            let mut ring = self.clone();
            let retired = ring.retired.remove(at);
            (ring, revoked(&retired.key, retired.created_at))
        } else if self.revoked.iter().any(|key| key.key.kid().as_str() == kid) {
            return Err(RevokeKeyError::AlreadyRevoked);
        } else {
            return Err(RevokeKeyError::Unknown);
        };
        ring.revoked.insert(0, revoked);
        Ok(ring)
    }

    /// Revokes every key and starts over with two fresh ones. It is for a ring from a backup: nobody knows
    /// whether its keys have been revoked since. For `tail` see [`KeyRing::rotate`].
    ///
    /// # Errors
    /// When the clock is behind a key of the ring.
    pub fn begin_anew(
        &self,
        active: SigningKey,
        next: SigningKey,
        now: Timestamp,
        tail: Duration,
    ) -> Result<Self, ClockBehind> {
        self.check_clock(now)?;
        let ended = [
            (self.next.key.public(), self.next.created_at),
            (self.active.key.public(), self.active.created_at),
        ];
        let retired = self.retired.iter().map(|retired| (&retired.key, retired.created_at));
        let revoked = ended.into_iter().chain(retired).map(|(key, created_at)| RevokedKey {
            key: key.clone(),
            created_at,
            revoked_at: now,
            forget_at: now + tail,
        });
        let mut ring = Self::new(active, next, now);
        // Keys that were revoked before stay listed: their tokens may not have expired yet.
        ring.revoked = revoked.chain(self.revoked.iter().cloned()).collect();
        Ok(ring)
    }

    /// Returns the ring without the retired and revoked keys whose last token has expired. `None` when there
    /// are no such keys, so that an unchanged ring is neither written nor published.
    pub fn expire(&self, now: Timestamp) -> Option<Self> {
        let mut ring = self.clone();
        ring.retired.retain(|key| key.verifies_until > now);
        ring.revoked.retain(|key| key.forget_at > now);
        let shorter =
            ring.retired.len() < self.retired.len() || ring.revoked.len() < self.revoked.len();
        shorter.then_some(ring)
    }

    /// Refuses a clock that is behind the ring. Otherwise a key could be retired before it was activated.
    ///
    /// # Errors
    /// When `now` is earlier than the newest time of `next` or `active`.
    pub fn check_clock(&self, now: Timestamp) -> Result<(), ClockBehind> {
        let newest = self.next.created_at.max(self.active.activated_at);
        if now < newest { Err(ClockBehind { now, newest }) } else { Ok(()) }
    }

    /// The `kid`s of the revoked keys, newest first.
    pub fn revoked_kids(&self) -> impl Iterator<Item = &Kid> {
        self.revoked.iter().map(|key| key.key.kid())
    }

    fn promote(&self, fresh: SigningKey, now: Timestamp) -> Self {
        let mut ring = self.clone();
        ring.active = ActiveKey {
            key: Arc::clone(&self.next.key),
            created_at: self.next.created_at,
            activated_at: now,
        };
        ring.next = NextKey { key: Arc::new(fresh), created_at: now };
        ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: Duration = Duration::from_secs(100);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn ring() -> KeyRing {
        KeyRing::new(key(1), key(2), at(1000))
    }

    #[test]
    fn rotation_promotes_next_and_keeps_the_retired_key_in_the_key_set() {
        let rotated = ring().rotate(key(3), at(2000), TAIL).expect("clock is ahead");
        assert_eq!(rotated.active().key.kid(), key(2).kid());
        assert_eq!(rotated.next().key.kid(), key(3).kid());
        assert_eq!(rotated.retired()[0].verifies_until, at(2100));
        assert_eq!(rotated.key_set().len(), 3);
    }

    #[test]
    fn a_retired_key_leaves_the_ring_once_its_last_token_has_expired() {
        let rotated = ring().rotate(key(3), at(2000), TAIL).expect("clock is ahead");
        assert!(rotated.expire(at(2099)).is_none());
        let expired = rotated.expire(at(2100)).expect("the retired key has expired");
        assert!(expired.key_set().key(key(1).kid().as_str()).is_none());
    }

    #[test]
    fn the_largest_key_set_stays_below_what_sessions_read() {
        let mut ring = ring();
        let retired = |seed: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_be_bytes());
            let key = SigningKey::from_seed(&bytes).public().clone();
            let now = at(1000);
            RetiredKey {
                key,
                created_at: now,
                activated_at: now,
                retired_at: now,
                verifies_until: now,
            }
        };
        ring.retired = (1..KeyRing::MAX_RETIRED).map(retired).collect();
        assert!(ring.has_room());
        ring.retired.push(retired(KeyRing::MAX_RETIRED));
        assert!(!ring.has_room());
        assert!(ring.key_set().to_jwks().len() < 250 * 1024);
    }

    #[test]
    fn revoking_the_active_key_promotes_next_in_the_same_step() {
        let revoked =
            ring().revoke(key(1).kid().as_str(), key(3), at(2000), TAIL).expect("known key");
        assert_eq!(revoked.active().key.kid(), key(2).kid());
        assert_eq!(revoked.next().key.kid(), key(3).kid());
        assert!(revoked.key_set().key(key(1).kid().as_str()).is_none());
        assert_eq!(revoked.revoked_kids().collect::<Vec<_>>(), [key(1).kid()]);
    }

    #[test]
    fn revoking_the_next_key_puts_the_fresh_key_in_its_place() {
        let next_gone =
            ring().revoke(key(2).kid().as_str(), key(3), at(2000), TAIL).expect("known key");
        assert_eq!(next_gone.active().key.kid(), key(1).kid());
        assert_eq!(next_gone.next().key.kid(), key(3).kid());
    }

    #[test]
    fn revoking_a_retired_key_leaves_the_next_key_alone() {
        let rotated = ring().rotate(key(3), at(2000), TAIL).expect("clock is ahead");
        let retired_gone =
            rotated.revoke(key(1).kid().as_str(), key(4), at(2001), TAIL).expect("known key");
        assert_eq!(retired_gone.next().key.kid(), key(3).kid());
        assert!(retired_gone.retired().is_empty());
    }

    #[test]
    fn a_ring_that_begins_anew_revokes_every_earlier_key() {
        let rotated = ring().rotate(key(3), at(2000), TAIL).expect("clock is ahead");
        let revoked =
            rotated.revoke(key(2).kid().as_str(), key(4), at(2000), TAIL).expect("known key");
        let anew = revoked.begin_anew(key(5), key(6), at(3000), TAIL).expect("clock is ahead");
        assert_eq!((anew.active().key.kid(), anew.next().key.kid()), (key(5).kid(), key(6).kid()));
        assert_eq!((anew.retired(), anew.key_set().len()), (&[][..], 2));
        let kids: std::collections::BTreeSet<&Kid> = anew.revoked_kids().collect();
        let keys = [1, 2, 3, 4].map(key);
        assert_eq!(kids, keys.iter().map(|key| key.kid()).collect());
        let behind = ClockBehind { now: at(1999), newest: at(2000) };
        assert_eq!(revoked.begin_anew(key(5), key(6), at(1999), TAIL).err(), Some(behind));
    }

    #[test]
    fn unknown_and_revoked_keys_cannot_be_revoked() {
        assert_eq!(
            ring().revoke("no-such-key", key(3), at(2000), TAIL).err(),
            Some(RevokeKeyError::Unknown)
        );
        let revoked =
            ring().revoke(key(1).kid().as_str(), key(3), at(2000), TAIL).expect("known key");
        assert_eq!(
            revoked.revoke(key(1).kid().as_str(), key(4), at(2000), TAIL).err(),
            Some(RevokeKeyError::AlreadyRevoked),
        );
    }

    #[test]
    fn a_clock_behind_the_newest_key_is_refused() {
        let behind = ClockBehind { now: at(999), newest: at(1000) };
        assert_eq!(ring().rotate(key(3), at(999), TAIL).err(), Some(behind));
        assert_eq!(
            ring().revoke(key(1).kid().as_str(), key(3), at(999), TAIL).err(),
            Some(RevokeKeyError::ClockBehind(behind)),
        );
        assert_eq!(ring().check_clock(at(1000)), Ok(()));
    }
}

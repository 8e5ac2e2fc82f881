//! The state at one moment: a store, replicas of the service, verifiers, and what is under way between
//! them. Keys, gate and bundles are the real ones. Time moves in steps of [`TICK`].

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use countersign::ring::{KeyRing, Listeners, RotationGate};
use countersign_mesh::claims::{Issuer, Kid, Timestamp};
use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::trust::{Revocations, TrustBundle, TrustDelta, VerifiedToken};

/// The step of time, in seconds. Whatever is due within a shorter time happens within one step, in any
/// order.
pub const TICK: u64 = 30;

/// How long tokens live here. Shorter than real ones, so that they end within a few steps.
pub const TOKEN_LIFE: Duration = Duration::from_secs(2 * TICK);

/// How long a replica signs after it last reached the store.
pub const LEASE: Duration = Duration::from_secs(TICK);

/// How far a verifier's clock may be off, and the leeway that it allows.
pub const LEEWAY: Duration = Duration::from_secs(TICK);

/// How long a token can outlive the retirement of its key, by the formula of the authority.
pub const TAIL: Duration =
    Duration::from_secs(LEASE.as_secs() + TOKEN_LIFE.as_secs() + 5 + 1 + LEEWAY.as_secs());

/// How old its information may be before a verifier that fails closed refuses everything.
pub const MAX_STALENESS: Duration = Duration::from_secs(2 * TICK);

/// What is durable.
#[derive(Debug, Clone)]
pub struct Committed {
    pub epoch: u64,
    pub ring: KeyRing,
    pub revocations: Revocations,
    pub listeners: Listeners,
}

/// The service, once or several times on the same store. The first one writes.
#[derive(Debug, Clone)]
pub struct Replica {
    pub up_since: Option<Timestamp>,
    /// What it has read from the store, and publishes.
    pub held: Arc<Committed>,
    /// When it last reached the store.
    pub reached_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Verifier {
    pub kind: Kind,
    pub bundle: Option<Arc<TrustBundle>>,
    /// When the store last confirmed what it has.
    pub as_of: Timestamp,
    pub link: Option<Link>,
    /// When it lost its stream.
    pub left_at: Option<Timestamp>,
    /// Nothing is promised to this verifier until it has caught up with the store: it is new, did not
    /// acknowledge in time, or stayed away for too long.
    pub on_its_own: bool,
    /// It was sent an epoch older than its own.
    pub led_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Holds a trust stream. Its clock is off by `skew` steps.
    Stream { fail_closed: bool, skew: i64 },
    /// Polls the JWKS, and takes whatever it gets.
    Poller,
}

/// A stream, or a poll under way.
#[derive(Debug, Clone)]
pub struct Link {
    pub replica: usize,
    /// The epoch last sent.
    pub sent: u64,
    /// The epoch that the service knows to be acknowledged.
    pub acked: u64,
    /// On the way to the verifier, in order.
    pub down: VecDeque<Message>,
    /// Acknowledgements on the way back, with the time at which each was sent.
    pub up: VecDeque<(u64, Timestamp)>,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub content: TrustDelta,
    pub as_of: Timestamp,
    pub sent_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Issued {
    pub token: Arc<VerifiedToken>,
    /// The epoch of the ring that it was signed with.
    pub epoch: u64,
    pub revoked_at: Option<Timestamp>,
}

/// How much may still be done or go wrong. This bounds the number of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    pub ticks: u8,
    pub rotations: u8,
    pub tokens: u8,
    pub token_revocations: u8,
    pub key_revocations: u8,
    pub crashes: u8,
    pub breaks: u8,
}

#[derive(Debug, Clone)]
pub struct World {
    pub now: Timestamp,
    pub left: Budget,
    pub store: Arc<Committed>,
    /// What a broken service has published before it was durable.
    pub unwritten: Option<Arc<Committed>>,
    pub gate: Option<RotationGate>,
    pub replicas: Vec<Replica>,
    pub verifiers: Vec<Verifier>,
    pub tokens: Vec<Issued>,
    /// Keys that signed, by epoch.
    pub signers: BTreeSet<(u64, Kid)>,
    /// Keys that the gate let sign.
    pub passed: BTreeSet<Kid>,
    /// Keys that sign because the key before them was revoked. The gate is not asked for these.
    pub promoted: BTreeSet<Kid>,
    /// Every key that was ever made.
    pub kids: Vec<Kid>,
}

pub fn issuer() -> Issuer {
    Issuer::new("https://issuer.test").expect("a valid issuer")
}

pub fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

impl World {
    pub fn first(kinds: &[Kind], replicas: usize, left: Budget) -> Self {
        let now = Timestamp::from_unix(1_800_000_000);
        let ring = KeyRing::new(key(1), key(2), now);
        let passed = [ring.active().key.kid().clone()].into();
        let store = Arc::new(Committed {
            epoch: 1,
            ring,
            revocations: Revocations::default(),
            listeners: Listeners::default(),
        });
        let replica = Replica { up_since: Some(now), held: Arc::clone(&store), reached_at: now };
        let verifier = |kind: &Kind| Verifier {
            kind: *kind,
            bundle: None,
            as_of: now,
            link: None,
            left_at: None,
            on_its_own: true,
            led_back: false,
        };
        Self {
            now,
            left,
            unwritten: None,
            gate: Some(RotationGate::new(&store.ring, store.epoch, store.listeners, now)),
            replicas: vec![replica; replicas],
            verifiers: kinds.iter().map(verifier).collect(),
            tokens: Vec::new(),
            signers: BTreeSet::new(),
            passed,
            promoted: BTreeSet::new(),
            kids: store.ring.keys().into_iter().map(|key| key.kid).collect(),
            store,
        }
    }
}

impl World {
    /// The tokens that some verifier accepts.
    pub fn accepted(&self) -> impl Iterator<Item = &VerifiedToken> {
        let tokens = self.tokens.iter().map(|issued| &*issued.token);
        tokens.filter(|token| self.verifiers.iter().any(|one| one.accepts(token, self.now)))
    }
}

impl Committed {
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            issuer: issuer(),
            epoch: self.epoch,
            keys: self.ring.key_set(),
            revocations: self.revocations.clone(),
        }
    }
}

impl Verifier {
    /// What its clock says.
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        match self.kind {
            Kind::Stream { skew, .. } if skew < 0 => {
                now.before(Duration::from_secs(TICK * skew.unsigned_abs()))
            }
            Kind::Stream { skew, .. } => now + Duration::from_secs(TICK * skew.unsigned_abs()),
            Kind::Poller => now,
        }
    }

    pub fn accepts(&self, token: &VerifiedToken, now: Timestamp) -> bool {
        let stale = now.since(self.as_of) > MAX_STALENESS;
        if matches!(self.kind, Kind::Stream { fail_closed: true, .. }) && stale {
            return false;
        }
        let bundle = self.bundle.as_ref();
        bundle.is_some_and(|bundle| bundle.recheck(token, self.clock(now), LEEWAY).is_ok())
    }

    pub fn epoch(&self) -> u64 {
        self.bundle.as_ref().map_or(0, |bundle| bundle.epoch)
    }
}

/// Hashes what tells two rings apart.
fn hash_ring(ring: &KeyRing, state: &mut impl Hasher) {
    for key in ring.keys() {
        (key.kid.as_str(), key.created_at.as_unix(), key.state as u8).hash(state);
        (key.ended_at.map(Timestamp::as_unix), key.gone_at.map(Timestamp::as_unix)).hash(state);
    }
}

impl Hash for Committed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.epoch.hash(state);
        self.listeners.hash(state);
        hash_ring(&self.ring, state);
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.now.as_unix(), self.left, self.kids.len()).hash(state);
        self.store.hash(state);
        self.unwritten.hash(state);
        self.gate.hash(state);
        for replica in &self.replicas {
            let up_since = replica.up_since.map(Timestamp::as_unix);
            (up_since, replica.held.epoch, replica.reached_at.as_unix()).hash(state);
            replica.held.hash(state);
        }
        for verifier in &self.verifiers {
            (verifier.kind, verifier.as_of.as_unix(), verifier.on_its_own).hash(state);
            (verifier.left_at.map(Timestamp::as_unix), verifier.led_back).hash(state);
            if let Some(bundle) = &verifier.bundle {
                self.hash_bundle(bundle, state);
            }
            verifier.link.is_some().hash(state);
            if let Some(link) = &verifier.link {
                (link.replica, link.sent, link.acked).hash(state);
                for message in &link.down {
                    (message.content.from, message.content.to).hash(state);
                    (message.as_of.as_unix(), message.sent_at.as_unix()).hash(state);
                    self.hash_keys(&message.content.keys, state);
                }
                for (epoch, at) in &link.up {
                    (epoch, at.as_unix()).hash(state);
                }
            }
        }
        for issued in &self.tokens {
            let claims = issued.token.claims();
            (claims.token_id.as_str(), claims.issued_at.as_unix(), issued.epoch).hash(state);
            (issued.token.kid().as_str(), issued.revoked_at.map(Timestamp::as_unix)).hash(state);
        }
        for (epoch, kid) in &self.signers {
            (epoch, kid.as_str()).hash(state);
        }
        for kid in self.passed.iter().chain(&self.promoted) {
            kid.as_str().hash(state);
        }
    }
}

impl World {
    fn hash_bundle(&self, bundle: &TrustBundle, state: &mut impl Hasher) {
        bundle.epoch.hash(state);
        self.hash_keys(&bundle.keys, state);
        for issued in &self.tokens {
            bundle.revocations.token(&issued.token.claims().token_id).is_some().hash(state);
            bundle.revocations.key(issued.token.kid().as_str()).hash(state);
        }
    }

    fn hash_keys(&self, keys: &KeySet, state: &mut impl Hasher) {
        for kid in &self.kids {
            keys.key(kid.as_str()).is_some().hash(state);
        }
    }
}

/// Needed only to show paths. The checker itself tells states apart by their fingerprints.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let print = |world: &Self| {
            let mut hasher = std::hash::DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        print(self) == print(other)
    }
}

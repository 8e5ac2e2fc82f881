//! The key ring and the trust bundle together, through any life: no good token fails, no bad one
//! passes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use countersign::authority::{SIGNING_LEASE, SKEW_ALLOWANCE, TAIL};
use countersign::ring::{KeyRing, KeyState, RevokeKeyError};
use countersign_mesh::claims::{
    Audience, Claims, ClientId, DEFAULT_LEEWAY, Issuer, Kid, MAX_TOKEN_LIFE, ScopeSet, Timestamp,
    TokenId,
};
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::{Audiences, Minter, Rejection};
use countersign_mesh::trust::{Revocations, TrustBundle, VerifiedToken};
use proptest::prelude::*;
use proptest::sample::Index;

const START: Timestamp = Timestamp::from_unix(1_800_000_000);

/// How far ahead of the clock the latest token is dated: a revocation's allowance, rounded up.
const AHEAD: Duration = Duration::from_secs(SKEW_ALLOWANCE.as_secs() + 1);

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A token is signed: by the active key, or by a replica that has not heard yet that its key is
    /// active no longer, and is within its signing lease.
    Sign { signer: Index, life: u64, ahead: u64 },
    /// The keys are rotated.
    Rotate,
    /// A key of the ring is revoked.
    Revoke(Index),
    /// What has expired is forgotten.
    Expire,
    /// Time passes.
    Pass(u64),
    /// Time passes until the last second of a token.
    PassToLastSecondOf(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let life = prop_oneof![Just(MAX_TOKEN_LIFE.as_secs()), 1..=MAX_TOKEN_LIFE.as_secs()];
    let ahead = prop_oneof![Just(0), 0..=AHEAD.as_secs()];
    let short = 0..2 * SIGNING_LEASE.as_secs();
    let step = prop_oneof![
        4 => (any::<Index>(), life, ahead)
            .prop_map(|(signer, life, ahead)| Step::Sign { signer, life, ahead }),
        3 => Just(Step::Rotate),
        1 => any::<Index>().prop_map(Step::Revoke),
        3 => Just(Step::Expire),
        2 => prop_oneof![Just(SIGNING_LEASE.as_secs()), short, 0..2 * TAIL.as_secs()].prop_map(Step::Pass),
        2 => any::<Index>().prop_map(Step::PassToLastSecondOf),
    ];
    proptest::collection::vec(step, 1..24)
}

/// A ring through time, with all that it ever signed.
struct World {
    now: Timestamp,
    ring: KeyRing,
    keys_made: u8,
    /// Who signs, and until when; none for the active key.
    signers: Vec<(Arc<SigningKey>, Option<Timestamp>)>,
    tokens: Vec<SignedToken>,
    revoked: HashSet<Kid>,
}

struct SignedToken {
    text: String,
    verified: VerifiedToken,
}

fn bundle(ring: &KeyRing) -> TrustBundle {
    let mut revocations = Revocations::default();
    revocations.set_keys(ring.revoked_kids());
    let issuer = Issuer::new("https://issuer.test").expect("issuer");
    TrustBundle { issuer, epoch: 1, keys: ring.key_set(), revocations }
}

fn verify(ring: &KeyRing, token: &str, now: Timestamp) -> Result<VerifiedToken, Rejection> {
    bundle(ring).verify(token, Audiences::Any, now, DEFAULT_LEEWAY)
}

fn mint(key: &Arc<SigningKey>, issued_at: Timestamp, life: Duration, id: usize) -> String {
    let claims = Claims {
        issuer: Issuer::new("https://issuer.test").expect("issuer"),
        client_id: ClientId::new("order").expect("client id"),
        audience: Audience::new("inventory").expect("audience"),
        scopes: ScopeSet::parse("stock:read").expect("scope"),
        issued_at,
        expires_at: issued_at + life,
        token_id: TokenId::new(&id.to_string()).expect("token id"),
    };
    Minter::new(Arc::clone(key)).mint(&claims).into_exposed()
}

impl World {
    fn new() -> Self {
        let (active, next) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let ring = KeyRing::new(active, next, START);
        let signers = vec![(Arc::clone(&ring.active().key), None)];
        let (tokens, revoked) = (Vec::new(), HashSet::new());
        Self { now: START, ring, keys_made: 2, signers, tokens, revoked }
    }

    fn fresh_key(&mut self) -> SigningKey {
        self.keys_made += 1;
        SigningKey::from_seed(&[self.keys_made; 32])
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Sign { signer, life, ahead } => {
                let now = self.now;
                let able: Vec<_> = self
                    .signers
                    .iter()
                    .filter(|(_, until)| until.is_none_or(|until| now <= until))
                    .collect();
                let (key, _) = *signer.get(&able);
                let issued_at = now + Duration::from_secs(*ahead);
                let text = mint(key, issued_at, Duration::from_secs(*life), self.tokens.len());
                match verify(&self.ring, &text, now) {
                    Ok(verified) => self.tokens.push(SignedToken { text, verified }),
                    Err(reason) => {
                        assert!(self.revoked.contains(key.kid()), "refused at once: {reason:?}");
                        assert_eq!(reason, Rejection::Revoked);
                    }
                }
            }
            Step::Rotate => {
                let fresh = self.fresh_key();
                let ring = self.ring.rotate(fresh, self.now, TAIL).expect("time goes on");
                self.replace_ring(ring);
            }
            Step::Revoke(key) => {
                let keys = self.ring.keys();
                let key = key.get(&keys);
                let fresh = self.fresh_key();
                match self.ring.revoke(key.kid.as_str(), fresh, self.now, TAIL) {
                    Ok(ring) => {
                        self.revoked.insert(key.kid.clone());
                        self.replace_ring(ring);
                    }
                    Err(error) => {
                        assert_eq!(error, RevokeKeyError::AlreadyRevoked);
                        assert_eq!(key.state, KeyState::Revoked);
                    }
                }
            }
            Step::Expire => {
                if let Some(ring) = self.ring.expire(self.now) {
                    self.replace_ring(ring);
                }
            }
            Step::Pass(seconds) => self.now = self.now + Duration::from_secs(*seconds),
            Step::PassToLastSecondOf(token) => {
                if !self.tokens.is_empty() {
                    let claims = token.get(&self.tokens).verified.claims();
                    let end = claims.expires_at + DEFAULT_LEEWAY;
                    self.now = self.now.max(end.before(Duration::from_secs(1)));
                }
            }
        }
        self.check();
    }

    fn replace_ring(&mut self, ring: KeyRing) {
        self.ring = ring;
        let active = &self.ring.active().key;
        for (key, until) in &mut self.signers {
            if key.kid() != active.kid() {
                until.get_or_insert(self.now + SIGNING_LEASE);
            }
        }
        if !self.signers.iter().any(|(key, _)| key.kid() == active.kid()) {
            self.signers.push((Arc::clone(active), None));
        }
    }

    fn check(&self) {
        let keys = self.ring.keys();
        let kids: HashSet<&Kid> = keys.iter().map(|key| &key.kid).collect();
        assert_eq!(kids.len(), keys.len(), "a kid twice");
        assert_ne!(self.ring.next().key.kid(), self.ring.active().key.kid());
        let in_state = |state| keys.iter().filter(|key| key.state == state).count();
        assert_eq!((in_state(KeyState::Next), in_state(KeyState::Active)), (1, 1));

        let bundle = bundle(&self.ring);
        for token in &self.tokens {
            // The signature was right when the token was signed, and is looked at again at the end.
            self.check_answer(token, bundle.recheck(&token.verified, self.now, DEFAULT_LEEWAY));
        }
    }

    fn check_signatures(&self) {
        for token in &self.tokens {
            let answer = verify(&self.ring, &token.text, self.now);
            self.check_answer(token, answer.map(|_| ()));
        }
    }

    fn check_answer(&self, token: &SignedToken, answer: Result<(), Rejection>) {
        let claims = token.verified.claims();
        if self.now >= claims.expires_at + DEFAULT_LEEWAY {
            // Its key may be gone already, or still remembered as revoked.
            let told = matches!(
                answer,
                Err(Rejection::Expired | Rejection::KeyUnknown | Rejection::Revoked)
            );
            assert!(told, "expired: {answer:?}");
        } else if self.revoked.contains(token.verified.kid()) {
            assert_eq!(answer, Err(Rejection::Revoked));
        } else {
            assert_eq!(answer, Ok(()), "unexpired, and its key is not revoked");
        }
    }
}

proptest! {
    // Each case signs and verifies a dozen times, which is slow without optimisation.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn exactly_the_good_tokens_verify_whatever_happens_to_the_keys(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.check_signatures();
    }
}

/// The latest token that a retired key can have signed: by a replica at the end of its lease, dated
/// as far ahead as can be, of the longest life.
#[test]
fn a_retired_key_verifies_its_last_token_to_its_last_second_and_no_longer() {
    let mut world = World::new();
    let old = Arc::clone(&world.ring.active().key);
    world.take(&Step::Rotate);
    let last = mint(&old, START + SIGNING_LEASE + AHEAD, MAX_TOKEN_LIFE, 0);
    let end = START + SIGNING_LEASE + AHEAD + MAX_TOKEN_LIFE + DEFAULT_LEEWAY;

    let last_second = end.before(Duration::from_secs(1));
    assert!(world.ring.expire(last_second).is_none(), "the key is still needed");
    assert!(verify(&world.ring, &last, last_second).is_ok());

    assert_eq!(verify(&world.ring, &last, end), Err(Rejection::Expired));
    let ring = world.ring.expire(end).expect("the key is needed no longer");
    assert!(ring.retired().is_empty());
    assert_eq!(verify(&ring, &last, end), Err(Rejection::KeyUnknown));
}

#[test]
fn a_revoked_key_is_remembered_for_as_long_as_a_token_of_its_could_verify() {
    let mut world = World::new();
    let old = Arc::clone(&world.ring.active().key);
    let fresh = world.fresh_key();
    let ring = world.ring.revoke(old.kid().as_str(), fresh, START, TAIL).expect("a known key");
    let last = mint(&old, START + SIGNING_LEASE + AHEAD, MAX_TOKEN_LIFE, 0);
    let end = START + TAIL;

    let last_second = end.before(Duration::from_secs(1));
    assert!(ring.expire(last_second).is_none());
    assert_eq!(verify(&ring, &last, last_second), Err(Rejection::Revoked));
    let ring = ring.expire(end).expect("it is forgotten");
    assert_eq!(verify(&ring, &last, end), Err(Rejection::KeyUnknown));
}

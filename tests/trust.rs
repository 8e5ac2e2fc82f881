//! What verifiers are told, through any history: whoever is fed deltas knows what a snapshot says, and
//! no revocation is forgotten while its token could be accepted.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use countersign::authority::TAIL;
use countersign_mesh::claims::{
    Audience, ClientId, DEFAULT_LEEWAY, Issuer, MAX_TOKEN_LIFE, Timestamp, TokenId,
};
use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::trust::{
    ClientRevocation, Revocations, TokenRevocation, TrustBundle, TrustDelta, WrongEpoch,
};
use proptest::prelude::*;
use proptest::sample::Index;

const START: Timestamp = Timestamp::from_unix(1_800_000_000);

/// Which audiences each verifier serves.
const VERIFIERS: [&[usize]; 5] = [&[], &[0], &[1], &[0, 2], &[0, 1, 2]];

/// More than the issuer finds without looking at all of them.
const MANY: usize = 1100;

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A client gets a token for an audience.
    Issue { client: usize, audience: usize, life: u64 },
    /// A token is revoked: by itself, or by its id alone.
    RevokeToken { token: Index, by_id: bool },
    /// All that a client was issued is revoked. Others than those it has tokens for may be told.
    RevokeClient { client: usize, also: usize },
    /// Many others are revoked.
    RevokeMany { audience: usize },
    /// The keys change.
    ReplaceKeys(u8),
    /// The issuer forgets what has expired.
    Expire,
    /// The issuer is started again with what it wrote down.
    Restart,
    /// Time passes.
    Pass(u64),
    /// A verifier is told what it lacks.
    Tell { verifier: usize, overlap: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let life = prop_oneof![Just(MAX_TOKEN_LIFE.as_secs()), 1..=MAX_TOKEN_LIFE.as_secs()];
    let step = prop_oneof![
        6 => (0..3usize, 0..3usize, life)
            .prop_map(|(client, audience, life)| Step::Issue { client, audience, life }),
        4 => (any::<Index>(), any::<bool>())
            .prop_map(|(token, by_id)| Step::RevokeToken { token, by_id }),
        2 => (0..3usize, 0..3usize).prop_map(|(client, also)| Step::RevokeClient { client, also }),
        1 => (0..3usize).prop_map(|audience| Step::RevokeMany { audience }),
        1 => (1..9u8).prop_map(Step::ReplaceKeys),
        2 => Just(Step::Expire),
        1 => Just(Step::Restart),
        3 => prop_oneof![0..60u64, 0..2 * TAIL.as_secs()].prop_map(Step::Pass),
        6 => (0..VERIFIERS.len(), any::<bool>())
            .prop_map(|(verifier, overlap)| Step::Tell { verifier, overlap }),
    ];
    proptest::collection::vec(step, 1..40)
}

struct IssuedToken {
    id: TokenId,
    client: ClientId,
    audience: Audience,
    issued_at: Timestamp,
    expires_at: Timestamp,
    revoked: bool,
}

/// An issuer with its verifiers through time.
struct World {
    now: Timestamp,
    issuer: TrustBundle,
    tokens: Vec<IssuedToken>,
    names: usize,
    written_tokens: BTreeMap<TokenId, TokenRevocation>,
    written_clients: BTreeMap<ClientId, ClientRevocation>,
    verifiers: Vec<Verifier>,
}

struct Verifier {
    serves: Vec<Audience>,
    bundle: TrustBundle,
    /// An epoch that it had some time before.
    earlier: u64,
}

fn audience(n: usize) -> Audience {
    Audience::new(&format!("audience-{n}")).expect("audience")
}

fn client(n: usize) -> ClientId {
    ClientId::new(&format!("client-{n}")).expect("client id")
}

fn keys(seed: u8) -> KeySet {
    [SigningKey::from_seed(&[seed; 32]).public().clone()].into_iter().collect()
}

fn says_revoked(bundle: &TrustBundle, token: &IssuedToken) -> bool {
    let cut = bundle.revocations.client(&token.client);
    bundle.revocations.token(&token.id).is_some()
        || cut.is_some_and(|cut| token.issued_at < cut.before)
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::new("https://issuer.test").expect("issuer");
        let first = TrustBundle {
            issuer: issuer.clone(),
            epoch: 1,
            keys: keys(0),
            revocations: Revocations::default(),
        };
        let verifiers = VERIFIERS.iter().map(|serves| {
            let serves: Vec<Audience> = serves.iter().map(|n| audience(*n)).collect();
            let bundle = TrustBundle::from_snapshot(issuer.clone(), first.since(0, &serves));
            Verifier { serves, bundle, earlier: 0 }
        });
        Self {
            now: START,
            verifiers: verifiers.collect(),
            issuer: first,
            tokens: Vec::new(),
            names: 0,
            written_tokens: BTreeMap::new(),
            written_clients: BTreeMap::new(),
        }
    }

    fn name(&mut self) -> TokenId {
        self.names += 1;
        TokenId::new(&self.names.to_string()).expect("token id")
    }

    fn revoke_token(&mut self, id: TokenId, until: Timestamp, audience: Option<Audience>) {
        self.issuer.epoch += 1;
        let epoch = self.issuer.epoch;
        let revocations = &mut self.issuer.revocations;
        revocations.revoke_token(id.clone(), TokenRevocation { until, audience, epoch });
        let known = revocations.token(&id).expect("it is revoked").clone();
        self.written_tokens.insert(id, known);
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Issue { client: of, audience: to, life } => {
                let cut = self.issuer.revocations.client(&client(*of));
                let issued_at = cut.map_or(self.now, |cut| cut.before.max(self.now));
                let token = IssuedToken {
                    id: self.name(),
                    client: client(*of),
                    audience: audience(*to),
                    issued_at,
                    expires_at: issued_at + Duration::from_secs(*life),
                    revoked: false,
                };
                self.tokens.push(token);
            }
            Step::RevokeToken { token, by_id } => {
                if self.tokens.is_empty() {
                    return;
                }
                let at = token.index(self.tokens.len());
                self.tokens[at].revoked = true;
                let token = &self.tokens[at];
                let (id, until, audience) = if *by_id {
                    (token.id.clone(), self.now + TAIL, None)
                } else {
                    let until = token.expires_at + DEFAULT_LEEWAY;
                    (token.id.clone(), until, Some(token.audience.clone()))
                };
                self.revoke_token(id, until, audience);
            }
            Step::RevokeClient { client: of, also } => self.revoke_client(client(*of), *also),
            Step::RevokeMany { audience: of } => {
                for _ in 0..MANY {
                    let id = self.name();
                    self.revoke_token(id, self.now + TAIL, Some(audience(*of)));
                }
            }
            Step::ReplaceKeys(seed) => {
                self.issuer.epoch += 1;
                self.issuer.keys = keys(*seed);
                let revoked = SigningKey::from_seed(&[seed + 100; 32]);
                self.issuer.revocations.set_keys([revoked.kid()].into_iter());
            }
            Step::Expire => {
                self.issuer.epoch += 1;
                self.issuer.expire(self.now);
                let now = self.now;
                self.written_tokens.retain(|_, token| token.until > now);
                self.written_clients.retain(|_, client| client.until > now);
            }
            Step::Restart => {
                let revoked: Vec<_> = self.issuer.revocations.keys().cloned().collect();
                self.issuer.revocations =
                    Revocations::read(self.written_tokens.clone(), self.written_clients.clone());
                self.issuer.revocations.set_keys(revoked.iter());
            }
            Step::Pass(seconds) => self.now = self.now + Duration::from_secs(*seconds),
            Step::Tell { verifier, overlap } => self.tell(*verifier, *overlap),
        }
    }

    fn revoke_client(&mut self, id: ClientId, also: usize) {
        let mut told = vec![audience(also)];
        let earlier = self.issuer.revocations.client(&id).map(|cut| cut.before);
        let before = (self.now + Duration::from_secs(1))
            .max(earlier.map_or(self.now, |earlier| earlier + Duration::from_secs(1)));
        for token in self.tokens.iter_mut().filter(|token| token.client == id) {
            token.revoked = true;
            if token.expires_at + DEFAULT_LEEWAY > self.now {
                told.push(token.audience.clone());
            }
        }
        self.issuer.epoch += 1;
        let cut = ClientRevocation {
            before,
            until: before + TAIL,
            audiences: Some(Arc::from(told)),
            epoch: self.issuer.epoch,
        };
        self.issuer.revocations.revoke_client(id.clone(), cut);
        let known = self.issuer.revocations.client(&id).expect("it is cut off").clone();
        self.written_clients.insert(id, known);
    }

    fn tell(&mut self, at: usize, overlap: bool) {
        let verifier = &mut self.verifiers[at];
        let held = verifier.bundle.epoch;
        let from = if overlap { verifier.earlier } else { held };
        verifier.earlier = held;
        let delta = self.issuer.since(from, &verifier.serves);
        let told: HashSet<&TokenId> = delta.tokens.iter().map(|(id, _)| id).collect();
        let cut: HashSet<&ClientId> = delta.clients.iter().map(|(id, ..)| id).collect();
        assert_eq!((told.len(), cut.len()), (delta.tokens.len(), delta.clients.len()), "each once");
        verifier.bundle.apply(delta).expect("it follows");
        verifier.bundle.expire(self.now);
        let verifier = &self.verifiers[at];
        self.check(verifier);
    }

    /// What a verifier was told bit by bit is what it would be told at once, and is the truth.
    fn check(&self, verifier: &Verifier) {
        let issuer = self.issuer.issuer.clone();
        let whole = TrustBundle::from_snapshot(issuer, self.issuer.since(0, &verifier.serves));
        assert_eq!(verifier.bundle.epoch, whole.epoch);
        assert_eq!(verifier.bundle.keys, whole.keys);
        for seed in 101..110 {
            let key = SigningKey::from_seed(&[seed; 32]);
            let kid = key.kid().as_str();
            assert_eq!(verifier.bundle.revocations.key(kid), whole.revocations.key(kid));
        }
        for token in &self.tokens {
            let unexpired = token.expires_at + DEFAULT_LEEWAY > self.now;
            if unexpired && verifier.serves.contains(&token.audience) {
                assert_eq!(says_revoked(&self.issuer, token), token.revoked, "{}", token.id);
                assert_eq!(says_revoked(&whole, token), token.revoked, "{} at once", token.id);
                let told = says_revoked(&verifier.bundle, token);
                assert_eq!(told, token.revoked, "{} bit by bit", token.id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn deltas_tell_what_a_snapshot_tells_whatever_happened_between_them(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        for verifier in 0..VERIFIERS.len() {
            world.tell(verifier, false);
        }
    }
}

#[test]
fn a_verifier_is_told_of_nothing_that_it_does_not_serve() {
    let mut world = World::new();
    let until = START + TAIL;
    for (name, to) in [("of-0", Some(0)), ("of-1", Some(1)), ("of-anyone", None)] {
        world.revoke_token(TokenId::new(name).expect("token id"), until, to.map(audience));
    }
    world.revoke_client(client(0), 0);
    world.revoke_client(client(1), 1);
    for epoch in [0, 1] {
        let TrustDelta { mut tokens, clients, .. } = world.issuer.since(epoch, &[audience(0)]);
        tokens.sort();
        let tokens: Vec<&str> = tokens.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(tokens, ["of-0", "of-anyone"]);
        let clients: Vec<ClientId> = clients.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(clients, [client(0)]);
    }
}

#[test]
fn what_is_new_is_told_and_nothing_else() {
    let mut world = World::new();
    world.take(&Step::RevokeMany { audience: 0 });
    let epoch = world.issuer.epoch;
    let id = world.name();
    world.revoke_token(id.clone(), START + TAIL, Some(audience(0)));
    let delta = world.issuer.since(epoch, &[audience(0)]);
    assert_eq!(delta.tokens, [(id, START + TAIL)]);
    assert_eq!(world.issuer.since(1, &[audience(0)]).tokens.len(), MANY + 1);
    assert_eq!(world.issuer.since(world.issuer.epoch, &[audience(0)]).tokens, []);
}

#[test]
fn epochs_never_go_backwards() {
    let mut world = World::new();
    let old = world.issuer.clone();
    world.take(&Step::ReplaceKeys(1));
    world.tell(0, false);
    let held = &mut world.verifiers[0].bundle;
    let backwards = WrongEpoch::Backwards { held: 2, to: 1 };
    assert_eq!(held.apply(old.since(0, &[])), Err(backwards));
    let missed = WrongEpoch::Missed { held: 2, from: 3 };
    let ahead = TrustBundle { epoch: 4, ..old };
    assert_eq!(held.apply(ahead.since(3, &[])), Err(missed));
    assert_eq!((held.epoch, held.keys.clone()), (2, keys(1)), "nothing was changed");
}

//! What has been revoked, with which epoch, and which verifiers are told.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::claims::{Audience, ClientId, Kid, Timestamp, TokenId};
use crate::cow_map::CowMap;

/// How many of the latest revocations are kept in the order of their epochs, so that a delta is made
/// without a scan of all.
const RECENT: usize = 1024;

/// What has been revoked. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    tokens: CowMap<TokenId, TokenRevocation>,
    clients: CowMap<ClientId, ClientRevocation>,
    keys: CowMap<Kid, ()>,
    recent: Recent,
}

/// The revocation of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRevocation {
    /// When the token has expired everywhere, so that the revocation may be forgotten.
    pub until: Timestamp,
    /// The token's audience; `None` when only its id was known: then every verifier is told.
    pub audience: Option<Audience>,
    /// The epoch that this came with.
    pub epoch: u64,
}

/// The revocation of everything issued to a client before a certain time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRevocation {
    /// Tokens with an earlier `iat` are revoked; new tokens carry this `iat` or a later one.
    pub before: Timestamp,
    /// When all of those tokens have expired, so that the revocation may be forgotten.
    pub until: Timestamp,
    /// The audiences that those tokens can be for; `None` when they are not known: then every verifier
    /// is told.
    pub audiences: Option<Arc<[Audience]>>,
    /// The epoch that this came with.
    pub epoch: u64,
}

/// The latest revocations, so that a delta costs only what is in it.
#[derive(Debug, Clone, Default)]
struct Recent {
    latest: Arc<VecDeque<Arc<Named>>>,
    /// Every revocation of a later epoch than this one is in `latest`.
    complete_after: u64,
}

#[derive(Debug)]
struct Named {
    epoch: u64,
    name: Name,
}

#[derive(Debug)]
enum Name {
    Token(TokenId),
    Client(ClientId),
}

impl TokenRevocation {
    /// The revocation of a token of which only the expiry is known: every verifier is told.
    pub fn new(until: Timestamp) -> Self {
        Self { until, audience: None, epoch: 0 }
    }

    /// Whether a verifier that serves these audiences is told.
    pub fn concerns(&self, serves: &[Audience]) -> bool {
        self.audience.as_ref().is_none_or(|audience| serves.contains(audience))
    }

    /// Combines this revocation of a token with a later one: the later `until` counts, and the audience
    /// only if both name the same. When the later one adds nothing, the result is this one with its epoch.
    fn and(&self, later: Self) -> Self {
        let until = self.until.max(later.until);
        let audience = self.audience.clone().filter(|_| self.audience == later.audience);
        if until == self.until && audience == self.audience {
            return self.clone();
        }
        Self { until, audience, epoch: later.epoch }
    }
}

impl ClientRevocation {
    /// The revocation of a client whose audiences are not known: every verifier is told.
    pub fn new(before: Timestamp, until: Timestamp) -> Self {
        Self { before, until, audiences: None, epoch: 0 }
    }

    /// Whether a verifier that serves these audiences is told.
    pub fn concerns(&self, serves: &[Audience]) -> bool {
        self.audiences
            .as_ref()
            .is_none_or(|audiences| serves.iter().any(|served| audiences.contains(served)))
    }

    /// Combines this revocation of a client with a later one: the later cut and the later `until` count, and
    /// the audiences of both are told. When the later one adds nothing, the result is this one with its
    /// epoch. An earlier cut revives nothing, and whoever was told of one revocation is told of both.
    fn and(&self, later: Self) -> Self {
        let audiences = self.audiences.clone().zip(later.audiences).map(|(known, more)| {
            let more: Vec<Audience> =
                more.iter().filter(|audience| !known.contains(audience)).cloned().collect();
            if more.is_empty() { known } else { known.iter().cloned().chain(more).collect() }
        });
        let both = Self {
            before: self.before.max(later.before),
            until: self.until.max(later.until),
            audiences,
            epoch: self.epoch,
        };
        if both == *self { both } else { Self { epoch: later.epoch, ..both } }
    }
}

impl Revocations {
    /// The revocation of a token, if it is revoked.
    pub fn token(&self, id: &TokenId) -> Option<&TokenRevocation> {
        self.tokens.get(id)
    }

    /// The revocation of a client's tokens, if there is one.
    pub fn client(&self, id: &ClientId) -> Option<&ClientRevocation> {
        self.clients.get(id)
    }

    /// Whether a key is revoked.
    pub fn key(&self, kid: &str) -> bool {
        self.keys.get(kid).is_some()
    }

    /// The keys that are revoked, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Kid> {
        self.keys.iter().map(|(kid, ())| kid)
    }

    /// Revokes a token until it would have expired anyway. A second revocation of it never shortens the
    /// first, nor narrows who is told.
    pub fn revoke_token(&mut self, id: TokenId, revocation: TokenRevocation) {
        let known = self.tokens.get(&id);
        let both = known.map_or_else(|| revocation.clone(), |known| known.and(revocation.clone()));
        if known != Some(&both) {
            self.recent.push(both.epoch, Name::Token(id.clone()));
            self.tokens.insert(id, both);
        }
    }

    /// Revokes everything issued to a client before a time. Nothing is ever revived: an earlier time
    /// than the known one leaves the known one in place, and audiences that were told before are told
    /// again.
    pub fn revoke_client(&mut self, id: ClientId, revocation: ClientRevocation) {
        let known = self.clients.get(&id);
        let both = known.map_or_else(|| revocation.clone(), |known| known.and(revocation.clone()));
        if known != Some(&both) {
            self.recent.push(both.epoch, Name::Client(id.clone()));
            self.clients.insert(id, both);
        }
    }

    /// Sets which keys are revoked.
    pub fn set_keys<'a>(&mut self, kids: impl Iterator<Item = &'a Kid>) {
        self.keys = CowMap::default();
        for kid in kids {
            self.keys.insert(kid.clone(), ());
        }
    }

    /// Takes revocations as they were read from the store, in any order, and finds the latest of them
    /// again.
    pub fn read(
        tokens: impl IntoIterator<Item = (TokenId, TokenRevocation)>,
        clients: impl IntoIterator<Item = (ClientId, ClientRevocation)>,
    ) -> Self {
        let mut read = Self::default();
        let mut named = Vec::new();
        for (id, revocation) in tokens {
            named.push((revocation.epoch, Name::Token(id.clone())));
            read.tokens.insert(id, revocation);
        }
        for (id, revocation) in clients {
            named.push((revocation.epoch, Name::Client(id.clone())));
            read.clients.insert(id, revocation);
        }
        named.sort_unstable_by_key(|(epoch, _)| *epoch);
        if let Some(forgotten) = named.len().checked_sub(RECENT + 1) {
            read.recent.complete_after = named[forgotten].0;
            named.drain(..=forgotten);
        }
        for (epoch, name) in named {
            read.recent.push(epoch, name);
        }
        read
    }

    /// The tokens revoked after an epoch that a verifier of these audiences is told of.
    pub(super) fn tokens_since<'a>(
        &'a self,
        epoch: u64,
        serves: &'a [Audience],
    ) -> impl Iterator<Item = (&'a TokenId, &'a TokenRevocation)> {
        let latest = self.recent.after(epoch);
        let all = latest.is_none().then(|| self.tokens.iter());
        let latest = latest.into_iter().flatten().filter_map(|named| match &named.name {
            // A token that was revoked again is listed under its earlier epoch, too, and one that was
            // forgotten is still listed. Only the entry with the epoch of the revocation itself counts.
            Name::Token(id) => {
                let known = self.tokens.get(id).filter(|known| known.epoch == named.epoch);
                known.map(|known| (id, known))
            }
            Name::Client(_) => None,
        });
        let found = all.into_iter().flatten().chain(latest);
        // A snapshot also tells of revocations from before there were epochs, which have epoch 0.
        let later = move |known: &TokenRevocation| epoch == 0 || known.epoch > epoch;
        found.filter(move |(_, known)| later(known) && known.concerns(serves))
    }

    /// The clients cut off after an epoch that a verifier of these audiences is told of.
    pub(super) fn clients_since<'a>(
        &'a self,
        epoch: u64,
        serves: &'a [Audience],
    ) -> impl Iterator<Item = (&'a ClientId, &'a ClientRevocation)> {
        let latest = self.recent.after(epoch);
        let all = latest.is_none().then(|| self.clients.iter());
        let latest = latest.into_iter().flatten().filter_map(|named| match &named.name {
            Name::Client(id) => {
                let known = self.clients.get(id).filter(|known| known.epoch == named.epoch);
                known.map(|known| (id, known))
            }
            Name::Token(_) => None,
        });
        let found = all.into_iter().flatten().chain(latest);
        let later = move |known: &ClientRevocation| epoch == 0 || known.epoch > epoch;
        found.filter(move |(_, known)| later(known) && known.concerns(serves))
    }

    /// Whether it holds a revocation of what has expired anyway.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.tokens.iter().any(|(_, token)| token.until <= now)
            || self.clients.iter().any(|(_, client)| client.until <= now)
    }

    /// Forgets the revocations of what has expired anyway.
    pub fn expire(&mut self, now: Timestamp) {
        let tokens: Vec<TokenId> = self
            .tokens
            .iter()
            .filter(|(_, token)| token.until <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let clients: Vec<ClientId> = self
            .clients
            .iter()
            .filter(|(_, client)| client.until <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &tokens {
            self.tokens.remove(id);
        }
        for id in &clients {
            self.clients.remove(id);
        }
    }
}

impl Recent {
    fn push(&mut self, epoch: u64, name: Name) {
        let latest = Arc::make_mut(&mut self.latest);
        // `after` relies on ascending epochs. When one comes out of order, deltas from before the last
        // one are made by a scan of all.
        if let Some(last) = latest.back().filter(|last| last.epoch > epoch) {
            self.complete_after = self.complete_after.max(last.epoch);
        }
        if latest.len() == RECENT
            && let Some(forgotten) = latest.pop_front()
        {
            self.complete_after = self.complete_after.max(forgotten.epoch);
        }
        latest.push_back(Arc::new(Named { epoch, name }));
    }

    /// What was revoked after an epoch, latest first; `None` when that is too long ago.
    fn after(&self, epoch: u64) -> Option<impl Iterator<Item = &Named>> {
        // The latest stand at the end: walking back from there, nothing that is known already is looked
        // at.
        let latest = self.latest.iter().rev().map(Arc::as_ref);
        let complete = epoch > 0 && epoch >= self.complete_after;
        complete.then(|| latest.take_while(move |named| named.epoch > epoch))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::SigningKey;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn id(text: &str) -> TokenId {
        TokenId::new(text).expect("token id")
    }

    fn client(text: &str) -> ClientId {
        ClientId::new(text).expect("client id")
    }

    fn audience(text: &str) -> Audience {
        Audience::new(text).expect("audience")
    }

    fn after(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn cut(before: u64, audiences: &[&str], epoch: u64) -> ClientRevocation {
        let audiences = Some(audiences.iter().map(|text| audience(text)).collect());
        ClientRevocation { before: after(before), until: after(before + 100), audiences, epoch }
    }

    #[test]
    fn an_earlier_cut_revives_nothing() {
        let (early, late) = (cut(1, &["a"], 1), cut(2, &["a"], 2));
        let mut revocations = Revocations::default();
        for cut in [&early, &late, &early] {
            revocations.revoke_client(client("order"), cut.clone());
        }
        assert_eq!(revocations.client(&client("order")), Some(&late));
        assert_eq!(revocations.client(&client("billing")), None);
    }

    #[test]
    fn a_later_cut_is_told_to_every_verifier_that_was_told_of_the_earlier() {
        let mut revocations = Revocations::default();
        let told = |revocations: &Revocations, whom: &str| {
            revocations.clients_since(1, &[audience(whom)]).count()
        };
        revocations.revoke_client(client("order"), cut(1, &["a"], 1));
        revocations.revoke_client(client("order"), cut(2, &["b"], 2));
        assert_eq!(["a", "b", "c"].map(|whom| told(&revocations, whom)), [1, 1, 0]);

        let everyone = ClientRevocation { epoch: 3, ..ClientRevocation::new(after(3), after(9)) };
        revocations.revoke_client(client("order"), everyone);
        revocations.revoke_client(client("order"), cut(4, &["b"], 4));
        assert_eq!(["a", "b", "c"].map(|whom| told(&revocations, whom)), [1, 1, 1]);
        let known = revocations.client(&client("order")).expect("it is cut off");
        assert_eq!((known.before, known.until), (after(4), after(104)));
    }

    #[test]
    fn revoking_a_token_again_keeps_it_for_longer_and_tells_no_fewer_verifiers() {
        let of = |until, name: Option<&str>, epoch| TokenRevocation {
            until: after(until),
            audience: name.map(audience),
            epoch,
        };
        let mut revocations = Revocations::default();
        for (revocation, known) in [
            (of(10, Some("a"), 1), of(10, Some("a"), 1)),
            (of(9, Some("a"), 2), of(10, Some("a"), 1)),
            (of(20, Some("a"), 3), of(20, Some("a"), 3)),
            (of(9, None, 4), of(20, None, 4)),
            (of(9, Some("a"), 5), of(20, None, 4)),
        ] {
            revocations.revoke_token(id("one"), revocation);
            assert_eq!(revocations.token(&id("one")), Some(&known));
        }
    }

    #[test]
    fn expired_revocations_are_forgotten_and_no_others() {
        let cut = |until| ClientRevocation::new(NOW, until);
        let token = |until| TokenRevocation::new(until);
        let mut revocations = Revocations::default();
        revocations.revoke_token(id("one"), token(after(10)));
        revocations.revoke_token(id("two"), token(after(20)));
        revocations.revoke_client(client("order"), cut(after(10)));
        revocations.revoke_client(client("billing"), cut(after(20)));
        let key = SigningKey::from_seed(&[1; 32]);
        revocations.set_keys([key.kid()].into_iter());
        let before = revocations.clone();

        assert!(!revocations.has_expired(after(9)));
        revocations.expire(after(9));
        assert!(revocations.token(&id("one")).is_some());

        assert!(revocations.has_expired(after(10)));
        revocations.expire(after(10));
        assert!(!revocations.has_expired(after(10)));
        assert_eq!(revocations.token(&id("one")), None);
        assert_eq!(revocations.token(&id("two")), Some(&token(after(20))));
        assert_eq!(revocations.client(&client("order")), None);
        assert_eq!(revocations.client(&client("billing")), Some(&cut(after(20))));
        assert!(revocations.key(key.kid().as_str()), "keys are the ring's to forget");
        assert!(before.token(&id("one")).is_some(), "a clone keeps what it had");
    }
}

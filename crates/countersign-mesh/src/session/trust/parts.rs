//! Turns the messages of a trust stream into snapshots and deltas: their parts are gathered until the
//! last one is here. What is gathered is bounded, so that no server can exhaust the memory of its
//! verifiers.

use std::time::Duration;

use crate::claims::{ClientId, Kid, Timestamp, TokenId};
use crate::keys::KeySet;
use crate::rpc::watch_trust_bundle_response::Event;
use crate::rpc::{self, TrustContent, WatchTrustBundleResponse};
use crate::trust::TrustDelta;

/// The most revocations in one snapshot or delta.
const MAX_REVOCATIONS: usize = 1_000_000;

/// The most revoked keys in one snapshot or delta.
const MAX_REVOKED_KEYS: usize = 10_000;

/// The longest JWK Set in bytes, as for one that is fetched.
const MAX_JWKS: usize = 256 * 1024;

/// The longest proof, in bytes.
const MAX_PROOF: usize = 1024;

/// The most parts, whatever is in them: empty ones take time, too.
const MAX_PARTS: usize = 10_000;

/// Why messages make no sense.
pub type Nonsense = &'static str;

/// What one or more messages come to.
pub enum Update {
    /// Everything, to replace what is held.
    Snapshot(TrustDelta),
    /// What changed.
    Delta(TrustDelta),
    /// That nothing changed since this epoch.
    Nothing(u64),
    /// A part; more are to come.
    Part,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Snapshot,
    Delta,
}

/// The parts so far of what is being sent.
#[derive(Default)]
pub struct Gathering(Option<Gathered>);

struct Gathered {
    kind: Kind,
    delta: TrustDelta,
    parts: usize,
}

impl Gathering {
    /// Whether there are some, and more are to come.
    pub(crate) fn has_some(&self) -> bool {
        self.0.is_some()
    }

    /// Adds what a message brings.
    pub fn add(&mut self, epoch: u64, event: Option<Event>) -> Result<Update, Nonsense> {
        let (kind, from, content, last) = match event {
            Some(Event::Snapshot(part)) => (Kind::Snapshot, 0, part.content, part.last),
            Some(Event::Delta(part)) => (Kind::Delta, part.from_epoch, part.content, part.last),
            Some(Event::Heartbeat(rpc::TrustHeartbeat {})) => return Ok(Update::Nothing(epoch)),
            // An event that a later version of the protocol has added.
            None => return Ok(Update::Part),
        };
        let content = content.ok_or("a part without content")?;
        let mut gathered = match self.0.take() {
            None => Gathered::begin(kind, from, epoch, &content)?,
            Some(gathered) if gathered.is_of(kind, from, epoch) => gathered,
            Some(_) => return Err("a part of something else in between"),
        };
        gathered.add(content)?;
        if !last {
            self.0 = Some(gathered);
            return Ok(Update::Part);
        }
        Ok(match kind {
            Kind::Snapshot => Update::Snapshot(gathered.delta),
            Kind::Delta => Update::Delta(gathered.delta),
        })
    }
}

impl Gathered {
    fn begin(kind: Kind, from: u64, to: u64, first: &TrustContent) -> Result<Self, Nonsense> {
        if first.jwks.len() > MAX_JWKS {
            return Err("a JWK Set that is too long");
        }
        let keys = KeySet::from_jwks(&first.jwks).map_err(|_| "keys that are not to be trusted")?;
        if from > to {
            return Err("a delta that leads back");
        }
        let delta = TrustDelta {
            from,
            to,
            keys,
            revoked_keys: Vec::new(),
            tokens: Vec::new(),
            clients: Vec::new(),
        };
        Ok(Self { kind, delta, parts: 0 })
    }

    fn is_of(&self, kind: Kind, from: u64, to: u64) -> bool {
        (self.kind, self.delta.from, self.delta.to) == (kind, from, to)
    }

    fn add(&mut self, content: TrustContent) -> Result<(), Nonsense> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err("too many parts");
        }
        let delta = &mut self.delta;
        let revocations = delta.tokens.len() + delta.clients.len();
        if revocations + content.tokens.len() + content.clients.len() > MAX_REVOCATIONS {
            return Err("more revocations than can be kept");
        }
        if delta.revoked_keys.len() + content.revoked_kids.len() > MAX_REVOKED_KEYS {
            return Err("more revoked keys than can be kept");
        }
        for kid in &content.revoked_kids {
            delta.revoked_keys.push(Kid::new(kid).map_err(|_| "a kid that is none")?);
        }
        for token in content.tokens {
            let id = TokenId::new(&token.token_id).map_err(|_| "a token id that is none")?;
            delta.tokens.push((id, time(token.until)?));
        }
        for client in content.clients {
            let id = ClientId::new(&client.client_id).map_err(|_| "a client id that is none")?;
            delta.clients.push((id, time(client.before)?, time(client.until)?));
        }
        Ok(())
    }
}

/// A time in whole seconds, rounded up: a revocation had better reach too far than not far enough.
fn time(time: Option<prost_types::Timestamp>) -> Result<Timestamp, Nonsense> {
    let time = time.ok_or("a revocation without its time")?;
    let seconds = u64::try_from(time.seconds).map_err(|_| "a time before 1970")?;
    Ok(Timestamp::from_unix(seconds.saturating_add(u64::from(time.nanos > 0))))
}

/// How old the store's confirmation was when the message was sent. A message that does not say confirms
/// nothing.
pub(crate) fn age(message: &WatchTrustBundleResponse) -> Option<Duration> {
    message.age.and_then(|age| Duration::try_from(age).ok())
}

/// How old what is held may become, if the server says so and it makes sense.
pub(crate) fn max_staleness(message: &WatchTrustBundleResponse) -> Option<Duration> {
    message
        .max_staleness
        .and_then(|longest| Duration::try_from(longest).ok())
        .filter(|longest| !longest.is_zero())
}

/// The proof of a message's epoch.
pub(crate) fn proof(message: &mut WatchTrustBundleResponse) -> Result<Vec<u8>, Nonsense> {
    let proof = std::mem::take(&mut message.epoch_proof);
    if proof.len() > MAX_PROOF { Err("a proof that is too long") } else { Ok(proof) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;
    use crate::rpc::{RevokedClient, RevokedToken, TrustSnapshot};

    fn first() -> TrustContent {
        let keys = KeySet::from_iter([SigningKey::from_seed(&[1; 32]).public().clone()]);
        TrustContent { jwks: keys.to_jwks(), ..Default::default() }
    }

    fn add(parts: &mut Gathering, content: TrustContent) -> Result<Update, Nonsense> {
        parts.add(1, Some(Event::Snapshot(TrustSnapshot { content: Some(content), last: false })))
    }

    #[test]
    fn too_many_parts_revocations_or_keys_are_refused() {
        let kids = |count| TrustContent { revoked_kids: vec!["k".into(); count], ..first() };
        assert!(add(&mut Gathering::default(), kids(MAX_REVOKED_KEYS)).is_ok());
        assert!(add(&mut Gathering::default(), kids(MAX_REVOKED_KEYS + 1)).is_err());

        let tokens = vec![RevokedToken::default(); MAX_REVOCATIONS];
        let clients = vec![RevokedClient::default()];
        let too_many = add(&mut Gathering::default(), TrustContent { tokens, clients, ..first() });
        assert_eq!(too_many.err(), Some("more revocations than can be kept"));

        let jwks = " ".repeat(MAX_JWKS) + &first().jwks;
        assert!(add(&mut Gathering::default(), TrustContent { jwks, ..first() }).is_err());

        let mut parts = Gathering::default();
        for _ in 0..MAX_PARTS {
            assert!(add(&mut parts, first()).is_ok());
        }
        assert!(add(&mut parts, first()).is_err());
    }

    #[test]
    fn a_time_is_rounded_up() {
        let at = |seconds, nanos| time(Some(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(at(7, 0), Ok(Timestamp::from_unix(7)));
        assert_eq!(at(7, 1), Ok(Timestamp::from_unix(8)));
        assert_eq!(at(-1, 0), Err("a time before 1970"));
        assert_eq!(time(None), Err("a revocation without its time"));
    }
}

//! What those who listen need: verifiers on the trust stream, and whoever polls the JWKS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use countersign_mesh::claims::{Audience, ClientId, Timestamp};
use countersign_mesh::trust::{TrustBundle, TrustDelta, VerifiedToken};
use tokio::sync::watch;

use crate::authority::{Authority, Seat, TooManyStreams, Verifiers};
use crate::client::Client;
use crate::ring::Listeners;
use crate::store::{Change, CommitError, Decision, State, StoreError};

/// Tells one published state from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Of keys and revocations.
    pub epoch: u64,
    /// Of clients.
    pub revision: u64,
}

/// Why a verifier gets no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSeated {
    /// Its client has too many.
    TooMany(TooManyStreams),
    /// That there is a verifier could not be written down.
    Store(StoreError),
}

/// What verifiers of the same audiences are told, who go on from the same epoch: made once, however many
/// they are, and kept for as long as one of them still reads it.
#[derive(Debug, Default)]
pub(super) struct Deltas(Mutex<BTreeMap<Asked, Weak<TrustDelta>>>);

/// The epoch that is gone on from, and the audiences that are served.
type Asked = (u64, Box<[Audience]>);

/// What the client of a stream is told: as long as this does not change, the stream goes on.
#[derive(Debug, Clone)]
pub struct Watched(Arc<Client>);

impl Version {
    pub(super) fn of(state: &State) -> Self {
        Self { epoch: state.epoch, revision: state.revision }
    }
}

impl Deltas {
    fn get(&self, bundle: &TrustBundle, epoch: u64, serves: &[Audience]) -> Arc<TrustDelta> {
        // Whoever wants the same meanwhile waits for it rather than making another.
        let mut deltas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (epoch, Box::from(serves));
        let known = deltas.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.to == bundle.epoch) {
            return known;
        }
        let delta = Arc::new(bundle.since(epoch, serves));
        deltas.retain(|_, delta| delta.strong_count() > 0);
        deltas.insert(key, Arc::downgrade(&delta));
        delta
    }
}

impl Watched {
    /// The audiences that it serves.
    pub fn serves(&self) -> &[Audience] {
        self.0.settings.serves.as_slice()
    }

    /// Whether it is told the same as another, and may be.
    fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.0.settings, &other.0.settings);
        ours.serves.as_slice() == theirs.serves.as_slice()
            && ours.grants.as_slice() == theirs.grants.as_slice()
    }
}

impl Authority {
    /// The verifiers on the trust stream.
    pub fn verifiers(&self) -> &Verifiers {
        &self.verifiers
    }

    /// Gives a verifier its place. That there is one is written down first, so that rotations wait for
    /// verifiers after a crash, too.
    ///
    /// # Errors
    /// When its client has too many streams, or the store cannot be written.
    pub async fn seat_verifier(&self, client: &ClientId, name: &str) -> Result<Seat, NotSeated> {
        self.note_listeners(Listeners { streamed: true, polled: false })
            .await
            .map_err(NotSeated::Store)?;
        self.verifiers.seat(client, name, self.settings.max_streams).map_err(NotSeated::TooMany)
    }

    /// The trust bundle for someone who polls. It is noted that it was served; that anyone polls at all
    /// is written down first, so that rotations wait for pollers after a crash, too.
    ///
    /// # Errors
    /// When the store cannot be written; only until it once was.
    pub async fn polled_trust(&self) -> Result<Arc<TrustBundle>, StoreError> {
        self.note_listeners(Listeners { streamed: false, polled: true }).await?;
        let bundle = self.published.bundle();
        self.verifiers.polled(bundle.epoch);
        Ok(bundle)
    }

    /// The latest trust bundle.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.published.bundle()
    }

    /// What a verifier that serves these audiences and has this epoch lacks: see [`TrustBundle::since`].
    pub fn since(&self, epoch: u64, serves: &[Audience]) -> Arc<TrustDelta> {
        self.deltas.get(&self.published.bundle(), epoch, serves)
    }

    /// Which state is the latest.
    pub fn version(&self) -> watch::Receiver<Version> {
        self.published.version()
    }

    /// When the store last confirmed what is published.
    pub fn as_of(&self) -> Timestamp {
        self.reached.at()
    }

    /// How long ago that was, by a clock that nobody sets.
    pub fn age(&self) -> Duration {
        self.reached.age()
    }

    /// How old what a verifier holds may become before one that fails closed refuses to use it.
    pub fn max_staleness(&self) -> Duration {
        self.settings.max_staleness
    }

    /// What a client is told on the trust stream; none when there is no such client.
    pub fn told(&self, client: &ClientId) -> Option<Watched> {
        let client = self.published.snapshot().state.clients.get(client).cloned()?;
        (!client.settings.disabled).then_some(Watched(client))
    }

    /// Whether a client is still told what it was.
    pub fn is_still_told(&self, client: &ClientId, told: &Watched) -> bool {
        self.told(client).is_some_and(|now| now.is_same(told))
    }

    /// Whether a token is revoked, by itself or with all of its client's; whether it has expired does not
    /// matter, nor what became of its key.
    pub fn is_revoked(&self, token: &VerifiedToken) -> bool {
        let claims = token.claims();
        let revocations = &self.published.snapshot().state.revocations;
        revocations.token(&claims.token_id).is_some()
            || revocations
                .client(&claims.client_id)
                .is_some_and(|client| claims.issued_at < client.before)
    }

    /// Whether a token's key is revoked.
    pub fn is_key_revoked(&self, token: &VerifiedToken) -> bool {
        self.published.snapshot().state.revocations.key(token.kid().as_str())
    }

    async fn note_listeners(&self, more: Listeners) -> Result<(), StoreError> {
        let known = self.published.snapshot().state.listeners;
        if known.streamed >= more.streamed && known.polled >= more.polled {
            return Ok(());
        }
        let note = move |_: &State, _| {
            let changes = vec![Change::NoteListeners(more)];
            Ok::<_, std::convert::Infallible>(Decision { changes, events: vec![], answer: () })
        };
        match self.store.commit(note).await {
            Ok(()) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
            Err(CommitError::Refused(never)) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::keys::SigningKey;
    use countersign_mesh::trust::Revocations;

    use super::*;

    #[test]
    fn a_delta_is_made_once_for_all_who_are_told_the_same() {
        let bundle = |epoch| TrustBundle {
            issuer: "https://issuer.test".parse().expect("an issuer"),
            epoch,
            keys: [SigningKey::from_seed(&[1; 32]).public().clone()].into_iter().collect(),
            revocations: Revocations::default(),
        };
        let [here, there] = ["here", "there"].map(|name| [name.parse().expect("an audience")]);
        let deltas = Deltas::default();
        let first = deltas.get(&bundle(5), 0, &here);
        assert!(Arc::ptr_eq(&first, &deltas.get(&bundle(5), 0, &here)));
        for (epoch, from, serves) in [(6, 0, &here), (5, 1, &here), (5, 0, &there)] {
            let other = deltas.get(&bundle(epoch), from, serves);
            assert!(!Arc::ptr_eq(&first, &other), "{epoch} {from} {serves:?}");
            assert_eq!((other.from, other.to), (from, epoch));
        }
        drop(first);
        let _other = deltas.get(&bundle(7), 3, &here);
        assert_eq!(deltas.0.lock().expect("nobody panicked").len(), 1, "what nobody reads is gone");
    }
}

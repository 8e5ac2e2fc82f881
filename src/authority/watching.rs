//! What listeners need: the verifiers on the trust stream, and those that poll the JWKS.

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

/// Identifies a published state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Grows with every change of keys or revocations.
    pub epoch: u64,
    /// Grows with every change of a client.
    pub revision: u64,
}

/// Why a verifier gets no seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSeated {
    /// Its client has too many streams.
    TooMany(TooManyStreams),
    /// The store could not write down that there are verifiers.
    Store(StoreError),
}

/// A cache of deltas. Verifiers that serve the same audiences and continue from the same epoch need the same
/// delta. It is made once for all of them, and kept while one of them still reads it.
#[derive(Debug, Default)]
pub(super) struct Deltas(Mutex<BTreeMap<Asked, Weak<TrustDelta>>>);

/// The epoch that a verifier has, and the audiences that it serves.
type Asked = (u64, Box<[Audience]>);

/// The client of a trust stream, as it was when the stream began. Its grants and its audiences decide what it
/// is told; when they change, the stream ends.
#[derive(Debug, Clone)]
pub struct Watched(Arc<Client>);

impl Version {
    pub(super) fn of(state: &State) -> Self {
        Self { epoch: state.epoch, revision: state.revision }
    }
}

impl Deltas {
    fn get(&self, bundle: &TrustBundle, epoch: u64, serves: &[Audience]) -> Arc<TrustDelta> {
        // Held while the delta is made: whoever needs the same one waits for it instead of making another.
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
    /// The audiences that the client serves.
    pub fn serves(&self) -> &[Audience] {
        self.0.settings.serves.as_slice()
    }

    /// Whether both have the same grants and audiences. Other changes of a client do not matter to a stream.
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

    /// Gives a verifier its seat: from now on rotations wait for it. The store notes first that there are
    /// verifiers, so that rotations wait for them after a crash too.
    ///
    /// # Errors
    /// When its client has too many streams, or the store cannot be written.
    pub async fn seat_verifier(&self, client: &ClientId, name: &str) -> Result<Seat, NotSeated> {
        self.note_listeners(Listeners { streamed: true, polled: false })
            .await
            .map_err(NotSeated::Store)?;
        self.verifiers.seat(client, name, self.settings.max_streams).map_err(NotSeated::TooMany)
    }

    /// The trust bundle for a poller. The gate notes that it was served. The store notes first that there are
    /// pollers, so that rotations wait for them after a crash too.
    ///
    /// # Errors
    /// When the store cannot be written. Once it has the note, this does not fail any more.
    pub async fn polled_trust(&self) -> Result<Arc<TrustBundle>, StoreError> {
        self.note_listeners(Listeners { streamed: false, polled: true }).await?;
        let bundle = self.published.bundle();
        // Noted with the epoch of this very bundle: a newer one may be published meanwhile.
        self.verifiers.polled(bundle.epoch);
        Ok(bundle)
    }

    /// The latest trust bundle.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.published.bundle()
    }

    /// What a verifier lacks that serves these audiences and has this epoch; see [`TrustBundle::since`].
    pub fn since(&self, epoch: u64, serves: &[Audience]) -> Arc<TrustDelta> {
        self.deltas.get(&self.published.bundle(), epoch, serves)
    }

    /// Watches the version of the latest state.
    pub fn version(&self) -> watch::Receiver<Version> {
        self.published.version()
    }

    /// When the store last confirmed what is published.
    pub fn as_of(&self) -> Timestamp {
        self.reached.at()
    }

    /// How long ago the store last confirmed what is published, by a clock that nobody sets.
    pub fn age(&self) -> Duration {
        self.reached.age()
    }

    /// How old a trust bundle may become before a verifier that fails closed refuses to use it.
    pub fn max_staleness(&self) -> Duration {
        self.settings.max_staleness
    }

    /// The client as a trust stream needs it. `None` when it does not exist or is disabled.
    pub fn told(&self, client: &ClientId) -> Option<Watched> {
        let client = self.published.snapshot().state.clients.get(client).cloned()?;
        (!client.settings.disabled).then_some(Watched(client))
    }

    /// Whether a client is still enabled, with the same grants and audiences as when its stream began.
    pub fn is_still_told(&self, client: &ClientId, told: &Watched) -> bool {
        self.told(client).is_some_and(|now| now.is_same(told))
    }

    /// Whether a token is revoked, by itself or with all tokens of its client. It does not matter whether the
    /// token has expired or its key is revoked.
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

    /// Has the store note that someone listens. Only the first listener of each kind causes a write.
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
    fn verifiers_with_the_same_audiences_and_epoch_share_one_delta() {
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
        assert_eq!(
            deltas.0.lock().expect("nobody panicked").len(),
            1,
            "a delta that nobody reads is dropped"
        );
    }
}

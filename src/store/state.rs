//! The committed state, in memory. Every reader reads this.

use std::sync::Arc;

use countersign_mesh::claims::{Audience, ClientId, Issuer, Timestamp, TokenId};
use countersign_mesh::internals::CowMap;
use countersign_mesh::trust::{ClientRevocation, Revocations, TokenRevocation};

use crate::client::{Client, CredentialId};
use crate::ring::{KeyRing, Listeners};
use crate::store::ResourceIndex;

/// One committed state. Its parts are shared, so that a clone is cheap.
#[derive(Debug, Clone)]
pub struct State {
    /// Who issues tokens here; fixed for the store's life.
    pub issuer: Issuer,
    /// Grows with every change of keys or revocations.
    pub epoch: u64,
    /// Grows with every change of a client.
    pub revision: u64,
    /// The registered clients.
    pub clients: CowMap<ClientId, Arc<Client>>,
    /// The audiences that their resources stand for.
    pub resources: ResourceIndex,
    /// The signing keys.
    pub ring: Arc<KeyRing>,
    /// Whether anyone ever listened, on the stream or by polling.
    pub listeners: Listeners,
    /// What is revoked.
    pub revocations: Revocations,
}

/// One change. The store writes it down, then the state applies it.
#[derive(Debug, Clone)]
pub enum Change {
    /// Registers a client, or replaces it with all of its credentials. Its revision is set by the store.
    PutClient(Client),
    /// Removes a client with all of its credentials.
    RemoveClient(ClientId),
    /// Replaces the key ring.
    ReplaceRing(Arc<KeyRing>),
    /// Revokes a token until it would have expired.
    RevokeToken {
        /// Which one.
        id: TokenId,
        /// The time at which it has expired for every verifier.
        until: Timestamp,
        /// Its audience; `None` when only its id is known.
        audience: Option<Audience>,
    },
    /// Revokes what was issued to a client.
    RevokeClient {
        /// Which one.
        id: ClientId,
        /// Tokens issued before this time are revoked.
        before: Timestamp,
        /// The time at which all of them have expired for every verifier.
        until: Timestamp,
        /// The audiences that they can be for.
        audiences: Arc<[Audience]>,
    },
    /// Notes when a credential was last used.
    TouchCredential(ClientId, CredentialId, Timestamp),
    /// Notes that someone listens. Nothing resets it.
    NoteListeners(Listeners),
    /// Notes that the process stops in order, and that all uses of credentials since a time are written down.
    StopInOrder {
        /// Since when.
        uses_known_since: Timestamp,
    },
    /// Changes nothing. Committing it shows that the store can be written.
    Nothing,
    /// Forgets revocations and requests that no longer matter, and audit events from before a time.
    Expire {
        /// The time.
        now: Timestamp,
        /// Audit events from before this are past retention.
        audit_before: Timestamp,
    },
}

impl State {
    /// The revision that the next change of a client gets.
    pub fn next_revision(&self) -> u64 {
        self.revision + 1
    }

    /// The state after a change. Nothing else says what a change does.
    pub(super) fn after(&self, change: &Change) -> Self {
        let mut state = self.clone();
        state.apply(change.clone());
        state
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::PutClient(mut client) => {
                self.revision = self.next_revision();
                client.revision = self.revision;
                let before = self.clients.get(&client.id);
                self.resources.replace(before.map(AsRef::as_ref), Some(&client));
                self.clients.insert(client.id.clone(), Arc::new(client));
            }
            Change::RemoveClient(id) => {
                self.resources.replace(self.clients.get(&id).map(AsRef::as_ref), None);
                self.clients.remove(&id);
            }
            Change::ReplaceRing(ring) => {
                self.epoch += 1;
                self.revocations.set_keys(ring.revoked_kids());
                self.ring = ring;
            }
            Change::RevokeToken { id, until, audience } => {
                self.epoch += 1;
                let epoch = self.epoch;
                self.revocations.revoke_token(id, TokenRevocation { until, audience, epoch });
            }
            Change::RevokeClient { id, before, until, audiences } => {
                self.epoch += 1;
                let (audiences, epoch) = (Some(audiences), self.epoch);
                let cut = ClientRevocation { before, until, audiences, epoch };
                self.revocations.revoke_client(id, cut);
            }
            Change::NoteListeners(more) => {
                self.listeners.streamed |= more.streamed;
                self.listeners.polled |= more.polled;
            }
            // Nothing to do: the time was first noted in the credential itself.
            Change::TouchCredential(..) | Change::StopInOrder { .. } | Change::Nothing => {}
            Change::Expire { now, .. } => {
                if self.revocations.has_expired(now) {
                    self.epoch += 1;
                    self.revocations.expire(now);
                }
            }
        }
    }
}

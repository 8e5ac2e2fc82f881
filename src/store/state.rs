//! All that was committed, in memory: what every reader reads.

use std::sync::Arc;

use countersign_mesh::claims::{Audience, ClientId, Issuer, Timestamp, TokenId};
use countersign_mesh::internals::CowMap;
use countersign_mesh::trust::{ClientRevocation, Revocations, TokenRevocation};

use crate::client::{Client, CredentialId};
use crate::ring::{KeyRing, Listeners};
use crate::store::ResourceIndex;

/// One committed state. Cheap to clone: its parts are shared.
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
    /// What their resources mean.
    pub resources: ResourceIndex,
    /// The signing keys.
    pub ring: Arc<KeyRing>,
    /// Who ever listened to what is published.
    pub listeners: Listeners,
    /// What is revoked.
    pub revocations: Revocations,
}

/// One thing to change. The store writes it down, then the state takes it on.
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
        /// When it has expired everywhere.
        until: Timestamp,
        /// Whom it is for; none when only its id is known.
        audience: Option<Audience>,
    },
    /// Revokes what was issued to a client.
    RevokeClient {
        /// Which one.
        id: ClientId,
        /// What was issued before this.
        before: Timestamp,
        /// When all of it has expired everywhere.
        until: Timestamp,
        /// Whom that can be for.
        audiences: Arc<[Audience]>,
    },
    /// Notes when a credential was last used.
    TouchCredential(ClientId, CredentialId, Timestamp),
    /// Notes that someone listens: what is set is set for good.
    NoteListeners(Listeners),
    /// Notes that the process stops, and that all uses of credentials since then are written down.
    StopInOrder {
        /// Since when.
        uses_known_since: Timestamp,
    },
    /// Writes, and changes nothing: to see that the store can be written.
    Nothing,
    /// Forgets revocations and requests that matter no more, and audit events from before a time.
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

    /// The state after a change: the one place that says what a change does.
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
            // The time is in the credential already: that is where it was first noted.
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

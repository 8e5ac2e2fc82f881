//! The committed state, in memory. All readers read it instead of the database.

use std::sync::Arc;

use countersign_mesh::claims::{Audience, ClientId, Issuer, Timestamp, TokenId};
use countersign_mesh::internals::CowMap;
use countersign_mesh::trust::{ClientRevocation, Revocations, TokenRevocation};

use crate::client::{Client, CredentialId};
use crate::ring::{KeyRing, Listeners};
use crate::store::ResourceIndex;

/// One committed state. It is cheap to clone, since clones share its parts.
#[derive(Debug, Clone)]
pub struct State {
    /// The issuer of this store's tokens. It never changes.
    pub issuer: Issuer,
    /// Grows with every change of keys or revocations.
    pub epoch: u64,
    /// Grows with every change of a client.
    pub revision: u64,
    /// The registered clients.
    pub clients: CowMap<ClientId, Arc<Client>>,
    /// Which audience each of the clients' resource URIs stands for.
    pub resources: ResourceIndex,
    /// The signing keys.
    pub ring: Arc<KeyRing>,
    /// Whether anyone has ever received keys over the trust stream, or fetched the JWKS.
    pub listeners: Listeners,
    /// The revoked tokens, clients and keys.
    pub revocations: Revocations,
}

/// One thing to change. The writer writes its rows and applies it to the [`State`].
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
        /// The token's id (`jti`).
        id: TokenId,
        /// When the token has expired by every clock.
        until: Timestamp,
        /// The token's audience; `None` when only its id is known.
        audience: Option<Audience>,
    },
    /// Revokes the tokens that were issued to a client before a time.
    RevokeClient {
        /// The client.
        id: ClientId,
        /// Tokens issued before this are revoked.
        before: Timestamp,
        /// When all of them have expired by every clock.
        until: Timestamp,
        /// The audiences that they can be for.
        audiences: Arc<[Audience]>,
    },
    /// Notes when a credential was last used.
    TouchCredential(ClientId, CredentialId, Timestamp),
    /// Notes that someone listens. What is once set stays set.
    NoteListeners(Listeners),
    /// Notes that the process stops in order, with all uses of credentials since a time written.
    StopInOrder {
        /// That time.
        uses_known_since: Timestamp,
    },
    /// Changes nothing. It is committed to find out whether the store can be written.
    Nothing,
    /// Deletes what is too old to matter: revocations, answered requests and audit events.
    Expire {
        /// The current time.
        now: Timestamp,
        /// Audit events older than this are past retention.
        audit_before: Timestamp,
    },
}

impl State {
    /// The revision that the next change of a client gets.
    pub fn next_revision(&self) -> u64 {
        self.revision + 1
    }

    /// Returns the state after a change. What a change does to the state is defined here and nowhere else.
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
            // The clients in this state already have the time of use: it was set there, in memory, first.
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

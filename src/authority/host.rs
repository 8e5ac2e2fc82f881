//! Acts on the host itself. They need the store's files and the key-encryption key (KEK), and no server may
//! have the store open.

use std::path::Path;
use std::sync::Arc;

use countersign_mesh::claims::{COUNTERSIGN, ClientId, Clock, Issuer, ScopeSet, Timestamp};
use countersign_mesh::keys::SigningKey;

use crate::authority::TAIL;
use crate::client::{
    Client, ClientSecret, ClientSettings, Credential, CredentialKind, GrantRule, Grants,
    SecretHash, Serves,
};
use crate::policy::ADMINISTRATIVE_SCOPES;
use crate::ring::{ClockBehind, KeyRing};
use crate::store::{
    self, AuditEvent, Change, CommitError, Decision, Kek, Reservation, Restored, State, Store,
    StoreError, Writes,
};

/// A client that is about to be made on the host, with its first secret.
pub struct NewClient {
    client: Client,
    /// The secret. This is the only time that it can be shown.
    pub secret: ClientSecret,
}

/// Why an act on the host had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostError {
    /// The store cannot be opened, read or written.
    Store(StoreError),
    /// A client with this id exists already.
    ClientExists(ClientId),
    /// See [`ClockBehind`].
    ClockBehind(ClockBehind),
}

impl NewClient {
    /// A client with these grants, which serves these audiences.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(
        id: ClientId,
        description: &str,
        grants: Grants,
        serves: Serves,
        now: Timestamp,
    ) -> Result<Self, getrandom::Error> {
        let secret = ClientSecret::generate()?;
        let kind = CredentialKind::Secret(SecretHash::of(secret.expose()));
        let stored = Credential::new(kind, now, None);
        let settings = ClientSettings {
            description: description.into(),
            grants,
            serves,
            ..ClientSettings::default()
        };
        let client =
            Client { credentials: vec![Arc::new(stored)], ..Client::new(id, settings, now) };
        Ok(Self { client, secret })
    }

    /// An operator with every administrative scope.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn operator(
        id: ClientId,
        description: &str,
        now: Timestamp,
    ) -> Result<Self, getrandom::Error> {
        let audience = COUNTERSIGN.parse().expect("our own audience is valid");
        let scopes = ScopeSet::from_texts(ADMINISTRATIVE_SCOPES).expect("our own scopes are valid");
        let grants =
            Grants::try_from(vec![GrantRule { audience, scopes }]).expect("one grant with scopes");
        Self::new(id, description, grants, Serves::default(), now)
    }

    /// Its id.
    pub fn id(&self) -> &ClientId {
        &self.client.id
    }
}

/// Creates a store with fresh keys and its first clients.
///
/// # Errors
/// When the store cannot be written, or the system has no randomness to give.
pub fn init(
    reservation: &Reservation,
    kek: &Kek,
    issuer: &Issuer,
    clients: &[NewClient],
    now: Timestamp,
) -> Result<(), StoreError> {
    let ring = KeyRing::new(SigningKey::generate()?, SigningKey::generate()?, now);
    let names: Vec<&str> = clients.iter().map(|client| client.id().as_str()).collect();
    let event =
        host_event("store.init", issuer.as_str(), format!("clients {}", names.join(" ")), now);
    store::create(
        reservation,
        kek,
        issuer,
        &ring,
        clients.iter().map(|new| new.client.clone()).collect(),
        &event,
    )
}

/// Adds an operator to a store that no server has open. This is the way back in when no client can administer
/// operators any more.
///
/// # Errors
/// When a client with its id exists, or the store cannot be opened or written.
pub async fn recover(
    path: &Path,
    kek: Kek,
    operator: &NewClient,
    now: Timestamp,
) -> Result<(), HostError> {
    let store = Store::open(path, kek)
        .and_then(|opened| opened.start(Clock::system(), |_| (), Writes::default()))
        .map_err(HostError::Store)?;
    let client = operator.client.clone();
    let decide = move |state: &State, _| {
        if state.clients.get(&client.id).is_some() {
            return Err(client.id);
        }
        let event = host_event("operator.recover", client.id.as_str(), String::new(), now);
        Ok(Decision { changes: vec![Change::PutClient(client)], events: vec![event], answer: () })
    };
    store.commit(decide).await.map_err(|error| match error {
        CommitError::Refused(id) => HostError::ClientExists(id),
        CommitError::Store(error) => HostError::Store(error),
    })
}

/// Replaces a store that no server has open with a backup. With `from` as `None`, it makes a raw
/// copy that is already in place usable.
///
/// All keys of the backup are revoked and two fresh ones take over, so that no earlier token is accepted. That
/// is necessary because revocations since the backup are lost.
///
/// # Errors
/// When the backup is damaged or belongs to another store, the clock is behind its keys, or the store cannot be
/// written.
pub fn restore(
    path: &Path,
    kek: Kek,
    from: Option<&Path>,
    now: Timestamp,
) -> Result<Restored, HostError> {
    let fresh = || SigningKey::generate().map_err(|error| HostError::Store(error.into()));
    let (active, next) = (fresh()?, fresh()?);
    let renew = move |state: &State, highest: u64| {
        let ring = state.ring.begin_anew(active, next, now, TAIL)?;
        let detail = format!("backup of epoch {}, highest known {highest}", state.epoch);
        Ok((ring, host_event("store.restore", state.issuer.as_str(), detail, now)))
    };
    store::restore(path, kek, from, now, renew).map_err(|error| match error {
        CommitError::Refused(behind) => HostError::ClockBehind(behind),
        CommitError::Store(error) => HostError::Store(error),
    })
}

fn host_event(action: &str, target: &str, detail: String, now: Timestamp) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: "host".to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        outcome: "ok".to_owned(),
        peer: String::new(),
        count: 1,
        detail,
    }
}

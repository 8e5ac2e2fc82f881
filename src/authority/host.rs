//! Acts on the host itself, with store and KEK at hand and no server running.

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

/// A client to be made on the host, and the secret that it will have.
pub struct NewClient {
    client: Client,
    /// The secret, shown this once.
    pub secret: ClientSecret,
}

/// Why an act on the host came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostError {
    /// The store cannot do it.
    Store(StoreError),
    /// There is a client of this name already.
    ClientExists(ClientId),
    /// See [`ClockBehind`].
    ClockBehind(ClockBehind),
}

impl NewClient {
    /// A client with these grants and audiences.
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

    /// Its name.
    pub fn id(&self) -> &ClientId {
        &self.client.id
    }
}

/// Creates a store with fresh keys and its first clients.
///
/// # Errors
/// When the disk does not take it.
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

/// Adds an operator to a store that no server has open.
///
/// # Errors
/// When there is a client of its name, or the store cannot be opened or written.
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

/// Puts a backup in the place of a store that no server has open; without a backup, makes good a raw
/// copy that is in the place already. All its keys are revoked, so that no token from before is accepted:
/// revocations since the backup are lost.
///
/// # Errors
/// When the backup does not hold, is of another store, or the disk does not take it.
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

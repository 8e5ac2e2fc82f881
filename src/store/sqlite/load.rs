//! From rows to the [`State`].

use countersign_mesh::claims::{Audience, MAX_TOKEN_LIFE, TokenId};
use countersign_mesh::internals::CowMap;
use countersign_mesh::keys::{PublicKey, SigningKey};
use countersign_mesh::trust::{ClientRevocation, Revocations, TokenRevocation};
use rusqlite::Row;
use thin_vec::ThinVec;

use super::*;
use crate::client::{
    ClientSettings, Credential, CredentialId, CredentialKind, GrantRule, Grants, LastUse,
    ResourceAlias, Resources, Serves,
};
use crate::ring::{ActiveKey, NextKey, RetiredKey, RevokedKey};
use crate::store::ResourceIndex;

/// The value of a name in `meta`.
pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .optional()
}

/// A counter in `meta`: the epoch or the revision.
pub(super) fn counter(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    let bytes = meta(connection, name)?.and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| corrupt(name))
}

/// Reads the whole state.
pub(super) fn state(
    connection: &Connection,
    kek: &Kek,
    store_id: &[u8],
) -> Result<State, StoreError> {
    let issuer = meta(connection, "issuer")?
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| Issuer::new(&text).ok())
        .ok_or_else(|| corrupt("issuer"))?;
    let ring = Arc::new(ring(connection, kek, store_id)?);
    let mut revocations = revocations(connection)?;
    revocations.set_keys(ring.revoked_kids());
    let clients = clients(connection)?;
    Ok(State {
        issuer,
        epoch: counter(connection, "epoch")?,
        revision: counter(connection, "revision")?,
        resources: ResourceIndex::of(clients.iter().map(|(_, client)| &**client)),
        clients,
        ring,
        listeners: listeners(connection)?,
        revocations,
    })
}

/// The time since when every use of a credential is in the store. `None` unless the last process that noted
/// uses stopped in order.
pub(super) fn uses_known_since(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let bytes = meta(connection, CLEAN_STOP)?.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map(|bytes| Timestamp::from_unix(u64::from_be_bytes(bytes))))
}

/// Reads whether anyone has ever listened. Stores from versions before the trust stream have no such note, but
/// their JWKS may have been polled.
fn listeners(connection: &Connection) -> Result<Listeners, StoreError> {
    match meta(connection, "listeners")?.as_deref() {
        None => Ok(Listeners { streamed: false, polled: true }),
        Some([streamed @ (0 | 1), polled @ (0 | 1)]) => {
            Ok(Listeners { streamed: *streamed == 1, polled: *polled == 1 })
        }
        Some(_) => Err(corrupt("who listened")),
    }
}

fn clients(connection: &Connection) -> Result<CowMap<ClientId, Arc<Client>>, StoreError> {
    let mut credentials = connection.prepare(
        "SELECT client_id, credential_id, kind, content, created_at, expires_at, last_used_at, retire_when_idle
         FROM client_credential ORDER BY client_id, created_at, credential_id",
    )?;
    let mut credentials = credentials.query([])?;
    let mut stored = credentials.next()?;

    let mut statement = connection.prepare(
        "SELECT client_id, description, grants, serves, max_token_ttl, disabled, created_at, updated_at, revision,
                resources, former_audiences
         FROM clients ORDER BY client_id",
    )?;
    let mut rows = statement.query([])?;
    let mut grants = Shared::<Vec<GrantRule>, Grants>::default();
    let mut serves = Shared::<Vec<Audience>, Serves>::default();
    let mut resources = Shared::<Vec<ResourceAlias>, Resources>::default();
    let mut clients = CowMap::default();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_str().map_err(|_| corrupt("client_id"))?;
        let settings = ClientSettings {
            description: row.get::<_, String>(1)?.into(),
            grants: grants.parse(row.get_ref(2)?.as_str().map_err(|_| corrupt("grants"))?)?,
            serves: serves.parse(row.get_ref(3)?.as_str().map_err(|_| corrupt("serves"))?)?,
            max_token_ttl: row.get::<_, Option<i64>>(4)?.map(life).transpose()?,
            disabled: row.get(5)?,
            resources: resources
                .parse(row.get_ref(9)?.as_str().map_err(|_| corrupt("resources"))?)?,
        };
        let created_at = time(row.get(6)?);
        let mut client = Client {
            updated_at: time(row.get(7)?),
            revision: row.get::<_, i64>(8)? as u64,
            former_audiences: former_audiences(row.get_ref(10)?.as_str())?,
            ..Client::new(
                ClientId::new(id).map_err(|_| corrupt("client_id"))?,
                settings,
                created_at,
            )
        };
        // Both queries are ordered by client id, so one pass over each is enough.
        while let Some(row) = stored.filter(|row| is_of(row, id)) {
            client.credentials.push(Arc::new(credential(row)?));
            stored = credentials.next()?;
        }
        client.credentials.shrink_to_fit();
        clients.insert(client.id.clone(), Arc::new(client));
    }
    Ok(clients)
}

/// Whether the first column of a row is this client's id.
fn is_of(row: &Row<'_>, client_id: &str) -> bool {
    row.get_ref(0).is_ok_and(|id| id.as_str() == Ok(client_id))
}

fn credential(row: &Row<'_>) -> Result<Credential, StoreError> {
    let bad = || corrupt("a client's credential");
    let id: CredentialId =
        row.get_ref(1)?.as_str().map_err(|_| bad())?.parse().map_err(|_| bad())?;
    let content = row.get_ref(3)?.as_blob().map_err(|_| bad())?;
    let kind = row.get_ref(2)?.as_str().map_err(|_| bad())?;
    let kind = CredentialKind::from_content(kind, content).ok_or_else(bad)?;
    // The id of a key or a certificate name follows from its content. The id of a secret is arbitrary: older
    // versions numbered the first secrets of a store.
    let is_named = matches!(kind, CredentialKind::Secret(_)) || kind.ids().any(|own| own == id);
    if !is_named {
        return Err(bad());
    }
    Ok(Credential {
        id,
        kind,
        created_at: time(row.get(4)?),
        expires_at: row.get::<_, Option<i64>>(5)?.map(time),
        last_use: LastUse::from_store(row.get::<_, Option<i64>>(6)?.map(time)),
        retire_when_idle: row.get::<_, Option<i64>>(7)?.map(span).transpose()?,
    })
}

/// Parses JSON, and each distinct text only once. Many clients have the same grants, which then share memory.
struct Shared<J, T> {
    known: std::collections::HashMap<Box<str>, T>,
    _json: std::marker::PhantomData<J>,
}

impl<J, T> Default for Shared<J, T> {
    fn default() -> Self {
        Self { known: std::collections::HashMap::new(), _json: std::marker::PhantomData }
    }
}

impl<J, T> Shared<J, T>
where
    J: serde::de::DeserializeOwned,
    T: TryFrom<J> + Clone,
{
    fn parse(&mut self, json: &str) -> Result<T, StoreError> {
        if let Some(known) = self.known.get(json) {
            return Ok(known.clone());
        }
        let parsed: J = serde_json::from_str(json).map_err(|_| corrupt("a client's grants"))?;
        let value = T::try_from(parsed).map_err(|_| corrupt("a client's grants"))?;
        self.known.insert(json.into(), value.clone());
        Ok(value)
    }
}

fn ring(connection: &Connection, kek: &Kek, store_id: &[u8]) -> Result<KeyRing, StoreError> {
    let mut statement = connection.prepare(
        "SELECT kid, state, public, sealed, created_at, activated_at, ended_at, gone_at FROM keys",
    )?;
    let mut rows = statement.query([])?;
    let (mut next, mut active, mut retired, mut revoked) = (None, None, Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let kid: String = row.get(0)?;
        let bad = || StoreError::BadSealedKey(kid.clone());
        let key = PublicKey::from_bytes(&row.get(2)?).map_err(|_| bad())?;
        if key.kid().as_str() != kid {
            return Err(bad());
        }
        let unseal = || -> Result<Arc<SigningKey>, StoreError> {
            let sealed: Vec<u8> = row.get(3)?;
            kek.unseal(store_id, &key, &sealed).map(Arc::new).ok_or_else(bad)
        };
        let created_at = time(row.get(4)?);
        let at = |column| -> Result<Timestamp, StoreError> {
            row.get::<_, Option<i64>>(column)?
                .map(time)
                .ok_or_else(|| corrupt("the times of a key"))
        };
        match row.get::<_, String>(1)?.as_str() {
            "next" => next = Some(NextKey { key: unseal()?, created_at }),
            "active" => {
                active = Some(ActiveKey { key: unseal()?, created_at, activated_at: at(5)? })
            }
            "retired" => retired.push(RetiredKey {
                key,
                created_at,
                activated_at: at(5)?,
                retired_at: at(6)?,
                verifies_until: at(7)?,
            }),
            _ => {
                revoked.push(RevokedKey { key, created_at, revoked_at: at(6)?, forget_at: at(7)? })
            }
        }
    }
    let active = active.ok_or_else(|| corrupt("the active key"))?;
    let next = next.ok_or_else(|| corrupt("the next key"))?;
    let ring = KeyRing::from_parts(active, next, retired, revoked);
    // The rows of retired keys have nothing sealed. Without this MAC, whoever can write to the database could add
    // a retired key of their own, and tokens that they signed would verify.
    if meta(connection, "ring")?.as_deref() != Some(&kek.ring_mac(store_id, &ring)[..]) {
        return Err(StoreError::BadKeyRing);
    }
    Ok(ring)
}

fn revocations(connection: &Connection) -> Result<Revocations, StoreError> {
    let mut tokens = Vec::new();
    let mut statement =
        connection.prepare("SELECT token_id, until, audience, epoch FROM revoked_tokens")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
        let id = text(0)?.and_then(|id| TokenId::new(id).ok());
        let audience = text(2)?.map(Audience::new).transpose();
        tokens.push((
            id.ok_or_else(|| corrupt("a token id"))?,
            TokenRevocation {
                until: time(row.get(1)?),
                audience: audience.map_err(|_| corrupt("an audience"))?,
                epoch: row.get::<_, i64>(3)? as u64,
            },
        ));
    }
    let mut clients = Vec::new();
    let mut statement = connection
        .prepare("SELECT client_id, before, until, audiences, epoch FROM revoked_clients")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
        let id = text(0)?.and_then(|id| ClientId::new(id).ok());
        let audiences = text(3)?.map(serde_json::from_str::<Vec<Audience>>).transpose();
        clients.push((
            id.ok_or_else(|| corrupt("client_id"))?,
            ClientRevocation {
                before: time(row.get(1)?),
                until: time(row.get(2)?),
                audiences: audiences.map_err(|_| corrupt("audiences"))?.map(Arc::from),
                epoch: row.get::<_, i64>(4)? as u64,
            },
        ));
    }
    Ok(Revocations::read(tokens, clients))
}

fn former_audiences(
    json: rusqlite::types::FromSqlResult<&str>,
) -> Result<ThinVec<(Audience, Timestamp)>, StoreError> {
    let json = json.map_err(|_| corrupt("former_audiences"))?;
    // Hardly any client has former audiences, so this skips the parser for nearly all of them.
    if json == "[]" {
        return Ok(ThinVec::new());
    }
    serde_json::from_str(json).map_err(|_| corrupt("former_audiences"))
}

fn life(seconds: i64) -> Result<Duration, StoreError> {
    let life = u64::try_from(seconds).map(Duration::from_secs).ok();
    life.filter(|life| !life.is_zero() && *life <= MAX_TOKEN_LIFE)
        .ok_or_else(|| corrupt("max_token_ttl"))
}

fn span(seconds: i64) -> Result<Duration, StoreError> {
    u64::try_from(seconds).map(Duration::from_secs).map_err(|_| corrupt("retire_when_idle"))
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds as u64)
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}

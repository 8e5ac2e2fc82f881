//! The SQL that writes changes as rows. Each function runs in the writer's open transaction.

use countersign_mesh::claims::{Kid, TokenId};
use countersign_mesh::trust::{ClientRevocation, TokenRevocation};

use super::*;
use crate::client::CredentialId;
use crate::ring::{KeyInfo, KeyState};

pub(super) fn write_counters(
    connection: &Connection,
    epoch: u64,
    revision: u64,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
    statement.execute(params!["epoch", epoch.to_be_bytes()])?;
    statement.execute(params!["revision", revision.to_be_bytes()])?;
    Ok(())
}

pub(super) fn put_listeners(connection: &Connection, listeners: Listeners) -> rusqlite::Result<()> {
    let Listeners { streamed, polled } = listeners;
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('listeners', ?1)")?
        .execute([[u8::from(streamed), u8::from(polled)]])
        .map(|_| ())
}

pub(super) fn put_clean_stop(connection: &Connection, since: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
        .execute(params![CLEAN_STOP, since.as_unix().to_be_bytes()])
        .map(|_| ())
}

pub(super) fn remove_clean_stop(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM meta WHERE name = ?1")?.execute([CLEAN_STOP]).map(|_| ())
}

pub(super) fn put_client(connection: &Connection, client: &Client) -> rusqlite::Result<()> {
    let settings = &client.settings;
    connection
        .prepare_cached(
            "INSERT INTO clients (client_id, description, grants, serves, max_token_ttl, disabled,
                                  created_at, updated_at, revision, resources, former_audiences)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (client_id) DO UPDATE SET
                description = ?2, grants = ?3, serves = ?4, max_token_ttl = ?5, disabled = ?6,
                created_at = ?7, updated_at = ?8, revision = ?9, resources = ?10,
                former_audiences = ?11",
        )?
        .execute(params![
            client.id.as_str(),
            &*settings.description,
            serde_json::to_string(&settings.grants).expect("grants are always JSON"),
            serde_json::to_string(&settings.serves).expect("audiences are always JSON"),
            settings.max_token_ttl.map(|ttl| ttl.as_secs() as i64),
            settings.disabled,
            seconds(client.created_at),
            seconds(client.updated_at),
            client.revision as i64,
            serde_json::to_string(&settings.resources).expect("resources are always JSON"),
            serde_json::to_string(&client.former_audiences)
                .expect("names and times are always JSON"),
        ])?;
    put_credentials(connection, client)
}

fn put_credentials(connection: &Connection, client: &Client) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM client_credential WHERE client_id = ?1")?
        .execute([client.id.as_str()])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO client_credential (client_id, credential_id, kind, content, created_at, expires_at,
                                        last_used_at, retire_when_idle)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for credential in &client.credentials {
        let retire_when_idle = credential.retire_when_idle.map(|span| span.as_secs());
        insert.execute(params![
            client.id.as_str(),
            credential.id.as_str(),
            credential.kind.as_str(),
            credential.kind.content(),
            seconds(credential.created_at),
            credential.expires_at.map(seconds),
            credential.last_use.time().map(seconds),
            retire_when_idle.map(|span| i64::try_from(span).unwrap_or(i64::MAX)),
        ])?;
    }
    Ok(())
}

pub(super) fn remove_client(connection: &Connection, id: &ClientId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM clients WHERE client_id = ?1")?
        .execute([id.as_str()])
        .map(|_| ())
}

/// Writes the keys that differ from those of `before`, and the MAC over the whole ring.
pub(super) fn replace_ring(
    connection: &Connection,
    kek: &Kek,
    store_id: &[u8],
    before: Option<&KeyRing>,
    ring: &KeyRing,
) -> Result<(), StoreError> {
    let before = before.map(by_kid).unwrap_or_default();
    let after = by_kid(ring);
    // Old rows are deleted first. A unique index allows one active key and one next key, even within the
    // transaction.
    for kid in before.iter().filter(|(kid, row)| after.get(*kid) != Some(*row)).map(|(kid, _)| kid)
    {
        connection.prepare_cached("DELETE FROM keys WHERE kid = ?1")?.execute([kid.as_str()])?;
    }
    for (kid, row) in after.iter().filter(|(kid, row)| before.get(*kid) != Some(*row)) {
        let key = [&ring.active().key, &ring.next().key].into_iter().find(|key| key.kid() == kid);
        let sealed = key.map(|key| kek.seal(store_id, key)).transpose().map_err(|_| {
            StoreError::Unavailable("the system has no randomness to give".to_owned())
        })?;
        connection
            .prepare_cached(
                "INSERT INTO keys (kid, state, public, sealed, created_at, activated_at, ended_at, gone_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                kid.as_str(),
                state_name(row.state),
                row.public_key,
                sealed,
                seconds(row.created_at),
                row.activated_at.map(seconds),
                row.ended_at.map(seconds),
                row.gone_at.map(seconds),
            ])?;
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('ring', ?1)")?
        .execute([kek.ring_mac(store_id, ring)])?;
    Ok(())
}

fn by_kid(ring: &KeyRing) -> BTreeMap<Kid, KeyInfo> {
    ring.keys().into_iter().map(|key| (key.kid.clone(), key)).collect()
}

fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Next => "next",
        KeyState::Active => "active",
        KeyState::Retired => "retired",
        KeyState::Revoked => "revoked",
    }
}

pub(super) fn revoke_token(
    connection: &Connection,
    id: &TokenId,
    revocation: &TokenRevocation,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO revoked_tokens (token_id, until, audience, epoch)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            id.as_str(),
            seconds(revocation.until),
            revocation.audience.as_ref().map(|audience| audience.as_str()),
            revocation.epoch as i64,
        ])
        .map(|_| ())
}

pub(super) fn revoke_client(
    connection: &Connection,
    id: &ClientId,
    revocation: &ClientRevocation,
) -> rusqlite::Result<()> {
    let audiences = revocation
        .audiences
        .as_ref()
        .map(|audiences| serde_json::to_string(&audiences[..]).expect("audiences are always JSON"));
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO revoked_clients (client_id, before, until, audiences, epoch)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            id.as_str(),
            seconds(revocation.before),
            seconds(revocation.until),
            audiences,
            revocation.epoch as i64,
        ])
        .map(|_| ())
}

pub(super) fn touch_credential(
    connection: &Connection,
    client: &ClientId,
    credential: &CredentialId,
    at: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE client_credential SET last_used_at = ?3 WHERE client_id = ?1 AND credential_id = ?2",
        )?
        .execute(params![client.as_str(), credential.as_str(), seconds(at)])
        .map(|_| ())
}

pub(super) fn expire(
    connection: &Connection,
    now: Timestamp,
    requests_before: Timestamp,
) -> rusqlite::Result<()> {
    let now = seconds(now);
    connection.prepare_cached("DELETE FROM revoked_tokens WHERE until <= ?1")?.execute([now])?;
    connection.prepare_cached("DELETE FROM revoked_clients WHERE until <= ?1")?.execute([now])?;
    connection
        .prepare_cached("DELETE FROM requests WHERE at <= ?1")?
        .execute([seconds(requests_before)])?;
    Ok(())
}

pub(super) fn answered(
    connection: &Connection,
    request: &RequestKey,
) -> rusqlite::Result<Option<(Vec<u8>, String)>> {
    connection
        .prepare_cached(
            "SELECT fingerprint, answer FROM requests WHERE actor = ?1 AND request_id = ?2",
        )?
        .query_row(params![request.actor.as_str(), request.id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
}

pub(super) fn remember_answer(
    connection: &Connection,
    request: &RequestKey,
    answer: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO requests (actor, request_id, fingerprint, answer, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![request.actor.as_str(), request.id, request.fingerprint, answer, seconds(now)])
        .map(|_| ())
}

fn seconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_unix()).unwrap_or(i64::MAX)
}

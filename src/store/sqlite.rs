//! The database file. It is checked when it is opened, read whole once, and then only written to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Issuer, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use zeroize::Zeroizing;

use crate::client::Client;
use crate::ring::{KeyRing, Listeners};
use crate::store::audit::{self, AuditEvent, AuditHead, AuditReport, Chain, ChainError};
use crate::store::commit::RequestKey;
use crate::store::durable::sync_name;
use crate::store::kek::Kek;
use crate::store::mark::Mark;
use crate::store::migrations;
use crate::store::reservation::{Reservation, lock, private_options};
use crate::store::state::{Change, State};

pub(super) mod error;
mod load;
mod restore;
mod rows;

pub use self::error::StoreError;
pub use self::restore::{Restored, back_up, restore};

/// The epoch of a new store. An epoch is a number of 53 bits, so that JSON can carry it. Its low 32 bits count
/// changes; the bits above are the generation. Each restore of a backup begins a new generation.
const FIRST_EPOCH: u64 = 1;

/// How long a request that is sent again gets the same answer.
const REQUEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The name of a note in `meta` that exists only after an orderly stop. Its value is a time: every use of a
/// credential since then is in the store.
const CLEAN_STOP: &str = "clean_stop";

/// The one connection that writes, with what it needs to write.
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) chain: Chain,
    path: PathBuf,
    kek: Kek,
    store_id: [u8; 16],
    mark: Option<Mark>,
    /// Held for as long as the database is open, so that no other process opens it.
    _lock: File,
}

/// Creates a store with its keys, its first clients and its first audit event, in one transaction.
///
/// # Errors
/// When a file cannot be written. The store does not exist then.
pub fn create(
    reservation: &Reservation,
    kek: &Kek,
    issuer: &Issuer,
    ring: &KeyRing,
    clients: Vec<Client>,
    event: &AuditEvent,
) -> Result<(), StoreError> {
    let mut store_id = [0; 16];
    getrandom::fill(&mut store_id)?;
    let path = reservation.path();
    // The database is built under another name and renamed once it is complete, so that a crash never leaves
    // half a store.
    let unavailable =
        |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let building = path.with_extension("new");
    for left_over in ["new", "new-wal", "new-shm"] {
        let _ = fs::remove_file(path.with_extension(left_over));
    }
    // The file has mode 0600 from the start. SQLite gives its journals the mode of the database.
    private_options().create_new(true).open(&building).map_err(unavailable)?;

    let mut connection = connect(&building, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    migrations::migrate(&mut connection, 0)?;
    let transaction = connection.transaction()?;
    let put = |name: &str, value: &dyn rusqlite::ToSql| {
        transaction.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value])
    };
    put("store_id", &store_id)?;
    put("issuer", &issuer.as_str().as_bytes())?;
    put("kek", &kek.fingerprint(&store_id))?;
    rows::write_counters(&transaction, FIRST_EPOCH, clients.len() as u64)?;
    rows::put_listeners(&transaction, Listeners::default())?;
    rows::replace_ring(&transaction, kek, &store_id, None, ring)?;
    for (revision, mut client) in (1..).zip(clients) {
        client.revision = revision;
        rows::put_client(&transaction, &client)?;
    }
    Chain::begin(&transaction, kek)?.append(&transaction, event)?;
    transaction.pragma_update(None, "application_id", migrations::APPLICATION_ID)?;
    transaction.commit()?;
    // Closing the last connection moves everything from the write-ahead log to the database, so that renaming
    // one file is enough.
    connection.close().map_err(|(_, error)| StoreError::from(error))?;
    fs::rename(&building, path).map_err(unavailable)?;
    let named = sync_name(path).map_err(unavailable);
    let mark = |file: PathBuf| Mark::create(&file, kek, &store_id, FIRST_EPOCH).map(drop);
    named.and_then(|()| kek.epoch_file(&store_id).map_or(Ok(()), mark)).inspect_err(|_| {
        // The caller deletes the first operator's credentials when this fails. Without them the store would be
        // of no use, and it would stand in the way of the next attempt.
        let _ = fs::remove_file(path);
    })
}

/// Verifies the audit log of a store that may be in use, and that it contains an exported head.
///
/// # Errors
/// The outer error means that the store cannot be read; the inner one, that the chain does not hold.
pub fn verify_audit(
    path: &Path,
    kek: &Kek,
    exported: Option<&AuditHead>,
) -> Result<Result<AuditReport, ChainError>, StoreError> {
    let (mut connection, _) = connect_to_ours(path)?;
    check_kek(&connection, kek)?;
    // A transaction reads one moment of the log, while a server may go on writing to it.
    Ok(audit::verify(&*connection.transaction()?, kek, exported)?)
}

impl Database {
    /// Opens a store for writing, migrates it to this version, and reads all of it.
    pub(super) fn open(path: &Path, kek: Kek) -> Result<(Self, State), StoreError> {
        // Looked at before the lock is made: no lock file appears beside what is no store of ours.
        drop(connect_to_ours(path)?);
        let lock = lock(path)?;
        // Only now is the version ours to act on: another process may have migrated the store meanwhile.
        let (mut connection, version) = connect_to_ours(path)?;
        let store_id = check_kek(&connection, &kek)?;
        let mark = Mark::of_store(&kek, &store_id)?;
        let epoch = load::counter(&connection, "epoch")?;
        // The KEK and the mark are checked before the migration, so that a store that they refuse stays as it is.
        if let Some(mark) = mark.as_ref().map(Mark::epoch).filter(|mark| epoch < *mark) {
            return Err(StoreError::PutBack { epoch, mark });
        }
        migrations::migrate(&mut connection, version)?;
        connection.set_prepared_statement_cache_capacity(64);
        let state = load::state(&connection, &kek, &store_id)?;
        let chain = Chain::resume(&connection, &kek)?;
        let path = path.to_owned();
        let mut database = Self { connection, chain, path, kek, store_id, mark, _lock: lock };
        database.keep_mark(state.epoch)?;
        Ok((database, state))
    }

    /// Creates the mark if there is none, and raises it if it is behind the store. It is behind if the last
    /// process ended after a commit and before it raised the mark.
    fn keep_mark(&mut self, epoch: u64) -> Result<(), StoreError> {
        match (&mut self.mark, self.kek.epoch_file(&self.store_id)) {
            (Some(mark), _) => mark.raise(epoch).map_err(|error| {
                StoreError::MarkUnavailable(mark.path().to_owned(), error.to_string())
            }),
            (None, Some(file)) => {
                tracing::warn!(
                    file = %file.display(), epoch,
                    "the highest epoch was not kept until now; from here on it is"
                );
                self.mark = Some(Mark::create(&file, &self.kek, &self.store_id, epoch)?);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Raises the mark to an epoch, before anyone is told of that epoch.
    ///
    /// A failure is logged and counted, and the epoch is published all the same: a revocation that nobody hears
    /// of is worse than an old copy that nobody notices. Every batch tries again, so at least once a minute.
    pub(super) fn raise_mark(&mut self, epoch: u64) {
        if let Some(mark) = &mut self.mark
            && let Err(error) = mark.raise(epoch)
        {
            metrics::counter!("countersign_epoch_mark_failures_total").increment(1);
            tracing::error!(
                file = %mark.path().display(), %error, epoch,
                "the highest epoch could not be kept: should an old copy of the store be put back now, that may go \
                 unnoticed"
            );
        }
    }

    /// The key for proofs of epochs, and the store id that each proof covers.
    pub(super) fn proof_key(&self) -> (Zeroizing<[u8; 32]>, [u8; 16]) {
        (self.kek.derive("countersign epoch proof v1"), self.store_id)
    }

    /// Returns the time since when every use of a credential is in the store. Uses are noted in memory first,
    /// so a process that ends without [`Change::StopInOrder`] may lose some; then that time is `now`.
    ///
    /// It removes the note of the last orderly stop. So if this process crashes, the next one finds no note.
    pub(super) fn begin_noting_uses(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        match load::uses_known_since(&self.connection)? {
            Some(since) => {
                // A server whose store is read-only still serves. Each maintenance tries again to remove the note.
                if let Err(error) = rows::remove_clean_stop(&self.connection) {
                    tracing::warn!(%error, "the store still has the note that the last stop was in order");
                }
                Ok(since)
            }
            None => Ok(now),
        }
    }

    /// A second connection, for reading the audit log while the writer writes.
    pub(super) fn reader(&self) -> Result<Connection, StoreError> {
        Ok(connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
    }

    /// Writes the rows of one change, within the open transaction of this connection.
    pub(super) fn write(
        &mut self,
        change: &Change,
        before: &State,
        after: &State,
    ) -> Result<(), StoreError> {
        let connection = &self.connection;
        match change {
            Change::PutClient(client) => {
                let client = Client { revision: after.revision, ..client.clone() };
                rows::put_client(connection, &client)?;
            }
            Change::RemoveClient(id) => rows::remove_client(connection, id)?,
            Change::ReplaceRing(ring) => {
                rows::replace_ring(
                    connection,
                    &self.kek,
                    &self.store_id,
                    Some(&before.ring),
                    ring,
                )?;
            }
            // The state has merged this revocation with an earlier one of the same token. The merged one is
            // written.
            Change::RevokeToken { id, .. } => {
                if let Some(revocation) = after.revocations.token(id) {
                    rows::revoke_token(connection, id, revocation)?;
                }
            }
            Change::RevokeClient { id, .. } => {
                if let Some(revocation) = after.revocations.client(id) {
                    rows::revoke_client(connection, id, revocation)?;
                }
            }
            Change::TouchCredential(client, credential, at) => {
                rows::touch_credential(connection, client, credential, *at)?;
            }
            Change::NoteListeners(_) => rows::put_listeners(connection, after.listeners)?,
            Change::StopInOrder { uses_known_since } => {
                rows::put_clean_stop(connection, *uses_known_since)?;
            }
            Change::Nothing => {}
            Change::Expire { now, audit_before } => {
                rows::expire(connection, *now, now.before(REQUEST_LIFE))?;
                rows::remove_clean_stop(connection)?;
                self.chain.prune(connection, *audit_before)?;
            }
        }
        Ok(())
    }

    /// Writes the epoch and the revision. Called once for all changes of a decision, after them.
    pub(super) fn write_counters(&self, state: &State) -> Result<(), StoreError> {
        Ok(rows::write_counters(&self.connection, state.epoch, state.revision)?)
    }

    /// Adds an event to the audit log, in the transaction of the act that the event describes.
    pub(super) fn record(&mut self, event: &AuditEvent) -> Result<(), StoreError> {
        Ok(self.chain.append(&self.connection, event)?)
    }

    /// The fingerprint of a request that was answered before, and its answer in JSON.
    pub(super) fn answered(
        &self,
        request: &RequestKey,
    ) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        Ok(rows::answered(&self.connection, request)?)
    }

    /// Remembers the answer to a request.
    pub(super) fn remember_answer(
        &self,
        request: &RequestKey,
        answer: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        Ok(rows::remember_answer(&self.connection, request, answer, now)?)
    }
}

/// Opens a Countersign database of a version that this program knows, and returns that version. A file that is
/// something else, or newer, is not changed.
fn connect_to_ours(path: &Path) -> Result<(Connection, i32), StoreError> {
    if !path.exists() {
        return Err(StoreError::NotFound(path.to_owned()));
    }
    let probe = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // By default, closing the last connection checkpoints the write-ahead log. The probe must not do that: the
    // log may be what another process left, and the file may turn out not to be ours.
    let mut journal = path.as_os_str().to_owned();
    journal.push("-wal");
    let has_journal = fs::metadata(journal).is_ok_and(|file| file.len() > 0);
    probe.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_journal)?;
    let pragma = |name: &str| probe.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application_id =
        pragma("application_id").map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => StoreError::NotOurs(path.to_owned()),
            _ => error.into(),
        })?;
    if application_id != migrations::APPLICATION_ID {
        return Err(StoreError::NotOurs(path.to_owned()));
    }
    let version = pragma("user_version")?;
    if version > migrations::VERSION {
        return Err(StoreError::TooNew { found: version, known: migrations::VERSION });
    }
    drop(probe);
    Ok((connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?, version))
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // With FULL, an acknowledged change survives a power cut; with NORMAL, only a crash of the process.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Deleted rows are overwritten with zeros, such as the sealed private keys of keys that sign no more.
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(connection)
}

fn check_kek(connection: &Connection, kek: &Kek) -> Result<[u8; 16], StoreError> {
    let missing = |name: &str| StoreError::Corrupt(format!("{name} is missing"));
    let store_id: [u8; 16] = load::meta(connection, "store_id")?
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| missing("store_id"))?;
    let fingerprint = load::meta(connection, "kek")?.ok_or_else(|| missing("kek"))?;
    if fingerprint != kek.fingerprint(&store_id) {
        return Err(StoreError::WrongKek);
    }
    Ok(store_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_rows_do_not_stay_in_free_pages() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("db");
        let sealed = [0xa5; 3000];
        let on_disk = || {
            fs::read(&path).expect("the database exists").windows(64).any(|w| w == &sealed[..64])
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let open = || connect(&path, flags).expect("the database opens");

        let connection = open();
        connection
            .execute_batch("CREATE TABLE keys (sealed BLOB)")
            .expect("the database has no table");
        connection.execute("INSERT INTO keys VALUES (?1)", [&sealed[..]]).expect("the row fits");
        connection.close().expect("nothing else uses it");
        assert!(on_disk());

        let connection = open();
        connection.execute("DELETE FROM keys", []).expect("the table can be written");
        connection.close().expect("nothing else uses it");
        assert!(!on_disk());
    }
}

//! Backups: copies of a store that are made while it is in use, and their restoring.

use super::*;
use crate::client::ClientInfo;
use crate::store::commit::CommitError;

/// How many of the low bits of an epoch count changes. The bits above them are the generation.
const GENERATION_SHIFT: u32 = 32;

/// A new generation is at least the number of hours since 1970. A backup may be restored a second time on a
/// machine that knows nothing of the first time; this way it does not use the epochs of the first time again.
/// The 21 bits of a generation last for two centuries.
const HOUR: u64 = 60 * 60;

/// A store that was put in place from a backup.
#[derive(Debug)]
pub struct Restored {
    /// The epoch of the backup.
    pub backup_epoch: u64,
    /// The first epoch of the new generation.
    pub epoch: u64,
    /// Where the previous store is kept; `None` if there was none.
    pub aside: Option<PathBuf>,
    /// The clients as they are now, in the order of their ids.
    pub clients: Vec<ClientInfo>,
}

/// Copies a store, which may be in use, to a file that must not exist yet. The copy is of one moment, needs the
/// same KEK, and can be read only by its owner.
///
/// # Errors
/// When the store cannot be read, or the copy cannot be written. An incomplete copy is removed.
pub fn back_up(path: &Path, to: &Path) -> Result<(), StoreError> {
    let (connection, _) = connect_to_ours(path)?;
    let unavailable = |error: std::io::Error| unavailable(to, &error);
    // VACUUM INTO accepts an empty file. Creating it first gives it mode 0600, and never overwrites a file.
    let file = private_options().create_new(true).open(to).map_err(unavailable)?;
    let text = to
        .to_str()
        .ok_or_else(|| StoreError::Unavailable(format!("{} is not a name in UTF-8", to.display())));
    let copied = text.and_then(|text| {
        connection.execute("VACUUM INTO ?1", [text])?;
        // This sets the journal mode to WAL, as stores have it. Otherwise opening the copy later would write to it.
        connect(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?.close().map_err(|(_, error)| error)?;
        file.sync_all().and_then(|()| sync_name(to)).map_err(unavailable)
    });
    copied.inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

/// Puts a backup in the place of a store that no process has open. Without `from`, it restores the database
/// that is in the place already, as after a copy by hand. The previous store is kept beside the new one.
///
/// 1. The backup is copied, and the copy is checked: its KEK, its pages, its audit log, its signing keys, and that
///    it is of the same store as the one in the place.
/// 2. `renew` gets the state and the highest epoch known, and returns the new ring and the audit event.
/// 3. In the copy, a new generation begins, above every epoch known to have been published.
/// 4. The copy is renamed to its place, and then the mark is raised.
///
/// # Errors
/// When a check fails, `renew` refuses, or a file cannot be written. The previous store stays in its place then,
/// unless only the mark could not be written.
pub fn restore<E>(
    path: &Path,
    kek: Kek,
    from: Option<&Path>,
    now: Timestamp,
    renew: impl FnOnce(&State, u64) -> Result<(KeyRing, AuditEvent), E>,
) -> Result<Restored, CommitError<E>> {
    let source = from.unwrap_or(path);
    if !source.exists() {
        return Err(CommitError::Store(StoreError::NotFound(source.to_owned())));
    }
    let lock = lock(path).map_err(CommitError::Store)?;
    let building = path.with_extension("restoring");
    remove_database(&building);
    let restored = copy_database(source, &building)
        .map_err(CommitError::Store)
        .and_then(|()| build(&building, path, kek, lock, now, renew))
        .and_then(|(mut database, mut restored)| {
            database.finish().map_err(CommitError::Store)?;
            // The mark is raised last. If it came first and the rename failed, the previous store would be behind
            // its mark and would not open.
            restored.aside = replace(path, &building).map_err(CommitError::Store)?;
            database.keep_mark(restored.epoch).map_err(CommitError::Store)?;
            Ok(restored)
        });
    remove_database(&building);
    restored
}

fn build<E>(
    building: &Path,
    path: &Path,
    kek: Kek,
    lock: File,
    now: Timestamp,
    renew: impl FnOnce(&State, u64) -> Result<(KeyRing, AuditEvent), E>,
) -> Result<(Database, Restored), CommitError<E>> {
    let (mut database, state) = read_proven(building, kek, lock).map_err(CommitError::Store)?;
    let mark = database.mark.as_ref().map_or(0, Mark::epoch);
    let present = database.present_epoch(path).map_err(CommitError::Store)?;
    let highest = state.epoch.max(mark).max(present);

    let (ring, event) = renew(&state, highest).map_err(CommitError::Refused)?;
    let change = Change::ReplaceRing(Arc::new(ring));
    // Nobody knows who has listened since the backup. Both are set, so that rotations wait for verifiers and
    // pollers.
    let listeners = Listeners { streamed: true, polled: true };
    let noted = Change::NoteListeners(listeners);
    let generation = ((highest >> GENERATION_SHIFT) + 1).max(now.as_unix() / HOUR);
    let epoch = generation << GENERATION_SHIFT;
    let after = State { epoch, ..state.after(&change).after(&noted) };
    let written = database.connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
    written
        // The backup lacks the uses of credentials since it was made, so the idle time counts anew.
        .and_then(|()| Ok(rows::remove_clean_stop(&database.connection)?))
        .and_then(|()| database.write(&change, &state, &after))
        .and_then(|()| database.write(&noted, &state, &after))
        .and_then(|()| database.write_counters(&after))
        .and_then(|()| database.record(&event))
        .and_then(|()| Ok(database.connection.execute_batch("COMMIT")?))
        .map_err(CommitError::Store)?;

    let mut clients: Vec<ClientInfo> =
        after.clients.iter().map(|(_, client)| client.info()).collect();
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    let restored = Restored { backup_epoch: state.epoch, epoch, aside: None, clients };
    Ok((database, restored))
}

/// Opens a copy of a store and checks all of it.
fn read_proven(path: &Path, kek: Kek, lock: File) -> Result<(Database, State), StoreError> {
    let (mut connection, version) = connect_to_ours(path)?;
    let store_id = check_kek(&connection, &kek)?;
    let mark = Mark::of_store(&kek, &store_id)?;
    let sound: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(StoreError::Corrupt(sound));
    }
    migrations::migrate(&mut connection, version)?;
    let audit = audit::verify(&connection, &kek, None)?;
    audit.map_err(|error| StoreError::Corrupt(format!("the audit log does not hold: {error}")))?;
    let state = load::state(&connection, &kek, &store_id)?;
    let chain = Chain::resume(&connection, &kek)?;
    let path = path.to_owned();
    Ok((Database { connection, chain, path, kek, store_id, mark, _lock: lock }, state))
}

impl Database {
    /// The epoch of the store that is in the place now; 0 if there is none, or it cannot be read.
    ///
    /// # Errors
    /// When the store in the place is another store, which must not be replaced.
    fn present_epoch(&self, path: &Path) -> Result<u64, StoreError> {
        let Ok((connection, _)) = connect_to_ours(path) else { return Ok(0) };
        match load::meta(&connection, "store_id") {
            Ok(Some(id)) if id != self.store_id => Err(StoreError::AlreadyExists(path.to_owned())),
            _ => Ok(load::counter(&connection, "epoch").unwrap_or(0)),
        }
    }

    /// Moves everything from the write-ahead log to the database file and closes it. The lock stays held.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        // The placeholder lets the connection be closed while `self` goes on holding the lock and the mark.
        let connection = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        connection.close().map_err(|(_, error)| StoreError::from(error))
    }
}

/// Renames a new database to `path`, and keeps the previous one under another name, which it returns.
///
/// If the process is killed in between, `path` is either of the two, or the previous one without its write-ahead
/// log. The mark shows that the latter is behind, and it is refused as put back. On a file system without hard
/// links there may also be nothing at `path`.
fn replace(path: &Path, building: &Path) -> Result<Option<PathBuf>, StoreError> {
    let unavailable = |error: std::io::Error| unavailable(path, &error);
    let aside = if path.exists() {
        let aside = (1..)
            .map(|n| beside(path, &format!(".before-restore-{n}")))
            .find(|aside| !aside.exists())
            .expect("there are more numbers than files");
        // The write-ahead log is moved first. SQLite must never apply it to the new database.
        let journal = beside(path, "-wal");
        if journal.exists() {
            fs::rename(&journal, beside(&aside, "-wal")).map_err(unavailable)?;
        }
        let _ = fs::remove_file(beside(path, "-shm"));
        // A hard link leaves the previous database in its place until the rename replaces it.
        let linked = fs::hard_link(path, &aside).or_else(|_| fs::rename(path, &aside));
        linked.inspect_err(|_| put_aside_back(path, &aside)).map_err(unavailable)?;
        Some(aside)
    } else {
        None
    };
    if let Err(error) = fs::rename(building, path) {
        if let Some(aside) = &aside {
            put_aside_back(path, aside);
        }
        return Err(unavailable(error));
    }
    sync_name(path).map_err(unavailable)?;
    Ok(aside)
}

/// Undoes what [`replace`] has moved when it fails: the previous database needs its write-ahead log, which has its last
/// commits. What cannot be undone is left as it is; the error of `replace` is the one to tell.
fn put_aside_back(path: &Path, aside: &Path) {
    if path.exists() {
        // The name beside is a hard link to the same file.
        let _ = fs::remove_file(aside);
    } else {
        let _ = fs::rename(aside, path);
    }
    let _ = fs::rename(beside(aside, "-wal"), beside(path, "-wal"));
}

/// Copies a database that no process has open, with its write-ahead log if there is one.
fn copy_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    let copy = |from: &Path, to: &Path| {
        let mut copy = private_options().create_new(true).open(to)?;
        std::io::copy(&mut File::open(from)?, &mut copy)?;
        copy.sync_all()
    };
    copy(from, to).map_err(|error| unavailable(from, &error))?;
    let journal = beside(from, "-wal");
    if journal.exists() {
        copy(&journal, &beside(to, "-wal")).map_err(|error| unavailable(&journal, &error))?;
    }
    Ok(())
}

fn remove_database(path: &Path) {
    for file in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(path, file));
    }
}

/// A path with more characters at the end of its file name.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_that_fails_leaves_the_previous_store_with_its_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.db");
        for (name, text) in [("", "database"), ("-wal", "last commits")] {
            fs::write(beside(&path, name), text).expect("the directory is ours");
        }
        // There is no new database to rename.
        replace(&path, &dir.path().join("absent")).expect_err("nothing replaces it");
        let text = |name: &str| fs::read_to_string(beside(&path, name)).expect("it is there");
        assert_eq!((text("").as_str(), text("-wal").as_str()), ("database", "last commits"));
        let left = fs::read_dir(dir.path()).expect("it can be listed").count();
        assert_eq!(left, 2, "nothing is left beside");
    }
}

//! Copies of a store: made while it is in use, and put back.

use super::*;
use crate::client::ClientInfo;
use crate::store::commit::CommitError;

/// How many bits of an epoch count within a generation.
const GENERATION_SHIFT: u32 = 32;

/// A generation is at least the number of hours since 1970. So when the same backup is restored again, and nothing is
/// left of the first time, no epoch of the first time is used twice. Enough for two centuries.
const HOUR: u64 = 60 * 60;

/// A store that was put in place from a backup.
#[derive(Debug)]
pub struct Restored {
    /// The epoch of the backup.
    pub backup_epoch: u64,
    /// The first epoch of the new generation.
    pub epoch: u64,
    /// Where the store that was there before is kept.
    pub aside: Option<PathBuf>,
    /// The clients as they are now, in the order of their ids.
    pub clients: Vec<ClientInfo>,
}

/// Copies a store, which may be in use, to a file that must not exist yet. The copy is of one moment, needs the same KEK,
/// and is readable by its owner only.
///
/// # Errors
/// When the store cannot be read, or the disk does not take the copy. Nothing is left of it then.
pub fn back_up(path: &Path, to: &Path) -> Result<(), StoreError> {
    let (connection, _) = connect_to_ours(path)?;
    let unavailable = |error: std::io::Error| unavailable(to, &error);
    let file = private_options().create_new(true).open(to).map_err(unavailable)?;
    let text = to
        .to_str()
        .ok_or_else(|| StoreError::Unavailable(format!("{} is not a name in UTF-8", to.display())));
    let copied = text.and_then(|text| {
        connection.execute("VACUUM INTO ?1", [text])?;
        // The journal mode that stores have, so that opening the copy does not change it.
        connect(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?.close().map_err(|(_, error)| error)?;
        file.sync_all().and_then(|()| sync_name(to)).map_err(unavailable)
    });
    copied.inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

/// Puts a backup in the place of a store that no process has open. Without a backup it does the same for a raw copy that
/// is in the place already. The store that was there is kept beside it.
///
/// First the backup is proven: it is of this store and KEK, and its pages and its audit log hold. Then, in a copy of it,
/// a generation of epochs begins that is above every epoch ever published. It begins with the ring and the audit event
/// that `renew` gives for the state and the highest epoch known.
///
/// # Errors
/// When the backup does not hold, `renew` refuses it, or the disk fails. The store is unchanged then, unless only the
/// mark could not be kept.
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
    // Nobody knows who has listened since the backup. Rotations wait as if someone had.
    let listeners = Listeners { streamed: true, polled: true };
    let noted = Change::NoteListeners(listeners);
    let generation = ((highest >> GENERATION_SHIFT) + 1).max(now.as_unix() / HOUR);
    let epoch = generation << GENERATION_SHIFT;
    let after = State { epoch, ..state.after(&change).after(&noted) };
    let written = database.connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
    written
        // The backup lacks the uses since it was made.
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

/// Opens a copy of a store and proves that it holds.
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
    /// The epoch of the store that is in the place now; 0 when there is none that can be read.
    fn present_epoch(&self, path: &Path) -> Result<u64, StoreError> {
        let Ok((connection, _)) = connect_to_ours(path) else { return Ok(0) };
        match load::meta(&connection, "store_id") {
            Ok(Some(id)) if id != self.store_id => Err(StoreError::AlreadyExists(path.to_owned())),
            _ => Ok(load::counter(&connection, "epoch").unwrap_or(0)),
        }
    }

    /// Moves everything from the journal into the database, and closes it. The lock stays.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let connection = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        connection.close().map_err(|(_, error)| StoreError::from(error))
    }
}

/// Gives a database the name of another, which is kept under a new name. Whenever this is interrupted, the name leads to
/// one of the two, or to a store that is refused as put back.
fn replace(path: &Path, building: &Path) -> Result<Option<PathBuf>, StoreError> {
    let unavailable = |error: std::io::Error| unavailable(path, &error);
    let aside = if path.exists() {
        let aside = (1..)
            .map(|n| beside(path, &format!(".before-restore-{n}")))
            .find(|aside| !aside.exists())
            .expect("there are more numbers than files");
        // The journal goes first: the new database must never be found with the journal of the old one.
        let journal = beside(path, "-wal");
        if journal.exists() {
            fs::rename(&journal, beside(&aside, "-wal")).map_err(unavailable)?;
        }
        let _ = fs::remove_file(beside(path, "-shm"));
        fs::hard_link(path, &aside).or_else(|_| fs::rename(path, &aside)).map_err(unavailable)?;
        Some(aside)
    } else {
        None
    };
    fs::rename(building, path).and_then(|()| sync_name(path)).map_err(unavailable)?;
    Ok(aside)
}

/// Copies a database that nobody has open, with what is still in its journal.
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

/// The name of a file with more at its end.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

//! The lock beside the database: one process at a time, from before there is a database.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::sqlite::error::StoreError;

/// The place of a store that is not there yet. While it lives, no other process makes a store there
/// or opens one, so that what belongs to the store can be made along with it.
#[derive(Debug)]
pub struct Reservation {
    path: PathBuf,
    _lock: File,
}

/// Reserves the place for a new store. The directory must be there.
///
/// # Errors
/// When there is a store already, another process is at it, or the disk does not take the lock file.
pub fn reserve(path: &Path) -> Result<Reservation, StoreError> {
    let lock = lock(path)?;
    if path.exists() {
        return Err(StoreError::AlreadyExists(path.to_owned()));
    }
    Ok(Reservation { path: path.to_owned(), _lock: lock })
}

impl Reservation {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// One process at a time: two writers with a state in memory each would lie to their readers.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let path = path.with_extension("lock");
    let unavailable =
        |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let file = private_options().create(true).truncate(false).open(&path).map_err(unavailable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.with_extension("db"))),
        Err(TryLockError::Error(error)) => Err(unavailable(error)),
    }
}

/// For files that only their owner may read, from the start.
pub(super) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.mode(0o600);
    options
}

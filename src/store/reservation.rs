//! The lock beside the database. It lets one process in at a time, even before there is a database.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::sqlite::error::StoreError;

/// The place of a store that does not exist yet. While this value lives, no other process makes or opens a store there.
/// So the files that belong to the store can be made before it.
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

/// Takes the lock. Two writers, each with a state of its own in memory, would give their readers outdated answers.
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

/// Options that create a file which only its owner may read, from the first moment on.
pub(super) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.mode(0o600);
    options
}

//! The lock file beside the database. It lets in one process at a time, and exists before the database does.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::sqlite::error::StoreError;

/// A locked place for a store that does not exist yet. While this value lives, no other process can create
/// or open a store there. So the caller can write the files that belong to the store first.
#[derive(Debug)]
pub struct Reservation {
    path: PathBuf,
    _lock: File,
}

/// Reserves the place for a new store. The directory must exist.
///
/// # Errors
/// When there is a store already, another process holds the lock, or the lock file cannot be written.
pub fn reserve(path: &Path) -> Result<Reservation, StoreError> {
    // The lock comes first: otherwise another process could create the store after the check.
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

/// Takes the lock of a store, for one process at a time. Two processes would each serve a state in memory that
/// lacks the other's changes.
///
/// The operating system frees the lock when the process ends, however it ends. The file stays.
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

/// Options to open files with. A new file has mode 0600 from the start, so nobody else can open it in between.
pub(super) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.mode(0o600);
    options
}

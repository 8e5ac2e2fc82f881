//! The errors of the store.

use std::fmt;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the store cannot do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// There is no database at this path.
    NotFound(PathBuf),
    /// There is a database at this path already.
    AlreadyExists(PathBuf),
    /// Another process has it open.
    InUse(PathBuf),
    /// The file is not a Countersign database.
    NotOurs(PathBuf),
    /// A newer version of the program wrote it.
    TooNew {
        /// The version that wrote it.
        found: i32,
        /// The newest version known here.
        known: i32,
    },
    /// The store's keys are sealed with another KEK.
    WrongKek,
    /// The sealed private key of this `kid` does not open, or does not match its public key.
    BadSealedKey(String),
    /// The signing keys, or their states or times, were changed by someone without the KEK.
    BadKeyRing,
    /// The store is behind the highest epoch that anyone was told: it is an old copy that was put back.
    PutBack {
        /// The epoch of the store.
        epoch: u64,
        /// The highest epoch that anyone was told.
        mark: u64,
    },
    /// The file with the highest epoch belongs to another store.
    MarkOfAnother(PathBuf),
    /// The file with the highest epoch is damaged, or was changed by someone without the KEK.
    BadMark(PathBuf),
    /// The file with the highest epoch cannot be read or written, for this reason.
    MarkUnavailable(PathBuf, String),
    /// The database holds something that cannot be right.
    Corrupt(String),
    /// The store cannot be read or written now: it is locked or read-only, or the disk is full or fails.
    Unavailable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => {
                write!(f, "there is no store at {}; create one with `countersign init`", path.display())
            }
            Self::AlreadyExists(path) => write!(f, "there is a store at {} already; it was not touched", path.display()),
            Self::InUse(path) => write!(f, "another process has the store {} open; stop it first", path.display()),
            Self::NotOurs(path) => write!(f, "{} is not a Countersign store; it was not touched", path.display()),
            Self::TooNew { found, known } => write!(
                f,
                "the store has version {found} and this program knows {known}; use a newer program; nothing was touched",
            ),
            Self::WrongKek => {
                f.write_str("this is not the key-encryption key that the store's keys are sealed with; nothing was changed")
            }
            Self::BadSealedKey(kid) => write!(
                f,
                "the sealed signing key {kid} does not open, or does not match its public key; \
                 restore the store from a backup; nothing was changed",
            ),
            Self::BadKeyRing => f.write_str(
                "the signing keys are not those that were written: someone else has changed them; \
                 restore the store from a backup; nothing was changed",
            ),
            Self::PutBack { epoch, mark } => write!(
                f,
                "the store is an old copy that was put back: its epoch is {epoch}, and {mark} was published; revocations \
                 and rotations since are lost, so nothing is signed; nothing was changed",
            ),
            Self::MarkOfAnother(path) => write!(
                f,
                "{} keeps the highest epoch of another store; nothing was changed",
                path.display()
            ),
            Self::BadMark(path) => write!(
                f,
                "{} is not the highest epoch as it was written there: it is damaged, or someone else has changed it; \
                 nothing was changed",
                path.display()
            ),
            Self::MarkUnavailable(path, why) => {
                write!(f, "the highest epoch cannot be kept in {} ({why})", path.display())
            }
            Self::Corrupt(what) => write!(f, "the store is damaged ({what}); restore it from a backup"),
            Self::Unavailable(why) => write!(f, "the store cannot be read or written now ({why})"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // `Unknown` is SQLITE_ERROR: the SQL does not fit the schema, for example because a table is missing.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
                Self::Corrupt(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unavailable("locked by another process".to_owned())
            }
            Some(ErrorCode::DiskFull) => Self::Unavailable("the disk is full".to_owned()),
            Some(ErrorCode::ReadOnly) => Self::Unavailable("it is read-only".to_owned()),
            Some(_) => Self::Unavailable(error.to_string()),
            None => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<getrandom::Error> for StoreError {
    fn from(_: getrandom::Error) -> Self {
        Self::Unavailable("the system has no randomness to give".to_owned())
    }
}

//! The last good keys, kept in a file, so that a service can start while Countersign is down.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use crate::claims::Issuer;
use crate::trust::TrustBundle;

/// The largest file that is read: as large as the largest answer that it can come from, and the names
/// that are added.
const MAX_FILE: u64 = 512 * 1024;

/// Why a trust file is not believed.
#[derive(Debug)]
pub(super) enum Disbelief {
    /// There is none yet.
    Absent,
    /// It cannot be read.
    Unreadable(io::Error),
    /// Others than its owner may read or write it, or it is no file.
    OpenToOthers(u32),
    /// It holds no keys to trust.
    Malformed,
    /// It holds the keys of another issuer.
    OtherIssuer(Issuer),
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::OpenToOthers(mode) => {
                write!(f, "it must be a file with mode 0600, and has {mode:04o}")
            }
            Self::Malformed => f.write_str("it holds no keys to trust"),
            Self::OtherIssuer(issuer) => write!(f, "it holds the keys of {issuer}"),
        }
    }
}

/// What the file holds, if it is to be believed about this issuer.
pub(super) fn read(path: &Path, issuer: &Issuer) -> Result<TrustBundle, Disbelief> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Disbelief::Absent,
        _ => Disbelief::Unreadable(error),
    })?;
    // Of the open file, not of the path, which could be another one by now.
    let metadata = file.metadata().map_err(Disbelief::Unreadable)?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() || mode & 0o077 != 0 {
        return Err(Disbelief::OpenToOthers(mode & 0o7777));
    }
    let mut json = String::new();
    (&mut file).take(MAX_FILE).read_to_string(&mut json).map_err(Disbelief::Unreadable)?;
    let bundle = TrustBundle::from_jwks(&json).map_err(|_| Disbelief::Malformed)?;
    if bundle.issuer != *issuer {
        return Err(Disbelief::OtherIssuer(bundle.issuer));
    }
    Ok(bundle)
}

/// Puts the bundle in the file's place in one step: whoever reads it meanwhile gets the one or the
/// other, whole.
pub(super) fn write(path: &Path, bundle: &TrustBundle) -> io::Result<()> {
    let beside = beside(path)?;
    let written = write_new(&beside, bundle).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What is half done helps nobody; that it cannot be removed adds nothing to the error.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_new(path: &Path, bundle: &TrustBundle) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bundle.to_jwks().as_bytes())?;
    file.sync_all()
}

/// A new name in the same directory, that no other process takes.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    let nonce = getrandom::u64().map_err(io::Error::other)?;
    name.push(format!(".{nonce:016x}.new"));
    Ok(path.with_file_name(name))
}

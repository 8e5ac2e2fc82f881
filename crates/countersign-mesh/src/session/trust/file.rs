//! Keeps the last good keys and revocations in a file, so that a service can start while Countersign is
//! down, and has forgotten no revocation.
//!
//! The file is a JWK Set with more members, which other readers of JWK Sets ignore: `issuer` and
//! `epoch`; and, where a stream has brought them, `complete` and `revoked`. A file without these two
//! comes from an older version, or from polling.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::claims::{ClientId, Issuer, Kid, Timestamp, TokenId};
use crate::keys::KeySet;
use crate::trust::{TrustBundle, TrustDelta};

/// The largest file that is read: a million revocations and the names around them.
const MAX_FILE: u64 = 128 * 1024 * 1024;

/// The epoch up to which a stream has brought everything: the next stream goes on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complete {
    pub(crate) epoch: u64,
    /// Shows the server that it once had this epoch.
    pub(crate) proof: Vec<u8>,
}

/// What is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) bundle: TrustBundle,
    /// The epoch up to which its revocations are complete, if they are at all.
    pub(crate) complete: Option<Complete>,
}

#[derive(Serialize)]
struct Written<'a> {
    issuer: &'a str,
    epoch: u64,
    keys: &'a KeySet,
    complete: Stream,
    revoked: Revoked,
}

#[derive(Deserialize)]
struct Streamed {
    complete: Option<Stream>,
    revoked: Option<Revoked>,
}

#[derive(Serialize, Deserialize)]
struct Stream {
    epoch: u64,
    proof: String,
}

/// Ids, and times in seconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct Revoked {
    keys: Vec<String>,
    tokens: Vec<(String, u64)>,
    clients: Vec<(String, u64, u64)>,
}

/// Why a trust file is not believed.
#[derive(Debug)]
pub(crate) enum Disbelief {
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
pub(crate) fn read(path: &Path, issuer: &Issuer) -> Result<Kept, Disbelief> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Disbelief::Absent,
        _ => Disbelief::Unreadable(error),
    })?;
    // The mode of the open file, not of the path: another file could be there by now.
    let metadata = file.metadata().map_err(Disbelief::Unreadable)?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() || mode & 0o077 != 0 {
        return Err(Disbelief::OpenToOthers(mode & 0o7777));
    }
    let mut json = String::new();
    (&mut file).take(MAX_FILE).read_to_string(&mut json).map_err(Disbelief::Unreadable)?;
    let kept = parse(&json).ok_or(Disbelief::Malformed)?;
    if kept.bundle.issuer != *issuer {
        return Err(Disbelief::OtherIssuer(kept.bundle.issuer));
    }
    Ok(kept)
}

fn parse(json: &str) -> Option<Kept> {
    let keys = TrustBundle::from_jwks(json).ok()?;
    let more: Streamed = serde_json::from_str(json).ok()?;
    let (Some(complete), Some(revoked)) = (more.complete, more.revoked) else {
        return Some(Kept { bundle: keys, complete: None });
    };
    let proof = URL_SAFE_NO_PAD.decode(complete.proof).ok()?;
    let time = Timestamp::from_unix;
    let tokens = revoked.tokens.iter();
    let clients = revoked.clients.iter();
    let snapshot = TrustDelta {
        from: 0,
        to: keys.epoch,
        keys: keys.keys,
        revoked_keys: revoked.keys.iter().map(|kid| Kid::new(kid).ok()).collect::<Option<_>>()?,
        tokens: tokens
            .map(|(id, until)| Some((TokenId::new(id).ok()?, time(*until))))
            .collect::<Option<_>>()?,
        clients: clients
            .map(|(id, before, until)| Some((ClientId::new(id).ok()?, time(*before), time(*until))))
            .collect::<Option<_>>()?,
    };
    let bundle = TrustBundle::from_snapshot(keys.issuer, snapshot);
    Some(Kept { bundle, complete: Some(Complete { epoch: complete.epoch, proof }) })
}

fn to_json(kept: &Kept) -> serde_json::Result<String> {
    let Kept { bundle, complete } = kept;
    let Some(complete) = complete else { return Ok(bundle.to_jwks()) };
    let TrustDelta { keys, revoked_keys, tokens, clients, .. } = bundle.since(0, &[]);
    let tokens = tokens.iter().map(|(id, until)| (id.to_string(), until.as_unix()));
    let clients = clients
        .iter()
        .map(|(id, before, until)| (id.to_string(), before.as_unix(), until.as_unix()));
    let revoked = Revoked {
        keys: revoked_keys.iter().map(Kid::to_string).collect(),
        tokens: tokens.collect(),
        clients: clients.collect(),
    };
    let proof = URL_SAFE_NO_PAD.encode(&complete.proof);
    serde_json::to_string(&Written {
        issuer: bundle.issuer.as_str(),
        epoch: bundle.epoch,
        keys: &keys,
        complete: Stream { epoch: complete.epoch, proof },
        revoked,
    })
}

/// Replaces the file atomically: whoever reads it meanwhile gets the old one or the new one, whole.
pub(crate) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let json = to_json(kept)?;
    let beside = beside(path)?;
    let written = write_new(&beside, &json).and_then(|()| fs::rename(&beside, path));
    if written.is_ok() {
        // So that no power cut brings the older file back. A file system that syncs no directories keeps what it can.
        let directory = path.parent().filter(|directory| *directory != Path::new(""));
        let _ = File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all());
    }
    if written.is_err() {
        // A file that is half written helps nobody. That it cannot be removed either adds nothing to
        // the error.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_new(path: &Path, json: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(json.as_bytes())?;
    file.sync_all()
}

/// A new name in the same directory, that no other process takes.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    let nonce = getrandom::u64().map_err(io::Error::other)?;
    name.push(format!(".{nonce:016x}.new"));
    Ok(path.with_file_name(name))
}

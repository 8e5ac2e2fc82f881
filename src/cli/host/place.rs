//! The directory that holds the store, and the key-encryption key that is better kept elsewhere.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_mesh::internals::{SecretFileError, read_secret_file};
use zeroize::Zeroizing;

use crate::cli::config::{self, StoreConfig};
use crate::cli::error::Error;
use crate::cli::host::errors::no_randomness;
use crate::store::{self, Kek};

/// Where the state is.
pub(super) struct Place(StoreConfig);

impl Place {
    pub(super) fn new(config: StoreConfig) -> Self {
        Self(config)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0.data_dir
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.data_dir.join("countersign.db")
    }

    /// The file with the key-encryption key, unless it came in the environment.
    pub(super) fn kek_file(&self) -> Option<&Path> {
        match &self.0.kek {
            config::Kek::File(path) => Some(path),
            config::Kek::Given(_) => None,
        }
    }

    /// Creates the directory and its missing parents, for their owner only, and waits until their names
    /// are on disk.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        let directory = self.directory();
        let missing = directory.ancestors().take_while(|ancestor| !ancestor.exists());
        let missing: Vec<&Path> = missing.collect();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.and_then(|()| missing.into_iter().try_for_each(store::sync_name)).map_err(|error| {
            let problem = format!("cannot create {}: {error}", directory.display());
            Error::failed(problem, "name another directory with --data-dir")
        })
    }

    /// The key-encryption key for a new store: the existing one, or else a new one. A new key file is
    /// never removed again, even if creating the store fails: another store may be sealed with it by
    /// then.
    pub(super) fn create_kek(&self) -> Result<Kek, Error> {
        if let Some(path) = self.kek_file() {
            let written = if path.exists() {
                Ok(())
            } else {
                make_directory_of(path).map_err(|error| {
                    let problem =
                        format!("cannot create the directory of {}: {error}", path.display());
                    Error::failed(problem, "name another file with --kek-file")
                })?;
                let suffix = getrandom::u64().map_err(no_randomness)?;
                write_kek(path, suffix, &Kek::generate().map_err(no_randomness)?)
            };
            // Wait for the name to be on disk, even if another process wrote the file: a store is
            // useless without the key that seals it.
            written.and_then(|()| store::sync_name(path)).map_err(|error| {
                let problem =
                    format!("cannot write the key-encryption key to {}: {error}", path.display());
                Error::failed(problem, "name another file with --kek-file")
            })?;
        }
        self.read_kek()
    }

    /// The key-encryption key.
    pub(super) fn read_kek(&self) -> Result<Kek, Error> {
        let (text, origin) = match &self.0.kek {
            config::Kek::Given(secret) => {
                (Zeroizing::new(secret.expose().to_owned()), "COUNTERSIGN_KEK".to_owned())
            }
            config::Kek::File(path) => (read_private(path)?, path.display().to_string()),
        };
        let kek: Kek = text.trim().parse().map_err(|error| {
            Error::failed(
                format!("{origin}: {error}"),
                "name the right file with --kek-file, or restore it",
            )
        })?;
        Ok(kek.with_epoch_dir(self.0.epoch_dir.clone()))
    }
}

/// Makes the directory of a key that is to be written, for its owner only, if it is not there.
fn make_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if directory != Path::new("") && !directory.exists() => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)
        }
        _ => Ok(()),
    }
}

/// Writes the key to a temporary file, and links that to `path` once it is complete. Nobody reads half
/// a key, and a process that is killed leaves none at `path`. Unlike a rename, a hard link never
/// replaces the key of another process that was faster; that key is as good.
fn write_kek(path: &Path, suffix: u64, key: &Kek) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{suffix:016x}"));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    let linked = file
        .write_all(key.expose().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&beside, path));
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// The most that is read of the file, in bytes: a key takes fewer than a hundred.
const MAX_FILE: u64 = 4096;

fn read_private(path: &Path) -> Result<Zeroizing<String>, Error> {
    read_secret_file(path, MAX_FILE).map_err(|error| match error {
        SecretFileError::Unreadable(error) => Error::failed(
            format!("cannot read the key-encryption key {}: {error}", path.display()),
            "name it with --kek-file or COUNTERSIGN_KEK; a new store is made by `countersign init`",
        ),
        SecretFileError::OpenToOthers(mode) => Error::failed(
            format!("{} can be read by others (mode {mode:04o})", path.display()),
            format!("run: chmod 600 {}", crate::cli::credentials::shell_word(path)),
        ),
    })
}

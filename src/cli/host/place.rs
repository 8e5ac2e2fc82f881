//! The directory that holds the store, and the key-encryption key that is better kept elsewhere.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::cli::config;
use crate::cli::config::StoreConfig;
use crate::cli::error::Error;
use crate::cli::host::no_randomness;
use crate::store::Kek;

/// Where the state is.
pub(super) struct Place(StoreConfig);

/// A key-encryption key of a store that is not there yet. Unless it is [kept](NewKek::keep), a file
/// that was made for it goes again.
pub(super) struct NewKek {
    pub(super) key: Kek,
    created: Option<PathBuf>,
}

impl NewKek {
    /// The store exists now.
    pub(super) fn keep(mut self) {
        self.created = None;
    }
}

impl Drop for NewKek {
    fn drop(&mut self) {
        if let Some(path) = &self.created {
            // No store is sealed with it: that it stays is not worth an error.
            let _ = fs::remove_file(path);
        }
    }
}

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

    /// Makes the directory, for its owner only.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.directory()).map_err(|error| {
            let problem = format!("cannot create {}: {error}", self.directory().display());
            Error::failed(problem, "name another directory with --data-dir")
        })
    }

    /// The key-encryption key for a new store: the one that is there, or a new one.
    pub(super) fn create_kek(&self) -> Result<NewKek, Error> {
        let Some(path) = self.kek_file().filter(|path| !path.exists()) else {
            return Ok(NewKek { key: self.read_kek()?, created: None });
        };
        let key = Kek::generate().map_err(no_randomness)?;
        let write = |mut file: File| {
            file.write_all(key.expose().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        };
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(write)
            .map_err(|error| {
                let problem =
                    format!("cannot write the key-encryption key to {}: {error}", path.display());
                Error::failed(problem, "name another file with --kek-file")
            })?;
        Ok(NewKek { key, created: Some(path.to_owned()) })
    }

    /// The key-encryption key.
    pub(super) fn read_kek(&self) -> Result<Kek, Error> {
        let (text, origin) = match &self.0.kek {
            config::Kek::Given(secret) => {
                (Zeroizing::new(secret.expose().to_owned()), "COUNTERSIGN_KEK".to_owned())
            }
            config::Kek::File(path) => (read_private(path)?, path.display().to_string()),
        };
        text.trim().parse().map_err(|error| {
            Error::failed(
                format!("{origin}: {error}"),
                "name the right file with --kek-file, or restore it",
            )
        })
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, Error> {
    let unreadable = |error: io::Error| {
        Error::failed(
            format!("cannot read the key-encryption key {}: {error}", path.display()),
            "name it with --kek-file or COUNTERSIGN_KEK; a new store is made by `countersign init`",
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::failed(
            format!("{} can be read by others (mode {:04o})", path.display(), mode & 0o7777),
            format!("run: chmod 600 {}", crate::cli::credentials::shell_word(path)),
        ));
    }
    io::read_to_string(file).map(Zeroizing::new).map_err(unreadable)
}

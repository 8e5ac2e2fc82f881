//! Credentials files that the commands write.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use countersign_mesh::internals::{CredentialsFile, Proves};
use zeroize::Zeroizing;

use crate::cli::credentials::explain;
use crate::cli::error::Error;
use crate::cli::secret::Secret;
use crate::store;

/// Longer than any credentials, so that the text does not move and leave a copy of a secret behind.
const MAX_TEXT: usize = 16 * 1024;

/// A new credentials file. A command creates it before the server makes the secret, so that a secret
/// which is shown only once has somewhere to go. Dropping it removes the file, unless it was written or
/// kept.
pub struct NewCredentialsFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl NewCredentialsFile {
    /// Creates the file, empty, mode 0600.
    ///
    /// # Errors
    /// When something exists there already, or the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let created = File::options().write(true).create_new(true).mode(0o600).open(path);
        match created {
            Ok(file) => Ok(Self { path: path.to_owned(), file, kept: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::failed(
                format!("{} exists already", path.display()),
                "move it away or name another file",
            )),
            Err(error) => Err(Error::failed(
                format!("cannot create {}: {error}", path.display()),
                "name another file",
            )),
        }
    }

    /// Writes the credentials and keeps the file.
    pub fn write(
        mut self,
        url: &str,
        client_id: &str,
        client_secret: &Secret,
    ) -> Result<(), Error> {
        self.fill(url, client_id, client_secret)?;
        self.keep();
        Ok(())
    }

    /// Keeps the file. Called once the client exists: without the file nobody could authenticate as it.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Writes the credentials of a client that proves itself with a private key, which stays in its own file, and
    /// keeps the file.
    pub fn write_key(
        mut self,
        url: &str,
        client_id: &str,
        private_key_file: &str,
        issuer: &str,
    ) -> Result<(), Error> {
        self.put(&[
            ("url", url),
            ("client_id", client_id),
            ("private_key_file", private_key_file),
            ("issuer", issuer),
        ])?;
        self.keep();
        Ok(())
    }

    /// Writes the credentials of a client that does not exist yet, and waits until they are on disk.
    pub fn fill(
        &mut self,
        url: &str,
        client_id: &str,
        client_secret: &Secret,
    ) -> Result<(), Error> {
        self.put(&[
            ("url", url),
            ("client_id", client_id),
            ("client_secret", client_secret.expose()),
        ])
    }

    fn put(&mut self, values: &[(&str, &str)]) -> Result<(), Error> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
        for (key, value) in values {
            let quoted = Zeroizing::new(toml::Value::from(*value).to_string());
            text.push_str(&format!("{key} = "));
            text.push_str(&quoted);
            text.push('\n');
        }
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_all())
            .and_then(|()| store::sync_name(&self.path))
            .map_err(|error| {
                Error::failed(
                    format!("cannot write {}: {error}", self.path.display()),
                    "make room for it",
                )
            })
    }
}

/// Makes a credentials file name this server, unless it already does. The file is replaced atomically:
/// whoever reads it meanwhile gets the old one or the new one.
pub fn point_to(path: &Path, url: &str) -> Result<(), Error> {
    let file = CredentialsFile::read(path).map_err(|error| explain(&error))?;
    if file.url == url {
        return Ok(());
    }
    let Proves::Secret(secret) = &file.proves else {
        return Err(Error::failed(
            format!("{} names another server, and no secret", path.display()),
            format!("set its `url` to {url}"),
        ));
    };
    let beside = path.with_extension("toml.new");
    // A process that was killed before the rename may have left one, and `create` would refuse it.
    let _ = fs::remove_file(&beside);
    NewCredentialsFile::create(&beside)?.write(
        url,
        &file.client_id,
        &Secret::new(secret.to_string()),
    )?;
    fs::rename(&beside, path).and_then(|()| store::sync_name(path)).map_err(|error| {
        Error::failed(
            format!("cannot replace {}: {error}", path.display()),
            "name another directory with --data-dir",
        )
    })
}

impl Drop for NewCredentialsFile {
    fn drop(&mut self) {
        if !self.kept {
            // The file holds nothing of value, so a failure to remove it is not worth an error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

//! Who a service is, and what it proves that with. A secret in a file is read when it is used, so that
//! one that was rolled over is picked up without a restart.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::claims::ClientId;
use crate::mesh::credentials_file;

/// A client's name and its secret. `Debug` does not show the secret.
#[derive(Debug, Clone)]
pub struct Credentials {
    client_id: ClientId,
    secret: ClientSecret,
}

/// A secret, or where it is. `Debug` does not show it.
#[derive(Clone)]
pub struct ClientSecret(Origin);

#[derive(Clone)]
enum Origin {
    Given(Arc<Zeroizing<String>>),
    File(PathBuf),
    CredentialsFile(PathBuf),
}

/// Why credentials cannot be used.
#[derive(Debug)]
pub enum CredentialsError {
    /// A variable that is needed is not set.
    Missing(&'static str),
    /// A variable and its `_FILE` counterpart are both set.
    Contradictory(&'static str),
    /// The client id is not one.
    BadClientId,
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file has nothing in it.
    Empty(PathBuf),
    /// A credentials file can be read by others than its owner; its mode.
    OpenToOthers(PathBuf, u32),
    /// A credentials file is not one, and why.
    BadFile(PathBuf, String),
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "neither {name} nor {name}_FILE is set"),
            Self::Contradictory(name) => {
                write!(f, "both {name} and {name}_FILE are set; unset one of them")
            }
            Self::BadClientId => f.write_str("COUNTERSIGN_CLIENT_ID is not a client id"),
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Empty(path) => write!(f, "{} is empty", path.display()),
            Self::OpenToOthers(path, mode) => {
                write!(
                    f,
                    "{} can be read by others (mode {mode:04o}); chmod 600 it",
                    path.display()
                )
            }
            Self::BadFile(path, problem) => write!(f, "{} {problem}", path.display()),
        }
    }
}

impl std::error::Error for CredentialsError {}

impl Credentials {
    /// A secret that the program holds.
    pub fn new(client_id: ClientId, secret: &str) -> Self {
        Self { client_id, secret: ClientSecret::new(secret) }
    }

    /// A secret in a file: its text without surrounding white space, read again for each token.
    pub fn from_file(client_id: ClientId, path: impl Into<PathBuf>) -> Self {
        Self { client_id, secret: ClientSecret::from_file(path) }
    }

    /// A secret in a credentials file, read again for each token.
    pub(super) fn from_credentials_file(client_id: ClientId, path: PathBuf) -> Self {
        Self { client_id, secret: ClientSecret::from_credentials_file(path) }
    }

    /// From `COUNTERSIGN_CLIENT_ID` and `COUNTERSIGN_CLIENT_SECRET`, or `_FILE`s of them, as `lookup`
    /// finds them.
    pub(super) fn from_variables(
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialsError> {
        let client_id = variable(lookup, "COUNTERSIGN_CLIENT_ID", "COUNTERSIGN_CLIENT_ID_FILE")?;
        let client_id = ClientId::new(&client_id).map_err(|_| CredentialsError::BadClientId)?;
        let name = "COUNTERSIGN_CLIENT_SECRET";
        match (lookup(name), lookup("COUNTERSIGN_CLIENT_SECRET_FILE")) {
            (Some(_), Some(_)) => Err(CredentialsError::Contradictory(name)),
            (Some(secret), None) => Ok(Self::new(client_id, &Zeroizing::new(secret))),
            (None, Some(path)) => Ok(Self::from_file(client_id, path)),
            (None, None) => Err(CredentialsError::Missing(name)),
        }
    }

    /// The client's name.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    pub(super) fn secret(&self) -> &ClientSecret {
        &self.secret
    }
}

impl ClientSecret {
    /// A secret that the program holds.
    pub fn new(secret: &str) -> Self {
        Self(Origin::Given(Arc::new(Zeroizing::new(secret.to_owned()))))
    }

    /// A secret in a file: its text without surrounding white space, read again for each token.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self(Origin::File(path.into()))
    }

    /// The `client_secret` of a credentials file, read again for each token.
    pub(super) fn from_credentials_file(path: PathBuf) -> Self {
        Self(Origin::CredentialsFile(path))
    }

    /// The secret as it is now.
    pub(super) fn read(&self) -> Result<Zeroizing<String>, CredentialsError> {
        match &self.0 {
            Origin::Given(secret) => Ok(Zeroizing::clone(secret)),
            Origin::File(path) => read_trimmed(path.clone()),
            Origin::CredentialsFile(path) => credentials_file::read_secret(path),
        }
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Given(_) => f.write_str("ClientSecret([redacted])"),
            Origin::File(path) | Origin::CredentialsFile(path) => {
                f.debug_tuple("ClientSecret").field(path).finish()
            }
        }
    }
}

/// The value of a variable, or the trimmed text of the file that its counterpart names.
pub(super) fn variable(
    lookup: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    file_name: &'static str,
) -> Result<String, CredentialsError> {
    match (lookup(name), lookup(file_name)) {
        (Some(_), Some(_)) => Err(CredentialsError::Contradictory(name)),
        (Some(value), None) => Ok(value),
        (None, Some(path)) => read_trimmed(path.into()).map(|text| text.to_string()),
        (None, None) => Err(CredentialsError::Missing(name)),
    }
}

/// A file that is being written can be empty for a moment: that is not a secret to try.
fn read_trimmed(path: PathBuf) -> Result<Zeroizing<String>, CredentialsError> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => return Err(CredentialsError::Unreadable(path, error)),
    };
    match text.trim() {
        "" => Err(CredentialsError::Empty(path)),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

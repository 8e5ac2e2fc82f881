//! Who a service is, and how it proves that. Files are read when they are used, so that a secret or a
//! key that was rolled over is picked up without a restart.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use tonic::transport::Identity;
use zeroize::Zeroizing;

use crate::claims::{ClientId, Issuer, Timestamp};
use crate::keys::SigningKey;
use crate::secret_file;
use crate::session::reach::credentials_file::{CredentialsFile, Proves};
use crate::session::reach::error::{CredentialsError, CredentialsFileProblem};
use crate::token::{Token, sign_assertion};

/// The most that is read of a file with a secret or a key, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A client's id, and what it proves that with: a secret, or the files of a private key or a
/// certificate. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Credentials {
    client_id: ClientId,
    means: Means,
}

#[derive(Debug, Clone)]
enum Means {
    Secret(ClientSecret),
    PrivateKeyFile(PathBuf),
    CertificateFiles { cert: PathBuf, key: PathBuf },
}

/// What proves who we are in one request for a token.
pub(crate) enum Proof {
    /// The secret.
    Secret(Zeroizing<String>),
    /// An assertion that is good once, for a minute (RFC 7523).
    Assertion(Token),
    /// Nothing in the request: the connection presents a certificate (RFC 8705).
    Certificate(CertifiedKey),
}

/// A client certificate with its chain and its key, in PEM.
pub(crate) struct CertifiedKey {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl CertifiedKey {
    /// As a TLS connection presents it.
    pub(crate) fn to_identity(&self) -> Identity {
        Identity::from_pem(&self.cert, &*self.key)
    }
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

impl Credentials {
    /// A secret that the program holds.
    pub fn new(client_id: ClientId, secret: &str) -> Self {
        Self { client_id, means: Means::Secret(ClientSecret::new(secret)) }
    }

    /// A secret in a file: its text without surrounding white space, read again for each token.
    pub fn from_file(client_id: ClientId, path: impl Into<PathBuf>) -> Self {
        Self { client_id, means: Means::Secret(ClientSecret::from_file(path)) }
    }

    /// An Ed25519 private key in a file: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it,
    /// read again for each token. It never leaves this process: it signs an assertion for each token
    /// (RFC 7523), for which the session must be told its [issuer](crate::session::SessionBuilder::issuer). The
    /// clock may be five seconds ahead of Countersign's.
    pub fn private_key_file(client_id: ClientId, path: impl Into<PathBuf>) -> Self {
        Self { client_id, means: Means::PrivateKeyFile(path.into()) }
    }

    /// A client certificate and its private key in files, in PEM. Connections over which tokens are asked
    /// for present it (RFC 8705 §2.1); both files are read again for each token.
    pub fn certificate_files(
        client_id: ClientId,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        Self { client_id, means: Means::CertificateFiles { cert: cert.into(), key: key.into() } }
    }

    /// From `COUNTERSIGN_CLIENT_ID` and `COUNTERSIGN_CLIENT_SECRET`, or their `_FILE` forms, as
    /// `lookup` finds them. `COUNTERSIGN_CLIENT_KEY_FILE` may take the place of the secret. With
    /// `COUNTERSIGN_CLIENT_CERT_FILE` beside it, the key is that of the certificate.
    pub(crate) fn from_variables(
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialsError> {
        let client_id = variable(lookup, "COUNTERSIGN_CLIENT_ID", "COUNTERSIGN_CLIENT_ID_FILE")?;
        let client_id = ClientId::new(&client_id).map_err(|_| CredentialsError::BadClientId)?;
        let (name, file_name) = ("COUNTERSIGN_CLIENT_SECRET", "COUNTERSIGN_CLIENT_SECRET_FILE");
        let secrets = (lookup(name), lookup(file_name));
        if let Some(path) = lookup("COUNTERSIGN_CLIENT_KEY_FILE") {
            return match secrets {
                (None, None) => Ok(match lookup("COUNTERSIGN_CLIENT_CERT_FILE") {
                    Some(cert) => Self::certificate_files(client_id, cert, path),
                    None => Self::private_key_file(client_id, path),
                }),
                _ => Err(CredentialsError::SecretAndKey),
            };
        }
        if lookup("COUNTERSIGN_CLIENT_CERT_FILE").is_some() {
            return Err(CredentialsError::CertificateWithoutKey);
        }
        match secrets {
            (Some(_), Some(_)) => Err(CredentialsError::Contradictory(name, file_name)),
            (Some(secret), None) => Ok(Self::new(client_id, &Zeroizing::new(secret))),
            (None, Some(path)) => Ok(Self::from_file(client_id, path)),
            (None, None) => Err(CredentialsError::Missing(name)),
        }
    }

    /// The credentials in a credentials file, and the issuer if the file names one. A secret is read
    /// from the file again for each token.
    pub(crate) fn from_credentials_file(
        file: &CredentialsFile,
    ) -> Result<(Self, Option<Issuer>), CredentialsError> {
        let bad = |key| {
            CredentialsError::BadFile(file.path.clone(), CredentialsFileProblem::BadName(key))
        };
        let client_id = ClientId::new(&file.client_id).map_err(|_| bad("client_id"))?;
        let issuer = file.issuer.as_deref().map(Issuer::new).transpose();
        let issuer = issuer.map_err(|_| bad("issuer"))?;
        let means = match &file.proves {
            Proves::Secret(_) => {
                Means::Secret(ClientSecret::from_credentials_file(file.path.clone()))
            }
            Proves::PrivateKeyFile(path) => Means::PrivateKeyFile(path.clone()),
            Proves::CertificateFiles { cert, key } => {
                Means::CertificateFiles { cert: cert.clone(), key: key.clone() }
            }
        };
        Ok((Self { client_id, means }, issuer))
    }

    /// The current secret, if it differs by now from the one that was refused.
    pub(crate) fn newer_secret(&self, refused: &str) -> Option<Zeroizing<String>> {
        match &self.means {
            Means::Secret(secret) => secret.newer(refused),
            Means::PrivateKeyFile(_) | Means::CertificateFiles { .. } => None,
        }
    }

    /// Warns of a file with a secret that others can read. No error: orchestrators mount secrets into containers
    /// so, where nobody else is.
    pub(crate) fn warn_if_open(&self) {
        if let Some((path, mode)) = self.open_to_others() {
            let (path, mode) = (path.display(), format!("{mode:04o}"));
            tracing::warn!(%path, mode, "others on this machine can read the secret in this file");
        }
    }

    /// The file of a secret that others can read, and its permissions.
    fn open_to_others(&self) -> Option<(&PathBuf, u32)> {
        let path = match &self.means {
            Means::Secret(ClientSecret(Origin::File(path)))
            | Means::PrivateKeyFile(path)
            | Means::CertificateFiles { key: path, .. } => path,
            // A credentials file that is open to others is refused.
            Means::Secret(ClientSecret(Origin::Given(_) | Origin::CredentialsFile(_))) => {
                return None;
            }
        };
        let mode = secret_file::open_to_others(&fs::metadata(path).ok()?)?;
        Some((path, mode))
    }

    /// The client's name.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Makes a proof of who the client is, for one request to this issuer.
    pub(crate) fn prove(
        &self,
        issuer: Option<&Issuer>,
        now: Timestamp,
    ) -> Result<Proof, CredentialsError> {
        match &self.means {
            Means::Secret(secret) => secret.read().map(Proof::Secret),
            Means::PrivateKeyFile(path) => {
                // The audience is never what the server calls itself: somebody else's server could give
                // our issuer's name, and use there what we sign.
                let issuer = issuer.ok_or(CredentialsError::KeyWithoutIssuer)?;
                let key = SigningKey::from_file_text(&read_trimmed(path.clone())?)
                    .map_err(|error| CredentialsError::BadKey(path.clone(), error))?;
                let mut nonce = [0; 16];
                getrandom::fill(&mut nonce).map_err(|_| CredentialsError::NoRandomness)?;
                let audience = issuer.as_str();
                let assertion = sign_assertion(&key, &self.client_id, audience, now, nonce);
                Ok(Proof::Assertion(assertion))
            }
            Means::CertificateFiles { cert, key } => {
                let read = |path: &PathBuf| {
                    std::fs::read(path)
                        .map_err(|error| CredentialsError::Unreadable(path.clone(), error))
                };
                Ok(Proof::Certificate(CertifiedKey {
                    cert: read(cert)?,
                    key: Zeroizing::new(read(key)?),
                }))
            }
        }
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
    pub(crate) fn from_credentials_file(path: PathBuf) -> Self {
        Self(Origin::CredentialsFile(path))
    }

    /// The secret as it is now.
    pub(crate) fn read(&self) -> Result<Zeroizing<String>, CredentialsError> {
        match &self.0 {
            Origin::Given(secret) => Ok(Zeroizing::clone(secret)),
            Origin::File(path) => read_trimmed(path.clone()),
            Origin::CredentialsFile(path) => CredentialsFile::read(path)?.into_secret(),
        }
    }

    /// The current secret, if it differs by now from the one that was refused: its file was replaced
    /// while the request was under way.
    pub(crate) fn newer(&self, refused: &str) -> Option<Zeroizing<String>> {
        self.read().ok().filter(|secret| secret.as_str() != refused)
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
pub(crate) fn variable(
    lookup: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    file_name: &'static str,
) -> Result<String, CredentialsError> {
    match (lookup(name), lookup(file_name)) {
        (Some(_), Some(_)) => Err(CredentialsError::Contradictory(name, file_name)),
        (Some(value), None) => Ok(value),
        (None, Some(path)) => read_trimmed(path.into()).map(|text| text.to_string()),
        (None, None) => Err(CredentialsError::Missing(name)),
    }
}

/// The trimmed text of a file. An empty file is an error: a file that is being written can be empty for
/// a moment, and that is not a secret to try.
fn read_trimmed(path: PathBuf) -> Result<Zeroizing<String>, CredentialsError> {
    let text = File::open(&path).and_then(|file| secret_file::text_of(file, MAX_FILE));
    let text = match text {
        Ok(text) => text,
        Err(error) => return Err(CredentialsError::Unreadable(path, error)),
    };
    match text.trim() {
        "" => Err(CredentialsError::Empty(path)),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        fs::write(&path, "csec_hush").expect("it is ours");
        let client_id = || ClientId::new("order").expect("an id");
        let all = [
            Credentials::from_file(client_id(), &path),
            Credentials::private_key_file(client_id(), &path),
            Credentials::certificate_files(client_id(), "/dev/null", &path),
        ];
        for (mode, noticed) in [(0o600, false), (0o644, true), (0o400, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            for credentials in &all {
                assert_eq!(credentials.open_to_others().is_some(), noticed, "{mode:o}");
            }
        }
    }
}

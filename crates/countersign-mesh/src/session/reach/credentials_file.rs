//! The file that says who we are and where: sessions and the command line read the same one.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use zeroize::Zeroizing;

use crate::secret_file::{self, SecretFileError};
use crate::session::reach::error::{CredentialsError, CredentialsFileProblem};

/// The largest file that is read.
const MAX_FILE: u64 = 16 * 1024;

/// What such a file may say.
const KEYS: [&str; 8] = [
    "url",
    "client_id",
    "client_secret",
    "private_key_file",
    "client_cert_file",
    "client_key_file",
    "issuer",
    "ca_file",
];

/// What a credentials file holds. Its names may be those of any issuer, and are not checked yet.
/// `Debug` shows no secret.
#[derive(Debug)]
pub struct CredentialsFile {
    /// Where the file is.
    pub path: PathBuf,
    /// Where the server is.
    pub url: String,
    /// Who we are there.
    pub client_id: String,
    /// What we prove that with.
    pub proves: Proves,
    /// Whose keys are trusted, and for whom assertions are signed.
    pub issuer: Option<String>,
    /// The authorities that vouch for the server, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// What a credentials file names to prove who we are. Relative paths start at the directory of that
/// file.
pub enum Proves {
    /// A secret, in the file itself.
    Secret(Zeroizing<String>),
    /// A private key that signs assertions (RFC 7523).
    PrivateKeyFile(PathBuf),
    /// A client certificate and its key (RFC 8705 §2.1).
    CertificateFiles {
        /// The certificate, with its chain.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

impl fmt::Debug for Proves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret([redacted])"),
            Self::PrivateKeyFile(path) => f.debug_tuple("PrivateKeyFile").field(path).finish(),
            Self::CertificateFiles { cert, key } => {
                f.debug_tuple("CertificateFiles").field(cert).field(key).finish()
            }
        }
    }
}

impl CredentialsFile {
    /// Reads a credentials file, which must be its owner's only.
    ///
    /// # Errors
    /// When it cannot be read, can be read by others, is empty, or is not one.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text = read_private(path)?;
        // A file that is being written can be empty for a moment.
        if text.trim().is_empty() {
            return Err(CredentialsError::Empty(path.to_owned()));
        }
        Self::parse(&text, path)
            .map_err(|problem| CredentialsError::BadFile(path.to_owned(), problem))
    }

    fn parse(text: &str, path: &Path) -> Result<Self, CredentialsFileProblem> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            CredentialsFileProblem::NotToml(line, error.message().to_owned())
        })?;
        if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(CredentialsFileProblem::UnknownKey(unknown.clone(), &KEYS));
        }
        let mut take = |key: &'static str| match table.remove(key) {
            Some(Value::String(value)) => Ok(Some(value)),
            Some(_) => Err(CredentialsFileProblem::NotAString(key)),
            None => Ok(None),
        };
        let required = |value: Option<String>, key: &'static str| {
            value.ok_or(CredentialsFileProblem::Lacks(key))
        };
        // A relative path starts where the file is, not where the program runs.
        let beside = |file: String| path.parent().unwrap_or(Path::new("")).join(file);
        let (url, client_id) = (required(take("url")?, "url")?, take("client_id")?);
        let client_id = required(client_id, "client_id")?;
        let (issuer, ca_file) = (take("issuer")?, take("ca_file")?.map(beside));
        let named = [take("client_secret")?, take("private_key_file")?, take("client_cert_file")?];
        let proves = match (named, take("client_key_file")?) {
            ([Some(secret), None, None], None) => Proves::Secret(Zeroizing::new(secret)),
            // The audience is never what the server calls itself: somebody else's server could give our
            // issuer's name, and use there what we sign.
            ([None, Some(_), None], None) if issuer.is_none() => {
                return Err(CredentialsFileProblem::Lacks("issuer"));
            }
            ([None, Some(key), None], None) => Proves::PrivateKeyFile(beside(key)),
            ([None, None, Some(cert)], key) => {
                let key = beside(required(key, "client_key_file")?);
                Proves::CertificateFiles { cert: beside(cert), key }
            }
            ([None, None, None], None) => {
                return Err(CredentialsFileProblem::Lacks("client_secret"));
            }
            ([None, None, None], Some(_)) => {
                return Err(CredentialsFileProblem::Lacks("client_cert_file"));
            }
            _ => return Err(CredentialsFileProblem::ProvesTwice),
        };
        Ok(Self { path: path.to_owned(), url, client_id, proves, issuer, ca_file })
    }

    /// The authorities that vouch for the server, in PEM, if the file names any.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>, CredentialsError> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let pem = std::fs::read(path);
        pem.map(Some).map_err(|error| CredentialsError::Unreadable(path.clone(), error))
    }

    /// The secret in the file, if a secret is what it names.
    ///
    /// # Errors
    /// When the file names another proof.
    pub(crate) fn into_secret(self) -> Result<Zeroizing<String>, CredentialsError> {
        match self.proves {
            Proves::Secret(secret) => Ok(secret),
            Proves::PrivateKeyFile(_) | Proves::CertificateFiles { .. } => {
                let problem = CredentialsFileProblem::Lacks("client_secret");
                Err(CredentialsError::BadFile(self.path, problem))
            }
        }
    }
}

/// The text of a file that holds a secret: `secret_file` says who may read it.
///
/// # Errors
/// When it cannot be read, or others can read it too.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    secret_file::read(path, MAX_FILE).map_err(|error| match error {
        SecretFileError::Unreadable(error) => CredentialsError::Unreadable(path.to_owned(), error),
        SecretFileError::OpenToOthers(mode) => {
            CredentialsError::OpenToOthers(path.to_owned(), mode)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &str =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nclient_secret = \"csec_hush\"\n";

    fn parse(text: &str) -> Result<CredentialsFile, CredentialsFileProblem> {
        CredentialsFile::parse(text, Path::new("/etc/c/c.toml"))
    }

    #[test]
    fn an_incomplete_file_is_refused_with_its_problem_but_without_its_secret() {
        let file = parse(COMPLETE).expect("it is complete");
        assert_eq!((file.url.as_str(), file.client_id.as_str()), ("http://127.0.0.1:1", "cron"));
        assert!(matches!(&file.proves, Proves::Secret(secret) if secret.as_str() == "csec_hush"));
        assert!(!format!("{file:?}").contains("hush"));

        for (text, problem) in [
            (COMPLETE.replace("url", "ulr"), "unknown key `ulr`"),
            (COMPLETE.replace("client_id = \"cron\"\n", ""), "lacks `client_id`"),
            (COMPLETE.replace("\"csec_hush\"", "7"), "`client_secret` that is not a string"),
            (COMPLETE.replace("\"csec_hush\"", "csec_hush"), "on line 3"),
        ] {
            let told = parse(&text).expect_err("it is no good").to_string();
            assert!(told.contains(problem) && !told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn a_credentials_file_names_exactly_one_proof_and_relative_paths_start_beside_it() {
        let with = |more: &str| parse(&format!("url = \"u\"\nclient_id = \"c\"\n{more}"));
        let key = "private_key_file = \"c.key\"\n";
        let issuer = "issuer = \"https://issuer.test\"\n";
        let cert = "client_cert_file = \"c.crt\"\n";
        let its_key = "client_key_file = \"/run/c.key\"\n";
        let secret = "client_secret = \"s\"\n";

        let by_key = with(&format!("{key}{issuer}ca_file = \"ca.pem\"\n")).expect("complete");
        assert!(
            matches!(&by_key.proves, Proves::PrivateKeyFile(path) if path == Path::new("/etc/c/c.key"))
        );
        assert_eq!(by_key.ca_file.as_deref(), Some(Path::new("/etc/c/ca.pem")));
        let by_certificate = with(&format!("{cert}{its_key}")).expect("complete");
        let Proves::CertificateFiles { cert: path, key: key_path } = &by_certificate.proves else {
            panic!("{by_certificate:?}");
        };
        assert_eq!(path, Path::new("/etc/c/c.crt"));
        assert_eq!(key_path, Path::new("/run/c.key"));

        use CredentialsFileProblem::{Lacks, ProvesTwice};
        for (more, problem) in [
            (String::new(), Lacks("client_secret")),
            (key.to_owned(), Lacks("issuer")),
            (cert.to_owned(), Lacks("client_key_file")),
            (its_key.to_owned(), Lacks("client_cert_file")),
            (format!("{secret}{key}{issuer}"), ProvesTwice),
            (format!("{secret}{cert}{its_key}"), ProvesTwice),
            (format!("{key}{issuer}{cert}{its_key}"), ProvesTwice),
            (format!("{secret}{its_key}"), ProvesTwice),
        ] {
            assert_eq!(with(&more).expect_err(&more), problem, "{more}");
        }
    }
}

//! Why something cannot be reached: addresses, certificates and credentials that are no good.

use std::path::PathBuf;
use std::{fmt, io};

use crate::keys::InvalidKeyFile;

/// Why there is no session.
pub enum SessionError {
    /// The credentials are missing or cannot be used.
    Credentials(CredentialsError),
    /// The address is malformed.
    BadUrl(String),
    /// The address would take secrets over the network in plaintext.
    Plaintext(String),
    /// The authority's certificate is not one in PEM.
    BadCertificate,
    /// The client certificate is not one in PEM, or the key is not its own.
    BadClientCertificate,
    /// A client certificate cannot be presented over plaintext.
    CertificateInPlaintext,
    /// The system names no certificate authority.
    NoAuthorities,
    /// A file that was named cannot be read.
    Unreadable(PathBuf, io::Error),
    /// `COUNTERSIGN_ISSUER` is not the name of an issuer.
    BadIssuer,
    /// `COUNTERSIGN_WHEN_STALE` is neither `serve-stale` nor `fail-closed`.
    BadWhenStale,
    /// A trust file is named, but no issuer: it is believed for a given issuer only.
    TrustFileWithoutIssuer,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(error) => error.fmt(f),
            Self::BadUrl(url) => {
                write!(f, "{url} is not an address like https://countersign.example:9443")
            }
            Self::Plaintext(url) => write!(
                f,
                "{url} is plaintext and not on this machine; use https, or allow it with \
                 SessionBuilder::insecure_plaintext if something else encrypts",
            ),
            Self::BadCertificate => f.write_str("the CA certificate is not one in PEM"),
            Self::BadClientCertificate => {
                f.write_str("the client certificate is not one in PEM, or the key is not its own")
            }
            Self::CertificateInPlaintext => {
                f.write_str("a client certificate is presented over TLS; use an https address")
            }
            Self::NoAuthorities => f.write_str(
                "the system names no certificate authorities; give one with COUNTERSIGN_CA_FILE",
            ),
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::BadIssuer => f.write_str("COUNTERSIGN_ISSUER is not the URL of an issuer"),
            Self::BadWhenStale => {
                f.write_str("COUNTERSIGN_WHEN_STALE is neither serve-stale nor fail-closed")
            }
            Self::TrustFileWithoutIssuer => f.write_str(
                "a trust file is only believed for a known issuer; set COUNTERSIGN_ISSUER",
            ),
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Credentials(error) => error.source(),
            Self::Unreadable(_, error) => Some(error),
            Self::BadUrl(_)
            | Self::Plaintext(_)
            | Self::BadCertificate
            | Self::BadClientCertificate
            | Self::CertificateInPlaintext
            | Self::NoAuthorities
            | Self::BadIssuer
            | Self::BadWhenStale
            | Self::TrustFileWithoutIssuer => None,
        }
    }
}

/// The same as `Display`: a `main` that returns this error prints its `Debug`.
impl fmt::Debug for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why credentials cannot be used.
pub enum CredentialsError {
    /// A variable that is needed is not set.
    Missing(&'static str),
    /// A variable and its `_FILE` counterpart are both set.
    Contradictory(&'static str, &'static str),
    /// The client id is not one.
    BadClientId,
    /// A credentials file can be read by others than its owner; its mode.
    OpenToOthers(PathBuf, u32),
    /// A credentials file is malformed, and why.
    BadFile(PathBuf, CredentialsFileProblem),
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file has nothing in it.
    Empty(PathBuf),
    /// A file is not the private key that it should be.
    BadKey(PathBuf, InvalidKeyFile),
    /// Both a secret and a private key are named.
    SecretAndKey,
    /// A private key is named, but no issuer: assertions are signed for a given issuer only.
    KeyWithoutIssuer,
    /// A certificate is named without its key.
    CertificateWithoutKey,
    /// The system has no randomness to give.
    NoRandomness,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "neither {name} nor {name}_FILE is set"),
            Self::Contradictory(one, other) => {
                write!(f, "both {one} and {other} are set; unset one of them")
            }
            Self::OpenToOthers(path, mode) => {
                write!(
                    f,
                    "{} can be read by others (mode {mode:04o}); chmod 600 it",
                    path.display()
                )
            }
            Self::BadFile(path, problem) => write!(f, "{} {problem}", path.display()),
            Self::BadClientId => f.write_str("COUNTERSIGN_CLIENT_ID is not a client id"),
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Empty(path) => write!(f, "{} is empty", path.display()),
            Self::BadKey(path, error) => write!(f, "{}: {error}", path.display()),
            Self::SecretAndKey => f.write_str(
                "both COUNTERSIGN_CLIENT_SECRET and COUNTERSIGN_CLIENT_KEY_FILE are set; unset one of them",
            ),
            Self::KeyWithoutIssuer => f.write_str(
                "a private key proves something to a known issuer only; set COUNTERSIGN_ISSUER",
            ),
            Self::CertificateWithoutKey => f.write_str(
                "COUNTERSIGN_CLIENT_CERT_FILE is set without COUNTERSIGN_CLIENT_KEY_FILE",
            ),
            Self::NoRandomness => f.write_str("the system has no randomness to give"),
        }
    }
}

impl std::error::Error for CredentialsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::BadKey(_, error) => Some(error),
            Self::BadFile(_, problem) => Some(problem),
            Self::Missing(_)
            | Self::Contradictory(..)
            | Self::BadClientId
            | Self::OpenToOthers(..)
            | Self::Empty(_)
            | Self::SecretAndKey
            | Self::KeyWithoutIssuer
            | Self::CertificateWithoutKey
            | Self::NoRandomness => None,
        }
    }
}

/// The same as `Display`: a `main` that returns this error prints its `Debug`.
impl fmt::Debug for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a file is no credentials file. None of its text is repeated: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsFileProblem {
    /// It is not TOML: the line, and what is wrong there.
    NotToml(usize, String),
    /// It has a key that nobody knows, and these are known.
    UnknownKey(String, &'static [&'static str]),
    /// The value of a key is not a string.
    NotAString(&'static str),
    /// It lacks a key.
    Lacks(&'static str),
    /// It names more than one thing to prove who we are.
    ProvesTwice,
    /// The value of a key is no name of the kind that it should be.
    BadName(&'static str),
}

impl std::error::Error for CredentialsFileProblem {}

impl fmt::Display for CredentialsFileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotToml(line, problem) => write!(f, "is not TOML: {problem} on line {line}"),
            Self::UnknownKey(key, known) => {
                write!(f, "has the unknown key `{key}`; known are {}", known.join(", "))
            }
            Self::NotAString(key) => write!(f, "has a `{key}` that is not a string"),
            Self::Lacks(key) => write!(f, "lacks `{key}`"),
            Self::ProvesTwice => f.write_str(
                "has more than one of `client_secret`, `private_key_file` and `client_cert_file` with \
                 `client_key_file`",
            ),
            Self::BadName(key) => write!(f, "has a `{key}` that is not one"),
        }
    }
}

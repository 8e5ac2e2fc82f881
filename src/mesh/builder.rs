//! From what a program knows to a session.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tonic::transport::Channel;

use crate::claims::ClientId;
use crate::claims::Issuer;
use crate::mesh::address::Plaintext;
use crate::mesh::address::Roots;
use crate::mesh::address::address;
use crate::mesh::address::channel;
use crate::mesh::address::server_address;
use crate::mesh::credentials::Credentials;
use crate::mesh::credentials::CredentialsError;
use crate::mesh::credentials::variable;
use crate::mesh::credentials_file;
use crate::mesh::endpoint::Countersign;
use crate::mesh::http_client::HttpClient;
use crate::mesh::session::Session;
use crate::mesh::trust_source::Jwks;
use crate::mesh::trust_source::KeysOf;

/// How long Countersign may take for a token.
const LONGEST_ANSWER: std::time::Duration = std::time::Duration::from_secs(10);

/// Makes a [`Session`] of what a program knows.
#[derive(Debug)]
pub struct SessionBuilder {
    url: String,
    credentials: Credentials,
    plaintext: Plaintext,
    ca: Option<Vec<u8>>,
    issuer: Option<Issuer>,
    trust_file: Option<PathBuf>,
    channel: Option<Channel>,
}

/// Why there is no session.
#[derive(Debug)]
pub enum SessionError {
    /// The credentials are missing or cannot be used.
    Credentials(CredentialsError),
    /// The address is not one.
    BadUrl(String),
    /// The address would take secrets over the network in plaintext.
    Plaintext(String),
    /// The certificate of the authority is not one.
    BadCertificate,
    /// The system names no certificate authority.
    NoAuthorities,
    /// A file that was named cannot be read.
    Unreadable(PathBuf, io::Error),
    /// `COUNTERSIGN_ISSUER` is not the name of an issuer.
    BadIssuer,
    /// A trust file is only believed for an issuer that is given.
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
            Self::NoAuthorities => f.write_str(
                "the system names no certificate authorities; give one with COUNTERSIGN_CA_FILE",
            ),
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::BadIssuer => f.write_str("COUNTERSIGN_ISSUER is not the URL of an issuer"),
            Self::TrustFileWithoutIssuer => f.write_str(
                "a trust file is only believed for a known issuer; set COUNTERSIGN_ISSUER",
            ),
        }
    }
}

impl std::error::Error for SessionError {}

impl SessionBuilder {
    pub(super) fn new(url: &str, credentials: Credentials) -> Self {
        Self {
            url: url.to_owned(),
            credentials,
            plaintext: Plaintext::OnLoopback,
            ca: None,
            issuer: None,
            trust_file: None,
            channel: None,
        }
    }

    /// From the variables of [`Session::from_env`], as `lookup` finds them.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn from_variables(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SessionError> {
        let url = variable(lookup, "COUNTERSIGN_URL", "COUNTERSIGN_URL_FILE")
            .map_err(SessionError::Credentials)?;
        let credentials = Credentials::from_variables(lookup).map_err(SessionError::Credentials)?;
        let mut builder = Self::new(&url, credentials);
        if let Some(path) = lookup("COUNTERSIGN_CA_FILE") {
            let path = PathBuf::from(path);
            let pem =
                std::fs::read(&path).map_err(|error| SessionError::Unreadable(path, error))?;
            builder = builder.ca_certificate(&pem);
        }
        if let Some(issuer) = lookup("COUNTERSIGN_ISSUER") {
            builder = builder.issuer(Issuer::new(&issuer).map_err(|_| SessionError::BadIssuer)?);
        }
        if let Some(path) = lookup("COUNTERSIGN_TRUST_FILE") {
            builder = builder.trust_file(path);
        }
        Ok(builder)
    }

    /// From a credentials file, as `countersign client create --out` writes one: TOML with `url`,
    /// `client_id` and `client_secret`, mode 0600. The secret is read again for each token.
    ///
    /// # Errors
    /// When the file cannot be read, can be read by others, or is not one.
    pub fn from_credentials_file(path: impl Into<PathBuf>) -> Result<Self, SessionError> {
        let path = path.into();
        let file = credentials_file::read(&path).map_err(SessionError::Credentials)?;
        let client_id = ClientId::new(&file.client_id).map_err(|_| {
            let problem = "has a `client_id` that is not one".to_owned();
            SessionError::Credentials(CredentialsError::BadFile(path.clone(), problem))
        })?;
        Ok(Self::new(&file.url, Credentials::from_credentials_file(client_id, path)))
    }

    /// Lets credentials and tokens go over the network in plaintext.
    pub fn insecure_plaintext(mut self) -> Self {
        self.plaintext = Plaintext::Anywhere;
        self
    }

    /// Believes servers whose certificate is signed by this authority, in PEM, instead of those that
    /// the system believes.
    pub fn ca_certificate(mut self, pem: &[u8]) -> Self {
        self.ca = Some(pem.to_owned());
        self
    }

    /// The issuer whose keys are trusted. Without it that is whoever the address leads to first, and
    /// it stays that one.
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Keeps the latest keys in this file, so that a guard can start while Countersign is down. Needs
    /// the [issuer](Self::issuer). The file is believed if it is its owner's only, mode 0600, and of
    /// that issuer; keys older than those in it are refused.
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust_file = Some(path.into());
        self
    }

    /// Asks for tokens over this channel, instead of one of the session's own. Keys are fetched from
    /// the address nevertheless.
    pub fn channel(mut self, channel: Channel) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Makes the session; it connects when the first token is needed. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`SessionError`]. A secret's file must be there already.
    pub fn connect(self) -> Result<Session, SessionError> {
        let uri = server_address(&self.url, self.plaintext)?;
        let roots = match &self.ca {
            Some(pem) => Roots::only(pem)?,
            None => Roots::default(),
        };
        self.credentials.secret().read().map_err(SessionError::Credentials)?;
        if self.trust_file.is_some() && self.issuer.is_none() {
            return Err(SessionError::TrustFileWithoutIssuer);
        }
        let jwks = format!("{}/.well-known/jwks.json", self.url.trim_end_matches('/'));
        let jwks = Jwks {
            uri: address(&jwks, self.plaintext)?,
            http: HttpClient::new(roots.for_http(&uri)?),
            keys_of: KeysOf::Countersign(self.issuer),
            file: self.trust_file,
        };
        let channel = match self.channel {
            Some(channel) => channel,
            None => channel(uri, &roots)?.timeout(LONGEST_ANSWER).connect_lazy(),
        };
        let countersign = Countersign::new(channel, self.credentials);
        Ok(Session::new(countersign, jwks, roots, self.plaintext))
    }
}

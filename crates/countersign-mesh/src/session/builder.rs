//! Builds a session from what a program is told: variables, a credentials file, or values of its own.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::Channel;

use crate::claims::{Clock, Issuer};
use crate::guard::WhenStale;
use crate::session::link::{Link, LinkError};
use crate::session::live::Session;
use crate::session::reach::address::{
    Plaintext, Roots, address, channel, channel_presenting, server_address,
};
use crate::session::reach::credentials::{Credentials, Proof, variable};
use crate::session::reach::credentials_file::CredentialsFile;
use crate::session::reach::error::{CredentialsError, SessionError};
use crate::session::reach::http_client::HttpClient;
use crate::session::reach::jitter::Jitter;
use crate::session::reach::presenting::Presenting;
use crate::session::tokens::countersign::Countersign;
use crate::session::tokens::sources::TokenSources;
use crate::session::trust::source::{Jwks, KeysOf, TrustSource};
use crate::session::trust::verifier_name;

/// How long Countersign may take to answer a request for a token.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// The variable that names a credentials file.
const CREDENTIALS_FILE: &str = "COUNTERSIGN_CREDENTIALS";

/// The variables that say in pieces what a credentials file says.
const IN_PLACE_OF_A_FILE: [&str; 8] = [
    "COUNTERSIGN_URL",
    "COUNTERSIGN_URL_FILE",
    "COUNTERSIGN_CLIENT_ID",
    "COUNTERSIGN_CLIENT_ID_FILE",
    "COUNTERSIGN_CLIENT_SECRET",
    "COUNTERSIGN_CLIENT_SECRET_FILE",
    "COUNTERSIGN_CLIENT_KEY_FILE",
    "COUNTERSIGN_CLIENT_CERT_FILE",
];

/// Builds a [`Session`].
#[derive(Debug, Clone)]
pub struct SessionBuilder {
    url: String,
    credentials: Credentials,
    plaintext: Plaintext,
    ca: Option<Vec<u8>>,
    issuer: Option<Issuer>,
    trust_file: Option<PathBuf>,
    channel: Option<Channel>,
    verifier_name: Option<String>,
    when_stale: WhenStale,
    max_staleness: Option<Duration>,
    clock: Clock,
    jitter: Jitter,
}

impl Session {
    /// From the environment, see [the module](crate::session#the-environment). An empty variable counts
    /// as unset.
    ///
    /// Connects when the first token is needed, so a service may start before Countersign does.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn from_env() -> Result<Self, SessionError> {
        let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        SessionBuilder::from_variables(&lookup)?.connect()
    }

    /// A session with the Countersign at this address.
    pub fn builder(url: &str, credentials: Credentials) -> SessionBuilder {
        SessionBuilder::new(url, credentials)
    }
}

impl SessionBuilder {
    fn new(url: &str, credentials: Credentials) -> Self {
        Self {
            url: url.to_owned(),
            credentials,
            plaintext: Plaintext::OnLoopback,
            ca: None,
            issuer: None,
            trust_file: None,
            channel: None,
            verifier_name: None,
            when_stale: WhenStale::default(),
            max_staleness: None,
            clock: Clock::system(),
            jitter: Jitter::system(),
        }
    }

    /// From the variables of [`Session::from_env`], as `lookup` finds them.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn from_variables(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SessionError> {
        let mut builder = match lookup(CREDENTIALS_FILE) {
            Some(path) => {
                // Credentials of one server must not go to the address of another.
                if let Some(name) =
                    IN_PLACE_OF_A_FILE.into_iter().find(|name| lookup(name).is_some())
                {
                    let error = CredentialsError::Contradictory(CREDENTIALS_FILE, name);
                    return Err(SessionError::Credentials(error));
                }
                Self::from_credentials_file(path)?
            }
            None => {
                let url = variable(lookup, "COUNTERSIGN_URL", "COUNTERSIGN_URL_FILE")
                    .map_err(SessionError::Credentials)?;
                let credentials =
                    Credentials::from_variables(lookup).map_err(SessionError::Credentials)?;
                Self::new(&url, credentials)
            }
        };
        if let (None, Some(path)) = (&builder.ca, lookup("COUNTERSIGN_CA_FILE")) {
            let path = PathBuf::from(path);
            let pem =
                std::fs::read(&path).map_err(|error| SessionError::Unreadable(path, error))?;
            builder = builder.ca_certificate(&pem);
        }
        if let (None, Some(issuer)) = (&builder.issuer, lookup("COUNTERSIGN_ISSUER")) {
            builder = builder.issuer(Issuer::new(&issuer).map_err(|_| SessionError::BadIssuer)?);
        }
        if let Some(path) = lookup("COUNTERSIGN_TRUST_FILE") {
            builder = builder.trust_file(path);
        }
        if let Some(name) = lookup("COUNTERSIGN_VERIFIER_NAME") {
            builder = builder.verifier_name(&name);
        }
        match lookup("COUNTERSIGN_WHEN_STALE").as_deref() {
            None => Ok(builder),
            Some("serve-stale") => Ok(builder.when_stale(WhenStale::ServeStale)),
            Some("fail-closed") => Ok(builder.when_stale(WhenStale::FailClosed)),
            Some(_) => Err(SessionError::BadWhenStale),
        }
    }

    /// From a credentials file, the one that the command line reads too, as `countersign client create
    /// --out` writes it: TOML with `url` and `client_id`, mode 0600, and one of
    ///
    /// - `client_secret`, which is read again for each token;
    /// - `private_key_file`, whose key signs assertions for the `issuer`, which must be named then;
    /// - `client_cert_file` with `client_key_file`.
    ///
    /// It may also name the [`issuer`](Self::issuer), and with `ca_file` the authorities that vouch for the
    /// server. Files are looked for beside it.
    ///
    /// # Errors
    /// When the file cannot be read, can be read by others, or is not one.
    pub fn from_credentials_file(path: impl Into<PathBuf>) -> Result<Self, SessionError> {
        let file = CredentialsFile::read(&path.into()).map_err(SessionError::Credentials)?;
        Self::of_credentials_file(&file)
    }

    /// The same, from a file that has been read already.
    ///
    /// # Errors
    /// When a name in it is not one, or its authorities cannot be read.
    #[doc(hidden)]
    pub fn of_credentials_file(file: &CredentialsFile) -> Result<Self, SessionError> {
        let ca = file.authorities().map_err(SessionError::Credentials)?;
        let (credentials, issuer) =
            Credentials::from_credentials_file(file).map_err(SessionError::Credentials)?;
        Ok(Self { issuer, ca, ..Self::new(&file.url, credentials) })
    }

    /// The address of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets credentials and tokens go over the network in plaintext.
    pub fn insecure_plaintext(mut self) -> Self {
        self.plaintext = Plaintext::Anywhere;
        self
    }

    /// Trusts servers whose certificate is signed by this authority, in PEM, instead of by one of the
    /// system's.
    pub fn ca_certificate(mut self, pem: &[u8]) -> Self {
        self.ca = Some(pem.to_owned());
        self
    }

    /// The issuer whose keys are trusted. Without it the session trusts the first issuer that it finds
    /// at the address, and keeps to that one. A [private key](Credentials::private_key_file) needs it:
    /// assertions are signed for this issuer.
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Keeps the latest keys and revocations in this file. With it a guard can start while Countersign
    /// is down, and a restart forgets no revocation. Needs the [issuer](Self::issuer). The file is
    /// believed if only its owner can read it (mode 0600) and it is of that issuer; afterwards nothing
    /// older than it is accepted. The file makes nothing fresh: a guard that fails closed refuses calls
    /// until Countersign has been heard.
    ///
    /// The file is written at most once a second. What came in the second before a crash is fetched
    /// again.
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust_file = Some(path.into());
        self
    }

    /// What guards do while keys and revocations are stale: go on, unless told otherwise here.
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.when_stale = when_stale;
        self
    }

    /// How old keys and revocations may become before they are stale. The server's own limit counts
    /// too, or five minutes where it says none: the shorter one applies. The stream confirms them every
    /// five seconds, a poll once a minute; a limit shorter than a few of those raises an alarm at every
    /// hiccup.
    pub fn max_staleness(mut self, longest: Duration) -> Self {
        self.max_staleness = Some(longest);
        self
    }

    /// What this verifier is called in lists of verifiers, instead of by the name of its host. A label
    /// only. What is not printable ASCII is left out, and so is what is past 128 characters.
    pub fn verifier_name(mut self, name: &str) -> Self {
        self.verifier_name = Some(verifier_name::printable(name));
        self
    }

    /// Asks for tokens and the trust stream over this channel, instead of over one that the session
    /// makes. The JWK Set is fetched from the address nevertheless.
    pub fn channel(mut self, channel: Channel) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Reads the time from this clock. Waits, and the age of keys and revocations, are counted by
    /// tokio's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes the random part of waits from here. A simulation passes a seed.
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Makes the session; it connects when the first token is needed. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`SessionError`]. A secret's or a key's file must be there already.
    pub fn connect(self) -> Result<Session, SessionError> {
        let uri = server_address(&self.url, self.plaintext)?;
        let roots = self.roots()?;
        let proof = self
            .credentials
            .prove(self.issuer.as_ref(), self.clock.now())
            .map_err(SessionError::Credentials)?;
        self.credentials.warn_if_open();
        if self.trust_file.is_some() && self.issuer.is_none() {
            return Err(SessionError::TrustFileWithoutIssuer);
        }
        let jwks = format!("{}/.well-known/jwks.json", self.url.trim_end_matches('/'));
        let trust_source = TrustSource {
            jwks: Jwks {
                uri: address(&jwks, self.plaintext)?,
                http: HttpClient::new(roots.for_http(&uri)?),
                keys_of: KeysOf::Countersign(self.issuer.clone()),
                jitter: self.jitter.clone(),
            },
            file: self.trust_file,
            when_stale: self.when_stale,
            max_staleness: self.max_staleness,
            clock: self.clock.clone(),
        };
        let verifier_name = self.verifier_name.unwrap_or_else(verifier_name::of_host);
        let countersign = match (self.channel, proof) {
            // A channel that the program has made presents a certificate itself, if there is one.
            (Some(channel), _) => {
                Countersign::new(channel, self.credentials, self.issuer, self.clock)
            }
            (None, Proof::Certificate(_)) if uri.scheme_str() != Some("https") => {
                return Err(SessionError::CertificateInPlaintext);
            }
            (None, proof) => {
                let channel = channel(uri.clone(), &roots)?.timeout(LONGEST_ANSWER).connect_lazy();
                let countersign =
                    Countersign::new(channel, self.credentials, self.issuer, self.clock);
                match proof {
                    Proof::Certificate(certified) => {
                        let presenting = Presenting::new(uri, roots.clone(), LONGEST_ANSWER);
                        // Made now rather than with the first token, so that files which are no good
                        // fail this call.
                        presenting.channel(&certified)?;
                        countersign.presenting(presenting)
                    }
                    Proof::Secret(_) | Proof::Assertion(_) => countersign,
                }
            }
        };
        let tokens = TokenSources::new(countersign, self.jitter);
        Ok(Session::new(tokens, trust_source, verifier_name, roots, self.plaintext))
    }

    fn roots(&self) -> Result<Roots, SessionError> {
        match &self.ca {
            Some(pem) => Roots::only(pem),
            None => Ok(Roots::default()),
        }
    }

    /// Connects now, and does nothing in the background. For a program that asks for something and
    /// ends.
    ///
    /// # Errors
    /// See [`LinkError`].
    #[doc(hidden)]
    pub async fn link(self) -> Result<Link, LinkError> {
        let uri = server_address(&self.url, self.plaintext)?;
        let roots = self.roots()?;
        let proof = self
            .credentials
            .prove(self.issuer.as_ref(), self.clock.now())
            .map_err(SessionError::Credentials)?;
        let endpoint = match proof {
            Proof::Certificate(_) if uri.scheme_str() != Some("https") => {
                return Err(SessionError::CertificateInPlaintext.into());
            }
            Proof::Certificate(certified) => {
                channel_presenting(uri, &roots, certified.to_identity())?
            }
            Proof::Secret(_) | Proof::Assertion(_) => channel(uri, &roots)?,
        };
        let channel = endpoint.timeout(LONGEST_ANSWER).connect().await?;
        let countersign =
            Countersign::new(channel.clone(), self.credentials, self.issuer, self.clock);
        Ok(Link::new(channel, countersign))
    }
}

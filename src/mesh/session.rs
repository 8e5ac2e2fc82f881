//! A workload's link to Countersign.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tonic::Status;
use tonic::transport::Channel;
use tonic::transport::Endpoint as TransportEndpoint;

use crate::claims::Audience;
use crate::claims::Issuer;
use crate::claims::ScopeSet;
use crate::guard::ServicePolicy;
use crate::guard::Trust;
use crate::mesh::authenticated::Authenticated;
use crate::mesh::authenticated::OutgoingPolicy;
use crate::mesh::credentials::Credentials;
use crate::mesh::credentials::CredentialsError;
use crate::mesh::credentials::variable;
use crate::mesh::endpoint::Endpoint;
use crate::mesh::http_client::HttpClient;
use crate::mesh::interceptor::AuthInterceptor;
use crate::mesh::token_source::NoToken;
use crate::mesh::token_source::TokenSource;
use crate::mesh::trust_source::KeysOf;
use crate::mesh::trust_source::poll_keys;

/// One for a process. Cheap to clone; everything that it keeps fresh stops when the last clone, and
/// the last client that was made with it, is dropped.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    /// Tokens are for this audience, whatever the policy says.
    audience: Option<Audience>,
}

struct Shared {
    endpoint: Endpoint,
    sources: Mutex<HashMap<(Audience, ScopeSet), TokenSource>>,
    keys: Uri,
    trust: OnceLock<Trust>,
    /// What the clients that were made will need, whether or not they have called yet.
    needed: Mutex<HashSet<(Audience, ScopeSet)>>,
}

/// Makes a [`Session`] of what a program knows.
pub struct SessionBuilder {
    url: String,
    credentials: Credentials,
    plaintext_off_loopback: bool,
}

/// Why there is no session.
#[derive(Debug)]
pub enum SessionError {
    /// The credentials are missing or cannot be used.
    Credentials(CredentialsError),
    /// The address is not one, or speaks a protocol that this version does not.
    BadUrl(String),
    /// The address would take the credentials over the network in plaintext.
    Plaintext(String),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(error) => error.fmt(f),
            Self::BadUrl(url) => write!(f, "{url} is not an address like http://127.0.0.1:9443"),
            Self::Plaintext(url) => write!(
                f,
                "{url} is plaintext and not on this machine; use a local proxy that speaks TLS, \
                 or allow it with SessionBuilder::insecure_plaintext",
            ),
        }
    }
}

impl std::error::Error for SessionError {}

impl Session {
    /// From `COUNTERSIGN_URL`, `COUNTERSIGN_CLIENT_ID` and `COUNTERSIGN_CLIENT_SECRET`, each also as a
    /// file named by `…_FILE`. The file of a secret is read again for each token.
    ///
    /// Connects when the first token is needed, so a service may start before Countersign does.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn from_env() -> Result<Self, SessionError> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SessionError> {
        let url = variable(lookup, "COUNTERSIGN_URL", "COUNTERSIGN_URL_FILE")
            .map_err(SessionError::Credentials)?;
        let credentials = Credentials::from_variables(lookup).map_err(SessionError::Credentials)?;
        Self::builder(&url, credentials).connect()
    }

    /// A session with the Countersign at this address.
    pub fn builder(url: &str, credentials: Credentials) -> SessionBuilder {
        SessionBuilder { url: url.to_owned(), credentials, plaintext_off_loopback: false }
    }

    /// The same session, for services that are deployed under another audience than their `.proto`
    /// says: `session.audience(..)` where the client is made.
    pub fn audience(&self, audience: Audience) -> Self {
        Self { shared: Arc::clone(&self.shared), audience: Some(audience) }
    }

    /// Puts tokens on the calls that go through a transport: each call gets one with the scopes that
    /// its method demands. Methods that these policies do not declare fail without touching the network.
    pub fn attach<S>(&self, transport: S, policies: &[ServicePolicy]) -> Authenticated<S> {
        Authenticated::new(transport, self.outgoing(policies))
    }

    /// The same as a tonic interceptor, which cannot wait: a call that comes before its token fails
    /// with UNAVAILABLE.
    pub fn interceptor(&self, policies: &[ServicePolicy]) -> AuthInterceptor {
        AuthInterceptor::new(self.outgoing(policies))
    }

    /// A token for an audience and scopes of the caller's choice, for calls that are not gRPC.
    pub fn token_source(&self, audience: Audience, scopes: ScopeSet) -> TokenSource {
        let mut sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources
            .entry((audience, scopes))
            .or_insert_with_key(|(audience, scopes)| {
                TokenSource::start(self.shared.endpoint.clone(), audience.clone(), scopes.clone())
            })
            .clone()
    }

    /// Countersign's keys, for a [`Guard`](crate::guard::Guard): fetched from now on, and kept fresh.
    /// Until the first ones are here the guard refuses every token with UNAVAILABLE.
    pub fn trust(&self) -> Trust {
        let shared = &self.shared;
        let start = || poll_keys(HttpClient::new(), shared.keys.clone(), KeysOf::Countersign);
        shared.trust.get_or_init(start).clone()
    }

    /// Waits until this session can call and be called: until Countersign has issued a token for each
    /// audience that a client was made for, and has given its keys if a guard was made.
    ///
    /// # Errors
    /// At once when Countersign refuses to issue one of them; after `longest` when it has not answered.
    pub async fn ready(&self, longest: Duration) -> Result<(), NoToken> {
        let deadline = Instant::now() + longest;
        let needed = self.shared.needed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sources =
            needed.into_iter().map(|(audience, scopes)| self.token_source(audience, scopes));
        let sources: Vec<TokenSource> = sources.collect();
        for source in sources {
            source.token(deadline).await?;
        }
        if let Some(mut trust) = self.shared.trust.get().cloned() {
            while trust.bundle().is_none() {
                if timeout_at(deadline, trust.changed()).await.is_err() {
                    return Err(NoToken::Unavailable(Status::unavailable("no keys in time")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn will_need(&self, audience: &Audience, scopes: &ScopeSet) {
        let mut needed = self.shared.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.insert((audience.clone(), scopes.clone()));
    }

    fn outgoing(&self, policies: &[ServicePolicy]) -> OutgoingPolicy {
        OutgoingPolicy::new(self.clone(), self.audience.as_ref(), policies)
    }
}

impl SessionBuilder {
    /// Lets credentials and tokens go over the network in plaintext.
    pub fn insecure_plaintext(mut self) -> Self {
        self.plaintext_off_loopback = true;
        self
    }

    /// Makes the session; it connects when the first token is needed. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn connect(self) -> Result<Session, SessionError> {
        let endpoint = TransportEndpoint::from_shared(self.url.clone())
            .map_err(|_| SessionError::BadUrl(self.url.clone()))?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(SessionError::BadUrl(self.url));
        }
        if !self.plaintext_off_loopback && !is_loopback(endpoint.uri().host()) {
            return Err(SessionError::Plaintext(self.url));
        }
        let channel: Channel = endpoint
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let endpoint = Endpoint::new(channel, self.credentials);
        let keys = format!("{}/.well-known/jwks.json", self.url.trim_end_matches('/'));
        let keys = keys.parse().map_err(|_| SessionError::BadUrl(self.url))?;
        let shared = Shared {
            endpoint,
            sources: Mutex::default(),
            keys,
            trust: OnceLock::new(),
            needed: Mutex::default(),
        };
        Ok(Session { shared: Arc::new(shared), audience: None })
    }
}

/// Trust in any one issuer whose keys are at this address, fetched from now on and kept fresh. Must be
/// called within a tokio runtime.
///
/// # Errors
/// When the address is not one, or not on this machine and in plaintext.
pub fn trust_in(issuer: Issuer, jwks_url: &str) -> Result<Trust, SessionError> {
    let uri: Uri = jwks_url.parse().map_err(|_| SessionError::BadUrl(jwks_url.to_owned()))?;
    if uri.scheme_str() != Some("http") {
        return Err(SessionError::BadUrl(jwks_url.to_owned()));
    }
    if !is_loopback(uri.host()) {
        return Err(SessionError::Plaintext(jwks_url.to_owned()));
    }
    Ok(poll_keys(HttpClient::new(), uri, KeysOf::Issuer(issuer)))
}

fn is_loopback(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// One session serves both directions: `Guard::new(&session, pb::POLICIES)`.
impl From<&Session> for Trust {
    fn from(session: &Session) -> Self {
        session.trust()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("audience", &self.audience).finish_non_exhaustive()
    }
}

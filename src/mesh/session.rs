//! A workload's link to Countersign.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::transport::Endpoint as TransportEndpoint;

use crate::claims::Audience;
use crate::claims::ScopeSet;
use crate::guard::ServicePolicy;
use crate::mesh::authenticated::Authenticated;
use crate::mesh::authenticated::OutgoingPolicy;
use crate::mesh::credentials::Credentials;
use crate::mesh::credentials::CredentialsError;
use crate::mesh::credentials::variable;
use crate::mesh::endpoint::Endpoint;
use crate::mesh::interceptor::AuthInterceptor;
use crate::mesh::token_source::TokenSource;

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
        let shared = Shared { endpoint, sources: Mutex::default() };
        Ok(Session { shared: Arc::new(shared), audience: None })
    }
}

fn is_loopback(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("audience", &self.audience).finish_non_exhaustive()
    }
}

//! A workload's link to Countersign.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use crate::claims::{Audience, COUNTERSIGN, MAX_TOKEN_LIFE, ScopeSet};
use crate::guard::{ServicePolicy, Trust};
use crate::session::address::{Plaintext, Roots, channel, server_address};
use crate::session::authenticated::Authenticated;
use crate::session::builder::{SessionBuilder, SessionError};
use crate::session::credentials::Credentials;
use crate::session::endpoint::{Countersign, Endpoint};
use crate::session::health::Health;
use crate::session::interceptor::AuthInterceptor;
use crate::session::outgoing::OutgoingPolicy;
use crate::session::token_source::{NoToken, TokenSource};
use crate::session::trust_source::{LiveTrust, TrustSource};
use crate::session::trust_stream::TrustStream;

/// One for a process. Cheap to clone; everything that it keeps fresh stops when the last clone, and
/// the last client that was made with it, is dropped.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    /// Tokens are for this audience, whatever the policy says.
    audience: Option<Audience>,
}

struct Shared {
    countersign: Countersign,
    sources: Mutex<HashMap<(Audience, ScopeSet), TokenSource>>,
    trust_source: TrustSource,
    verifier_name: String,
    trust: OnceLock<LiveTrust>,
    /// What the clients that were made will need, whether or not they have called yet.
    needed: Mutex<HashSet<(Audience, ScopeSet)>>,
    roots: Roots,
    plaintext: Plaintext,
}

impl Session {
    pub(super) fn new(
        countersign: Countersign,
        trust_source: TrustSource,
        verifier_name: String,
        roots: Roots,
        plaintext: Plaintext,
    ) -> Self {
        let shared = Shared {
            countersign,
            sources: Mutex::default(),
            trust_source,
            verifier_name,
            trust: OnceLock::new(),
            needed: Mutex::default(),
            roots,
            plaintext,
        };
        Self { shared: Arc::new(shared), audience: None }
    }

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

    /// The same session, for services that are deployed under another audience than their `.proto`
    /// says: `session.audience(..)` where the client is made.
    pub fn audience(&self, audience: Audience) -> Self {
        Self { shared: Arc::clone(&self.shared), audience: Some(audience) }
    }

    /// A channel to a service, with what this session has: its certificate authorities, HTTP/2
    /// keepalive, and plaintext to this machine only unless the session may otherwise. It connects
    /// when it is first used. A channel that the program makes itself will do as well.
    ///
    /// # Errors
    /// When the address is not one, or tokens would cross the network in plaintext.
    pub fn channel(&self, url: &str) -> Result<Channel, SessionError> {
        let uri = server_address(url, self.shared.plaintext)?;
        Ok(channel(uri, &self.shared.roots)?.connect_lazy())
    }

    /// Puts tokens on the calls that go through a transport: each call gets one with the scopes that
    /// its method demands. Methods that these policies do not declare fail without touching the network.
    pub fn attach<S>(&self, transport: S, policies: &[ServicePolicy]) -> Authenticated<S> {
        Authenticated::new(transport, self.outgoing(policies))
    }

    /// The same as a tonic interceptor, which cannot wait: a call that comes before its token fails
    /// with UNAVAILABLE, and has it fetched.
    pub fn interceptor(&self, policies: &[ServicePolicy]) -> AuthInterceptor {
        AuthInterceptor::new(self.outgoing(policies))
    }

    /// A token for an audience and scopes of the caller's choice, for calls that are not gRPC.
    pub fn token_source(&self, audience: Audience, scopes: ScopeSet) -> TokenSource {
        let mut sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources
            .entry((audience, scopes))
            .or_insert_with_key(|(audience, scopes)| {
                let endpoint = Endpoint::Countersign {
                    countersign: self.shared.countersign.clone(),
                    audience: audience.clone(),
                    scopes: scopes.clone(),
                };
                TokenSource::start(endpoint, self.shared.trust_source.jwks.jitter.clone())
            })
            .clone()
    }

    /// Countersign's keys and revocations, for a [`Guard`](crate::guard::Guard): fetched from now on,
    /// and kept fresh. Until the first keys are here the guard refuses every token with UNAVAILABLE.
    pub fn trust(&self) -> Trust {
        self.live_trust().trust.clone()
    }

    /// How well this session's guards are fed, for the service's own health endpoint. Asking has the
    /// keys fetched from now on, as [`Session::trust`] does.
    pub fn health(&self) -> Health {
        self.live_trust().health()
    }

    fn live_trust(&self) -> &LiveTrust {
        self.shared.trust.get_or_init(|| {
            let audience = Audience::new(COUNTERSIGN).expect("the constant is an audience");
            let scopes = ScopeSet::parse("trust:watch").expect("the constant is a scope");
            let stream = TrustStream {
                channel: self.shared.countersign.channel(),
                tokens: self.token_source(audience, scopes),
                verifier_name: self.shared.verifier_name.clone(),
                jitter: self.shared.trust_source.jwks.jitter.clone(),
            };
            self.shared.trust_source.clone().keep_fresh(Some(stream))
        })
    }

    /// Waits until this session can call and be called: until there is a token for each audience that
    /// a client was made for, and Countersign's keys if a guard was made.
    ///
    /// One method that a client may not call does not keep it from being ready; an audience none of
    /// whose methods it may call does.
    ///
    /// # Errors
    /// At once when Countersign refuses all that an audience needs; after `longest` when it has not
    /// answered.
    pub async fn ready(&self, longest: Duration) -> Result<(), NoToken> {
        let deadline = Instant::now() + longest.min(MAX_TOKEN_LIFE);
        for (_, sources) in self.needed_by_audience() {
            // They are all being fetched by now: one wait after the other takes no longer.
            let (mut refused, mut issued) = (None, false);
            for source in &sources {
                match source.token(deadline).await {
                    Ok(_) => issued = true,
                    Err(NoToken::Refused(status)) => refused = Some(NoToken::Refused(status)),
                    Err(NoToken::Unavailable(status)) => return Err(NoToken::Unavailable(status)),
                }
            }
            if let Some(refused) = refused.filter(|_| !issued) {
                return Err(refused);
            }
        }
        if let Some(mut trust) = self.shared.trust.get().map(|live| live.trust.clone()) {
            while trust.bundle().is_none() {
                if timeout_at(deadline, trust.changed()).await.is_err() {
                    return Err(NoToken::Unavailable(Status::unavailable("no keys in time")));
                }
            }
        }
        Ok(())
    }

    fn needed_by_audience(&self) -> BTreeMap<Audience, Vec<TokenSource>> {
        let needed = self.shared.needed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut by_audience = BTreeMap::<_, Vec<_>>::new();
        for (audience, scopes) in needed {
            let source = self.token_source(audience.clone(), scopes);
            by_audience.entry(audience).or_default().push(source);
        }
        by_audience
    }

    pub(super) fn will_need(&self, audience: &Audience, scopes: &ScopeSet) {
        let mut needed = self.shared.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.insert((audience.clone(), scopes.clone()));
    }

    fn outgoing(&self, policies: &[ServicePolicy]) -> OutgoingPolicy {
        OutgoingPolicy::new(self.clone(), self.audience.as_ref(), policies)
    }
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

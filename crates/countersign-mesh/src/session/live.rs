//! The session itself: one link for tokens and for trust, shared by all of its clones.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use crate::claims::{Audience, COUNTERSIGN, MAX_TOKEN_LIFE, ScopeSet};
use crate::guard::{ServicePolicy, Trust};
use crate::session::calls::authenticated::Authenticated;
use crate::session::calls::interceptor::AuthInterceptor;
use crate::session::calls::outgoing::OutgoingPolicy;
use crate::session::reach::address::{Plaintext, Roots, channel, server_address};
use crate::session::reach::error::SessionError;
use crate::session::tokens::current::NoToken;
use crate::session::tokens::source::TokenSource;
use crate::session::tokens::sources::TokenSources;
use crate::session::trust::health::Health;
use crate::session::trust::source::{LiveTrust, TrustSource};
use crate::session::trust::stream::TrustStream;

/// A workload's link to Countersign: one for a process. Cheap to clone. Everything that it keeps fresh
/// stops when its last clone, and the last client that was made with it, is dropped.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    /// Tokens are for this audience, whatever the policy says.
    audience: Option<Audience>,
}

struct Shared {
    tokens: Arc<TokenSources>,
    trust_source: TrustSource,
    verifier_name: String,
    trust: OnceLock<LiveTrust>,
    roots: Roots,
    plaintext: Plaintext,
}

impl Session {
    pub(crate) fn new(
        tokens: TokenSources,
        trust_source: TrustSource,
        verifier_name: String,
        roots: Roots,
        plaintext: Plaintext,
    ) -> Self {
        let shared = Shared {
            tokens: Arc::new(tokens),
            trust_source,
            verifier_name,
            trust: OnceLock::new(),
            roots,
            plaintext,
        };
        Self { shared: Arc::new(shared), audience: None }
    }

    /// The same session, for services that are deployed under another audience than their `.proto`
    /// says: `session.audience(..)` where the client is made.
    pub fn audience(&self, audience: Audience) -> Self {
        Self { shared: Arc::clone(&self.shared), audience: Some(audience) }
    }

    /// A channel to a service, with the settings of this session: its certificate authorities, HTTP/2
    /// keepalive, and plaintext to this machine only, unless the session allows more. It connects when
    /// it is first used. A channel that the program makes itself will do as well.
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

    /// The same as a tonic interceptor, which cannot wait. A call that comes before its token fails
    /// with UNAVAILABLE; the token is then being fetched.
    pub fn interceptor(&self, policies: &[ServicePolicy]) -> AuthInterceptor {
        AuthInterceptor::new(self.outgoing(policies))
    }

    /// A token for an audience and scopes of the caller's choice, for calls that are not gRPC.
    pub fn token_source(&self, audience: Audience, scopes: ScopeSet) -> TokenSource {
        self.shared.tokens.source(audience, scopes)
    }

    /// Countersign's keys and revocations, for a [`Guard`](crate::guard::Guard): fetched from now on,
    /// and kept fresh. Until the first keys are here the guard refuses every token with UNAVAILABLE.
    pub fn trust(&self) -> Trust {
        self.live_trust().trust.clone()
    }

    /// How well this session's guards are fed, for the service's own health endpoint. The first
    /// question starts to fetch keys, as [`Session::trust`] does.
    pub fn health(&self) -> Health {
        self.live_trust().health()
    }

    fn live_trust(&self) -> &LiveTrust {
        self.shared.trust.get_or_init(|| {
            let audience = Audience::new(COUNTERSIGN).expect("the constant is an audience");
            let scopes = ScopeSet::parse("trust:watch").expect("the constant is a scope");
            let stream = TrustStream {
                channel: self.shared.tokens.countersign().channel(),
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
        for (_, sources) in self.shared.tokens.needed_by_audience() {
            // All of them are being fetched by now, so waiting for one after the other takes no longer
            // than for the slowest.
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

    fn outgoing(&self, policies: &[ServicePolicy]) -> OutgoingPolicy {
        OutgoingPolicy::new(&self.shared.tokens, self.audience.as_ref(), policies)
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

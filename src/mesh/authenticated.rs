//! The transport that puts tokens on calls.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use http::Response;
use http::header::AUTHORIZATION;
use tokio::time::Instant;
use tonic::Code;
use tonic::Status;
use tonic::body::Body;
use tonic_types::StatusExt;
use tower::Service;

use crate::claims::Audience;
use crate::claims::ScopeSet;
use crate::guard::Access;
use crate::guard::ERROR_DOMAIN;
use crate::guard::ServicePolicy;
use crate::mesh::replay::record;
use crate::mesh::session::Session;
use crate::mesh::token_source::BearerToken;
use crate::mesh::token_source::NoToken;
use crate::mesh::token_source::TokenSource;
use crate::rpc::grpc_timeout;

/// How long a call without a deadline waits for its first token.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A transport whose calls carry the tokens that their methods demand.
///
/// A call waits for the first token, no longer than its own deadline. When the callee answers that
/// the token has expired, is revoked, or is signed with a key that it does not know, the call is made
/// once more with another token, if its request is small and went out as a whole.
#[derive(Clone)]
pub struct Authenticated<S> {
    transport: S,
    policy: Arc<OutgoingPolicy>,
}

/// What each method demands of us, and where the tokens for it come from.
pub(super) struct OutgoingPolicy {
    session: Session,
    methods: HashMap<&'static str, Needs>,
}

enum Needs {
    Nothing,
    Token(Audience, ScopeSet),
}

impl OutgoingPolicy {
    /// A policy that names what is no audience or no scope is left out: its calls fail.
    pub(super) fn new(
        session: Session,
        audience: Option<&Audience>,
        policies: &[ServicePolicy],
    ) -> Self {
        let mut methods = HashMap::new();
        for policy in policies {
            for method in policy.methods {
                let needs = match method.access {
                    Access::Public => Ok(Needs::Nothing),
                    Access::Scopes(scopes) => ScopeSet::from_texts(scopes.iter().copied())
                        .and_then(|scopes| {
                            let audience = audience
                                .cloned()
                                .map_or_else(|| Audience::new(policy.audience), Ok)?;
                            Ok(Needs::Token(audience, scopes))
                        }),
                };
                if let Ok(Needs::Token(audience, scopes)) = &needs {
                    session.will_need(audience, scopes);
                }
                match needs {
                    Ok(needs) => drop(methods.insert(method.path, needs)),
                    Err(error) => {
                        tracing::error!(path = method.path, %error, "a policy that cannot be")
                    }
                }
            }
        }
        Self { session, methods }
    }

    /// Where the token for a call of this path comes from; `None` when it carries none.
    pub(super) fn source(&self, path: &str) -> Result<Option<TokenSource>, Status> {
        match self.methods.get(path) {
            Some(Needs::Nothing) => Ok(None),
            Some(Needs::Token(audience, scopes)) => {
                Ok(Some(self.session.token_source(audience.clone(), scopes.clone())))
            }
            None => Err(Status::unimplemented(format!(
                "{path} is not in the policy that this client was made with"
            ))),
        }
    }
}

impl<S> Authenticated<S> {
    pub(super) fn new(transport: S, policy: OutgoingPolicy) -> Self {
        Self { transport, policy: Arc::new(policy) }
    }
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.transport.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The transport that was polled ready makes the call; its clone takes its place.
        let unpolled = self.transport.clone();
        let transport = std::mem::replace(&mut self.transport, unpolled);
        match self.policy.source(request.uri().path()) {
            Ok(Some(source)) => Box::pin(call_with_token(transport, source, request)),
            Ok(None) => {
                let mut transport = transport;
                Box::pin(async move { transport.call(request).await })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

async fn call_with_token<S>(
    mut transport: S,
    source: TokenSource,
    mut request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let deadline = Instant::now() + grpc_timeout(request.headers()).unwrap_or(LONGEST_WAIT);
    let token = match source.current() {
        Some(token) => token,
        None => match source.token(deadline).await {
            Ok(token) => token,
            Err(error) => return Ok(Status::from(error).into_http()),
        },
    };
    let (mut parts, body) = request.into_parts();
    let (body, kept) = record(body);
    let again = parts.clone();
    parts.headers.insert(AUTHORIZATION, token.header().clone());
    let response = transport.call(Request::from_parts(parts, body)).await?;
    if !is_token_trouble(&response) {
        return Ok(response);
    }
    let Some(body) = kept.replay() else { return Ok(response) };
    let Some(token) = source.replace(&token, deadline).await else { return Ok(response) };
    request = Request::from_parts(again, body);
    request.headers_mut().insert(AUTHORIZATION, token.header().clone());
    std::future::poll_fn(|cx| transport.poll_ready(cx)).await?;
    transport.call(request).await
}

/// Whether another token may help: the callee's word that this one's time is over, or that its key is
/// not known there or revoked. The callee has done nothing else with the call.
fn is_token_trouble(response: &Response<Body>) -> bool {
    let Some(status) = Status::from_header_map(response.headers()) else { return false };
    status.code() == Code::Unauthenticated
        && status.get_details_error_info().is_some_and(|info| {
            info.domain == ERROR_DOMAIN
                && matches!(info.reason.as_str(), "TOKEN_EXPIRED" | "KEY_UNKNOWN" | "TOKEN_REVOKED")
        })
}

impl From<NoToken> for Status {
    fn from(error: NoToken) -> Self {
        match error {
            // Whatever Countersign called it: to this call it means that the caller has no way in.
            NoToken::Refused(status) => Status::unauthenticated(format!(
                "Countersign issues no token: {}",
                status.message()
            )),
            NoToken::Unavailable(status) => status,
        }
    }
}

/// The token that a call of a path carries now, for callers that cannot wait.
pub(super) fn token_at_hand(
    policy: &OutgoingPolicy,
    path: &str,
) -> Result<Option<BearerToken>, Status> {
    match policy.source(path)? {
        None => Ok(None),
        Some(source) => match source.current() {
            Some(token) => Ok(Some(token)),
            None => Err(Status::unavailable(
                "there is no token yet; try again, or wait with Session::ready",
            )),
        },
    }
}

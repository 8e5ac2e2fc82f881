//! The transport that puts tokens on calls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::{Service, ServiceExt};

use crate::guard::ERROR_DOMAIN;
use crate::net::grpc_timeout;
use crate::session::calls::outgoing::OutgoingPolicy;
use crate::session::calls::recorded::record;
use crate::session::tokens::bearer_token::BearerToken;
use crate::session::tokens::source::TokenSource;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// How long a call without a deadline waits for its first token.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A transport whose calls carry the tokens that their methods demand.
///
/// A call waits for the first token, no longer than its own deadline (`grpc-timeout`, which
/// `tonic::Request::set_timeout` sets) or ten seconds without one. When the callee answers that
/// the token has expired, is revoked, or is signed with a key that it does not know, the call is made
/// once more with another token, if its request is small and went out as a whole.
#[derive(Clone)]
pub struct Authenticated<S> {
    transport: S,
    policy: Arc<OutgoingPolicy>,
}

impl<S> Authenticated<S> {
    pub(crate) fn new(transport: S, policy: OutgoingPolicy) -> Self {
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

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Each call waits for the transport itself, after it has its token. Calls that wait for a token
        // must not hold capacity that others could use.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let transport = self.transport.clone();
        match self.policy.source(request.uri().path()) {
            Ok(Some(source)) => {
                let source = source.clone();
                Box::pin(call_with_token(transport, source, request))
            }
            Ok(None) => Box::pin(transport.oneshot(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

async fn call_with_token<S>(
    transport: S,
    source: TokenSource,
    request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    let deadline = Deadline::of(request.headers());
    let token = match source.current() {
        Some(token) => token,
        None => match source.token(deadline.at).await {
            Ok(token) => token,
            Err(error) => return Ok(source.status(error).into_http()),
        },
    };
    let (mut parts, body) = request.into_parts();
    let (body, kept) = record(body);
    // For the second try: headers without the first token.
    let again = parts.clone();
    deadline.prepare(&mut parts.headers, &token);
    let first = Request::from_parts(parts, body);
    let response = transport.clone().oneshot(first).await?;
    if !is_token_trouble(&response) {
        return Ok(response);
    }
    let Some(body) = kept.replay() else { return Ok(response) };
    let Some(token) = source.replace(&token, deadline.at).await else { return Ok(response) };
    let mut second = Request::from_parts(again, body);
    deadline.prepare(second.headers_mut(), &token);
    transport.oneshot(second).await
}

/// When the caller gives up, by its `grpc-timeout`.
struct Deadline {
    at: Instant,
    is_the_callers: bool,
}

impl Deadline {
    fn of(headers: &HeaderMap) -> Self {
        let timeout = grpc_timeout(headers);
        let at = Instant::now() + timeout.unwrap_or(LONGEST_WAIT);
        Self { at, is_the_callers: timeout.is_some() }
    }

    /// Puts the token on a call, and what is left of its time: waiting for the token has taken some.
    fn prepare(&self, headers: &mut HeaderMap, token: &BearerToken) {
        headers.insert(AUTHORIZATION, token.header().clone());
        if self.is_the_callers {
            let left = self.at.saturating_duration_since(Instant::now());
            headers.insert(GRPC_TIMEOUT, to_grpc_timeout(left));
        }
    }
}

/// Whether another token may help: the callee says that this one has expired or is revoked, or that its
/// key is not known there. The callee's guard says so before its handler runs, so the call can safely
/// be made again.
fn is_token_trouble(response: &Response<Body>) -> bool {
    let Some(status) = Status::from_header_map(response.headers()) else { return false };
    status.code() == Code::Unauthenticated
        && status.get_details_error_info().is_some_and(|info| {
            info.domain == ERROR_DOMAIN
                && matches!(info.reason.as_str(), "TOKEN_EXPIRED" | "KEY_UNKNOWN" | "TOKEN_REVOKED")
        })
}

/// A timeout in milliseconds. Eight digits of them are more than a day.
fn to_grpc_timeout(timeout: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("{}m", timeout.as_millis().clamp(1, 99_999_999)))
        .expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_in_every_unit_and_written_in_milliseconds() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            grpc_timeout(&headers)
        };
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(of(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "1", "x1S", "1x", "-1S", "1 S"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(to_grpc_timeout(Duration::from_secs(3)), "3000m");
        assert_eq!(to_grpc_timeout(Duration::ZERO), "1m");
        assert_eq!(to_grpc_timeout(Duration::MAX), "99999999m");
    }
}

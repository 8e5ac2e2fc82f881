//! The connection to a server: each call carries a token for just what it needs.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use countersign_mesh::claims::COUNTERSIGN;
use countersign_mesh::guard::Access;
use countersign_mesh::internals::{Link, LinkError};
use countersign_mesh::token::unverified_claims;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};
use tower::{Service, ServiceExt};

use crate::cli::credentials::Credentials;
use crate::cli::error::Error;
use crate::cli::status;
use crate::rpc::{IssueTokenResponse, POLICIES};

/// A connection on behalf of one client. Cloning it shares the connection.
///
/// As the transport of a generated gRPC client it looks up in the policy table
/// what the method demands, fetches a token for it and attaches it.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

/// Where plaintext may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// To this machine only.
    OnLoopback,
    /// Anywhere: someone asked for that explicitly.
    Anywhere,
}

impl Connection {
    /// Connects to the server that the credentials name.
    ///
    /// # Errors
    /// When the URL is not one to send a secret to, or nobody answers there.
    pub async fn open(credentials: Credentials, plaintext: Plaintext) -> Result<Self, Error> {
        let builder = match plaintext {
            Plaintext::OnLoopback => credentials.builder.clone(),
            Plaintext::Anywhere => credentials.builder.clone().insecure_plaintext(),
        };
        let link = builder.link().await.map_err(|error| match error {
            LinkError::Session(error) => credentials.unusable(&error),
            LinkError::Unreachable(error) => {
                status::no_connection(&credentials.url, &credentials.origin, &error)
            }
        })?;
        Ok(Self { shared: Arc::new(Shared { link, credentials, tokens: Mutex::default() }) })
    }

    /// Asks for a token for these credentials' client.
    pub async fn issue(
        &self,
        audience: &str,
        scopes: &[String],
        ttl: Option<Duration>,
    ) -> Result<IssueTokenResponse, Error> {
        self.answer(self.shared.issue(audience, scopes.to_vec(), ttl).await.map(Response::new))
    }

    /// The name of the server's issuer: a token of it says so.
    pub async fn issuer(&self) -> Result<String, Error> {
        let issued = self.issue(COUNTERSIGN, &[], None).await?;
        let claims = unverified_claims(&issued.access_token).map(|token| token.claims);
        let issuer = claims.ok().and_then(|claims| claims["iss"].as_str().map(str::to_owned));
        issuer.ok_or_else(|| {
            Error::failed(
                format!("the token of {} names no issuer", self.url()),
                "check that it is a Countersign server",
            )
        })
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.shared.credentials.url
    }

    /// The answer to a call, and when the server gave it, by the server's own clock (RFC 9110 §6.6.1). The times in
    /// an answer are of that clock; the one of this machine may be wrong.
    pub fn answer_at<T>(
        &self,
        result: Result<Response<T>, Status>,
    ) -> Result<(T, SystemTime), Error> {
        let date = result.as_ref().ok().and_then(|response| date(response.metadata()));
        Ok((self.answer(result)?, date.unwrap_or_else(SystemTime::now)))
    }

    /// The answer to a call, or the error that explains its status.
    pub fn answer<T>(&self, result: Result<Response<T>, Status>) -> Result<T, Error> {
        let Credentials { url, origin, .. } = &self.shared.credentials;
        result.map(Response::into_inner).map_err(|status| status::explain(&status, url, origin))
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Each call waits for the channel itself, after it has its token.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            if let Some((audience, scopes)) = demanded(request.uri().path())? {
                let bearer = shared.bearer(audience, scopes).await?;
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
            shared
                .link
                .channel()
                .oneshot(request)
                .await
                .map_err(|error| Status::from_error(error.into()))
        })
    }
}

/// When an answer was given, if it says so.
fn date(metadata: &MetadataMap) -> Option<SystemTime> {
    httpdate::parse_http_date(metadata.get("date")?.to_str().ok()?).ok()
}

struct Shared {
    link: Link,
    credentials: Credentials,
    /// By the scopes asked for. Most commands end long before their tokens expire, but `keys rotate --wait` may not.
    tokens: Mutex<BTreeMap<Vec<String>, Bearer>>,
}

/// A token as it is attached to calls, and when to fetch the next one.
struct Bearer {
    header: HeaderValue,
    refresh_at: Instant,
}

impl Shared {
    async fn bearer(&self, audience: &str, scopes: &[&str]) -> Result<HeaderValue, Status> {
        let scopes = to_ask_for(scopes);
        // Held across the request for a token, so that concurrent calls with the same needs fetch one
        // token, not several.
        let mut tokens = self.tokens.lock().await;
        if let Some(bearer) = tokens.get(&scopes).filter(|it| Instant::now() < it.refresh_at) {
            return Ok(bearer.header.clone());
        }
        let issued = self.issue(audience, scopes.clone(), None).await?;
        let refresh_in = issued.refresh_in.and_then(|span| Duration::try_from(span).ok());
        let refresh_at = Instant::now() + refresh_in.unwrap_or_default();
        let mut header = HeaderValue::try_from(format!("Bearer {}", issued.access_token))
            .map_err(|_| Status::internal("the server's token is not one"))?;
        // Keeps the token out of debug output, and out of the peer's header compression table.
        header.set_sensitive(true);
        tokens.insert(scopes, Bearer { header: header.clone(), refresh_at });
        Ok(header)
    }

    async fn issue(
        &self,
        audience: &str,
        scopes: Vec<String>,
        ttl: Option<Duration>,
    ) -> Result<IssueTokenResponse, Status> {
        let requested_ttl = ttl.map(prost_types::Duration::try_from).transpose();
        let requested_ttl = requested_ttl
            .map_err(|_| Status::invalid_argument("the requested life is too long"))?;
        self.link.issue(audience, scopes, requested_ttl).await
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// An id that makes a mutation idempotent.
///
/// # Errors
/// When the system has no randomness to give.
pub fn request_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::failed(format!("the system gave no randomness: {error}"), "try again")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Scopes whose methods may do more for a client that also holds others: `operators:write` or
/// `tokens:revoke` widens what the same call may touch.
const WIDENED_BY_OTHERS: [&str; 3] = ["clients:write", "tokens:revoke", "tokens:revoke-own"];

/// The scopes to ask for when a method demands these. An empty list asks for all that the client holds.
fn to_ask_for(demanded: &[&str]) -> Vec<String> {
    if demanded.iter().any(|scope| WIDENED_BY_OTHERS.contains(scope)) {
        return Vec::new();
    }
    demanded.iter().map(|scope| (*scope).to_owned()).collect()
}

/// The audience and scopes that a method demands; `None` for a public method.
fn demanded(path: &str) -> Result<Option<(&'static str, &'static [&'static str])>, Status> {
    for policy in POLICIES {
        if let Some(method) = policy.methods.iter().find(|method| method.path == path) {
            return Ok(match method.access {
                Access::Public => None,
                Access::Scopes(scopes) => Some((policy.audience, scopes)),
            });
        }
    }
    Err(Status::internal(format!("{path} is not in the policy table")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_asks_for_what_its_method_demands_and_a_write_for_all_that_is_held() {
        let asked = |path: &str| {
            demanded(path).expect("it is declared").map(|(_, scopes)| to_ask_for(scopes))
        };
        assert_eq!(
            asked("/countersign.v1.KeyService/ListKeys"),
            Some(vec!["keys:read".to_owned()])
        );
        assert_eq!(asked("/countersign.v1.ClientService/UpdateClient"), Some(Vec::new()));
        assert_eq!(asked("/countersign.v1.TokenService/RevokeToken"), Some(Vec::new()));
        assert_eq!(asked("/countersign.v1.TokenService/IssueToken"), None);
        assert!(demanded("/countersign.v1.KeyService/Strange").is_err());
    }

    #[test]
    fn the_time_of_an_answer_is_the_one_that_it_tells() {
        let mut metadata = MetadataMap::new();
        assert_eq!(date(&metadata), None);
        // From RFC 9110 §5.6.7.
        metadata.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().expect("ASCII"));
        let told = date(&metadata).expect("it is a date");
        assert_eq!(told, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        metadata.insert("date", "yesterday".parse().expect("ASCII"));
        assert_eq!(date(&metadata), None);
    }

    #[test]
    fn request_ids_are_distinct_and_printable() {
        let (one, other) = (request_id().expect("randomness"), request_id().expect("randomness"));
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    }
}

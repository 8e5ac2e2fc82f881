//! The layer itself.

use std::future::Ready;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::header::AUTHORIZATION;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tonic::server::NamedService;
use tower::Layer;
use tower::Service;

use crate::claims::Audience;
use crate::claims::Clock;
use crate::claims::DEFAULT_LEEWAY;
use crate::claims::InvalidName;
use crate::claims::Timestamp;
use crate::guard::ServicePolicy;
use crate::guard::policy_table::Demand;
use crate::guard::policy_table::PolicyTable;
use crate::guard::refusal::Refusal;
use crate::token::Audiences;
use crate::token::Rejection;
use crate::token::VerifiedToken;
use crate::trust::TrustBundle;

/// How many verified tokens are remembered. Each bearer brings the same one many times.
const CACHED_TOKENS: usize = 10_000;

/// Verifies and enforces: a tower [`Layer`] over a whole server. Cheap to clone.
///
/// Refused calls get a gRPC status with `google.rpc.ErrorInfo`; the [`Refusal`] is in the extensions
/// of the response, for layers that log. Accepted ones carry an `Arc<VerifiedToken>` in the
/// extensions of the request.
#[derive(Clone)]
pub struct Guard {
    checks: Arc<Checks>,
}

struct Checks {
    policies: PolicyTable,
    trust: watch::Receiver<Arc<TrustBundle>>,
    clock: Clock,
    leeway: Duration,
    verified: Cache<Box<str>, Arc<VerifiedToken>>,
}

impl Guard {
    /// A guard that knows these services, and refuses calls of all others. Services that anyone may
    /// call, such as `grpc.health.v1.Health`, are allowed by their full names.
    ///
    /// # Errors
    /// When a policy names what is no audience or no scope; generated ones never do.
    pub fn new(
        trust: watch::Receiver<Arc<TrustBundle>>,
        clock: Clock,
        services: &[ServicePolicy],
        public_services: &[&str],
    ) -> Result<Self, InvalidName> {
        let mut policies = PolicyTable::default();
        services.iter().try_for_each(|service| policies.declare(service))?;
        public_services.iter().for_each(|service| policies.declare_public(service));
        let verified = Cache::new(CACHED_TOKENS);
        Ok(Self {
            checks: Arc::new(Checks { policies, trust, clock, leeway: DEFAULT_LEEWAY, verified }),
        })
    }

    /// One service behind this guard, where the guard is not to stand before the whole server.
    pub fn wrap<S>(&self, inner: S) -> Guarded<S> {
        Guarded { inner, checks: Arc::clone(&self.checks) }
    }
}

impl Checks {
    /// Admits a call: with its token, or without one where none is demanded.
    fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<VerifiedToken>>, Refusal> {
        let (audience, scopes) = match self.policies.demand(path) {
            None => return Err(Refusal::MethodUndeclared),
            Some(Demand::Nothing) => return Ok(None),
            Some(Demand::Token { audience, scopes }) => (audience, scopes),
        };
        let token = bearer(headers, audience)?;
        let verified = self
            .verify(token, audience, self.clock.now())
            .map_err(|rejection| Refusal::of(&rejection, audience))?;
        match verified.claims().scopes.first_missing(scopes) {
            Some(scope) => Err(Refusal::ScopeMissing { scope: scope.into() }),
            None => Ok(Some(verified)),
        }
    }

    fn verify(
        &self,
        token: &str,
        audience: &Audience,
        now: Timestamp,
    ) -> Result<Arc<VerifiedToken>, Rejection> {
        let bundle = Arc::clone(&self.trust.borrow());
        if let Some(known) = self.verified.get(token) {
            bundle.recheck(&known, now, self.leeway)?;
            return if known.claims().audience == *audience {
                Ok(known)
            } else {
                Err(Rejection::AudienceMismatch)
            };
        }
        let audiences = Audiences::OneOf(std::slice::from_ref(audience));
        let verified = Arc::new(bundle.verify(token, audiences, now, self.leeway)?);
        self.verified.insert(token.into(), Arc::clone(&verified));
        Ok(verified)
    }
}

/// The one bearer token of a call (RFC 6750 §2.1). Two headers, or anything but one token in it,
/// could be read differently by whoever stands before or behind us.
fn bearer<'a>(headers: &'a HeaderMap, audience: &Audience) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value =
        values.next().ok_or_else(|| Refusal::TokenMissing { audience: audience.clone() })?;
    if values.next().is_some() {
        return Err(Refusal::TokenInvalid);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Refusal::TokenInvalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(Refusal::TokenInvalid) }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;
    fn layer(&self, inner: S) -> Guarded<S> {
        self.wrap(inner)
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    checks: Arc<Checks>,
}

/// What is guarded keeps its name, so that a guarded service can be added to a server like any other.
impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<R>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.checks.admit(request.uri().path(), request.headers()) {
            Ok(verified) => {
                // Nobody further in needs the token itself.
                request.headers_mut().remove(AUTHORIZATION);
                if let Some(verified) = verified {
                    request.extensions_mut().insert(verified);
                }
                Either::Right(self.inner.call(request))
            }
            Err(refusal) => {
                let mut response = refusal.to_status().into_http();
                response.extensions_mut().insert(refusal);
                Either::Left(std::future::ready(Ok(response)))
            }
        }
    }
}

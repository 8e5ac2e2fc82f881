//! The same guard before HTTP routes: axum's, or any other tower service.

use std::future::{Ready, ready};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use metrics::Counter;
use tower::{Layer, Service};

use crate::claims::{Audience, ScopeSet, Timestamp};
use crate::guard::admission::Permitted;
use crate::guard::layer::Guard;
use crate::guard::refusal::{Refusal, RefusalDetail};
use crate::guard::report::{Enforcement, HTTP_ROUTE};

/// Lets requests through that bring a token with certain scopes: a tower [`Layer`], made by
/// [`Guard::require`].
#[derive(Clone)]
pub struct RequireScopes {
    guard: Guard,
    demand: Option<Arc<RouteDemand>>,
}

struct RouteDemand {
    audience: Audience,
    scopes: ScopeSet,
    admitted: OnceLock<Counter>,
}

impl Guard {
    /// The same guard, for HTTP routes of this audience. What gRPC services demand stays as it was
    /// declared.
    pub fn for_audience(&self, audience: Audience) -> Self {
        Self { checks: Arc::clone(&self.checks), audience: Some(audience) }
    }

    /// A layer for HTTP routes: requests must bring a token for their audience with all of these
    /// scopes. The audience is the one that [`Guard::for_audience`] says, else that of the services
    /// that the guard knows, if they are all of one.
    ///
    /// Refusals follow RFC 6750 §3: 401 with `WWW-Authenticate`, or 403 `insufficient_scope`. While
    /// there is no trust bundle, or only a stale one and the guard [fails
    /// closed](crate::guard::WhenStale), the answer is 503. The body is a small JSON object; the
    /// [`Refusal`] is in the extensions of the response. A response that has begun is not ended when
    /// its token expires or is revoked.
    ///
    /// When a scope is malformed, or the audience is not clear, an error is logged here and every
    /// request is refused with 404.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::get;
    /// # use countersign_mesh::guard::{Guard, Trust};
    /// # use countersign_mesh::testing::TestIssuer;
    /// # let guard = Guard::new(TestIssuer::new().trust(), &[]);
    /// let guard = guard.for_audience("crm".parse()?);
    /// let routes: Router = Router::new()
    ///     .route("/customers", get(|| async { "Ada, Grace" }))
    ///     .route_layer(guard.require(["customers:read"]));
    /// # Ok::<(), countersign_mesh::claims::InvalidName>(())
    /// ```
    pub fn require<'a>(&self, scopes: impl IntoIterator<Item = &'a str>) -> RequireScopes {
        let audience = self.audience.as_ref().or_else(|| self.checks.policies.only_audience());
        let demand = match (audience, ScopeSet::from_texts(scopes)) {
            (Some(audience), Ok(scopes)) => {
                let admitted = OnceLock::new();
                Some(Arc::new(RouteDemand { audience: audience.clone(), scopes, admitted }))
            }
            (None, _) => {
                tracing::error!("routes are refused: say their audience with Guard::for_audience");
                None
            }
            (_, Err(error)) => {
                tracing::error!(%error, "routes are refused: a scope that cannot be");
                None
            }
        };
        RequireScopes { guard: self.clone(), demand }
    }
}

impl RequireScopes {
    fn admit<B>(&self, request: &Request<B>, now: Timestamp) -> Result<Permitted, RefusalDetail> {
        let demand = self.demand.as_ref().ok_or(Refusal::MethodUndeclared)?;
        let checks = &self.guard.checks;
        let permitted = checks.admit(request.headers(), &demand.audience, &demand.scopes, now)?;
        checks.reports.admitted(&demand.admitted, &HTTP_ROUTE);
        Ok(permitted)
    }

    fn answer<R: From<String>>(&self, refusal: Refusal) -> Response<R> {
        let status = status(&refusal);
        let error = oauth_error(&refusal);
        let (_, description) = refusal.told();
        let body = serde_json::json!({
            "error": error,
            "error_description": description,
            "reason": refusal.reason(),
        });
        let mut response = Response::new(R::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge(&refusal, error) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(refusal);
        response
    }

    /// The challenge in `WWW-Authenticate` (RFC 6750 §3). Audiences and scopes contain neither quotes
    /// nor backslashes, so nothing has to be escaped.
    fn challenge(&self, refusal: &Refusal, error: &str) -> Option<HeaderValue> {
        let RouteDemand { audience, scopes, .. } = &**self.demand.as_ref()?;
        let challenge = match refusal {
            // RFC 6750 §3.1: no error code when the request brought no token at all.
            Refusal::TokenMissing { .. } => format!("Bearer realm=\"{audience}\""),
            Refusal::TokenInvalid
            | Refusal::TokenExpired
            | Refusal::KeyUnknown
            | Refusal::TokenRevoked
            | Refusal::AudienceMismatch { .. } => {
                format!("Bearer realm=\"{audience}\", error=\"{error}\"")
            }
            Refusal::ScopeMissing { .. } => {
                format!("Bearer realm=\"{audience}\", error=\"{error}\", scope=\"{scopes}\"")
            }
            Refusal::MethodUndeclared | Refusal::TrustUnavailable | Refusal::TrustStale => {
                return None;
            }
        };
        HeaderValue::from_str(&challenge).ok()
    }
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::TokenMissing { .. }
        | Refusal::TokenInvalid
        | Refusal::TokenExpired
        | Refusal::KeyUnknown
        | Refusal::TokenRevoked
        | Refusal::AudienceMismatch { .. } => StatusCode::UNAUTHORIZED,
        Refusal::ScopeMissing { .. } => StatusCode::FORBIDDEN,
        Refusal::TrustUnavailable | Refusal::TrustStale => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::MethodUndeclared => StatusCode::NOT_FOUND,
    }
}

fn oauth_error(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::TokenMissing { .. }
        | Refusal::TokenInvalid
        | Refusal::TokenExpired
        | Refusal::KeyUnknown
        | Refusal::TokenRevoked
        | Refusal::AudienceMismatch { .. } => "invalid_token",
        Refusal::ScopeMissing { .. } => "insufficient_scope",
        Refusal::TrustUnavailable | Refusal::TrustStale => "temporarily_unavailable",
        Refusal::MethodUndeclared => "not_found",
    }
}

impl<S> Layer<S> for RequireScopes {
    type Service = ScopesRequired<S>;
    fn layer(&self, inner: S) -> ScopesRequired<S> {
        ScopesRequired { inner, required: self.clone() }
    }
}

/// A service behind [`RequireScopes`].
#[derive(Clone)]
pub struct ScopesRequired<S> {
    inner: S,
    required: RequireScopes,
}

impl<S, B, R> Service<Request<B>> for ScopesRequired<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<R>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let guard = &self.required.guard;
        let now = guard.checks.clock.now();
        match self.required.admit(&request, now) {
            Ok(token) => Guard::hand_on(&mut request, Some(token)),
            Err(refused) => match guard.refuse(&mut request, HTTP_ROUTE, &refused, now) {
                Enforcement::Reported => {}
                Enforcement::Enforced => {
                    let answer = self.required.answer(refused.refusal);
                    return Either::Left(ready(Ok(answer)));
                }
            },
        }
        Either::Right(self.inner.call(request))
    }
}

//! The layer itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use http::Request;
use http::Response;
use http::header::AUTHORIZATION;
use metrics::SharedString;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::Service;

use crate::claims::Audience;
use crate::claims::Clock;
use crate::claims::DEFAULT_LEEWAY;
use crate::claims::Timestamp;
use crate::guard::ServicePolicy;
use crate::guard::admission::Checks;
use crate::guard::admission::Refused;
use crate::guard::policy_table::Demand;
use crate::guard::policy_table::PolicyTable;
use crate::guard::policy_table::Streams;
use crate::guard::refusal::Refusal;
use crate::guard::report::Enforcement;
use crate::guard::report::RefusalLog;
use crate::guard::report::Reports;
use crate::guard::report::UNDECLARED;
use crate::guard::stream::GuardedBody;
use crate::guard::stream::Lease;
use crate::guard::trust::Trust;
use crate::token::VerifiedToken;

/// Verifies and enforces: a tower [`Layer`] over a whole gRPC server. Cheap to clone.
///
/// Refused calls get a gRPC status with `google.rpc.ErrorInfo`; the [`Refusal`] is in the extensions
/// of the response, for layers that log. Accepted ones carry an `Arc<VerifiedToken>` in the
/// extensions of the request, see [`caller`](crate::guard::caller), and no `authorization` any more.
#[derive(Clone)]
pub struct Guard {
    pub(super) checks: Arc<Checks>,
    /// Tokens must be for this audience, whatever the policies say.
    pub(super) audience: Option<Audience>,
}

impl Guard {
    /// A guard that knows these services and refuses calls of all others.
    pub fn new(trust: impl Into<Trust>, services: &[ServicePolicy]) -> Self {
        Self::builder(trust).services(services).build()
    }

    /// A guard that knows no service yet.
    pub fn builder(trust: impl Into<Trust>) -> GuardBuilder {
        GuardBuilder {
            trust: trust.into(),
            policies: PolicyTable::default(),
            clock: Clock::system(),
            outliving: Vec::new(),
            report_only_until: None,
            refusal_log: RefusalLog::Written,
        }
    }

    /// The same guard, for a server that is deployed under another audience than its `.proto` says:
    /// all that it guards then takes tokens for this one. The counterpart of `session.audience(..)`,
    /// said once, where the server is put together. Also says which audience HTTP routes are of when
    /// nothing else does, see [`Guard::require`].
    pub fn audience(&self, audience: Audience) -> Self {
        Self { checks: Arc::clone(&self.checks), audience: Some(audience) }
    }
}

/// Makes a [`Guard`] of more than the usual.
pub struct GuardBuilder {
    trust: Trust,
    policies: PolicyTable,
    clock: Clock,
    outliving: Vec<String>,
    report_only_until: Option<Timestamp>,
    refusal_log: RefusalLog,
}

impl GuardBuilder {
    /// Enforces the policies of these services. One that names what is no audience or no scope, as
    /// generated ones never do, is left out: its calls are refused.
    pub fn services(mut self, services: &[ServicePolicy]) -> Self {
        services.iter().for_each(|service| self.policies.declare(service));
        self
    }

    /// Lets anyone call a service, by its full name: `grpc.health.v1.Health`.
    pub fn public_service(mut self, name: &str) -> Self {
        self.policies.declare_public(name);
        self
    }

    /// Lets the streams of a service, by its full name, go on when the token that opened them has
    /// expired or is revoked. For services that look after that themselves.
    pub fn streams_outlive_tokens(mut self, service: &str) -> Self {
        self.outliving.push(service.to_owned());
        self
    }

    /// Refuses nothing until this time, and reports what it would refuse: in the log, in
    /// `countersign_guard_refusals_total{enforced="false"}`, and by `countersign_guard_report_only`
    /// being 1. For rolling a guard out on a live mesh; afterwards it enforces by itself.
    ///
    /// A call that would be refused goes on as it came and carries no
    /// [`VerifiedToken`], so that a handler cannot take it for verified.
    pub fn report_only_until(mut self, until: Timestamp) -> Self {
        self.report_only_until = Some(until);
        self
    }

    /// Writes refused calls to the log at debug level only, for servers whose own request log has
    /// them: the [`Refusal`] is in the response's extensions. They are counted all the same.
    pub fn without_refusal_log(mut self) -> Self {
        self.refusal_log = RefusalLog::LeftOut;
        self
    }

    /// Reads the time from this clock instead of the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The guard.
    pub fn build(self) -> Guard {
        let Self { trust, mut policies, clock, outliving, report_only_until, refusal_log } = self;
        outliving.iter().for_each(|service| policies.outlive_tokens(service));
        let reports = Reports::new(report_only_until, refusal_log, clock.now());
        let checks = Checks::new(policies, trust, clock, DEFAULT_LEEWAY, reports);
        Guard { checks: Arc::new(checks), audience: None }
    }
}

/// What a call goes on with.
#[derive(Default)]
struct Admitted {
    token: Option<Arc<VerifiedToken>>,
    lease: Option<Arc<Lease>>,
}

impl Guard {
    fn admit<B>(
        &self,
        request: &Request<B>,
        now: Timestamp,
    ) -> Result<Admitted, (SharedString, Refused)> {
        let path = request.uri().path();
        let Some(method) = self.checks.policies.method(path) else {
            return Err((UNDECLARED, Refusal::MethodUndeclared.into()));
        };
        let admitted = match &method.demand {
            Demand::Nothing => Admitted::default(),
            Demand::Token { audience, scopes } => {
                let audience = self.audience.as_ref().unwrap_or(audience);
                let token = self
                    .checks
                    .admit(request.headers(), audience, scopes, now)
                    .map_err(|refused| (method.label.clone(), refused))?;
                let lease = match method.streams {
                    Streams::OutliveToken => None,
                    Streams::EndWithToken => {
                        Some(Arc::new(Lease::new(&self.checks, &token, &method.label, now)))
                    }
                };
                Admitted { token: Some(token), lease }
            }
        };
        self.checks.reports.admitted(&method.admitted, &method.label);
        Ok(admitted)
    }

    /// Prepares an admitted request: what is in it is proof, and the token goes no further.
    pub(super) fn hand_on<B>(request: &mut Request<B>, token: Option<Arc<VerifiedToken>>) {
        request.headers_mut().remove(AUTHORIZATION);
        request.extensions_mut().remove::<Arc<VerifiedToken>>();
        if let Some(token) = token {
            request.extensions_mut().insert(token);
        }
    }

    /// Tells of a refusal, and whether it is one; if not, sees that the request proves nothing.
    pub(super) fn refuse<B>(
        &self,
        request: &mut Request<B>,
        label: SharedString,
        refused: &Refused,
        now: Timestamp,
    ) -> Enforcement {
        let enforcement = self.checks.reports.enforcement(now);
        self.checks.reports.refused(label, request.uri().path(), refused, enforcement);
        request.extensions_mut().remove::<Arc<VerifiedToken>>();
        enforcement
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;
    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<GuardedBody<B>>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<GuardedBody<R>>;
    type Error = S::Error;
    type Future = GuardedCall<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = self.guard.checks.clock.now();
        let lease = match self.guard.admit(&request, now) {
            Ok(Admitted { token, lease }) => {
                Guard::hand_on(&mut request, token);
                lease
            }
            Err((label, refused)) => match self.guard.refuse(&mut request, label, &refused, now) {
                Enforcement::Enforced => return GuardedCall::refused(refused.refusal),
                Enforcement::Reported => None,
            },
        };
        let (parts, body) = request.into_parts();
        let body = GuardedBody::request(body, lease.clone());
        let call = self.inner.call(Request::from_parts(parts, body));
        GuardedCall { state: State::Admitted { call, lease } }
    }
}

pin_project! {
    /// The answer of a [`Guarded`] service.
    pub struct GuardedCall<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> {
        Admitted {
            #[pin]
            call: F,
            lease: Option<Arc<Lease>>,
        },
        Refused { response: Option<Response<GuardedBody<R>>> },
    }
}

impl<F, R: Default> GuardedCall<F, R> {
    fn refused(refusal: Refusal) -> Self {
        let mut response = refusal.to_status().into_http();
        response.extensions_mut().insert(refusal);
        Self { state: State::Refused { response: Some(response) } }
    }
}

impl<F, R, E> Future for GuardedCall<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<GuardedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Admitted { call, lease } => {
                let response = ready!(call.poll(cx))?;
                Poll::Ready(Ok(response.map(|body| GuardedBody::response(body, lease.take()))))
            }
            StateProjection::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("a future is not polled once it is ready")))
            }
        }
    }
}

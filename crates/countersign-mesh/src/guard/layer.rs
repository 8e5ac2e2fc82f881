//! The tower layer: decides on each call, and hands it on or refuses it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use metrics::SharedString;
use pin_project_lite::pin_project;
use tonic::server::NamedService;
use tower::{Layer, Service};

use crate::claims::{Audience, Timestamp};
use crate::guard::admission::{Checks, Permitted};
use crate::guard::policy_table::{Demand, Streams};
use crate::guard::refusal::{Refusal, RefusalDetail, RefusedClient};
use crate::guard::report::{Enforcement, UNDECLARED};
use crate::guard::stream::{GuardedBody, Lease};

/// Verifies and enforces: a tower [`Layer`] over a whole gRPC server. Cheap to clone.
///
/// Refused calls get a gRPC status with `google.rpc.ErrorInfo`; the [`Refusal`] is in the extensions of
/// the response, for layers that log. Admitted calls carry a [`Permitted`] in the extensions of the
/// request, see [`caller`](crate::guard::caller), and no `authorization` header any more.
#[derive(Clone)]
pub struct Guard {
    pub(super) checks: Arc<Checks>,
    /// The audience of HTTP routes, if [`Guard::for_audience`] named one.
    pub(super) audience: Option<Audience>,
}

impl Guard {
    /// One service behind this guard, where the guard is not to stand before the whole server.
    pub fn wrap<S>(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

/// What an admitted call goes on with: the proof for its handler, and the lease that its streams depend
/// on.
#[derive(Default)]
struct Admitted {
    permitted: Option<Permitted>,
    lease: Option<Arc<Lease>>,
}

impl Guard {
    fn admit<B>(
        &self,
        request: &Request<B>,
        now: Timestamp,
    ) -> Result<Admitted, (SharedString, RefusalDetail)> {
        let path = request.uri().path();
        let Some(method) = self.checks.policies.method(path) else {
            return Err((UNDECLARED, Refusal::MethodUndeclared.into()));
        };
        let admitted = match &method.demand {
            Demand::Nothing => Admitted::default(),
            Demand::Token { audience, scopes } => {
                let permitted = self
                    .checks
                    .admit(request.headers(), audience, scopes, now)
                    .map_err(|refused| (method.label.clone(), refused))?;
                let lease = match method.streams {
                    Streams::OutliveToken => None,
                    Streams::EndWithToken => {
                        Some(Arc::new(Lease::new(&self.checks, &permitted, &method.label, now)))
                    }
                };
                Admitted { permitted: Some(permitted), lease }
            }
        };
        self.checks.reports.admitted(&method.admitted, &method.label);
        Ok(admitted)
    }

    /// Prepares an admitted request. The `Permitted` in it is this guard's own, and the token goes no
    /// further.
    pub(super) fn hand_on<B>(request: &mut Request<B>, permitted: Option<Permitted>) {
        request.headers_mut().remove(AUTHORIZATION);
        // A guard further out may have left one, which proves nothing about this method.
        request.extensions_mut().remove::<Permitted>();
        if let Some(permitted) = permitted {
            request.extensions_mut().insert(permitted);
        }
    }

    /// Reports a refusal, and says whether it is enforced. If it is not, the request goes on without a
    /// [`Permitted`].
    pub(super) fn refuse<B>(
        &self,
        request: &mut Request<B>,
        label: SharedString,
        refused: &RefusalDetail,
        now: Timestamp,
    ) -> Enforcement {
        let enforcement = self.checks.reports.enforcement(now);
        self.checks.reports.refused(label, request.uri().path(), refused, enforcement);
        request.extensions_mut().remove::<Permitted>();
        enforcement
    }
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
    guard: Guard,
}

/// A guarded service keeps its name, so that it can be added to a server like any other.
impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
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
            Ok(Admitted { permitted, lease }) => {
                Guard::hand_on(&mut request, permitted);
                lease
            }
            Err((label, refused)) => match self.guard.refuse(&mut request, label, &refused, now) {
                Enforcement::Enforced => return GuardedCall::refused(refused),
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
    fn refused(refused: RefusalDetail) -> Self {
        let mut response = refused.refusal.to_status().into_http();
        response.extensions_mut().insert(refused.refusal);
        if let Some(client) = refused.client {
            response.extensions_mut().insert(RefusedClient(client));
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Future, ready};
    use std::pin::pin;
    use std::task::Waker;
    use std::time::Duration;

    use tokio::sync::watch;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::claims::{Claims, ClientId, Clock, Issuer, ScopeSet, TokenId};
    use crate::guard::{Access, MethodPolicy, ServicePolicy, Trust};
    use crate::keys::SigningKey;
    use crate::token::Minter;
    use crate::trust::{ClientRevocation, Revocations, TokenRevocation, TrustBundle};

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    const SERVICES: &[ServicePolicy] = &[
        ServicePolicy {
            service: "inventory.v1.Inventory",
            audience: "inventory",
            methods: &[
                MethodPolicy {
                    path: "/inventory.v1.Inventory/CheckStock",
                    access: Access::Scopes(&["stock:read"]),
                },
                MethodPolicy {
                    path: "/inventory.v1.Inventory/Restock",
                    access: Access::Scopes(&["stock:read", "stock:write"]),
                },
                MethodPolicy { path: "/inventory.v1.Inventory/Ping", access: Access::Public },
            ],
        },
        ServicePolicy {
            service: "billing.v1.Billing",
            audience: "billing",
            methods: &[MethodPolicy {
                path: "/billing.v1.Billing/Bill",
                access: Access::Scopes(&["stock:read"]),
            }],
        },
    ];
    const CHECK_STOCK: &str = "/inventory.v1.Inventory/CheckStock";
    const RESTOCK: &str = "/inventory.v1.Inventory/Restock";
    const PING: &str = "/inventory.v1.Inventory/Ping";
    const BILL: &str = "/billing.v1.Billing/Bill";

    /// A guard over a service that answers with the token id that it was handed.
    struct Door {
        guard: Guard,
        bundles: watch::Sender<Option<Arc<TrustBundle>>>,
        clock: Clock,
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn name(text: &str) -> Audience {
        Audience::new(text).expect("audience")
    }

    fn token() -> String {
        let claims = Claims {
            issuer: Issuer::new("https://issuer").expect("issuer"),
            client_id: ClientId::new("order").expect("client id"),
            audience: name("inventory"),
            scopes: ScopeSet::parse("stock:read").expect("scope"),
            issued_at: NOW,
            expires_at: NOW + Duration::from_secs(900),
            token_id: TokenId::new("one").expect("token id"),
        };
        Minter::new(Arc::new(key(1))).mint(&claims).into_exposed()
    }

    impl Door {
        fn new() -> Self {
            let bundle = TrustBundle {
                issuer: Issuer::new("https://issuer").expect("issuer"),
                epoch: 1,
                keys: [key(1).public().clone()].into_iter().collect(),
                revocations: Revocations::default(),
            };
            let (bundles, trust) = watch::channel(Some(Arc::new(bundle)));
            let clock = Clock::fixed(NOW);
            let guard = Guard::builder(Trust::live(trust, Arc::default()))
                .services(SERVICES)
                .public_service("grpc.health.v1.Health")
                .clock(clock.clone())
                .build();
            Self { guard, bundles, clock }
        }

        fn change(&self, change: impl FnOnce(&mut TrustBundle)) {
            self.bundles.send_modify(|bundle| {
                change(Arc::make_mut(bundle.as_mut().expect("there is a bundle")))
            });
        }

        /// Calls with these `authorization` headers: the id of the token that the service was handed.
        fn call(&self, path: &str, authorization: &[&str]) -> Result<Option<String>, Refusal> {
            let mut request = Request::builder().uri(path);
            for value in authorization {
                request = request.header(AUTHORIZATION, *value);
            }
            let service = service_fn(|request: Request<GuardedBody<()>>| {
                assert!(
                    !request.headers().contains_key(AUTHORIZATION),
                    "the token goes no further"
                );
                let token = request.extensions().get::<Permitted>();
                let id = token.map(|token| token.claims().token_id.to_string());
                ready(Ok::<_, Infallible>(Response::new(id)))
            });
            let request = request.body(()).expect("a request");
            // Nothing in it waits, so it is ready at once.
            let call = pin!(self.guard.layer(service).oneshot(request));
            let Poll::Ready(Ok(response)) = call.poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("it waits");
            };
            match response.extensions().get::<Refusal>() {
                Some(refusal) => Err(refusal.clone()),
                None => Ok(response.into_body().into_inner().flatten()),
            }
        }

        fn call_with(&self, path: &str, token: &str) -> Result<Option<String>, Refusal> {
            self.call(path, &[&format!("Bearer {token}")])
        }

        fn remembered(&self) -> usize {
            self.guard.checks.verified.len()
        }
    }

    fn admitted() -> Result<Option<String>, Refusal> {
        Ok(Some("one".to_owned()))
    }

    #[test]
    fn a_good_token_is_remembered_once_and_a_bad_one_never() {
        let door = Door::new();
        let token = token();
        assert_eq!(
            door.call_with(CHECK_STOCK, &token[..token.len() - 1]),
            Err(Refusal::TokenInvalid)
        );
        assert_eq!(door.remembered(), 0);
        assert_eq!(door.call_with(CHECK_STOCK, &token), admitted());
        assert_eq!(door.call_with(CHECK_STOCK, &token), admitted());
        assert_eq!(door.remembered(), 1);
        assert_eq!(
            door.call_with(CHECK_STOCK, &token[..token.len() - 1]),
            Err(Refusal::TokenInvalid)
        );
    }

    #[test]
    fn a_remembered_token_is_refused_once_it_its_client_or_its_key_is_revoked() {
        let revoke_token = |bundle: &mut TrustBundle| {
            let id = TokenId::new("one").expect("token id");
            let revocation = TokenRevocation::new(NOW + Duration::from_secs(930));
            bundle.revocations.revoke_token(id, revocation);
        };
        let revoke_client = |bundle: &mut TrustBundle| {
            let (before, until) = (NOW + Duration::from_secs(1), NOW + Duration::from_secs(930));
            let cut = ClientRevocation::new(before, until);
            bundle.revocations.revoke_client(ClientId::new("order").expect("client id"), cut);
        };
        let revoke_key = |bundle: &mut TrustBundle| {
            bundle.keys = [key(2).public().clone()].into_iter().collect();
            bundle.revocations.set_keys([key(1).kid()].into_iter());
        };
        let changes: [&dyn Fn(&mut TrustBundle); 3] = [&revoke_token, &revoke_client, &revoke_key];
        for change in changes {
            let door = Door::new();
            assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
            door.change(change);
            assert_eq!(door.call_with(CHECK_STOCK, &token()), Err(Refusal::TokenRevoked));
        }
    }

    #[test]
    fn a_remembered_token_is_refused_once_its_key_is_gone() {
        let door = Door::new();
        assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
        door.change(|bundle| bundle.keys = [key(2).public().clone()].into_iter().collect());
        assert_eq!(door.call_with(CHECK_STOCK, &token()), Err(Refusal::KeyUnknown));
    }

    #[test]
    fn a_remembered_token_is_refused_once_it_has_expired() {
        let door = Door::new();
        assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
        door.clock.set(NOW + Duration::from_secs(929));
        assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
        door.clock.set(NOW + Duration::from_secs(930));
        assert_eq!(door.call_with(CHECK_STOCK, &token()), Err(Refusal::TokenExpired));
    }

    #[test]
    fn a_remembered_token_is_good_for_its_own_audience_only() {
        let door = Door::new();
        let mismatch = Err(Refusal::AudienceMismatch { audience: name("billing") });
        assert_eq!(door.call_with(BILL, &token()), mismatch, "at first sight");
        assert_eq!(door.remembered(), 0);
        assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
        assert_eq!(door.call_with(BILL, &token()), mismatch, "when remembered");
    }

    #[test]
    fn a_service_under_another_audience_takes_tokens_for_that_one_only() {
        let mut door = Door::new();
        let moved = |audience: &str| {
            let trust = Trust::live(door.bundles.subscribe(), Arc::default());
            let builder = Guard::builder(trust).services_as(&name(audience), SERVICES);
            builder.clock(door.clock.clone()).build()
        };
        let (eu, inventory) = (moved("inventory-eu"), moved("inventory"));
        door.guard = eu;
        let mismatch = Err(Refusal::AudienceMismatch { audience: name("inventory-eu") });
        assert_eq!(door.call_with(CHECK_STOCK, &token()), mismatch);
        assert_eq!(door.call(PING, &[]), Ok(None));
        door.guard = inventory;
        assert_eq!(door.call_with(BILL, &token()), admitted());
    }

    #[test]
    fn the_scopes_of_a_remembered_token_are_still_checked() {
        let door = Door::new();
        for _ in 0..2 {
            let missing = Err(Refusal::ScopeMissing { scope: "stock:write".into() });
            assert_eq!(door.call_with(RESTOCK, &token()), missing);
            assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
        }
    }

    #[test]
    fn only_a_single_well_formed_bearer_header_is_read() {
        let door = Door::new();
        let token = token();
        let bearer = format!("Bearer {token}");
        assert_eq!(door.call(CHECK_STOCK, &[&format!("bEARER {token}")]), admitted());
        let missing = Refusal::TokenMissing { audience: name("inventory") };
        assert_eq!(door.call(CHECK_STOCK, &[]), Err(missing));
        for bad in [
            &[bearer.as_str(), bearer.as_str()][..],
            &[token.as_str()],
            &[&format!("Basic {token}")],
            &[&format!("Bearer  {token}")],
            &[&format!("Bearer {token} ")],
            &[&format!("Bearer {token},{token}")],
            &["Bearer "],
            &["Bearer"],
            &[""],
        ] {
            assert_eq!(door.call(CHECK_STOCK, bad), Err(Refusal::TokenInvalid), "{bad:?}");
        }
    }

    #[test]
    fn public_methods_take_no_token_and_hand_none_on() {
        let door = Door::new();
        assert_eq!(door.call(PING, &[]), Ok(None));
        // A token that a caller sends along is not looked at, so it cannot pass for verified.
        assert_eq!(door.call_with(PING, &token()), Ok(None));
        assert_eq!(door.call_with(PING, "rubbish"), Ok(None));
        assert_eq!(door.call("/grpc.health.v1.Health/Check", &[]), Ok(None));
    }

    #[test]
    fn an_undeclared_method_is_refused_with_any_token() {
        let door = Door::new();
        for path in ["/inventory.v1.Inventory/Destroy", "/", "/inventory.v1.Inventory/checkstock"] {
            assert_eq!(door.call_with(path, &token()), Err(Refusal::MethodUndeclared), "{path}");
        }
    }
}

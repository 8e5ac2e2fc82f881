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
use tonic::server::NamedService;
use tower::Layer;
use tower::Service;

use crate::claims::Audience;
use crate::claims::Clock;
use crate::claims::DEFAULT_LEEWAY;
use crate::claims::Timestamp;
use crate::guard::ServicePolicy;
use crate::guard::policy_table::Demand;
use crate::guard::policy_table::PolicyTable;
use crate::guard::refusal::Refusal;
use crate::guard::trust::Trust;
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
    trust: Trust,
    clock: Clock,
    leeway: Duration,
    verified: Cache<Box<str>, Arc<VerifiedToken>>,
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
        }
    }

    /// One service behind this guard, where the guard is not to stand before the whole server.
    pub fn wrap<S>(&self, inner: S) -> Guarded<S> {
        Guarded { inner, checks: Arc::clone(&self.checks) }
    }
}

/// Makes a [`Guard`] of more than the usual.
pub struct GuardBuilder {
    trust: Trust,
    policies: PolicyTable,
    clock: Clock,
}

impl GuardBuilder {
    /// Enforces the policies of these services. One that names what is no audience or no scope, as
    /// generated ones never do, is left out: its calls are refused.
    pub fn services(mut self, services: &[ServicePolicy]) -> Self {
        services.iter().for_each(|service| self.policies.declare(service));
        self
    }

    /// Enforces the policies of these services with tokens for this audience instead of the one that
    /// their `.proto` names, where a service is deployed under another: the counterpart of
    /// [`Session::audience`](crate::mesh::Session::audience).
    pub fn services_as(mut self, audience: &Audience, services: &[ServicePolicy]) -> Self {
        services.iter().for_each(|service| self.policies.declare_as(audience.as_str(), service));
        self
    }

    /// Lets anyone call a service, by its full name: `grpc.health.v1.Health`.
    pub fn public_service(mut self, name: &str) -> Self {
        self.policies.declare_public(name);
        self
    }

    /// Reads the time from this clock instead of the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The guard.
    pub fn build(self) -> Guard {
        let Self { trust, policies, clock } = self;
        let verified = Cache::new(CACHED_TOKENS);
        Guard {
            checks: Arc::new(Checks { policies, trust, clock, leeway: DEFAULT_LEEWAY, verified }),
        }
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
        let bundle = self.trust.bundle().ok_or(Refusal::TrustUnavailable)?;
        let verified =
            self.verify(&bundle, token, audience, self.clock.now()).map_err(|rejection| {
                if rejection == Rejection::KeyUnknown {
                    self.trust.report_missing_key();
                }
                Refusal::of(&rejection, audience)
            })?;
        match verified.claims().scopes.first_missing(scopes) {
            Some(scope) => Err(Refusal::ScopeMissing { scope: scope.into() }),
            None => Ok(Some(verified)),
        }
    }

    fn verify(
        &self,
        bundle: &TrustBundle,
        token: &str,
        audience: &Audience,
        now: Timestamp,
    ) -> Result<Arc<VerifiedToken>, Rejection> {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::Future;
    use std::future::ready;
    use std::pin::pin;
    use std::task::Waker;

    use tower::ServiceExt;
    use tower::service_fn;

    use tokio::sync::watch;

    use super::*;
    use crate::claims::Claims;
    use crate::claims::ClientId;
    use crate::claims::Issuer;
    use crate::claims::ScopeSet;
    use crate::claims::TokenId;
    use crate::guard::Access;
    use crate::guard::MethodPolicy;
    use crate::keys::SigningKey;
    use crate::token::Minter;
    use crate::trust::ClientRevocation;
    use crate::trust::Revocations;

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
                change(Arc::make_mut(bundle.as_mut().expect("there is one")))
            });
        }

        /// Calls with these `authorization` headers: the id of the token that the service was handed.
        fn call(&self, path: &str, authorization: &[&str]) -> Result<Option<String>, Refusal> {
            let mut request = Request::builder().uri(path);
            for value in authorization {
                request = request.header(AUTHORIZATION, *value);
            }
            let service = service_fn(|request: Request<()>| {
                assert!(
                    !request.headers().contains_key(AUTHORIZATION),
                    "the token goes no further"
                );
                let token = request.extensions().get::<Arc<VerifiedToken>>();
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
                None => Ok(response.into_body()),
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
    fn a_token_is_remembered_once_and_a_bad_one_never() {
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
            bundle.revocations.revoke_token(id, NOW + Duration::from_secs(930));
        };
        let revoke_client = |bundle: &mut TrustBundle| {
            let cut = ClientRevocation {
                before: NOW + Duration::from_secs(1),
                until: NOW + Duration::from_secs(930),
            };
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
    fn a_remembered_token_is_refused_once_its_time_is_over() {
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
    fn a_remembered_token_carries_no_more_scopes_than_it_does() {
        let door = Door::new();
        for _ in 0..2 {
            let missing = Err(Refusal::ScopeMissing { scope: "stock:write".into() });
            assert_eq!(door.call_with(RESTOCK, &token()), missing);
            assert_eq!(door.call_with(CHECK_STOCK, &token()), admitted());
        }
    }

    #[test]
    fn one_bearer_token_is_read_and_nothing_else() {
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
        // Whatever a caller sends along is not looked at, so it cannot pass for verified.
        assert_eq!(door.call_with(PING, &token()), Ok(None));
        assert_eq!(door.call_with(PING, "rubbish"), Ok(None));
        assert_eq!(door.call("/grpc.health.v1.Health/Check", &[]), Ok(None));
    }

    #[test]
    fn what_nobody_declared_is_refused_with_any_token() {
        let door = Door::new();
        for path in ["/inventory.v1.Inventory/Destroy", "/", "/inventory.v1.Inventory/checkstock"] {
            assert_eq!(door.call_with(path, &token()), Err(Refusal::MethodUndeclared), "{path}");
        }
    }
}

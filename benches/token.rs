//! What minting and verifying cost beside the bare signature: targets 1.1 times at most, each.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use countersign_mesh::claims::{
    Audience, Claims, ClientId, Clock, DEFAULT_LEEWAY, Issuer, ScopeSet, Timestamp, TokenId,
};
use countersign_mesh::guard::{Access, Guard, GuardedBody, MethodPolicy, ServicePolicy, Trust};
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::{Audiences, Minter};
use countersign_mesh::trust::{Revocations, TrustBundle};
use criterion::Criterion;
use ed25519_dalek::Signer;
use tower::{Layer, Service, service_fn};

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
const SEED: [u8; 32] = [1; 32];
const PATH: &str = "/inventory.v1.Inventory/CheckStock";
const SERVICES: &[ServicePolicy] = &[ServicePolicy {
    service: "inventory.v1.Inventory",
    audience: "inventory",
    methods: &[MethodPolicy { path: PATH, access: Access::Scopes(&["stock:read"]) }],
}];

/// A token like those of real life, and everything that there is to do with it.
struct Bench {
    claims: Claims,
    minter: Minter,
    bundle: TrustBundle,
    token: String,
    /// What the token's signature is over.
    input: String,
    bare: ed25519_dalek::SigningKey,
    signature: ed25519_dalek::Signature,
}

impl Bench {
    fn new() -> Self {
        let key = SigningKey::from_seed(&SEED);
        let claims = Claims {
            issuer: Issuer::new("https://token.example.com").expect("issuer"),
            client_id: ClientId::new("order-service").expect("client id"),
            audience: Audience::new("inventory").expect("audience"),
            scopes: ScopeSet::parse("stock:read stock:write").expect("scopes"),
            issued_at: NOW,
            expires_at: NOW + Duration::from_secs(900),
            token_id: TokenId::from_random([7; 12]),
        };
        let bundle = TrustBundle {
            issuer: claims.issuer.clone(),
            epoch: 1,
            keys: [key.public().clone()].into_iter().collect(),
            revocations: Revocations::default(),
        };
        let minter = Minter::new(Arc::new(key));
        let token = minter.mint(&claims).into_exposed();
        let (input, _) = token.rsplit_once('.').expect("a signature");
        let input = input.to_owned();
        let bare = ed25519_dalek::SigningKey::from_bytes(&SEED);
        let signature = bare.sign(input.as_bytes());
        Self { claims, minter, bundle, token, input, bare, signature }
    }

    fn sign(&self) {
        black_box(self.bare.sign(black_box(self.input.as_bytes())));
    }

    fn mint(&self) {
        black_box(self.minter.mint(black_box(&self.claims)));
    }

    fn verify_strict(&self) {
        let key = self.bare.as_ref();
        let verified = key.verify_strict(black_box(self.input.as_bytes()), &self.signature);
        black_box(verified).expect("a good signature");
    }

    fn verify(&self) {
        let audiences = Audiences::OneOf(std::slice::from_ref(&self.claims.audience));
        let verified = self.bundle.verify(black_box(&self.token), audiences, NOW, DEFAULT_LEEWAY);
        black_box(verified).expect("a good token");
    }

    /// A call through the guard, which has seen the token before.
    fn guarded_call(&self) -> impl FnMut() {
        let trust = Trust::fixed(self.bundle.clone());
        let guard = Guard::builder(trust).services(SERVICES).clock(Clock::fixed(NOW)).build();
        let mut service = guard.layer(service_fn(|_: http::Request<GuardedBody<()>>| {
            ready(Ok::<_, Infallible>(http::Response::new(())))
        }));
        let authorization: http::HeaderValue =
            format!("Bearer {}", self.token).parse().expect("a token is ASCII");
        move || {
            let mut request = http::Request::new(());
            *request.uri_mut() = http::Uri::from_static(PATH);
            request.headers_mut().insert(http::header::AUTHORIZATION, authorization.clone());
            let call = pin!(service.call(request));
            let polled = call.poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(response)) = black_box(polled) else { panic!("it is ready") };
            assert!(!response.headers().contains_key("grpc-status"), "it is admitted");
        }
    }
}

/// How much longer the one takes than the other. Both in turns, so that both have the same
/// neighbours on the machine; the medians, so that those do not matter.
fn ratio(mut ours: impl FnMut(), mut bare: impl FnMut()) -> f64 {
    const ROUNDS: usize = 301;
    const CALLS: u32 = 20;
    let time = |call: &mut dyn FnMut()| {
        let started = Instant::now();
        (0..CALLS).for_each(|_| call());
        started.elapsed() / CALLS
    };
    let (mut ours, mut bare): (Vec<Duration>, Vec<Duration>) =
        (0..ROUNDS).map(|_| (time(&mut ours), time(&mut bare))).unzip();
    ours.sort();
    bare.sort();
    ours[ROUNDS / 2].as_secs_f64() / bare[ROUNDS / 2].as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "the ratios are what this is for")]
fn main() {
    let bench = Bench::new();
    let mut guarded_call = bench.guarded_call();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    criterion.bench_function("ed25519-dalek sign", |b| b.iter(|| bench.sign()));
    criterion.bench_function("mint", |b| b.iter(|| bench.mint()));
    criterion.bench_function("ed25519-dalek verify_strict", |b| b.iter(|| bench.verify_strict()));
    criterion.bench_function("verify", |b| b.iter(|| bench.verify()));
    criterion.bench_function("guard, token seen before", |b| b.iter(&mut guarded_call));
    criterion.final_summary();

    let mint = ratio(|| bench.mint(), || bench.sign());
    let verify = ratio(|| bench.verify(), || bench.verify_strict());
    let guard = ratio(guarded_call, || bench.verify_strict());
    println!("mint    {mint:.3} x a bare signature       (target: at most 1.1)");
    println!("verify  {verify:.3} x a bare verify_strict   (target: at most 1.1)");
    println!("guard   {guard:.3} x a bare verify_strict   (a token seen before)");
}

//! Keys that are polled from a JWK Set: how often, and of which issuer.

use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{Audience, Claims, Clock, Issuer, ScopeSet, TokenId};
use countersign_mesh::guard::{Guard, GuardedBody, Trust};
use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::session::{Credentials, Session, SessionBuilder, SessionError, trust_in};
use countersign_mesh::token::Minter;
use countersign_mesh::trust::{Revocations, TrustBundle};
use http::Request;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, ServiceExt};

use crate::callee::{Callee, POLICIES, READ};
use crate::countersign::{FakeCountersign, USUAL, client};
use crate::endpoint::{FakeEndpoint, pass};

pub const ISSUER: &str = "https://issuer.test";

pub fn issuer(text: &str) -> Issuer {
    Issuer::new(text).expect("an issuer")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub fn bundle(of: &str, epoch: u64, seed: u8) -> TrustBundle {
    let keys = KeySet::from_iter([key(seed).public().clone()]);
    TrustBundle { issuer: issuer(of), epoch, keys, revocations: Revocations::default() }
}

/// A builder of a session whose Countersign is this endpoint, without a trust stream.
pub fn builder(endpoint: &FakeEndpoint) -> SessionBuilder {
    Session::builder(&endpoint.url(""), Credentials::new(client("shop"), "csec_hush"))
        .channel(FakeCountersign::new(USUAL).channel())
}

/// Waits until this key is among the known ones.
pub async fn until_known(trust: &Trust, seed: u8) {
    let (kid, mut trust) = (key(seed).public().kid().clone(), trust.clone());
    let known = async {
        while trust.bundle().is_none_or(|bundle| bundle.keys.key(kid.as_str()).is_none()) {
            trust.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("it comes");
}

/// Calls a service behind a guard with a token that this key has signed.
pub async fn call(trust: &Trust, seed: u8) -> Code {
    let now = Clock::system().now();
    let token = Minter::new(Arc::new(key(seed))).mint(&Claims {
        issuer: issuer(ISSUER),
        client_id: client("order"),
        audience: Audience::new("shop").expect("an audience"),
        scopes: ScopeSet::parse("stock:read").expect("scopes"),
        issued_at: now,
        expires_at: now + Duration::from_secs(900),
        token_id: TokenId::from_random([1; 12]),
    });
    let request = Request::post(format!("http://shop{READ}"))
        .header("authorization", format!("Bearer {}", token.expose()));
    let request = request.body(Body::empty()).expect("valid");
    let callee =
        Callee::new().map_request(|request: Request<GuardedBody<Body>>| request.map(Body::new));
    let guarded = Guard::new(trust.clone(), POLICIES).layer(callee);
    let response = guarded.oneshot(request).await.expect("the service never fails");
    Status::from_header_map(response.headers()).expect("a status").code()
}

#[tokio::test]
async fn calls_with_unknown_keys_cause_one_fetch_a_second_at_most() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 1).to_jwks());
    let trust = builder(&endpoint).connect().expect("loopback").trust();
    until_known(&trust, 1).await;
    assert_eq!(call(&trust, 1).await, Code::Ok);

    for fetches in 1..4 {
        // However long these take, no time passes.
        tokio::time::pause();
        for _ in 0..100 {
            assert_eq!(call(&trust, 2).await, Code::Unauthenticated);
        }
        assert_eq!(endpoint.seen().len(), fetches);
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        endpoint.until_seen(fetches + 1).await;
    }
    endpoint.answers("200 OK", &bundle(ISSUER, 2, 2).to_jwks());
    call(&trust, 2).await;
    pass(Duration::from_secs(1)).await;
    until_known(&trust, 2).await;
    assert_eq!(call(&trust, 2).await, Code::Ok);
    assert_eq!(call(&trust, 1).await, Code::Unauthenticated);
}

#[tokio::test]
async fn keys_of_another_issuer_or_an_older_epoch_are_not_accepted() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 5, 1).to_jwks());
    let trust = builder(&endpoint).connect().expect("loopback").trust();
    until_known(&trust, 1).await;
    for other in [bundle("https://other.test", 6, 2), bundle(ISSUER, 4, 2)] {
        endpoint.answers("200 OK", &other.to_jwks());
        endpoint.pass_until_read().await;
        assert_eq!(call(&trust, 1).await, Code::Ok);
        assert_eq!(call(&trust, 2).await, Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_newer_epoch_is_accepted_even_if_its_keys_are_the_same() {
    let endpoint = FakeEndpoint::start(None).await;
    let trust = builder(&endpoint).connect().expect("loopback").trust();
    for (epoch, seed) in [(5, 1), (7, 1), (6, 2)] {
        endpoint.answers("200 OK", &bundle(ISSUER, epoch, seed).to_jwks());
        endpoint.pass_until_read().await;
        until_known(&trust, 1).await;
    }
    assert_eq!(trust.bundle().expect("there are keys").epoch, 7);
}

#[tokio::test]
async fn keys_of_another_issuer_than_the_named_one_are_refused() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle("https://other.test", 1, 1).to_jwks());
    let trust = builder(&endpoint).issuer(issuer(ISSUER)).connect().expect("loopback").trust();
    endpoint.pass_until_read().await;
    assert!(trust.bundle().is_none());
    assert_eq!(call(&trust, 1).await, Code::Unavailable);
}

#[tokio::test]
async fn keys_at_hand_stay_in_use_while_countersign_is_down() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 1).to_jwks());
    let trust = builder(&endpoint).connect().expect("loopback").trust();
    until_known(&trust, 1).await;
    for (status, body) in [
        ("503 Service Unavailable", ""),
        ("200 OK", "noise"),
        ("200 OK", "{\"keys\":[]}"),
        ("302 Found\r\nlocation: /elsewhere", ""),
    ] {
        endpoint.answers(status, body);
        endpoint.pass_until_read().await;
        assert_eq!(call(&trust, 1).await, Code::Ok);
    }
    endpoint.answers("200 OK", &bundle(ISSUER, 2, 2).to_jwks());
    endpoint.pass_until_read().await;
    until_known(&trust, 2).await;
}

#[tokio::test]
async fn any_issuers_jwk_set_can_be_trusted() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 1).keys.to_jwks());
    let trust = trust_in(issuer(ISSUER), &endpoint.url("/keys?set=1")).expect("loopback");
    until_known(&trust, 1).await;
    assert!(endpoint.seen()[0].starts_with("GET /keys?set=1 HTTP/1.1"), "{:?}", endpoint.seen());
    assert_eq!(call(&trust, 1).await, Code::Ok);
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 2).keys.to_jwks());
    endpoint.pass_until_read().await;
    until_known(&trust, 2).await;

    let plaintext = trust_in(issuer(ISSUER), "http://issuer.example/keys");
    assert!(matches!(plaintext, Err(SessionError::Plaintext(_))));
}

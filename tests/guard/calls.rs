//! Each call on its own: admitted, or refused for one reason.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use countersign_mesh::guard::{Guard, Trust};
use countersign_mesh::testing::{TestIssuer, TestToken, TokenRequest};
use tokio::sync::{Notify, watch};
use tonic::{Code, Request};

use crate::support::{POLICIES, PUBLIC, Rig, UNARY, UNDECLARED, audience, reason};

#[tokio::test]
async fn the_handler_learns_who_calls() {
    let mut rig = Rig::new();
    let token = rig.token();
    assert_eq!(rig.unary(UNARY, token.on(())).await.expect("admitted"), "order");
    assert_eq!(rig.unary(UNARY, token.on(())).await.expect("admitted, from memory"), "order");
    assert_eq!(rig.unary(PUBLIC, Request::new(())).await.expect("public"), "nobody");
    assert_eq!(rig.unary(PUBLIC, token.on(())).await.expect("public"), "nobody");
}

/// Outside of a runtime, setting a timer panics.
#[test]
fn a_unary_call_that_is_over_at_once_sets_no_timer() {
    let mut rig = Rig::new();
    let token = rig.token();
    let call = pin!(rig.unary(UNARY, token.on(())));
    let Poll::Ready(answer) = call.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits");
    };
    assert_eq!(answer.expect("admitted"), "order");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_has_its_reason() {
    type Spoil = fn(TokenRequest<'_>) -> TokenRequest<'_>;
    let cases: [(Spoil, Code, &str); 8] = [
        (|token| token.scopes("echo:watch"), Code::PermissionDenied, "SCOPE_MISSING"),
        (|token| token.audience("payment"), Code::Unauthenticated, "AUDIENCE_MISMATCH"),
        (|token| token.issuer("https://other.test"), Code::Unauthenticated, "TOKEN_INVALID"),
        (|token| token.expired(), Code::Unauthenticated, "TOKEN_EXPIRED"),
        (|token| token.not_yet_valid(), Code::Unauthenticated, "TOKEN_INVALID"),
        (|token| token.signed_by_stranger(), Code::Unauthenticated, "KEY_UNKNOWN"),
        (|token| token.forged(), Code::Unauthenticated, "TOKEN_INVALID"),
        (|token| token.scopes("echo:call other"), Code::Ok, ""),
    ];
    let mut rig = Rig::new();
    for (spoil, code, expected) in cases {
        let good = rig.issuer.token("order").audience("echo").scopes("echo:call");
        let request = spoil(good).mint().on(());
        match rig.unary(UNARY, request).await {
            Ok(_) => assert_eq!(code, Code::Ok),
            Err(status) => assert_eq!((status.code(), reason(&status).as_str()), (code, expected)),
        }
    }
    let none = rig.unary(UNARY, Request::new(())).await.expect_err("no token");
    assert_eq!((none.code(), reason(&none).as_str()), (Code::Unauthenticated, "TOKEN_MISSING"));
    let undeclared = rig.unary(UNDECLARED, rig.token().on(())).await.expect_err("undeclared");
    assert_eq!(reason(&undeclared), "METHOD_UNDECLARED");
}

#[tokio::test]
async fn two_authorization_headers_are_refused_even_if_both_are_good() {
    let mut rig = Rig::new();
    let token = rig.token();
    let mut request = token.on(());
    request.metadata_mut().append("authorization", token.bearer().parse().expect("ASCII"));
    let status = rig.unary(UNARY, request).await.expect_err("twice");
    assert_eq!(reason(&status), "TOKEN_INVALID");
}

#[tokio::test]
async fn revocation_reaches_a_token_that_is_remembered() {
    let revocations: [fn(&Rig, &TestToken); 3] = [
        |rig, token| rig.issuer.revoke_token(token),
        |rig, _| rig.issuer.revoke_client("order"),
        |rig, _| rig.issuer.revoke_key(),
    ];
    for revoke in revocations {
        let mut rig = Rig::new();
        let token = rig.token();
        rig.unary(UNARY, token.on(())).await.expect("admitted");
        revoke(&rig, &token);
        let status = rig.unary(UNARY, token.on(())).await.expect_err("revoked");
        assert_eq!(reason(&status), "TOKEN_REVOKED");
        rig.issuer.advance(Duration::from_secs(1));
        let next = rig.token();
        rig.unary(UNARY, next.on(())).await.expect("the next one is good");
    }
}

#[tokio::test]
async fn a_rotation_breaks_nothing() {
    let mut rig = Rig::new();
    let before = rig.token();
    rig.issuer.rotate_key();
    let after = rig.token();
    assert_ne!(before.expose().split('.').next(), after.expose().split('.').next(), "another key");
    rig.unary(UNARY, before.on(())).await.expect("admitted");
    rig.unary(UNARY, after.on(())).await.expect("admitted");
}

#[tokio::test]
async fn the_audience_is_overridden_at_one_place() {
    let issuer = TestIssuer::new();
    let guard = issuer.guard(&[]).services_as(&audience("echo-eu"), POLICIES).build();
    let mut rig = Rig::behind(issuer, guard);
    let here = rig.issuer.token("order").audience("echo-eu").scopes("echo:call").mint();
    rig.unary(UNARY, here.on(())).await.expect("admitted");
    let status = rig.unary(UNARY, rig.token().on(())).await.expect_err("for the other one");
    assert_eq!(reason(&status), "AUDIENCE_MISMATCH");
}

#[tokio::test]
async fn without_trust_nothing_is_verified_and_public_methods_still_answer() {
    let issuer = TestIssuer::new();
    let (_bundles, bundle) = watch::channel(None);
    let guard = Guard::new(Trust::live(bundle, Default::default()), POLICIES);
    let mut rig = Rig::behind(issuer, guard);
    let status = rig.unary(UNARY, rig.token().on(())).await.expect_err("no trust yet");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "TRUST_UNAVAILABLE"));
    rig.unary(PUBLIC, Request::new(())).await.expect("public");
}

#[tokio::test]
async fn an_unknown_key_is_refused_at_once_and_reported() {
    let issuer = TestIssuer::new();
    let missing = Arc::new(Notify::new());
    let (_bundles, bundle) = watch::channel(Some(Arc::new(issuer.bundle())));
    let guard = Guard::builder(Trust::live(bundle, missing.clone()))
        .services(POLICIES)
        .clock(issuer.clock())
        .build();
    let mut rig = Rig::behind(issuer, guard);
    let order = || rig.issuer.token("order").audience("echo").scopes("echo:call");
    let stranger = order().signed_by_stranger().mint();
    let status = rig.unary(UNARY, stranger.on(())).await.expect_err("unknown key");
    assert_eq!(reason(&status), "KEY_UNKNOWN");
    missing.notified().await;
}

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
async fn a_handler_is_told_which_client_calls() {
    let mut rig = Rig::new();
    let token = rig.token();
    assert_eq!(rig.unary(UNARY, token.on(())).await.expect("admitted"), "order");
    assert_eq!(rig.unary(UNARY, token.on(())).await.expect("admitted, from memory"), "order");
    assert_eq!(rig.unary(PUBLIC, Request::new(())).await.expect("public"), "nobody");
    assert_eq!(rig.unary(PUBLIC, token.on(())).await.expect("public"), "nobody");
}

/// There is no tokio runtime here, so that setting a timer would panic.
#[test]
fn a_unary_call_that_is_over_at_once_sets_no_timer() {
    let mut rig = Rig::new();
    let token = rig.token();
    let call = pin!(rig.unary(UNARY, token.on(())));
    let Poll::Ready(answer) = call.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the call is not ready at once");
    };
    assert_eq!(answer.expect("admitted"), "order");
}

#[tokio::test]
async fn each_fault_of_a_token_is_refused_with_its_own_reason() {
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
async fn a_token_that_was_admitted_before_is_refused_once_it_is_revoked() {
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
async fn tokens_of_the_old_and_the_new_key_are_admitted_after_a_rotation() {
    let mut rig = Rig::new();
    let before = rig.token();
    rig.issuer.rotate_key();
    let after = rig.token();
    assert_ne!(before.expose().split('.').next(), after.expose().split('.').next(), "another key");
    rig.unary(UNARY, before.on(())).await.expect("admitted");
    rig.unary(UNARY, after.on(())).await.expect("admitted");
}

#[tokio::test]
async fn services_as_demands_another_audience_than_the_proto_names() {
    let issuer = TestIssuer::new();
    let guard = issuer.guard(&[]).services_as(&audience("echo-eu"), POLICIES).build();
    let mut rig = Rig::behind(issuer, guard);
    let here = rig.issuer.token("order").audience("echo-eu").scopes("echo:call").mint();
    rig.unary(UNARY, here.on(())).await.expect("admitted");
    let status = rig.unary(UNARY, rig.token().on(())).await.expect_err("for the other one");
    assert_eq!(reason(&status), "AUDIENCE_MISMATCH");
}

#[tokio::test]
async fn without_a_trust_bundle_only_public_methods_answer() {
    let issuer = TestIssuer::new();
    let (_bundles, bundle) = watch::channel(None);
    let guard = Guard::new(Trust::live(bundle, Default::default()), POLICIES);
    let mut rig = Rig::behind(issuer, guard);
    let status = rig.unary(UNARY, rig.token().on(())).await.expect_err("no trust yet");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "TRUST_UNAVAILABLE"));
    rig.unary(PUBLIC, Request::new(())).await.expect("public");
}

#[tokio::test]
async fn a_token_with_an_unknown_key_is_refused_at_once_and_the_feeder_is_notified() {
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

//! What becomes of calls and streams while trust is stale: nobody knows what was revoked lately.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use countersign_mesh::guard::{Freshness, GuardBuilder, Refusal, WhenStale};
use countersign_mesh::testing::{START, TestIssuer};
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use tonic::{Code, Request};
use tower::ServiceExt;

use crate::support::{BIDI, POLICIES, PUBLIC, Rig, SERVER_STREAM, UNARY, audience, next, reason};

fn fail_closed(guard: GuardBuilder) -> GuardBuilder {
    guard.when_stale(WhenStale::FailClosed)
}

#[tokio::test]
async fn a_guard_that_fails_closed_refuses_calls_until_its_trust_is_fresh_again() {
    let mut rig = Rig::with(fail_closed);
    let token = rig.token();
    assert_eq!(rig.unary(UNARY, token.on(())).await.expect("admitted"), "order");
    rig.issuer.set_freshness(Freshness::Stale);
    // A token that the guard has verified already, and a new one.
    for token in [token, rig.token()] {
        let status = rig.unary(UNARY, token.on(())).await.expect_err("it is stale");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "TRUST_STALE"));
    }
    rig.unary(PUBLIC, Request::new(())).await.expect("public methods need no trust");
    // A new bundle is not fresh by itself: only whoever feeds the freshness makes it so.
    rig.issuer.rotate_key();
    rig.unary(UNARY, rig.token().on(())).await.expect_err("it is stale");
    rig.issuer.set_freshness(Freshness::Fresh);
    rig.unary(UNARY, rig.token().on(())).await.expect("admitted");
}

#[tokio::test]
async fn a_guard_that_serves_stale_goes_on() {
    let mut rig = Rig::new();
    rig.issuer.set_freshness(Freshness::Stale);
    assert!(!rig.issuer.trust().is_fresh());
    rig.unary(UNARY, rig.token().on(())).await.expect("admitted");
    assert_eq!(
        rig.issuer.guard(POLICIES).build().explain(rig.token().expose(), UNARY).refusal(),
        None
    );
}

#[tokio::test(start_paused = true)]
async fn streams_end_in_both_directions_when_a_guard_that_fails_closed_turns_stale() {
    let mut rig = Rig::with(fail_closed);
    let mut stream = rig.server_stream(SERVER_STREAM, rig.token().on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    rig.issuer.set_freshness(Freshness::Stale);
    let status = next(&mut stream).await.expect_err("it ends");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "TRUST_STALE"));

    rig.issuer.set_freshness(Freshness::Fresh);
    let mut both = rig.bidi(rig.token().on(())).await.expect("admitted");
    next(&mut both).await.expect("a message");
    rig.issuer.set_freshness(Freshness::Stale);
    assert_eq!(rig.handler_error().await.code(), Code::Unavailable, "{BIDI}");
}

#[tokio::test(start_paused = true)]
async fn streams_go_on_when_a_guard_that_serves_stale_turns_stale() {
    let mut rig = Rig::new();
    let mut stream = rig.server_stream(SERVER_STREAM, rig.token().on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    rig.issuer.set_freshness(Freshness::Stale);
    let more = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
    assert!(more.is_err(), "it goes on: {more:?}");
}

#[tokio::test]
async fn a_stale_guard_that_only_reports_refuses_nothing() {
    let until = START + Duration::from_secs(60);
    let mut rig = Rig::with(|guard| fail_closed(guard).report_only_until(until));
    rig.issuer.set_freshness(Freshness::Stale);
    assert_eq!(rig.unary(UNARY, rig.token().on(())).await.expect("reported"), "nobody");
}

#[tokio::test]
async fn http_routes_answer_503_and_explain_says_why() {
    let issuer = TestIssuer::new();
    let guard = fail_closed(issuer.guard(POLICIES)).build().for_audience(audience("echo"));
    let token = issuer.token("order").audience("echo").scopes("echo:call").mint();
    let routes: Router = Router::new()
        .route("/", get(|| async { "here" }))
        .route_layer(guard.require(["echo:call"]));
    let status = || {
        let request = http::Request::get("/").header("authorization", token.bearer());
        let request = request.body(axum::body::Body::empty()).expect("valid");
        let routes = routes.clone();
        async move {
            let response = routes.oneshot(request).await.expect("the service never fails");
            (response.status(), response.headers().contains_key(WWW_AUTHENTICATE))
        }
    };
    assert_eq!(status().await, (StatusCode::OK, false));
    issuer.set_freshness(Freshness::Stale);
    assert_eq!(status().await, (StatusCode::SERVICE_UNAVAILABLE, false));
    let explained = guard.explain(token.expose(), UNARY);
    assert_eq!(explained.refusal(), Some(&Refusal::TrustStale));
    assert!(explained.to_string().ends_with("The call would be refused: TRUST_STALE."));
}

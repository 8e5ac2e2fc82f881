//! What a call carries, and how long it waits for it.

use std::time::Duration;

use countersign::rpc;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign_mesh::claims::Audience;
use countersign_mesh::session::NoToken;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

use crate::callee::{Callee, LIST, PING, POLICIES, READ, WRITE, call, call_within};
use crate::countersign::{Answer, FakeCountersign, USUAL};

#[tokio::test(start_paused = true)]
async fn a_thousand_first_calls_fetch_one_token_for_each_set_of_scopes() {
    let countersign = FakeCountersign::new(Answer::Late(1));
    let callee = Callee::new();
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    let mut calls = JoinSet::new();
    for number in 0..1000 {
        let (transport, path) = (transport.clone(), [READ, LIST, WRITE][number % 3]);
        calls.spawn(async move { call(&transport, path).await });
    }
    assert!(calls.join_all().await.iter().all(|code| *code == Code::Ok));
    assert_eq!(countersign.asked(), 2);
    for seen in callee.seen() {
        let scope = if seen.path == WRITE { "stock:write" } else { "stock:read" };
        let token = seen.token.expect("it carries a token");
        assert!(token.ends_with(&format!("/shop/{scope}")), "{} {token}", seen.path);
    }
    assert_eq!(callee.seen().len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn calls_of_public_methods_carry_no_token_and_undeclared_ones_are_not_sent() {
    let countersign = FakeCountersign::new(USUAL);
    let callee = Callee::new();
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    assert_eq!(call(&transport, PING).await, Code::Ok);
    assert_eq!(callee.tokens(PING), [None]);
    assert_eq!(call(&transport, "/shop.Shop/Delete").await, Code::Unimplemented);
    assert_eq!((callee.seen().len(), countersign.asked()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn session_audience_asks_for_tokens_of_another_audience() {
    let countersign = FakeCountersign::new(USUAL);
    let callee = Callee::new();
    let eu = Audience::new("shop-eu").expect("an audience");
    let transport = countersign.session().audience(eu).attach(callee.clone(), POLICIES);
    assert_eq!(call(&transport, READ).await, Code::Ok);
    assert_eq!(callee.tokens(READ), [Some("1/shop-eu/stock:read".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_token_no_longer_than_its_deadline() {
    let countersign = FakeCountersign::new(Answer::Nothing);
    let transport = countersign.session().attach(Callee::new(), POLICIES);
    let began = Instant::now();
    assert_eq!(call_within(&transport, READ, "100m").await, Code::Unavailable);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    // Without a deadline the wait ends, too.
    assert_eq!(call(&transport, READ).await, Code::Unavailable);
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_token_shortens_the_timeout_that_is_sent() {
    let countersign = FakeCountersign::new(Answer::Late(2));
    let callee = Callee::new();
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    assert_eq!(call_within(&transport, READ, "5S").await, Code::Ok);
    let timeout = callee.seen()[0].timeout.clone().expect("it has a deadline");
    let left: u64 = timeout.trim_end_matches('m').parse().expect("milliseconds");
    assert!((2900..=3000).contains(&left), "{timeout}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_token_does_not_hold_up_other_calls() {
    let countersign = FakeCountersign::new(Answer::Nothing);
    // This callee takes one call at a time.
    let callee = tower::limit::ConcurrencyLimit::new(Callee::new(), 1);
    let transport = countersign.session().attach(callee, POLICIES);
    let request = |path: &str| {
        let request = http::Request::post(format!("http://shop{path}"));
        request.body(tonic::body::Body::empty()).expect("valid")
    };
    let waiting = tokio::spawn(tower::ServiceExt::oneshot(transport.clone(), request(READ)));
    tokio::task::yield_now().await;
    let began = Instant::now();
    tower::ServiceExt::oneshot(transport, request(PING)).await.expect("the service never fails");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_at_once_when_the_credential_is_refused() {
    for code in [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument] {
        let countersign = FakeCountersign::new(Answer::Error(code));
        let callee = Callee::new();
        let transport = countersign.session().attach(callee.clone(), POLICIES);
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(call_within(&transport, READ, "1H").await, Code::Unauthenticated);
        }
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!((countersign.asked(), callee.seen().len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_attaches_a_token_at_hand_and_starts_to_fetch_a_missing_one() {
    let countersign = FakeCountersign::new(USUAL);
    let session = countersign.session();
    let interceptor = session.interceptor(rpc::POLICIES);
    // Countersign's own service, which only issues: it is reached or it is not.
    let mut client = TokenServiceClient::with_interceptor(countersign.channel(), interceptor);
    let validate = rpc::ValidateTokenRequest::default;
    let first = client.validate_token(validate()).await.expect_err("there is no token yet");
    assert_eq!(first.code(), Code::Unavailable, "{first:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(countersign.asked(), 1);
    let second = client.validate_token(validate()).await.expect_err("it only issues");
    assert_eq!(second.message(), "it only issues");

    let public = client.issue_token(rpc::IssueTokenRequest::default()).await;
    public.expect("a public method needs no token");

    countersign.answers(Answer::Error(Code::Unauthenticated));
    let session = countersign.session();
    let interceptor = session.interceptor(rpc::POLICIES);
    let mut client = TokenServiceClient::with_interceptor(countersign.channel(), interceptor);
    client.validate_token(validate()).await.expect_err("there is no token yet");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = client.validate_token(validate()).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_ready_once_it_has_tokens_for_its_clients() {
    let countersign = FakeCountersign::new(Answer::Late(3));
    let session = countersign.session();
    let _client = session.attach(Callee::new(), POLICIES);
    let early = session.ready(Duration::from_secs(1)).await;
    assert!(matches!(early, Err(NoToken::Unavailable(_))), "{early:?}");
    session.ready(Duration::from_secs(5)).await.expect("there are tokens");
    assert_eq!(countersign.asked(), 2);

    countersign.answers(Answer::Error(Code::Unauthenticated));
    let session = countersign.session();
    let _client = session.attach(Callee::new(), POLICIES);
    let began = Instant::now();
    let refused = session.ready(Duration::MAX).await;
    assert!(matches!(refused, Err(NoToken::Refused(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

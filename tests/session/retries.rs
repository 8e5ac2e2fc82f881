//! The one retry, and what it cannot be made to do.

use std::time::Duration;

use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::callee::{Callee, POLICIES, READ, body, call, call_with};
use crate::countersign::{Answer, FakeCountersign, USUAL};

/// A callee that refuses the first token of a session, and no other.
fn refuses_the_first(code: Code, reason: &'static str) -> Callee {
    Callee::refusing(move |token| token.starts_with("1/").then_some((code, reason)))
}

#[tokio::test(start_paused = true)]
async fn a_call_is_made_again_when_another_token_may_help() {
    for reason in ["TOKEN_EXPIRED", "KEY_UNKNOWN", "TOKEN_REVOKED"] {
        let countersign = FakeCountersign::new(USUAL);
        let callee = refuses_the_first(Code::Unauthenticated, reason);
        let transport = countersign.session().attach(callee.clone(), POLICIES);
        assert_eq!(call(&transport, READ).await, Code::Ok, "{reason}");
        let seen = callee.seen();
        assert_eq!((seen.len(), countersign.asked()), (2, 2), "{reason}");
        assert_eq!((seen[0].body, seen[1].body), (10, 10));
        assert_eq!(seen[1].token.as_deref(), Some("2/shop/stock:read"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_not_made_again_when_another_token_cannot_help() {
    for (code, reason) in [
        (Code::Unauthenticated, "TOKEN_INVALID"),
        (Code::Unauthenticated, "TOKEN_MISSING"),
        (Code::Unauthenticated, "AUDIENCE_MISMATCH"),
        (Code::PermissionDenied, "SCOPE_MISSING"),
        (Code::PermissionDenied, "TOKEN_EXPIRED"),
        (Code::Unavailable, "TRUST_UNAVAILABLE"),
    ] {
        let countersign = FakeCountersign::new(USUAL);
        let callee = refuses_the_first(code, reason);
        let transport = countersign.session().attach(callee.clone(), POLICIES);
        assert_eq!(call(&transport, READ).await, code, "{reason}");
        assert_eq!((callee.seen().len(), countersign.asked()), (1, 1), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_still_streaming_is_not_made_again() {
    let countersign = FakeCountersign::new(USUAL);
    let callee = refuses_the_first(Code::Unauthenticated, "TOKEN_EXPIRED").impatient();
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    let (frames, stream) = mpsc::unbounded_channel::<Result<_, Status>>();
    frames.send(Ok(http_body::Frame::data(bytes::Bytes::from_static(b"one")))).expect("open");
    let streaming = Body::new(StreamBody::new(UnboundedReceiverStream::new(stream)));
    let code = call_with(&transport, READ, None, streaming).await;
    assert_eq!(code, Code::Unauthenticated);
    assert_eq!((callee.seen().len(), countersign.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_not_made_again() {
    for (len, times) in [(64 * 1024, 2), (64 * 1024 + 1, 1)] {
        let countersign = FakeCountersign::new(USUAL);
        let callee = refuses_the_first(Code::Unauthenticated, "TOKEN_EXPIRED");
        let transport = countersign.session().attach(callee.clone(), POLICIES);
        call_with(&transport, READ, None, body(len)).await;
        assert_eq!(callee.seen().len(), times, "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_refused_together_fetch_one_new_token() {
    let countersign = FakeCountersign::new(Answer::Late(1));
    let callee = refuses_the_first(Code::Unauthenticated, "TOKEN_REVOKED");
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let transport = transport.clone();
        calls.spawn(async move { call(&transport, READ).await });
    }
    assert!(calls.join_all().await.iter().all(|code| *code == Code::Ok));
    assert_eq!((callee.seen().len(), countersign.asked()), (200, 2));
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_refuses_everything_cannot_drive_issuance() {
    let countersign = FakeCountersign::new(USUAL);
    let callee = Callee::refusing(|_| Some((Code::Unauthenticated, "KEY_UNKNOWN")));
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    for _ in 0..200 {
        assert_eq!(call(&transport, READ).await, Code::Unauthenticated);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first one, and one every five seconds.
    assert!((4..=5).contains(&countersign.asked()), "{}", countersign.asked());
    assert!(callee.seen().len() <= 205, "{}", callee.seen().len());
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_does_not_wait_for_a_countersign_that_is_down() {
    let countersign = FakeCountersign::new(USUAL);
    let callee = Callee::refusing(|_| Some((Code::Unauthenticated, "TOKEN_REVOKED")));
    let transport = countersign.session().attach(callee.clone(), POLICIES);
    assert_eq!(call(&transport, READ).await, Code::Unauthenticated);
    countersign.answers(Answer::Error(Code::Unavailable));
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        assert_eq!(call(&transport, READ).await, Code::Unauthenticated);
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }
}

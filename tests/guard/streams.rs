//! Streams end when their token does. Time is tokio's, and stands still until it is moved.

use std::time::Duration;

use countersign_mesh::claims::MAX_TOKEN_LIFE;
use countersign_mesh::testing::TestToken;
use tokio::time::{Instant, advance};
use tonic::{Code, Status};

use crate::support::{BUSY_STREAM, Rig, SERVER_STREAM, Seen, UNARY, in_time, next, reason};

/// The life of a token, and the leeway.
const OVER: Duration = Duration::from_secs(15 * 60 + 30);

#[track_caller]
fn assert_ended(status: &Status, expected: &str) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::Unauthenticated, expected));
}

#[tokio::test(start_paused = true)]
async fn a_response_stream_ends_when_its_token_expires() {
    let mut rig = Rig::new();
    let started = Instant::now();
    let mut stream = rig.server_stream(SERVER_STREAM, rig.token().on(())).await.expect("admitted");
    assert_eq!(next(&mut stream).await.expect("a message").as_deref(), Some("first"));
    assert_ended(&next(&mut stream).await.expect_err("it ends"), "TOKEN_EXPIRED");
    assert_eq!(started.elapsed().as_secs(), OVER.as_secs());
    assert!(
        matches!(in_time(rig.seen.recv()).await, Some(Seen::ResponseDropped)),
        "the handler is let go"
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_stream_that_never_waits_ends_too() {
    let mut rig = Rig::new();
    let mut stream = rig.server_stream(BUSY_STREAM, rig.token().on(())).await.expect("admitted");
    for _ in 0..10 {
        next(&mut stream).await.expect("a message");
    }
    advance(OVER).await;
    let mut left = 0;
    let status = loop {
        match next(&mut stream).await {
            Ok(_) => left += 1,
            Err(status) => break status,
        }
        assert!(left < 10, "it goes on");
    };
    assert_ended(&status, "TOKEN_EXPIRED");
}

#[tokio::test(start_paused = true)]
async fn a_request_stream_ends_for_the_handler_and_the_caller() {
    let mut rig = Rig::new();
    let status = rig.client_stream(rig.token().on(())).await.expect_err("it ends");
    assert_ended(&status, "TOKEN_EXPIRED");
    assert_ended(&rig.handler_error().await, "TOKEN_EXPIRED");
}

#[tokio::test(start_paused = true)]
async fn both_directions_of_a_stream_end() {
    let mut rig = Rig::new();
    let mut stream = rig.bidi(rig.token().on(())).await.expect("admitted");
    assert_eq!(next(&mut stream).await.expect("a message").as_deref(), Some("first"));
    assert_ended(&next(&mut stream).await.expect_err("it ends"), "TOKEN_EXPIRED");
    assert_ended(&rig.handler_error().await, "TOKEN_EXPIRED");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_once_when_its_token_client_or_key_is_revoked() {
    let revocations: [fn(&Rig, &TestToken); 3] = [
        |rig, token| rig.issuer.revoke_token(token),
        |rig, _| rig.issuer.revoke_client("order"),
        |rig, _| rig.issuer.revoke_key(),
    ];
    for revoke in revocations {
        let mut rig = Rig::new();
        let started = Instant::now();
        let token = rig.token();
        let mut stream = rig.bidi(token.on(())).await.expect("admitted");
        next(&mut stream).await.expect("a message");
        revoke(&rig, &token);
        assert_ended(&next(&mut stream).await.expect_err("it ends"), "TOKEN_REVOKED");
        assert_ended(&rig.handler_error().await, "TOKEN_REVOKED");
        assert_eq!(started.elapsed().as_secs(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_between_admission_and_the_first_wait_ends_the_stream() {
    let mut rig = Rig::new();
    let token = rig.token();
    let mut stream = rig.server_stream(SERVER_STREAM, token.on(())).await.expect("admitted");
    rig.issuer.revoke_token(&token);
    next(&mut stream).await.expect("what was ready goes out");
    assert_ended(&next(&mut stream).await.expect_err("it ends"), "TOKEN_REVOKED");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_trust_that_does_not_concern_the_token_ends_no_stream() {
    let mut rig = Rig::new();
    let started = Instant::now();
    let mut stream = rig.server_stream(SERVER_STREAM, rig.token().on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    rig.issuer.revoke_client("somebody-else");
    rig.issuer.rotate_key();
    assert_ended(&next(&mut stream).await.expect_err("in time"), "TOKEN_EXPIRED");
    assert_eq!(started.elapsed().as_secs(), OVER.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_service_may_let_its_streams_outlive_their_tokens() {
    let mut rig = Rig::with(|guard| guard.streams_outlive_tokens("test.Echo"));
    let token = rig.token();
    let mut stream = rig.server_stream(SERVER_STREAM, token.on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    rig.issuer.revoke_token(&token);
    let waited = tokio::time::timeout(OVER * 2, stream.message()).await;
    assert!(waited.is_err(), "it goes on: {waited:?}");
    rig.unary(UNARY, token.on(())).await.expect_err("a new call is another matter");
}

#[tokio::test(start_paused = true)]
async fn opting_out_one_service_leaves_others_whose_names_begin_alike() {
    let mut other = Rig::with(|guard| guard.streams_outlive_tokens("test.Ech"));
    let mut stream =
        other.server_stream(SERVER_STREAM, other.token().on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    next(&mut stream).await.expect_err("another service has opted out");
}

#[tokio::test(start_paused = true)]
async fn a_token_with_the_longest_life_keeps_its_stream_and_one_with_a_longer_life_opens_none() {
    let mut rig = Rig::new();
    let token = |rig: &Rig, life: Duration| {
        rig.issuer.token("order").audience("echo").scopes("echo:call").life(life).mint()
    };
    for too_long in [MAX_TOKEN_LIFE + Duration::from_secs(1), Duration::MAX] {
        let token = token(&rig, too_long);
        let refused = rig.server_stream(SERVER_STREAM, token.on(())).await;
        assert_eq!(reason(&refused.map(drop).expect_err("no issuer makes it")), "TOKEN_INVALID");
    }
    let token = token(&rig, MAX_TOKEN_LIFE);
    let mut stream = rig.server_stream(SERVER_STREAM, token.on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    let waited = tokio::time::timeout(OVER, stream.message()).await;
    assert!(waited.is_err(), "it goes on: {waited:?}");
}

//! Planned rotations wait for every verifier that would refuse the tokens of the next key.

use std::time::Duration;

use countersign::authority::{ActError, Refusal, Settings};
use countersign::rpc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::caller::Caller;
use crate::support::{TestServer, assert_refused, bearing};
use crate::verifier::{Verifier, ack, hello};

/// Asserts that a rotation is blocked, by whom, and after how long the error says to try again.
#[track_caller]
fn assert_blocked(answer: Result<rpc::RotateKeysResponse, Status>, by: &str, retry_in: u64) {
    let status = answer.expect_err("the rotation is blocked");
    let info = status.get_details_error_info().expect("every error carries ErrorInfo");
    assert!(info.metadata["verifiers"].contains(by), "{info:?}");
    assert!(status.message().contains(by), "{}", status.message());
    let retry = status.get_details_retry_info().expect("the error says when to try again");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(retry_in)), "{}", status.message());
    assert_refused::<()>(Err(status), Code::FailedPrecondition, "VERIFIERS_BEHIND");
}

async fn rotate_by_force(server: &TestServer, operator: &Caller) -> rpc::RotateKeysResponse {
    let request = rpc::RotateKeysRequest { force: true, ..Default::default() };
    let answer = server.keys().rotate_keys(bearing(&operator.token, request)).await;
    answer.expect("force goes ahead").into_inner()
}

async fn next(server: &TestServer) -> String {
    let keys = server.operator().await.keys(server).await.expect("the operator may");
    keys[0].kid.clone()
}

/// Fetches the JWKS.
async fn poll(server: &TestServer) {
    let mut socket =
        tokio::net::TcpStream::connect(server.address()).await.expect("the server listens");
    let request = "GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("the server answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_rotation_waits_for_every_connected_verifier_to_acknowledge_the_next_key() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let token = server.service("inventory").await;
    let mut pod = Verifier::open(&server, &token, hello("pod-1"))
        .await
        .expect("the server accepts the stream");
    let other = server.service("billing").await;
    let mut other =
        Verifier::open(&server, &other, hello("")).await.expect("the server accepts the stream");
    let epoch = pod.update().await.epoch;
    other.install().await;
    assert_blocked(operator.rotate(&server).await, "inventory/pod-1 (has nothing yet)", 2);
    pod.say(ack(epoch)).await;
    server.all_hold_next().await;
    operator.rotate(&server).await.expect("every verifier holds the next key");

    // The next rotation waits again, for the key after that.
    let update = pod.update().await;
    other.install().await;
    assert_blocked(operator.rotate(&server).await, "inventory/pod-1 (1 epochs behind)", 2);
    pod.say(ack(update.epoch)).await;
    server.all_hold_next().await;
    operator.rotate(&server).await.expect("every verifier holds the next key");
}

#[tokio::test]
async fn a_forced_rotation_goes_ahead_and_names_the_verifiers_behind() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let mut verifier = server.verifier("inventory").await;
    let rotated = rotate_by_force(&server, &operator).await;
    assert_eq!(rotated.verifiers_behind, [""; 0], "nobody is");
    verifier.update().await;
    let rotated = rotate_by_force(&server, &operator).await;
    assert_eq!(rotated.verifiers_behind, ["inventory/one (1 epochs behind)"]);
}

#[tokio::test]
async fn a_rotation_waits_for_a_disconnected_verifier_unless_it_held_the_next_key() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    drop(server.verifier("inventory").await);
    server.all_gone().await;
    operator.rotate(&server).await.expect("the verifier held the next key");

    let token = server.service("billing").await;
    let verifier =
        Verifier::open(&server, &token, hello("b")).await.expect("the server accepts the stream");
    drop(verifier);
    server.all_gone().await;
    assert_blocked(operator.rotate(&server).await, "billing/b", 31);
    server.advance(30);
    assert_blocked(operator.rotate(&server).await, "billing/b", 1);
    server.advance(1);
    operator.rotate(&server).await.expect("the time to reconnect is over");

    let verifier =
        Verifier::open(&server, &token, hello("b")).await.expect("the server accepts the stream");
    drop(verifier);
    server.all_gone().await;
    let mut back =
        Verifier::open(&server, &token, hello("b")).await.expect("the server accepts the stream");
    back.install().await;
    server.all_hold_next().await;
    operator.rotate(&server).await.expect("the verifier is back");
}

#[tokio::test]
async fn a_rotation_does_not_wait_for_a_verifier_that_the_server_disconnected_but_lists_it() {
    let server = TestServer::start().await;
    let token = server.service("inventory").await;
    let mut verifier = Verifier::open(&server, &token, hello("slow"))
        .await
        .expect("the server accepts the stream");
    tokio::time::pause();
    verifier.end().await;
    tokio::time::resume();
    let rotated =
        server.operator().await.rotate(&server).await.expect("there is no verifier to wait for");
    assert_eq!(rotated.verifiers_behind, ["inventory/slow (let go)"]);
    let mut verifier = Verifier::open(&server, &token, hello("slow"))
        .await
        .expect("the server accepts the stream");
    verifier.install().await;
    server.all_hold_next().await;
    let rotated = server.operator().await.rotate(&server).await.expect("the verifier is back");
    assert_eq!(rotated.verifiers_behind, [""; 0]);
}

#[tokio::test]
async fn after_a_start_a_rotation_waits_for_verifiers_to_reconnect_if_there_ever_was_one() {
    let mut server = TestServer::start().await;
    server.restart().await;
    server.operator().await.rotate(&server).await.expect("nobody has ever listened");
    drop(server.verifier("inventory").await);
    server.restart().await;
    let operator = server.operator().await;
    assert_blocked(operator.rotate(&server).await, "may not be back yet", 31);
    server.advance(31);
    operator.rotate(&server).await.expect("the time to reconnect is over");
}

#[tokio::test]
async fn a_rotation_waits_until_every_poller_must_have_the_next_key() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    poll(&server).await;
    operator.rotate(&server).await.expect("the next key was there from the beginning");
    assert_blocked(operator.rotate(&server).await, "polls the JWKS", 91);
    server.advance(60);
    poll(&server).await;
    assert_blocked(operator.rotate(&server).await, "polls the JWKS", 31);
    server.advance(31);
    operator.rotate(&server).await.expect("every poller has the next key");

    server.advance(200);
    operator.rotate(&server).await.expect("the last key set served had the next key");
    server.restart().await;
    assert_blocked(server.operator().await.rotate(&server).await, "polls the JWKS", 91);
    server.advance(91);
    server.operator().await.rotate(&server).await.expect("the last poll was long ago");
    poll(&server).await;
    let operator = server.operator().await;
    server.advance(200);
    operator.rotate(&server).await.expect("the last poll was long ago");
    poll(&server).await;
    operator.revoke_key(&server, &next(&server).await).await.expect("revoked");
    let rotated = rotate_by_force(&server, &server.operator().await).await;
    assert!(rotated.verifiers_behind[0].contains("polls the JWKS"), "{rotated:?}");
}

#[tokio::test]
async fn a_blocked_rotation_is_audited_and_can_be_repeated_under_its_id_until_it_passes() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let token = server.service("inventory").await;
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    let rotate = async || {
        let request = rpc::RotateKeysRequest { request_id: "one".to_owned(), ..Default::default() };
        let answer = server.keys().rotate_keys(bearing(&operator.token, request)).await;
        answer.map(tonic::Response::into_inner)
    };
    assert_blocked(rotate().await, "inventory", 2);
    verifier.install().await;
    server.all_hold_next().await;
    let rotated = rotate().await.expect("the rotation passes");
    assert_eq!(rotate().await.expect("the same answer again"), rotated);

    server.authority().maintain(server.clock.now()).await.expect("the store can be written");
    let events =
        server.authority().audit_events(None, 10).await.expect("the audit log can be read");
    let outcomes: Vec<&str> = events
        .iter()
        .filter(|row| row.event.action == "keys.rotate")
        .map(|row| row.event.outcome.as_str())
        .collect();
    assert_eq!(outcomes, ["VERIFIERS_BEHIND", "ok"]);
}

#[tokio::test]
async fn each_listed_key_says_how_many_verifiers_hold_it() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let list = async || {
        let request = rpc::ListKeysRequest::default();
        let answer = server.keys().list_keys(bearing(&operator.token, request)).await;
        let listed = answer.expect("the operator may").into_inner();
        let holding: Vec<i32> = listed.keys.iter().map(|key| key.verifiers_holding).collect();
        (listed.verifiers_connected, holding)
    };
    assert_eq!(list().await, (0, vec![0, 0]));
    let mut inventory = server.verifier("inventory").await;
    let mut billing = server.verifier("billing").await;
    assert_eq!(list().await, (2, vec![2, 2]));
    operator.rotate(&server).await.expect("rotated");
    billing.update().await;
    assert_eq!(list().await, (2, vec![0, 2, 2]));
    inventory.install().await;
    for _ in 0..1000 {
        if list().await == (2, vec![1, 2, 2]) {
            return;
        }
    }
    panic!("{:?}", list().await);
}

#[tokio::test]
async fn a_scheduled_rotation_waits_for_the_same_gate() {
    let rotate_every = Some(Duration::from_secs(86_400));
    let server = TestServer::start_set(Settings { rotate_every, ..Settings::default() }).await;
    let authority = server.authority();
    let token = server.service("inventory").await;
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    let epoch = verifier.update().await.epoch;

    server.advance(86_399);
    assert_eq!(authority.rotate_if_due(server.clock.now()).await, Ok(None));
    server.advance(1);
    let blocked = authority.rotate_if_due(server.clock.now()).await;
    assert!(matches!(&blocked, Err(ActError::Refused(Refusal::VerifiersBehind(_)))), "{blocked:?}");
    verifier.say(ack(epoch)).await;
    server.all_hold_next().await;
    let rotated = authority
        .rotate_if_due(server.clock.now())
        .await
        .expect("every verifier holds the next key");
    let active = rotated.expect("the rotation was due").active;
    assert_eq!(active.activated_at, Some(server.clock.now()));
    assert_eq!(authority.rotate_if_due(server.clock.now()).await, Ok(None), "once");

    authority.maintain(server.clock.now()).await.expect("the store can be written");
    let events = authority.audit_events(None, 20).await.expect("the audit log can be read");
    let scheduled: Vec<(&str, &str)> = events
        .iter()
        .filter(|row| row.event.actor == "schedule")
        .map(|row| (row.event.action.as_str(), row.event.outcome.as_str()))
        .collect();
    assert_eq!(scheduled, [("keys.rotate", "VERIFIERS_BEHIND"), ("keys.rotate", "ok")]);
}

#[tokio::test]
async fn keys_do_not_rotate_by_themselves_without_a_schedule() {
    let server = TestServer::start().await;
    server.advance(10 * 365 * 86_400);
    assert_eq!(server.authority().rotate_if_due(server.clock.now()).await, Ok(None));
}

#[tokio::test]
async fn setting_the_clock_does_not_change_how_long_a_rotation_waits() {
    let mut server = TestServer::start().await;
    drop(server.verifier("inventory").await);
    server.restart().await;
    let operator = server.operator().await;
    let start = server.clock.now();
    // The clock is set after the start, as on a machine that learns the time late.
    server.clock.step(start + Duration::from_secs(600));
    assert_blocked(operator.rotate(&server).await, "may not be back yet since the start", 31);
    server.advance(30);
    assert_blocked(operator.rotate(&server).await, "may not be back yet since the start", 1);
    server.clock.step(start);
    server.advance(1);
    let operator = server.operator().await;
    operator.rotate(&server).await.expect("a minute has passed, whatever the clock says");
}

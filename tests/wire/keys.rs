//! The lifecycle of the signing keys.

use std::time::Duration;

use countersign::authority::{Authority, OpenError, Settings};
use countersign::rpc::{self, InactiveReason, KeyState};
use countersign_mesh::claims::Clock;
use tonic::{Code, Response};

use crate::caller::Caller;
use crate::support::{START, TestServer, ask, assert_field, assert_refused, bearing};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// How many seconds a retired key still verifies: the signing lease, the maximum token lifetime, how far ahead
/// tokens may be dated, and the leeway.
const TAIL: u64 = 3600 + 86_400 + 6 + 30;

fn unix(time: Option<prost_types::Timestamp>) -> Option<u64> {
    time.map(|time| time.seconds as u64)
}

/// The state and the `kid` of each key, in the order of the answer.
fn states(keys: &[rpc::Key]) -> Vec<(KeyState, &str)> {
    keys.iter().map(|key| (key.state(), key.kid.as_str())).collect()
}

async fn keys(server: &TestServer) -> Vec<rpc::Key> {
    server.operator().await.keys(server).await.expect("the operator may read them")
}

/// A client that serves `inventory`, and another client's token for that audience.
async fn callee_and_token(server: &TestServer) -> (Caller, String) {
    let callee = server.register("inventory", &[], &["inventory"]).await;
    let secret = server.register("order", STOCK, &[]).await;
    let callee = server.token("inventory", &callee, "countersign").await;
    (callee, server.token("order", &secret, "inventory").await.token)
}

#[tokio::test]
async fn a_fresh_store_has_a_next_and_an_active_key() {
    let server = TestServer::start().await;
    let keys = keys(&server).await;
    assert_eq!(
        states(&keys).iter().map(|key| key.0).collect::<Vec<_>>(),
        [KeyState::Next, KeyState::Active]
    );
    let start = Some(START.as_unix());
    assert_eq!((unix(keys[0].create_time), unix(keys[0].activate_time)), (start, None));
    assert_eq!((unix(keys[1].create_time), unix(keys[1].activate_time)), (start, start));
    assert!(keys.iter().all(|key| key.public_key.len() == 32));
    assert_ne!(keys[0].public_key, keys[1].public_key);
}

#[tokio::test]
async fn a_rotation_makes_next_active_and_active_retired() {
    let server = TestServer::start().await;
    let before = keys(&server).await;
    server.advance(10);
    let operator = server.operator().await;
    let rotated = operator.rotate(&server).await.expect("rotated");
    let [active, next, retired] =
        [rotated.active, rotated.next, rotated.retired].map(|key| key.expect("the field is set"));

    assert_eq!((active.kid.as_str(), active.state()), (before[0].kid.as_str(), KeyState::Active));
    assert_eq!(
        (retired.kid.as_str(), retired.state()),
        (before[1].kid.as_str(), KeyState::Retired)
    );
    assert_eq!(next.state(), KeyState::Next);
    assert!(rotated.verifiers_behind.is_empty());
    let now = START.as_unix() + 10;
    assert_eq!(unix(next.create_time), Some(now));
    assert_eq!((unix(active.create_time), unix(active.activate_time)), (Some(now - 10), Some(now)));
    assert_eq!((unix(retired.retire_time), unix(retired.revoke_time)), (Some(now), None));
    assert!(unix(retired.expire_time) >= Some(now + 86_400 + 30));
    assert_eq!(keys(&server).await, [next, active, retired]);
}

#[tokio::test]
async fn tokens_stay_valid_when_their_keys_are_rotated() {
    let mut server = TestServer::start().await;
    let (callee, token) = callee_and_token(&server).await;
    let operator = server.operator().await;
    for _ in 0..3 {
        operator.rotate(&server).await.expect("the guard accepts tokens of an older key");
        callee.claims(&server, &token).await;
    }
    server.restart().await;
    callee.claims(&server, &token).await;
    assert_eq!(keys(&server).await.len(), 5);
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    for _ in 0..3 {
        operator.rotate(&server).await.expect("rotated");
    }
    let list = |page_size, page_token: &str| {
        let request = rpc::ListKeysRequest { page_size, page_token: page_token.to_owned() };
        let request = bearing(&operator.token, request);
        let mut keys = server.keys();
        async move { keys.list_keys(request).await.map(Response::into_inner) }
    };
    let all = list(0, "").await.expect("a page");
    assert_eq!((all.keys.len(), all.next_page_token.as_str()), (5, ""));
    // The commands compute ages by the server's clock, which they read from this header.
    let request = bearing(&operator.token, rpc::ListKeysRequest::default());
    let answer = server.keys().list_keys(request).await.expect("a page");
    assert!(answer.metadata().contains_key("date"), "{answer:?}");
    let first = list(2, "").await.expect("a page");
    assert_eq!(first.keys, all.keys[..2]);
    let second = list(2, &first.next_page_token).await.expect("a page");
    assert_eq!(second.keys, all.keys[2..4]);
    // A rotation between two pages makes the list neither skip nor repeat a key.
    operator.rotate(&server).await.expect("rotated");
    let third = list(2, &second.next_page_token).await.expect("a page");
    assert_eq!((&third.keys[..], third.next_page_token.as_str()), (&all.keys[4..], ""));

    assert_field(list(-1, "").await, "page_size");
    assert_field(list(2, "no-such-key").await, "page_token");
}

#[tokio::test]
async fn revoking_the_active_key_promotes_the_next_and_ends_its_tokens() {
    let mut server = TestServer::start().await;
    let (callee, token) = callee_and_token(&server).await;
    let operator = server.operator().await;
    // Now the guard has cached the token. After the revocation it must not use that.
    let before = operator.keys(&server).await.expect("the token is good");

    let revoked = operator.revoke_key(&server, &before[1].kid).await.expect("revoked");
    let [ended, active, next] =
        [revoked.revoked, revoked.active, revoked.next].map(|key| key.expect("the field is set"));
    assert_eq!((ended.kid.as_str(), ended.state()), (before[1].kid.as_str(), KeyState::Revoked));
    assert_eq!((unix(ended.revoke_time), ended.retire_time), (Some(START.as_unix()), None));
    assert_eq!((active.kid.as_str(), active.state()), (before[0].kid.as_str(), KeyState::Active));

    operator.assert_shut_out(&server, "TOKEN_REVOKED").await;
    callee.assert_shut_out(&server, "TOKEN_REVOKED").await;
    assert_eq!(keys(&server).await, [next, active, ended]);
    let secret = server.new_secret("inventory").await;
    let callee = server.token("inventory", &secret, "countersign").await;
    callee.assert_inactive(&server, &token, InactiveReason::Revoked).await;
    server.restart().await;
    callee.assert_inactive(&server, &token, InactiveReason::Revoked).await;
    operator.assert_shut_out(&server, "TOKEN_REVOKED").await;
}

#[tokio::test]
async fn revoking_the_next_key_replaces_it_and_nothing_else() {
    let server = TestServer::start().await;
    let (callee, token) = callee_and_token(&server).await;
    let operator = server.operator().await;
    let before = operator.keys(&server).await.expect("keys");
    let revoked = operator.revoke_key(&server, &before[0].kid).await.expect("revoked");
    let next = revoked.next.expect("the field is set");
    assert!(before.iter().all(|key| key.kid != next.kid));
    assert_eq!(
        states(&operator.keys(&server).await.expect("the token is still valid")),
        [
            (KeyState::Next, next.kid.as_str()),
            (KeyState::Active, &before[1].kid),
            (KeyState::Revoked, &before[0].kid),
        ]
    );
    callee.claims(&server, &token).await;
}

#[tokio::test]
async fn revoking_a_retired_key_ends_only_its_own_tokens() {
    let server = TestServer::start().await;
    let (callee, token) = callee_and_token(&server).await;
    let rotated = server.operator().await.rotate(&server).await.expect("rotated");
    let retired = rotated.retired.expect("the field is set").kid;
    let operator = server.operator().await;
    let revoked = operator.revoke_key(&server, &retired).await.expect("revoked");
    assert_eq!(revoked.active.map(|key| key.kid), rotated.active.map(|key| key.kid));
    assert_eq!(revoked.next.map(|key| key.kid), rotated.next.map(|key| key.kid));
    callee.assert_shut_out(&server, "TOKEN_REVOKED").await;
    let secret = server.new_secret("inventory").await;
    let callee = server.token("inventory", &secret, "countersign").await;
    callee.assert_inactive(&server, &token, InactiveReason::Revoked).await;
}

#[tokio::test]
async fn only_a_known_key_that_is_not_revoked_can_be_revoked() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let next = operator.keys(&server).await.expect("keys")[0].kid.clone();
    let unknown = operator.revoke_key(&server, "no-such-key").await;
    assert_refused(unknown, Code::NotFound, "KEY_NOT_FOUND");
    operator.revoke_key(&server, &next).await.expect("revoked");
    let twice = operator.revoke_key(&server, &next).await;
    assert_refused(twice, Code::FailedPrecondition, "KEY_REVOKED");
    for bad in ["", &"x".repeat(129)] {
        assert_field(operator.revoke_key(&server, bad).await, "kid");
    }
    assert_eq!(operator.keys(&server).await.expect("keys").len(), 3);
}

#[tokio::test]
async fn with_a_clock_behind_the_newest_key_no_key_changes_and_the_server_does_not_start() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    let before = operator.keys(&server).await.expect("keys");
    let behind = START.before(Duration::from_secs(1));
    server.clock.set(behind);
    let answer = operator.rotate(&server).await;
    assert_refused(answer, Code::FailedPrecondition, "CLOCK_BEHIND");
    let answer = operator.revoke_key(&server, &before[1].kid).await;
    assert_refused(answer, Code::FailedPrecondition, "CLOCK_BEHIND");
    assert_eq!(operator.keys(&server).await.expect("keys"), before);

    server.stop().await;
    let open = |now| {
        let settings = Settings {
            default_ttl: Duration::from_secs(900),
            audit_retention: Duration::from_secs(86_400),
            ..Settings::default()
        };
        Authority::open(&server.database(), server.kek(), settings, &Clock::fixed(now)).map(drop)
    };
    assert!(matches!(open(behind), Err(OpenError::ClockBehind(_))));
    open(START).expect("the clock is not behind any more");
}

#[tokio::test]
async fn a_retired_key_is_removed_when_its_last_token_has_expired() {
    let mut server = TestServer::start().await;
    let rotated = server.operator().await.rotate(&server).await.expect("rotated");
    let retired = rotated.retired.expect("the field is set");
    assert_eq!(unix(retired.expire_time), Some(START.as_unix() + TAIL));

    // An orderly stop runs the maintenance too.
    server.advance(TAIL - 1);
    server.restart().await;
    assert_eq!(states(&keys(&server).await)[2..], [(KeyState::Retired, retired.kid.as_str())]);
    server.advance(1);
    server.restart().await;
    assert_eq!(keys(&server).await.len(), 2);
}

#[tokio::test]
async fn a_revoked_key_is_remembered_as_long_as_its_tokens_could_live() {
    let mut server = TestServer::start().await;
    let active = keys(&server).await[1].kid.clone();
    server.operator().await.revoke_key(&server, &active).await.expect("revoked");
    server.advance(TAIL - 1);
    server.restart().await;
    assert_eq!(states(&keys(&server).await)[2..], [(KeyState::Revoked, active.as_str())]);
    server.advance(1);
    server.restart().await;
    assert_eq!(keys(&server).await.len(), 2);
}

#[tokio::test]
async fn tokens_are_signed_without_the_store_for_at_most_an_hour() {
    let server = TestServer::start().await;
    let issue = || server.issue(ask("operator", &server.operator_secret, "countersign", &[]));
    let intruder = rusqlite::Connection::open(server.database()).expect("the same file");
    intruder.execute_batch("BEGIN IMMEDIATE").expect("no transaction is open");

    server.advance(3600);
    issue().await.expect("the last second of the lease");
    server.advance(1);
    assert_refused(issue().await, Code::Unavailable, "STORE_UNAVAILABLE");
    intruder.execute_batch("ROLLBACK").expect("a transaction is open");
    issue().await.expect("the store is there again, and so is the lease");
}

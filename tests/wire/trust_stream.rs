//! The trust stream: what the server sends to a verifier, and when the stream ends.

use std::time::Duration;

use countersign::authority::Settings;
use countersign::rpc;
use countersign::rpc::revoke_token_request::Target;
use countersign::rpc::watch_trust_bundle_response::Event;
use tonic::{Code, Status};

use crate::support::{START, TestServer, ask, assert_field, assert_refused};
use crate::verifier::{Verifier, ack, going_on, hello};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

async fn kids(server: &TestServer) -> Vec<String> {
    let keys = server.operator().await.keys(server).await.expect("the operator may");
    keys.into_iter().map(|key| key.kid).collect()
}

fn sorted(mut kids: Vec<String>) -> Vec<String> {
    kids.sort_unstable();
    kids
}

fn refused(status: Status, code: Code, reason: &str) {
    assert_refused::<()>(Err(status), code, reason);
}

#[tokio::test]
async fn a_verifier_gets_a_snapshot_and_then_every_change_as_it_happens() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let token = server.service("inventory").await;
    let secret = server.register("order", STOCK, &[]).await;
    server.register("other", STOCK, &[]).await;
    operator.revoke_tokens(&server, "other").await.expect("revoked");

    let mut verifier = Verifier::open(&server, &token, hello("pod-1"))
        .await
        .expect("the server accepts the stream");
    let first = verifier.install().await;
    assert_eq!((first.from, first.parts), (None, 1));
    assert_eq!(first.kids, sorted(kids(&server).await));
    assert_eq!((first.revoked_kids.len(), &first.clients[..]), (0, &["other".to_owned()][..]));

    operator.revoke_tokens(&server, "order").await.expect("revoked");
    let second = verifier.install().await;
    assert_eq!((second.from, &second.clients[..]), (Some(first.epoch), &["order".to_owned()][..]));
    assert!(second.epoch > first.epoch && second.kids == first.kids);

    let order = server.token("order", &secret, "inventory").await;
    operator.revoke_token(&server, Target::Token(order.token)).await.expect("revoked");
    let third = verifier.install().await;
    assert_eq!((third.from, third.tokens.len(), third.clients.len()), (Some(second.epoch), 1, 0));

    server.all_hold_next().await;
    operator.rotate(&server).await.expect("the verifier holds the next key");
    let fourth = verifier.install().await;
    assert_eq!(fourth.kids, sorted(kids(&server).await));
    assert_eq!((fourth.kids.len(), fourth.from), (3, Some(third.epoch)));
}

#[tokio::test]
async fn a_stream_begins_with_a_hello_followed_by_acknowledgements_of_sent_epochs() {
    let server = TestServer::start().await;
    let token = server.service("inventory").await;
    for first in [ack(1), rpc::WatchTrustBundleRequest::default()] {
        let answer = Verifier::open(&server, &token, first).await.map(drop);
        assert_field(answer, "hello");
    }
    for name in ["x".repeat(129).as_str(), "näme", "a\nb"] {
        let answer = Verifier::open(&server, &token, hello(name)).await.map(drop);
        assert_field(answer, "hello.verifier_name");
    }
    for name in ["", &"~".repeat(128), "with space"] {
        Verifier::open(&server, &token, hello(name)).await.expect("the server accepts the stream");
    }
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    let sent = verifier.update().await.epoch;
    verifier.say(ack(sent)).await;
    verifier.say(ack(sent)).await;
    verifier.say(ack(sent + 1)).await;
    refused(verifier.end().await, Code::InvalidArgument, "REQUEST_INVALID");
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    verifier.say(hello("")).await;
    refused(verifier.end().await, Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn a_client_without_the_scope_trust_watch_gets_no_stream() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let caller = server.token("order", &secret, "countersign").await;
    let answer = Verifier::open(&server, &caller.token, hello("")).await.map(drop);
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_service_is_told_of_revocations_only_for_audiences_that_it_serves() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let mut inventory = server.verifier("inventory").await;
    let mut billing = server.verifier("billing").await;
    server.register("order", STOCK, &[]).await;
    server.register("payer", &[("billing", &["bills:write"])], &[]).await;
    operator.revoke_tokens(&server, "order").await.expect("revoked");
    assert_eq!(inventory.install().await.clients, ["order"]);
    assert_eq!(
        billing.install().await.clients,
        [""; 0],
        "the update has the epoch and no revocation"
    );
    operator.revoke_tokens(&server, "payer").await.expect("revoked");
    assert_eq!(inventory.install().await.clients, [""; 0]);
    assert_eq!(billing.install().await.clients, ["payer"]);
}

#[tokio::test]
async fn a_verifier_that_reconnects_is_sent_what_changed_meanwhile() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    let token = server.service("inventory").await;
    for client in ["one", "two", "three"] {
        server.register(client, STOCK, &[]).await;
    }
    operator.revoke_tokens(&server, "one").await.expect("revoked");
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    let held = verifier.install().await;
    drop(verifier);
    operator.revoke_tokens(&server, "two").await.expect("revoked");
    server.restart().await;

    let back = async |server: &TestServer, epoch, proof| {
        let hello = going_on("", epoch, proof);
        let mut verifier =
            Verifier::open(server, &token, hello).await.expect("the server accepts the stream");
        verifier.install().await
    };
    let update = back(&server, held.epoch, held.proof.clone()).await;
    assert_eq!((update.from, &update.clients[..]), (Some(held.epoch), &["two".to_owned()][..]));
    let nothing = back(&server, update.epoch, update.proof.clone()).await;
    assert_eq!((nothing.from, nothing.epoch), (Some(update.epoch), update.epoch));
    assert_eq!(nothing.clients, [""; 0]);

    // A verifier whose proof does not fit gets a new snapshot.
    let mut forged = held.proof.clone();
    forged[20] ^= 1;
    for (epoch, proof) in
        [(held.epoch, vec![]), (held.epoch, forged), (update.epoch + 9, held.proof.clone())]
    {
        let update = back(&server, epoch, proof).await;
        assert_eq!((update.from, update.clients.len()), (None, 2));
    }
    let serves_more = |client: &mut rpc::Client| client.serves.push("stock".to_owned());
    operator.change(&server, "inventory", &["serves"], serves_more).await.expect("changed");
    assert_eq!(back(&server, held.epoch, held.proof.clone()).await.from, None);
}

#[tokio::test]
async fn a_verifier_ahead_of_the_store_keeps_its_epoch_and_signing_stops() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    let token = server.service("inventory").await;
    server.register("order", STOCK, &[]).await;
    server.stop().await;
    let copy = server.database().with_extension("copy");
    std::fs::copy(server.database(), &copy).expect("the file exists");
    server.restart().await;
    operator.revoke_tokens(&server, "order").await.expect("revoked");
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    let held = verifier.install().await;
    server.stop().await;
    // The old copy is put back and the mark removed, as when a whole disk is put back.
    std::fs::copy(&copy, server.database()).expect("the file exists");
    let directory = server.database().parent().expect("the database is in a directory").to_owned();
    for entry in std::fs::read_dir(directory).expect("the directory exists") {
        let path = entry.expect("the entry can be read").path();
        if path.extension().is_some_and(|extension| extension == "epoch") {
            std::fs::remove_file(path).expect("the file can be removed");
        }
    }
    server.restart().await;
    // A claim of a higher epoch without its proof is ignored.
    let claim = going_on("", held.epoch + 1, held.proof.clone());
    Verifier::open(&server, &token, claim).await.expect("the server accepts the stream");
    server.operator().await;
    let ahead = going_on("", held.epoch, held.proof.clone());
    let answer = Verifier::open(&server, &token, ahead).await.map(drop);
    assert_refused(answer, Code::Unavailable, "STORE_PUT_BACK");
    let answer = server.issue(ask("operator", &server.operator_secret, "countersign", &[])).await;
    assert_refused(answer, Code::Unavailable, "STORE_PUT_BACK");
}

#[tokio::test]
async fn a_hundred_thousand_revocations_are_sent_in_parts() {
    let mut server = TestServer::start().await;
    let token = server.service("inventory").await;
    server.stop().await;
    let database = rusqlite::Connection::open(server.database()).expect("the server has stopped");
    database
        .execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             INSERT INTO revoked_tokens (token_id, until) SELECT printf('%016d', i), {} FROM n",
            START.as_unix() + 900
        ))
        .expect("the database can be written");
    drop(database);
    server.restart().await;

    // A verifier that reads nothing does not delay the others, and is disconnected.
    let stuck = Verifier::open(&server, &token, hello("stuck"))
        .await
        .expect("the server accepts the stream");
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    let update = verifier.install().await;
    assert_eq!((update.tokens.len(), update.parts), (100_000, 200));
    assert!(update.largest_part < 32 * 1024, "{}", update.largest_part);

    let began = tokio::time::Instant::now();
    tokio::time::pause();
    while server.authority().verifiers().connected() > 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_secs(300), "it is not let go");
    }
    tokio::time::resume();
    assert!(began.elapsed() >= Duration::from_secs(30));
    server.all_hold_next().await;
    drop(stuck);
}

#[tokio::test]
async fn a_stream_outlives_the_token_that_opened_it() {
    let server = TestServer::start().await;
    let mut verifier = server.verifier("inventory").await;
    server.register("order", STOCK, &[]).await;
    server.advance(3600);
    let operator = server.operator().await;
    operator.revoke_tokens(&server, "order").await.expect("revoked");
    assert_eq!(verifier.install().await.clients, ["order"]);
}

#[tokio::test]
async fn a_stream_ends_when_its_client_is_disabled_or_deleted_or_its_tokens_are_revoked() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let mut bystander = server.verifier("bystander").await;

    let mut verifier = server.verifier("disabled").await;
    let disable = |client: &mut rpc::Client| client.disabled = true;
    operator.change(&server, "disabled", &["disabled"], disable).await.expect("disabled");
    refused(verifier.end().await, Code::Unauthenticated, "TOKEN_REVOKED");

    let mut verifier = server.verifier("deleted").await;
    operator.delete(&server, "deleted", "").await.expect("deleted");
    refused(verifier.end().await, Code::Unauthenticated, "TOKEN_REVOKED");

    let mut verifier = server.verifier("cut-off").await;
    operator.revoke_tokens(&server, "cut-off").await.expect("revoked");
    refused(verifier.end().await, Code::Unauthenticated, "TOKEN_REVOKED");

    let token = server.service("by-token").await;
    let mut verifier =
        Verifier::open(&server, &token, hello("")).await.expect("the server accepts the stream");
    operator.revoke_token(&server, Target::Token(token.clone())).await.expect("revoked");
    refused(verifier.end().await, Code::Unauthenticated, "TOKEN_REVOKED");
    let answer = Verifier::open(&server, &token, hello("")).await.map(drop);
    assert_refused(answer, Code::Unauthenticated, "TOKEN_REVOKED");

    // The revocation of another client does not end the bystander's stream.
    server.register("order", STOCK, &[]).await;
    operator.revoke_tokens(&server, "order").await.expect("revoked");
    while bystander.install().await.epoch < server.authority().bundle().epoch {}
}

#[tokio::test]
async fn a_stream_ends_when_what_its_client_serves_or_may_call_changes() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let serve = |client: &mut rpc::Client| client.serves.push("more".to_owned());
    let allow = |client: &mut rpc::Client| client.grants.push(crate::support::grant("x", &["y"]));
    let describe = |client: &mut rpc::Client| client.description = "another".to_owned();

    let mut verifier = server.verifier("inventory").await;
    operator.change(&server, "inventory", &["description"], describe).await.expect("changed");
    operator.change(&server, "inventory", &["serves"], serve).await.expect("changed");
    refused(verifier.end().await, Code::Unavailable, "CLIENT_CHANGED");
    let mut verifier = server.verifier("billing").await;
    operator.change(&server, "billing", &["grants"], allow).await.expect("changed");
    refused(verifier.end().await, Code::Unavailable, "CLIENT_CHANGED");
}

#[tokio::test]
async fn a_revoked_key_reaches_verifiers_at_once_and_ends_streams_opened_with_its_tokens() {
    let server = TestServer::start().await;
    let mut verifier = server.verifier("inventory").await;
    let active = kids(&server).await[1].clone();
    server.operator().await.revoke_key(&server, &active).await.expect("revoked");
    let update = verifier.update().await;
    assert_eq!(update.revoked_kids, [active.as_str()]);
    assert_eq!(update.kids, sorted(kids(&server).await[..2].to_vec()));
    assert!(!update.kids.contains(&active));
    verifier.say(ack(update.epoch)).await;
    refused(verifier.end().await, Code::Unauthenticated, "TOKEN_REVOKED");
}

#[tokio::test]
async fn a_retired_key_leaves_the_stream_when_its_last_token_has_expired() {
    let server = TestServer::start().await;
    let mut verifier = server.verifier("inventory").await;
    let rotated = server.operator().await.rotate(&server).await.expect("rotated");
    let retired = rotated.retired.expect("the field is set");
    assert!(verifier.install().await.kids.contains(&retired.kid));
    let gone_at = retired.expire_time.expect("the field is set").seconds as u64;
    server.advance(gone_at - START.as_unix());
    server.authority().maintain(server.clock.now()).await.expect("the store can be written");
    assert!(!verifier.install().await.kids.contains(&retired.kid));
}

#[tokio::test]
async fn open_streams_do_not_delay_a_server_that_stops() {
    let mut server = TestServer::start().await;
    let mut verifiers = Vec::new();
    for service in ["inventory", "billing"] {
        verifiers.push(server.verifier(service).await);
    }
    let stopping = std::time::Instant::now();
    server.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(4), "the grace period is 5 seconds");
    for verifier in &mut verifiers {
        refused(verifier.end().await, Code::Unavailable, "SERVER_STOPPING");
    }
}

#[tokio::test]
async fn a_verifier_that_does_not_acknowledge_is_disconnected_after_thirty_seconds() {
    let server = TestServer::start().await;
    let token = server.service("inventory").await;
    let mut verifier = Verifier::open(&server, &token, hello("slow"))
        .await
        .expect("the server accepts the stream");
    verifier.update().await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let mut heartbeats = 0;
    let status = loop {
        match verifier.hear().await {
            Ok(Some(message)) => {
                assert!(matches!(message.event, Some(Event::Heartbeat(_))), "{message:?}");
                heartbeats += 1;
            }
            Ok(None) => panic!("it ended without a reason"),
            Err(status) => break status,
        }
    };
    let waited = began.elapsed();
    tokio::time::resume();
    refused(status, Code::Aborted, "VERIFIER_LAGGING");
    assert!((29..=31).contains(&waited.as_secs()), "{waited:?}");
    assert!((4..=6).contains(&heartbeats), "{heartbeats}");
    assert_eq!(server.authority().verifiers().connected(), 0);
}

#[tokio::test]
async fn heartbeats_tell_a_verifier_the_age_of_its_trust() {
    let settings = Settings { max_staleness: Duration::from_secs(120), ..Settings::default() };
    let server = TestServer::start_set(settings).await;
    let mut verifier = server.verifier("inventory").await;
    server.advance(60);
    tokio::time::pause();
    let message = verifier.hear().await.expect("the stream goes on").expect("the stream goes on");
    tokio::time::resume();
    assert!(matches!(message.event, Some(Event::Heartbeat(_))), "{message:?}");
    assert_eq!(message.issuer, crate::support::ISSUER);
    assert_eq!(message.as_of.expect("the field is set").seconds as u64, START.as_unix());
    assert_eq!(message.age.expect("the field is set").seconds, 60);
    assert_eq!(message.max_staleness.expect("the field is set").seconds, 120);

    // The age is measured by a monotonic clock. Setting the wall clock changes nothing.
    server.clock.step(START.before(Duration::from_secs(1000)));
    assert_eq!(server.authority().age(), Duration::from_secs(60));
    server.clock.step(START + Duration::from_secs(1000));
    assert_eq!(server.authority().age(), Duration::from_secs(60));

    // Every commit shows that the store can be written, and so does the maintenance of each minute.
    server.register("order", STOCK, &[]).await;
    assert_eq!(server.authority().as_of(), server.clock.now());
    server.advance(60);
    server.authority().maintain(server.clock.now()).await.expect("the store can be written");
    assert_eq!(server.authority().as_of(), server.clock.now());
}

#[tokio::test]
async fn a_client_has_a_maximum_number_of_streams() {
    let server = TestServer::start_set(Settings { max_streams: 2, ..Settings::default() }).await;
    let (token, other) = (server.service("inventory").await, server.service("billing").await);
    let open = async |token: &str| Verifier::open(&server, token, hello("")).await;
    let first = open(&token).await.expect("the server accepts the stream");
    let _second = open(&token).await.expect("the server accepts the stream");
    assert_refused(open(&token).await.map(drop), Code::ResourceExhausted, "STREAM_LIMIT");
    let _other = open(&other).await.expect("each client has its own");
    drop(first);
    for _ in 0..1000 {
        if open(&token).await.is_ok() {
            return;
        }
    }
    panic!("its place was not given free");
}

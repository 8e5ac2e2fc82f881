//! Epochs never go backwards: over restarts and crashes, and when an old copy of the store is put back.
//! And what came with each: who is told of a revocation.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign::authority::{Authority, IssueError, IssuedToken, OpenError, Settings, TAIL, host};
use countersign::client::PresentedCredential;
use countersign::rpc::revoke_token_request::Target;
use countersign::store::{Kek, StoreError};
use countersign::{rpc, server};
use countersign_mesh::claims::{Audience, Timestamp};
use countersign_mesh::trust::TrustBundle;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{START, TestServer, ask, assert_refused, bearing, grant, issue_at};

/// The key with the marks where the server has them.
fn kek(server: &TestServer) -> Kek {
    server.kek().with_epoch_dir(server.database().parent().expect("a directory").to_owned())
}

fn open(server: &TestServer) -> Result<Authority, OpenError> {
    let settings = Settings {
        default_ttl: Duration::from_secs(900),
        audit_retention: Duration::from_secs(365 * 86_400),
        ..Settings::default()
    };
    Authority::open(&server.database(), kek(server), settings, &server.clock)
}

/// What verifiers are told by a server that has stopped.
fn bundle(server: &TestServer) -> TrustBundle {
    let authority = open(server).expect("the store opens");
    let bundle = authority.trust().borrow().clone();
    TrustBundle::clone(&bundle.expect("there is one"))
}

fn audience(name: &str) -> Audience {
    Audience::new(name).expect("a valid audience")
}

async fn revoke(server: &TestServer, token_id: &str) {
    let target = Some(Target::TokenId(token_id.to_owned()));
    let request = server.as_operator(rpc::RevokeTokenRequest { target }).await;
    server.tokens().revoke_token(request).await.expect("with tokens:revoke");
}

async fn cut_off(server: &TestServer, client: &str) {
    let request =
        rpc::RevokeClientTokensRequest { client_id: client.to_owned(), ..Default::default() };
    let request = server.as_operator(request).await;
    server.clients().revoke_client_tokens(request).await.expect("it is allowed");
}

async fn delete(server: &TestServer, client: &str) {
    let request = rpc::DeleteClientRequest { client_id: client.to_owned(), ..Default::default() };
    let request = server.as_operator(request).await;
    server.clients().delete_client(request).await.expect("it is allowed");
}

/// Replaces the grants of a client by one for this audience.
async fn grant_only(server: &TestServer, client: &str, audience: &str) {
    let request = rpc::GetClientRequest { client_id: client.to_owned() };
    let request = server.as_operator(request).await;
    let before = server.clients().get_client(request).await.expect("it is there").into_inner();
    let mut client = before.client.expect("the answer has it");
    client.grants = vec![grant(audience, &["stock:read"])];
    let update_mask = Some(prost_types::FieldMask { paths: vec!["grants".to_owned()] });
    let request =
        rpc::UpdateClientRequest { client: Some(client), update_mask, ..Default::default() };
    let request = server.as_operator(request).await;
    server.clients().update_client(request).await.expect("it is allowed");
}

/// The file with the highest epoch.
fn mark(server: &TestServer) -> PathBuf {
    let directory = server.database();
    let directory = directory.parent().expect("it is in one");
    let entries = fs::read_dir(directory).expect("it is there");
    let mut paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.find(|path| path.extension().is_some_and(|e| e == "epoch")).expect("there is one")
}

/// A server that has stopped, and a copy of its database from before the last revocation.
async fn with_old_copy() -> (TestServer, PathBuf) {
    let mut server = TestServer::start().await;
    server.stop().await;
    let copy = server.database().with_extension("copy");
    fs::copy(server.database(), &copy).expect("there is room");
    server.restart().await;
    revoke(&server, "a-token").await;
    server.stop().await;
    (server, copy)
}

#[track_caller]
fn assert_put_back(server: &TestServer, epoch: u64, mark: u64) {
    let before = fs::read(server.database()).expect("it is there");
    let error = open(server).map(|_| "it opens").expect_err("it is an old copy");
    assert_eq!(error, OpenError::Store(StoreError::PutBack { epoch, mark }));
    assert!(fs::read(server.database()).expect("it is there") == before, "it was changed");
}

#[tokio::test]
async fn epochs_grow_with_every_change_and_go_on_after_a_restart() {
    let mut server = TestServer::start().await;
    let mut last = 1;
    for n in 0..3 {
        revoke(&server, &format!("token-{n}")).await;
        let request = rpc::RotateKeysRequest { force: true, ..Default::default() };
        let rotate = server.as_operator(request).await;
        server.keys().rotate_keys(rotate).await.expect("it is forced");
        server.stop().await;
        let bundle = bundle(&server);
        assert!(bundle.epoch >= last + 2, "{} after {last}", bundle.epoch);
        assert_eq!(bundle.since(last, &[]).tokens.len(), 1, "only what is new");
        last = bundle.epoch;
        server.restart().await;
    }
}

#[tokio::test]
async fn an_old_copy_is_not_opened_and_not_changed() {
    let (server, copy) = with_old_copy().await;
    fs::copy(copy, server.database()).expect("there is room");
    assert_put_back(&server, 1, 2);
}

#[tokio::test]
async fn without_a_mark_one_is_made_and_holds_from_then_on() {
    let (server, copy) = with_old_copy().await;
    fs::remove_file(mark(&server)).expect("it is there");
    drop(open(&server).expect("a store of before marks opens"));
    fs::copy(copy, server.database()).expect("there is room");
    assert_put_back(&server, 1, 2);
}

#[tokio::test]
async fn a_mark_that_a_crash_left_behind_is_raised_at_the_next_start() {
    let mut server = TestServer::start().await;
    let behind = fs::read(mark(&server)).expect("it is there");
    server.stop().await;
    let copy = server.database().with_extension("copy");
    fs::copy(server.database(), &copy).expect("there is room");
    server.restart().await;
    revoke(&server, "a-token").await;
    server.stop().await;
    // As when the process had ended after the commit.
    fs::write(mark(&server), behind).expect("there is room");
    drop(open(&server).expect("the store is ahead of its mark"));
    fs::copy(copy, server.database()).expect("there is room");
    assert_put_back(&server, 1, 2);
}

#[tokio::test]
async fn a_mark_that_someone_has_touched_is_refused() {
    let (server, _) = with_old_copy().await;
    let text = fs::read_to_string(mark(&server)).expect("it is text");
    fs::write(mark(&server), text.replace("-epoch 2 ", "-epoch 1 ")).expect("there is room");
    // The other of the two lines holds.
    drop(open(&server).expect("the store is not behind"));
    fs::write(mark(&server), text.replace("-epoch ", "-epoch 9")).expect("there is room");
    let error = open(&server).map(|_| "it opens").expect_err("no line holds");
    assert_eq!(error, OpenError::Store(StoreError::BadMark(mark(&server))));
}

async fn issue(authority: &Authority, secret: &str) -> Result<IssuedToken, IssueError> {
    issue_at(authority, "operator", PresentedCredential::Secret(secret), "countersign", START).await
}

#[tokio::test]
async fn a_verifier_that_is_ahead_with_proof_ends_the_signing_and_without_it_does_nothing() {
    let mut server = TestServer::start().await;
    server.stop().await;
    let authority = open(&server).expect("the store opens");
    let ahead = authority.epoch_proof(5);
    for (epoch, proof) in [
        (5, &[][..]),
        (5, &[0; 16]),
        (5, &ahead[..15]),
        (6, &ahead),
        (5, &authority.epoch_proof(6)),
        (1, &authority.epoch_proof(1)),
        (0, &authority.epoch_proof(0)),
    ] {
        assert!(!authority.verifier_is_ahead(epoch, proof), "{epoch} {proof:?}");
        assert!(issue(&authority, &server.operator_secret).await.is_ok());
    }
    assert!(authority.verifier_is_ahead(5, &ahead));
    assert_eq!(issue(&authority, &server.operator_secret).await.err(), Some(IssueError::PutBack));
    let epoch = authority.trust().borrow().as_ref().map(|bundle| bundle.epoch);
    assert_eq!(epoch, Some(1), "its epoch is not adopted");
    drop(authority);
    // Nor does a restart forget.
    assert_put_back(&server, 1, 5);

    let restored = host::restore(&server.database(), kek(&server), None, START);
    assert_eq!(restored.expect("it holds").epoch, generation(START));
    let authority = open(&server).expect("the store opens");
    assert!(!authority.verifier_is_ahead(5, &ahead));
    assert!(issue(&authority, &server.operator_secret).await.is_ok());
}

/// The first epoch of a generation that begins then, unless there were more of them.
fn generation(now: Timestamp) -> u64 {
    (now.as_unix() / 3600) << 32
}

/// Of an old copy too, and when what was kept of the highest epoch is lost with the store.
#[tokio::test]
async fn a_backup_restored_twice_begins_two_generations_though_nothing_is_left_of_the_first() {
    let (server, copy) = with_old_copy().await;
    let restore = |now| {
        fs::remove_file(server.database()).expect("it is there");
        fs::remove_file(mark(&server)).expect("it is there");
        let restored = host::restore(&server.database(), kek(&server), Some(&copy), now);
        restored.expect("it holds").epoch
    };
    assert_eq!(restore(START), generation(START));
    let later = START + Duration::from_secs(3600);
    assert_eq!(restore(later), generation(START) + (1 << 32));
    let again = host::restore(&server.database(), kek(&server), Some(&copy), later);
    assert_eq!(again.expect("it holds").epoch, generation(START) + (2 << 32));
}

/// The backup may be from before anyone listened.
#[tokio::test]
async fn after_a_restore_a_rotation_waits_for_those_who_may_have_listened_since_the_backup() {
    let mut server = TestServer::start().await;
    server.stop().await;
    host::restore(&server.database(), kek(&server), None, START).expect("it holds");
    server.restart().await;
    let rotate = async |force| {
        let request = rpc::RotateKeysRequest { force, ..Default::default() };
        server.keys().rotate_keys(server.as_operator(request).await).await
    };
    assert_refused(rotate(false).await, Code::FailedPrecondition, "VERIFIERS_BEHIND");
    server.advance(91);
    rotate(false).await.expect("nobody can hold what was before");
}

#[tokio::test]
async fn clients_are_told_that_the_store_was_put_back() {
    let mut server = TestServer::start().await;
    server.stop().await;
    let authority = Arc::new(open(&server).expect("the store opens"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (clock, grace) = (server.clock.clone(), Duration::from_secs(5));
    let stopped = std::future::pending();
    let serving =
        tokio::spawn(server::serve(listener, Arc::clone(&authority), clock, stopped, grace));
    let channel = Channel::from_shared(url).expect("a valid address");
    server.channel = channel.connect().await.expect("it listens");

    let ask = || ask("operator", &server.operator_secret, "countersign", &[]);
    let operator = server.issue(ask()).await.expect("all is well").access_token;
    assert!(authority.verifier_is_ahead(2, &authority.epoch_proof(2)));
    assert_refused(server.issue(ask()).await, Code::Unavailable, "STORE_PUT_BACK");

    // What would be rotated to is nobody's to hold; what is to be revoked still is.
    for force in [false, true] {
        let request = rpc::RotateKeysRequest { force, ..Default::default() };
        let refused = server.keys().rotate_keys(bearing(&operator, request)).await;
        assert_refused(refused, Code::FailedPrecondition, "STORE_PUT_BACK");
    }
    let target = Some(Target::TokenId("a-token".to_owned()));
    let request = bearing(&operator, rpc::RevokeTokenRequest { target });
    server.tokens().revoke_token(request).await.expect("with tokens:revoke");
    let events = authority.audit_events(None, 2).await.expect("it can be read");
    let told = |n: usize| (&*events[n].event.action, &*events[n].event.detail);
    assert_eq!(told(1), ("store.found_put_back", "epoch 1, published 2"));
    assert_eq!(events[1].event.at, START);
    serving.abort();
}

#[tokio::test]
async fn only_those_are_told_of_a_token_whom_it_is_for() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", &[("inventory", &["stock:read"])], &[]).await;
    let issued = server.issue(ask("order", &secret, "inventory", &[])).await.expect("granted");
    let target = Some(Target::Token(issued.access_token));
    let request = server.as_operator(rpc::RevokeTokenRequest { target }).await;
    server.tokens().revoke_token(request).await.expect("with tokens:revoke");
    revoke(&server, "by-its-id").await;
    server.stop().await;

    let told = |serves: &str| bundle(&server).since(1, &[audience(serves)]).tokens.len();
    assert_eq!((told("inventory"), told("billing")), (2, 1));
}

#[tokio::test]
async fn those_are_told_of_a_client_who_may_have_seen_its_tokens() {
    let mut server = TestServer::start().await;
    server.register("order", &[("inventory", &["stock:read"])], &[]).await;
    grant_only(&server, "order", "billing").await;
    cut_off(&server, "order").await;
    server.restart().await;
    // Whoever was told of an earlier cut is told of a later, whatever the client is made anew as.
    delete(&server, "order").await;
    server.register("order", &[("shipping", &["stock:read"])], &[]).await;
    cut_off(&server, "order").await;
    server.stop().await;

    let bundle = bundle(&server);
    let told = |serves: &str| bundle.since(1, &[audience(serves)]).clients.len();
    assert_eq!(["inventory", "billing", "shipping"].map(told), [1, 1, 1]);
    assert_eq!(["warehouse", "countersign"].map(told), [0, 0]);
}

/// As an earlier version wrote them down.
#[tokio::test]
async fn of_revocations_without_epoch_and_audience_every_snapshot_tells() {
    let mut server = TestServer::start().await;
    server.register("order", &[("inventory", &["stock:read"])], &[]).await;
    cut_off(&server, "order").await;
    revoke(&server, "a-token").await;
    server.stop().await;
    let connection = rusqlite::Connection::open(server.database()).expect("it is a database");
    connection
        .execute_batch(
            "UPDATE revoked_tokens SET audience = NULL, epoch = 0;
             UPDATE revoked_clients SET audiences = NULL, epoch = 0;
             UPDATE clients SET former_audiences = '[]';",
        )
        .expect("it can be done");
    drop(connection);
    let delta = bundle(&server).since(0, &[audience("billing")]);
    assert_eq!((delta.tokens.len(), delta.clients.len()), (1, 1));
}

#[tokio::test]
async fn a_grant_that_ended_long_ago_sends_no_revocations_to_its_audience() {
    for (seconds, told) in [(TAIL.as_secs() - 1, 1), (TAIL.as_secs(), 0)] {
        let mut server = TestServer::start().await;
        server.register("order", &[("inventory", &["stock:read"])], &[]).await;
        grant_only(&server, "order", "billing").await;
        server.advance(seconds);
        server.restart().await;
        cut_off(&server, "order").await;
        server.stop().await;
        let delta = bundle(&server).since(1, &[audience("inventory")]);
        assert_eq!(delta.clients.len(), told, "{seconds}");
    }
}

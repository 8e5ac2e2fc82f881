//! Epochs never go backwards: not over restarts or crashes, nor when an old copy of the store is put back.
//!
//! Also which verifiers are told of a revocation.

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

/// The server's KEK, with the directory in which the server keeps its mark.
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

/// The trust bundle that the store of a stopped server gives to verifiers.
fn bundle(server: &TestServer) -> TrustBundle {
    let authority = open(server).expect("the store opens");
    let bundle = authority.trust().borrow().clone();
    TrustBundle::clone(&bundle.expect("the server has a trust bundle"))
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
    server.clients().revoke_client_tokens(request).await.expect("the call is allowed");
}

async fn delete(server: &TestServer, client: &str) {
    let request = rpc::DeleteClientRequest { client_id: client.to_owned(), ..Default::default() };
    let request = server.as_operator(request).await;
    server.clients().delete_client(request).await.expect("the call is allowed");
}

/// Replaces the grants of a client by one grant for this audience.
async fn grant_only(server: &TestServer, client: &str, audience: &str) {
    let request = rpc::GetClientRequest { client_id: client.to_owned() };
    let request = server.as_operator(request).await;
    let before =
        server.clients().get_client(request).await.expect("the client exists").into_inner();
    let mut client = before.client.expect("the answer has it");
    client.grants = vec![grant(audience, &["stock:read"])];
    let update_mask = Some(prost_types::FieldMask { paths: vec!["grants".to_owned()] });
    let request =
        rpc::UpdateClientRequest { client: Some(client), update_mask, ..Default::default() };
    let request = server.as_operator(request).await;
    server.clients().update_client(request).await.expect("the call is allowed");
}

/// The path of the mark: the file with the highest epoch.
fn mark(server: &TestServer) -> PathBuf {
    let directory = server.database();
    let directory = directory.parent().expect("the database is in a directory");
    let entries = fs::read_dir(directory).expect("the directory exists");
    let mut paths = entries.map(|entry| entry.expect("the entry can be read").path());
    paths
        .find(|path| path.extension().is_some_and(|e| e == "epoch"))
        .expect("the server has a mark")
}

/// A server that has stopped, and a copy of its database from before the last revocation.
async fn with_old_copy() -> (TestServer, PathBuf) {
    let mut server = TestServer::start().await;
    server.stop().await;
    let copy = server.database().with_extension("copy");
    fs::copy(server.database(), &copy).expect("the file can be written");
    server.restart().await;
    revoke(&server, "a-token").await;
    server.stop().await;
    (server, copy)
}

#[track_caller]
fn assert_put_back(server: &TestServer, epoch: u64, mark: u64) {
    let before = fs::read(server.database()).expect("the file exists");
    let error = open(server).map(|_| "it opens").expect_err("the store is an old copy");
    assert_eq!(error, OpenError::Store(StoreError::PutBack { epoch, mark }));
    assert!(
        fs::read(server.database()).expect("the file exists") == before,
        "the refused store was changed"
    );
}

#[tokio::test]
async fn epochs_grow_with_every_change_and_continue_after_a_restart() {
    let mut server = TestServer::start().await;
    let mut last = 1;
    for n in 0..3 {
        revoke(&server, &format!("token-{n}")).await;
        let request = rpc::RotateKeysRequest { force: true, ..Default::default() };
        let rotate = server.as_operator(request).await;
        server.keys().rotate_keys(rotate).await.expect("the rotation is forced");
        server.stop().await;
        let bundle = bundle(&server);
        assert!(bundle.epoch >= last + 2, "{} after {last}", bundle.epoch);
        assert_eq!(
            bundle.since(last, &[]).tokens.len(),
            1,
            "the delta has only the new revocation"
        );
        last = bundle.epoch;
        server.restart().await;
    }
}

#[tokio::test]
async fn an_old_copy_of_the_store_is_refused_and_not_changed() {
    let (server, copy) = with_old_copy().await;
    fs::copy(copy, server.database()).expect("the file can be written");
    assert_put_back(&server, 1, 2);
}

#[tokio::test]
async fn a_missing_mark_is_created_and_detects_old_copies_from_then_on() {
    let (server, copy) = with_old_copy().await;
    fs::remove_file(mark(&server)).expect("the file exists");
    drop(open(&server).expect("a store without a mark opens"));
    fs::copy(copy, server.database()).expect("the file can be written");
    assert_put_back(&server, 1, 2);
}

#[tokio::test]
async fn a_mark_that_is_behind_after_a_crash_is_raised_at_the_next_start() {
    let mut server = TestServer::start().await;
    let behind = fs::read(mark(&server)).expect("the file exists");
    server.stop().await;
    let copy = server.database().with_extension("copy");
    fs::copy(server.database(), &copy).expect("the file can be written");
    server.restart().await;
    revoke(&server, "a-token").await;
    server.stop().await;
    // The same state as if the process had ended between the commit and raising the mark.
    fs::write(mark(&server), behind).expect("the file can be written");
    drop(open(&server).expect("the store is ahead of its mark"));
    fs::copy(copy, server.database()).expect("the file can be written");
    assert_put_back(&server, 1, 2);
}

#[tokio::test]
async fn a_mark_that_someone_has_changed_is_refused() {
    let (server, _) = with_old_copy().await;
    let text = fs::read_to_string(mark(&server)).expect("the file is text");
    fs::write(mark(&server), text.replace("-epoch 2 ", "-epoch 1 "))
        .expect("the file can be written");
    // The slot with epoch 2 is now damaged. The other slot, with epoch 1, still verifies.
    drop(open(&server).expect("the store is not behind"));
    fs::write(mark(&server), text.replace("-epoch ", "-epoch 9")).expect("the file can be written");
    let error = open(&server).map(|_| "it opens").expect_err("no slot verifies");
    assert_eq!(error, OpenError::Store(StoreError::BadMark(mark(&server))));
}

async fn issue(authority: &Authority, secret: &str) -> Result<IssuedToken, IssueError> {
    issue_at(authority, "operator", PresentedCredential::Secret(secret), "countersign", START).await
}

#[tokio::test]
async fn a_verifier_that_proves_a_higher_epoch_stops_signing_and_an_unproven_claim_is_ignored() {
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
    assert_eq!(epoch, Some(1), "the epoch of the verifier is not adopted");
    drop(authority);
    // The mark was raised, so the store is refused after a restart too.
    assert_put_back(&server, 1, 5);

    let restored = host::restore(&server.database(), kek(&server), None, START);
    assert_eq!(restored.expect("the backup is intact").epoch, generation(START));
    let authority = open(&server).expect("the store opens");
    assert!(!authority.verifier_is_ahead(5, &ahead));
    assert!(issue(&authority, &server.operator_secret).await.is_ok());
}

/// The first epoch of a generation that begins at this time, if earlier generations are lower.
fn generation(now: Timestamp) -> u64 {
    (now.as_unix() / 3600) << 32
}

/// The backup is an old copy, and the mark is lost together with the store.
#[tokio::test]
async fn restoring_a_backup_twice_begins_two_generations_even_if_the_first_left_no_trace() {
    let (server, copy) = with_old_copy().await;
    let restore = |now| {
        fs::remove_file(server.database()).expect("the file exists");
        fs::remove_file(mark(&server)).expect("the file exists");
        let restored = host::restore(&server.database(), kek(&server), Some(&copy), now);
        restored.expect("the backup is intact").epoch
    };
    assert_eq!(restore(START), generation(START));
    let later = START + Duration::from_secs(3600);
    assert_eq!(restore(later), generation(START) + (1 << 32));
    let again = host::restore(&server.database(), kek(&server), Some(&copy), later);
    assert_eq!(again.expect("the backup is intact").epoch, generation(START) + (2 << 32));
}

/// The backup may have been made before anyone listened, so the store cannot tell.
#[tokio::test]
async fn after_a_restore_a_rotation_waits_for_those_who_may_have_listened_since_the_backup() {
    let mut server = TestServer::start().await;
    server.stop().await;
    host::restore(&server.database(), kek(&server), None, START).expect("the backup is intact");
    server.restart().await;
    let rotate = async |force| {
        let request = rpc::RotateKeysRequest { force, ..Default::default() };
        server.keys().rotate_keys(server.as_operator(request).await).await
    };
    assert_refused(rotate(false).await, Code::FailedPrecondition, "VERIFIERS_BEHIND");
    server.advance(91);
    rotate(false).await.expect("no poller can still have the earlier keys");
}

#[tokio::test]
async fn callers_get_an_error_when_the_store_was_put_back() {
    let mut server = TestServer::start().await;
    server.stop().await;
    let authority = Arc::new(open(&server).expect("the store opens"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("the socket is bound"));
    let (clock, grace) = (server.clock.clone(), Duration::from_secs(5));
    let stopped = std::future::pending();
    let serving =
        tokio::spawn(server::serve(listener, Arc::clone(&authority), clock, stopped, grace));
    let channel = Channel::from_shared(url).expect("a valid address");
    server.channel = channel.connect().await.expect("the server listens");

    let ask = || ask("operator", &server.operator_secret, "countersign", &[]);
    let operator = server.issue(ask()).await.expect("nobody has noticed yet").access_token;
    assert!(authority.verifier_is_ahead(2, &authority.epoch_proof(2)));
    assert_refused(server.issue(ask()).await, Code::Unavailable, "STORE_PUT_BACK");

    // Rotations are refused, even by force. Revocations are still accepted.
    for force in [false, true] {
        let request = rpc::RotateKeysRequest { force, ..Default::default() };
        let refused = server.keys().rotate_keys(bearing(&operator, request)).await;
        assert_refused(refused, Code::FailedPrecondition, "STORE_PUT_BACK");
    }
    let target = Some(Target::TokenId("a-token".to_owned()));
    let request = bearing(&operator, rpc::RevokeTokenRequest { target });
    server.tokens().revoke_token(request).await.expect("with tokens:revoke");
    let events = authority.audit_events(None, 2).await.expect("the audit log can be read");
    let told = |n: usize| (&*events[n].event.action, &*events[n].event.detail);
    assert_eq!(told(1), ("store.found_put_back", "epoch 1, published 2"));
    assert_eq!(events[1].event.at, START);
    serving.abort();
}

#[tokio::test]
async fn only_verifiers_of_its_audience_are_told_of_a_revoked_token() {
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
async fn a_client_revocation_reaches_every_audience_that_may_have_seen_its_tokens() {
    let mut server = TestServer::start().await;
    server.register("order", &[("inventory", &["stock:read"])], &[]).await;
    grant_only(&server, "order", "billing").await;
    cut_off(&server, "order").await;
    server.restart().await;
    // An audience that was told of an earlier cut is told of a later one too, even if the client was deleted and
    // registered again with other grants.
    delete(&server, "order").await;
    server.register("order", &[("shipping", &["stock:read"])], &[]).await;
    cut_off(&server, "order").await;
    server.stop().await;

    let bundle = bundle(&server);
    let told = |serves: &str| bundle.since(1, &[audience(serves)]).clients.len();
    assert_eq!(["inventory", "billing", "shipping"].map(told), [1, 1, 1]);
    assert_eq!(["warehouse", "countersign"].map(told), [0, 0]);
}

/// Earlier versions stored revocations this way.
#[tokio::test]
async fn revocations_without_epoch_and_audience_are_in_every_snapshot() {
    let mut server = TestServer::start().await;
    server.register("order", &[("inventory", &["stock:read"])], &[]).await;
    cut_off(&server, "order").await;
    revoke(&server, "a-token").await;
    server.stop().await;
    let connection = rusqlite::Connection::open(server.database()).expect("the file is a database");
    connection
        .execute_batch(
            "UPDATE revoked_tokens SET audience = NULL, epoch = 0;
             UPDATE revoked_clients SET audiences = NULL, epoch = 0;
             UPDATE clients SET former_audiences = '[]';",
        )
        .expect("the tables have these columns");
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

//! The trust file: the last good keys and revocations, kept for the next start.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use countersign::rpc::TrustContent;
use countersign_mesh::claims::TokenId;
use countersign_mesh::guard::WhenStale;
use countersign_mesh::session::{Credentials, Session, SessionBuilder, SessionError};
use countersign_mesh::trust::TrustBundle;
use tonic::Code;

use crate::countersign::{FakeCountersign, USUAL, client};
use crate::endpoint::FakeEndpoint;
use crate::trust::{ISSUER, builder, bundle, call, issuer, until_known};
use crate::trust_server::{
    FakeTrust, and_client, and_token, delta, heartbeat, keys, proof, snapshot,
};
use crate::trust_stream::{Rig, later};

fn write(path: &Path, bundle: &TrustBundle, mode: u32) {
    fs::write(path, bundle.to_jwks()).expect("written");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the test owns the file");
}

#[tokio::test]
async fn a_restarted_service_verifies_with_the_keys_of_its_last_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trust.json");
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 3, 1).to_jwks());
    let session = || {
        let builder = builder(&endpoint).issuer(issuer(ISSUER)).trust_file(&path);
        builder.connect().expect("loopback")
    };
    until_known(&session().trust(), 1).await;
    assert_eq!(fs::metadata(&path).expect("the file is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);

    endpoint.answers("503 Service Unavailable", "");
    let trust = session().trust();
    assert_eq!(call(&trust, 1).await, Code::Ok);

    // What is older than the file is refused after the restart as it was before.
    endpoint.answers("200 OK", &bundle(ISSUER, 2, 2).to_jwks());
    endpoint.pass_until_read().await;
    assert_eq!(call(&trust, 2).await, Code::Unauthenticated);

    endpoint.answers("200 OK", &bundle(ISSUER, 4, 2).to_jwks());
    endpoint.pass_until_read().await;
    until_known(&trust, 2).await;
    let kept = fs::read_to_string(&path).expect("the file is there");
    assert_eq!(kept, bundle(ISSUER, 4, 2).to_jwks());
}

#[tokio::test]
async fn a_trust_file_that_cannot_be_believed_is_ignored() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trust.json");
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("503 Service Unavailable", "");
    let believed = || {
        let builder = builder(&endpoint).issuer(issuer(ISSUER)).trust_file(&path);
        builder.connect().expect("loopback").trust().bundle().is_some()
    };
    assert!(!believed(), "there is none");
    write(&path, &bundle(ISSUER, 1, 1), 0o600);
    assert!(believed());
    for mode in [0o640, 0o604, 0o660, 0o620, 0o644] {
        write(&path, &bundle(ISSUER, 1, 1), mode);
        assert!(!believed(), "{mode:o}");
    }
    write(&path, &bundle("https://other.test", 1, 1), 0o600);
    assert!(!believed(), "another issuer");
    fs::write(&path, "{\"keys\":[]}").expect("written");
    assert!(!believed(), "no keys");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("the test owns the file");
    assert!(!believed(), "a directory");
}

#[tokio::test]
async fn keys_are_used_even_if_the_trust_file_cannot_be_written() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 1).to_jwks());
    let nowhere = Path::new("/nonexistent/trust.json");
    let session = builder(&endpoint).issuer(issuer(ISSUER)).trust_file(nowhere).connect();
    until_known(&session.expect("loopback").trust(), 1).await;
}

#[tokio::test]
async fn a_trust_file_without_a_named_issuer_is_an_error() {
    let endpoint = FakeEndpoint::start(None).await;
    let refused = builder(&endpoint).trust_file("trust.json").connect();
    assert!(matches!(refused, Err(SessionError::TrustFileWithoutIssuer)), "{refused:?}");
}

/// The revocations of a bundle, by the names that the tests gave them.
fn revoked(bundle: &TrustBundle) -> (bool, bool, bool) {
    let revocations = &bundle.revocations;
    (
        revocations.token(&TokenId::new("one").expect("a token id")).is_some(),
        revocations.client(&client("cron")).is_some(),
        revocations.key("leaked"),
    )
}

#[tokio::test(start_paused = true)]
async fn a_verifier_that_restarts_during_an_outage_forgets_no_revocation() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trust.json");
    let with_file = |builder: SessionBuilder| builder.issuer(issuer(ISSUER)).trust_file(&path);
    let mut rig = Rig::with(with_file);
    let mut watcher = rig.openings.next().await;
    let until = later();
    let content = and_client(and_token(keys(1), "one", until), "cron", 9, until);
    watcher.send(snapshot(4, content, true));
    assert_eq!(watcher.ack().await, Some(4));
    let leaked = TrustContent { revoked_kids: vec!["leaked".to_owned()], ..keys(1) };
    watcher.send(delta(4, 6, leaked));
    assert_eq!(watcher.ack().await, Some(6));
    let known = rig.trust.bundle().expect("there is a bundle");
    assert_eq!(revoked(&known), (true, true, true));
    until_written(&path, "\"epoch\":6").await;
    assert_eq!(fs::metadata(&path).expect("the file is there").permissions().mode() & 0o777, 0o600);
    drop((watcher, rig));

    // A restart while Countersign does not answer.
    let (server, mut openings) = FakeTrust::new();
    let restart = || {
        let countersign = FakeCountersign::new(USUAL);
        let credentials = Credentials::new(client("shop"), "csec_hush");
        let builder = Session::builder("http://127.0.0.1:1", credentials)
            .channel(countersign.channel_beside(&server))
            .when_stale(WhenStale::FailClosed);
        with_file(builder).connect().expect("loopback").trust()
    };
    let trust = restart();
    let kept = trust.bundle().expect("from the file");
    assert_eq!((kept.epoch, revoked(&kept)), (6, (true, true, true)));
    assert_eq!(kept.revocations.client(&client("cron")).map(|cut| cut.before.as_unix()), Some(9));
    // What comes from a file is not fresh: nobody knows what was revoked meanwhile.
    assert_eq!(call(&trust, 1).await, Code::Unavailable);

    // The stream goes on where it was.
    let mut watcher = openings.next().await;
    assert_eq!((watcher.hello.have_epoch, &*watcher.hello.have_epoch_proof), (6, &*proof(6)));
    watcher.send(heartbeat(6));
    assert_eq!(watcher.ack().await, Some(6));
    assert_eq!(call(&trust, 1).await, Code::Ok);
    drop((trust, watcher));

    // A damaged file is not believed.
    let good = fs::read_to_string(&path).expect("the file is there");
    for (from, to) in [("\"one\"", "\"\""), ("\"cron\"", "\"c c\""), ("\"clients\"", "\"x\"")] {
        fs::write(&path, good.replace(from, to)).expect("written");
        assert!(restart().bundle().is_none(), "{from}");
    }
}

/// Waits until the file holds this text. Files are written by threads, to which paused time means
/// nothing.
async fn until_written(path: &Path, text: &str) {
    for _ in 0..1000 {
        if fs::read_to_string(path).is_ok_and(|json| json.contains(text)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .expect("no thread panicked with the lock");
    }
    panic!("nobody writes {text}");
}

//! The last good keys in a file.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use countersign::mesh::SessionError;
use countersign::trust::TrustBundle;
use tonic::Code;

use crate::endpoint::FakeEndpoint;
use crate::trust::ISSUER;
use crate::trust::builder;
use crate::trust::bundle;
use crate::trust::call;
use crate::trust::issuer;
use crate::trust::until_known;

fn write(path: &Path, bundle: &TrustBundle, mode: u32) {
    fs::write(path, bundle.to_jwks()).expect("written");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

#[tokio::test]
async fn a_service_starts_with_the_keys_of_its_last_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trust.json");
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 3, 1).to_jwks());
    let session = || {
        let builder = builder(&endpoint).issuer(issuer(ISSUER)).trust_file(&path);
        builder.connect().expect("loopback")
    };
    until_known(&session().trust(), 1).await;
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
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
    let kept = fs::read_to_string(&path).expect("it is there");
    assert_eq!(kept, bundle(ISSUER, 4, 2).to_jwks());
}

#[tokio::test]
async fn a_file_that_is_not_to_be_believed_is_ignored() {
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
    fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("it is ours");
    assert!(!believed(), "a directory");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_does_not_keep_keys_from_being_used() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 1).to_jwks());
    let nowhere = Path::new("/nonexistent/trust.json");
    let session = builder(&endpoint).issuer(issuer(ISSUER)).trust_file(nowhere).connect();
    until_known(&session.expect("loopback").trust(), 1).await;
}

#[tokio::test]
async fn a_file_needs_an_issuer_to_be_believed_for() {
    let endpoint = FakeEndpoint::start(None).await;
    let refused = builder(&endpoint).trust_file("trust.json").connect();
    assert!(matches!(refused, Err(SessionError::TrustFileWithoutIssuer)), "{refused:?}");
}

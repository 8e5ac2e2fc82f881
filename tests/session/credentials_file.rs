//! Who we are, from the file that the command line writes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use countersign_mesh::session::{CredentialsError, OAuthEndpoint, SessionBuilder, SessionError};

#[tokio::test]
async fn a_session_starts_from_a_credentials_file_that_only_its_owner_can_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("order.toml");
    let text =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"order\"\nclient_secret = \"csec_hush\"\n";
    let write = |text: &str, mode: u32| {
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("the test owns the file");
    };
    let session = || SessionBuilder::from_credentials_file(&path)?.connect();
    let endpoint = || OAuthEndpoint::from_credentials_file(&path);
    write(text, 0o600);
    session().expect("the settings are complete");
    write(&format!("{text}issuer = \"https://auth.example\"\n"), 0o600);
    session().expect("it may say whose keys are trusted");
    // The same kind of file works for any issuer's token endpoint, whose client ids follow rules of
    // their own.
    write(&text.replace("order", "us@partner"), 0o400);
    endpoint().expect("the settings are complete");

    // As for the command line, the certificate authorities are in a file beside it.
    let with_ca = format!("{text}ca_file = \"ca.pem\"\n").replace("http:", "https:");
    write(&with_ca, 0o600);
    assert!(session().expect_err("it is not there").to_string().contains("ca.pem"));
    fs::write(dir.path().join("ca.pem"), "noise").expect("written");
    session().map(drop).expect_err("there is no certificate in it");
    endpoint().map(drop).expect_err("there is no certificate in it");
    let ca = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).expect("a certificate");
    fs::write(dir.path().join("ca.pem"), ca.cert.pem()).expect("written");
    session().expect("it says who vouches for the server");
    endpoint().expect("it says who vouches for the server");

    // A session can use every kind of proof that the command line can; a token endpoint takes secrets
    // only.
    let key = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n"; // RFC 8410 section 10.3
    let made = rcgen::generate_simple_self_signed(["order.test".to_owned()]).expect("made");
    fs::write(dir.path().join("order.key"), key).expect("written");
    fs::write(dir.path().join("order.crt"), made.cert.pem()).expect("written");
    let tls_key = made.signing_key.serialize_pem();
    fs::write(dir.path().join("tls.key"), tls_key).expect("written");
    let named = |more: &str| text.replace("client_secret = \"csec_hush\"\n", more);
    let by_key = "private_key_file = \"order.key\"\nissuer = \"https://auth.example\"\n";
    let by_certificate = "client_cert_file = \"order.crt\"\nclient_key_file = \"tls.key\"\n";
    let by_certificate = named(by_certificate).replace("http:", "https:");
    for by_other_means in [named(by_key), by_certificate.clone()] {
        write(&by_other_means, 0o600);
        session().expect("the settings are complete");
        let refused = endpoint().map(drop).expect_err("there is no secret in it").to_string();
        assert!(refused.contains("lacks `client_secret`"), "{refused}");
    }

    for (text, mode, part) in [
        (named(by_key).replace("order.key", "tls.key"), 0o600, "tls.key"),
        (named("private_key_file = \"order.key\"\n"), 0o600, "lacks `issuer`"),
        (by_certificate.replace("https:", "http:"), 0o600, "https"),
        (text.to_owned(), 0o644, "chmod 600"),
        (text.replace("order", "us@partner"), 0o600, "`client_id`"),
        (text.replace("client_secret", "secret"), 0o600, "unknown key `secret`"),
        (text.replace("http://127.0.0.1:1", "127.0.0.1"), 0o600, "not an address"),
        (format!("{text}issuer = \"me\"\n"), 0o600, "`issuer` that is not one"),
        (String::new(), 0o600, "is empty"),
    ] {
        write(&text, mode);
        let error = session().expect_err(part).to_string();
        assert!(error.contains(part) && !error.contains("hush"), "{error}");
    }
    write(text, 0o644);
    assert!(matches!(
        endpoint(),
        Err(SessionError::Credentials(CredentialsError::OpenToOthers(_, 0o644)))
    ));
    fs::remove_file(&path).expect("the file is there");
    assert!(session().expect_err("it is gone").to_string().contains("order.toml"));
}

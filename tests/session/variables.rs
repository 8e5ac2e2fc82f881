//! A session from the environment.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use countersign_mesh::guard::WhenStale;
use countersign_mesh::session::{CredentialsError, Session, SessionBuilder, SessionError};

const URL: (&str, &str) = ("COUNTERSIGN_URL", "http://127.0.0.1:1");
const ID: (&str, &str) = ("COUNTERSIGN_CLIENT_ID", "order");
const KEY: &str = "COUNTERSIGN_CLIENT_KEY_FILE";
const SECRET: (&str, &str) = ("COUNTERSIGN_CLIENT_SECRET", "csec_hush");

fn session(variables: &[(&str, &str)]) -> Result<Session, SessionError> {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    SessionBuilder::from_variables(&lookup)?.connect()
}

#[tokio::test]
async fn a_session_starts_from_environment_variables_alone() {
    session(&[URL, ID, SECRET]).expect("the settings are complete");
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (url, id, secret) =
        (file("url", "http://127.0.0.1:1\n"), file("id", "order\n"), file("secret", "csec_hush\n"));
    session(&[
        ("COUNTERSIGN_URL_FILE", &url),
        ("COUNTERSIGN_CLIENT_ID_FILE", &id),
        ("COUNTERSIGN_CLIENT_SECRET_FILE", &secret),
        ("COUNTERSIGN_ISSUER", "https://issuer.test"),
        ("COUNTERSIGN_TRUST_FILE", &file("trust", "")),
        ("COUNTERSIGN_VERIFIER_NAME", "pod-7"),
        ("COUNTERSIGN_WHEN_STALE", "fail-closed"),
    ])
    .expect("the settings are complete");
}

#[tokio::test]
async fn a_credentials_file_takes_the_place_of_the_pieces() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("order.toml");
    let text =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"order\"\nclient_secret = \"csec_hush\"\n";
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
    let file = ("COUNTERSIGN_CREDENTIALS", path.to_str().expect("UTF-8"));
    session(&[file]).expect("all is there");
    session(&[file, ("COUNTERSIGN_WHEN_STALE", "fail-closed")]).expect("all is there");
    for piece in [URL, ID, SECRET, (KEY, "/key")] {
        let error = session(&[file, piece]).map(drop).expect_err("two say who we are").to_string();
        let both = format!("both COUNTERSIGN_CREDENTIALS and {} are set", piece.0);
        assert!(error.contains(&both), "{error}");
    }
}

#[tokio::test]
async fn a_missing_or_contradictory_variable_is_named_in_the_error() {
    let both = ("COUNTERSIGN_CLIENT_SECRET_FILE", "/secret");
    for (variables, part) in [
        (vec![ID, SECRET], "COUNTERSIGN_URL"),
        (vec![URL, SECRET], "COUNTERSIGN_CLIENT_ID"),
        (vec![URL, ID], "COUNTERSIGN_CLIENT_SECRET"),
        (vec![URL, ID, SECRET, both], "both COUNTERSIGN_CLIENT_SECRET and"),
        (vec![URL, ID, SECRET, ("COUNTERSIGN_URL_FILE", "/url")], "both COUNTERSIGN_URL and"),
        (vec![URL, ("COUNTERSIGN_CLIENT_ID", "a b"), SECRET], "not a client id"),
        (vec![URL, ID, ("COUNTERSIGN_CLIENT_SECRET_FILE", "/nonexistent")], "/nonexistent"),
        (vec![URL, ID, SECRET, ("COUNTERSIGN_CA_FILE", "/nonexistent")], "/nonexistent"),
        (vec![URL, ID, SECRET, (KEY, "/key")], "unset one of them"),
        (vec![URL, ID, both, (KEY, "/key")], "unset one of them"),
        (vec![URL, ID, (KEY, "/key")], "COUNTERSIGN_ISSUER"),
        (vec![URL, ID, (KEY, "/nonexistent"), ("COUNTERSIGN_ISSUER", "https://i")], "/nonexistent"),
        (vec![URL, ID, (KEY, "/dev/null"), ("COUNTERSIGN_ISSUER", "https://i")], "is empty"),
        (
            vec![URL, ID, (KEY, "Cargo.toml"), ("COUNTERSIGN_ISSUER", "https://i")],
            "Cargo.toml: not",
        ),
        (vec![URL, ID, SECRET, ("COUNTERSIGN_ISSUER", "me")], "COUNTERSIGN_ISSUER"),
        (vec![URL, ID, ("COUNTERSIGN_CLIENT_CERT_FILE", "/c")], "COUNTERSIGN_CLIENT_KEY_FILE"),
        (
            vec![
                URL,
                ID,
                ("COUNTERSIGN_CLIENT_CERT_FILE", "/nonexistent"),
                ("COUNTERSIGN_CLIENT_KEY_FILE", "/k"),
            ],
            "cannot read /nonexistent",
        ),
        (vec![URL, ID, SECRET, ("COUNTERSIGN_TRUST_FILE", "/t")], "COUNTERSIGN_ISSUER"),
        (vec![URL, ID, SECRET, ("COUNTERSIGN_WHEN_STALE", "panic")], "COUNTERSIGN_WHEN_STALE"),
    ] {
        let error = session(&variables).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
    let missing = session(&[URL, ID]);
    let Err(SessionError::Credentials(CredentialsError::Missing(name))) = missing else {
        panic!("{missing:?}");
    };
    assert_eq!(name, "COUNTERSIGN_CLIENT_SECRET");
}

#[tokio::test]
async fn plaintext_off_this_machine_is_refused_unless_asked_for() {
    let off = ("COUNTERSIGN_URL", "http://issuer.example:9443");
    let refused = session(&[off, ID, SECRET]);
    assert!(matches!(refused, Err(SessionError::Plaintext(_))), "{refused:?}");

    let lookup = |name: &str| {
        [off, ID, SECRET]
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_string())
    };
    let builder = SessionBuilder::from_variables(&lookup).expect("the settings are complete");
    let session = builder.insecure_plaintext().connect().expect("it was asked for");
    session.channel("http://shop.example:1").expect("the same goes for its channels");
    let careful = self::session(&[URL, ID, SECRET]).expect("the settings are complete");
    let refused = careful.channel("http://shop.example:1");
    assert!(matches!(refused, Err(SessionError::Plaintext(_))));
}

#[tokio::test]
async fn when_stale_is_read_from_the_environment_and_defaults_to_serving() {
    let when_stale = |value| {
        let session = session(&[URL, ID, SECRET, ("COUNTERSIGN_WHEN_STALE", value)]);
        session.expect("the settings are complete").trust().when_stale()
    };
    assert_eq!(when_stale("fail-closed"), WhenStale::FailClosed);
    assert_eq!(when_stale("serve-stale"), WhenStale::ServeStale);
    let unsaid =
        session(&[URL, ID, SECRET]).expect("the settings are complete").trust().when_stale();
    assert_eq!(unsaid, WhenStale::ServeStale);
}

#[test]
fn an_error_from_main_reads_as_it_is_displayed() {
    // `fn main() -> Result<(), Box<dyn Error>>` prints `Debug`.
    let error: Box<dyn std::error::Error> =
        Box::new(SessionBuilder::from_variables(&|_| None).map(drop).expect_err("nothing is set"));
    assert_eq!(format!("{error:?}"), "neither COUNTERSIGN_URL nor COUNTERSIGN_URL_FILE is set");
    let absent =
        |name: &str| (name == "COUNTERSIGN_CREDENTIALS").then(|| "/absent.toml".to_owned());
    let error = SessionBuilder::from_variables(&absent).map(drop).expect_err("there is no file");
    let cause = std::error::Error::source(&error).expect("it has a cause");
    assert!(cause.downcast_ref::<std::io::Error>().is_some(), "{cause:?}");
}

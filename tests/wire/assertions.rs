//! Clients that prove who they are with a key: `private_key_jwt` (RFC 7523).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::rpc;
use countersign::rpc::client_credential::Kind as Known;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::issue_token_request::Credential;
use countersign_mesh::claims::Timestamp;
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::sign_assertion;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::caller::{ALL_SCOPES, Caller, client, new_credential};
use crate::support::{ISSUER, START, TestServer, ask, assert_field, assert_refused, bearing, id};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];
const HEADER: &str = r#"{"alg":"EdDSA","kid":"KID","typ":"JWT"}"#;

/// How many seconds after its start a server begins to accept assertions.
const WARM_UP: u64 = 6;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A JWS with this header and these claims. `KID` in the header stands for the key's `kid`.
fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let header = header.replace("KID", key.kid().as_str());
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    let input = format!("{}.{}", encode(&header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

/// The claims of a valid assertion of `order`, as text that a test can change.
fn claims(now: Timestamp, jti: &str) -> String {
    let (iat, exp) = (now.as_unix(), now.as_unix() + 60);
    format!(
        r#"{{"iss":"order","sub":"order","aud":"{ISSUER}","iat":{iat},"exp":{exp},"jti":"{jti}"}}"#
    )
}

/// A server that already accepts assertions, with the client `order`, which has a key and no secret.
async fn with_key(seed: u8) -> (TestServer, Caller) {
    let server = TestServer::start_unthrottled().await;
    let operator = server.operator().await;
    operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    operator.new_key(&server, "order", &key(seed), None).await.expect("registered");
    server.advance(WARM_UP);
    (server, operator)
}

impl Caller {
    /// Registers a key; `ttl` in seconds.
    async fn new_key(
        &self,
        server: &TestServer,
        client_id: &str,
        key: &SigningKey,
        ttl: Option<i64>,
    ) -> Result<rpc::ClientCredential, Status> {
        let public_key = Kind::PublicKey(key.public().as_bytes().to_vec());
        self.add_credential(server, client_id, public_key, ttl).await
    }
}

async fn present(
    server: &TestServer,
    client_id: &str,
    assertion: &str,
) -> Result<rpc::IssueTokenResponse, Status> {
    let credential = Some(Credential::ClientAssertion(assertion.to_owned()));
    server.issue(rpc::IssueTokenRequest { credential, ..ask(client_id, "", "", &[]) }).await
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(answer: Result<T, Status>, wrong_secret: &Status) {
    let status = answer.expect_err("the credential is rejected");
    assert_eq!(
        (status.code(), status.message(), status.details()),
        (wrong_secret.code(), wrong_secret.message(), wrong_secret.details()),
    );
}

async fn wrong_secret(server: &TestServer) -> Status {
    let status = server.issue(ask("order", "csec_wrong", "", &[])).await.expect_err("wrong");
    assert_eq!(status.get_details_error_info().expect("a reason").reason, "CLIENT_REJECTED");
    status
}

#[tokio::test]
async fn a_client_without_a_secret_gets_tokens_with_its_key() {
    let (server, operator) = with_key(1).await;
    let order = id("order");
    for nonce in 0..3 {
        let assertion = sign_assertion(&key(1), &order, ISSUER, server.clock.now(), [nonce; 16]);
        let issued = present(&server, "order", assertion.expose()).await.expect("granted");
        assert_eq!(issued.scopes, ["stock:read"]);
        assert!(!issued.access_token.is_empty());
    }
    let known = operator.read(&server, "order").await.expect("the client exists");
    let public_key = key(1).public().as_bytes().to_vec();
    assert_eq!(known.credentials.len(), 1);
    assert_eq!(known.credentials[0].kind, Some(Known::PublicKey(public_key)));
}

#[tokio::test]
async fn every_allowed_form_of_an_assertion_is_accepted() {
    let (server, operator) = with_key(1).await;
    for seed in 2..9 {
        operator.new_key(&server, "order", &key(seed), None).await.expect("fewer than eight exist");
    }
    let now = server.clock.now();
    let thumbprint = key(1).public().thumbprint();
    let headers = [
        HEADER.to_owned(),
        HEADER.replace("EdDSA", "Ed25519"),
        HEADER.replace("JWT", "client-authentication+jwt"),
        HEADER.replace(r#","typ":"JWT""#, ""),
        HEADER.replace(r#""kid":"KID","#, ""),
        HEADER.replace("KID", &thumbprint),
    ];
    for (n, header) in headers.iter().enumerate() {
        let assertion = signed(&key(1), header, &claims(now, &format!("header {n}")));
        present(&server, "order", &assertion).await.unwrap_or_else(|_| panic!("{header}"));
    }
    // An assertion without a `kid` is verified with each of the eight keys.
    for seed in 1..9 {
        let unnamed = HEADER.replace(r#""kid":"KID","#, "");
        let assertion = signed(&key(seed), &unnamed, &claims(now, &format!("key {seed}")));
        present(&server, "order", &assertion).await.unwrap_or_else(|_| panic!("{seed}"));
    }
    let (iat, exp) = (format!(r#""iat":{now}"#, now = now.as_unix()), now.as_unix() + 60);
    let exp = format!(r#""exp":{exp}"#);
    let at = |name: &str, seconds: i64| format!(r#""{name}":{}"#, now.as_unix() as i64 + seconds);
    let audience = |list: &str| (format!(r#""{ISSUER}""#), list.to_owned());
    let changes = [
        audience(&format!(r#""{ISSUER}/oauth/token""#)),
        audience(&format!(r#""{ISSUER}/oauth2/token""#)),
        audience(&format!(r#"["https://other.test","{ISSUER}"]"#)),
        (exp.clone(), at("exp", 1)),
        (iat.clone(), format!("{},{}", at("iat", 0), at("nbf", 5))),
        (r#""jti":""#.to_owned(), format!(r#""jti":"{}"#, "x".repeat(249))),
        (r#""jti":"#.to_owned(), r#""extra":[1],"jti":"#.to_owned()),
        // The client's clock is five seconds ahead.
        (format!("{iat},{exp}"), format!("{},{}", at("iat", 5), at("exp", 65))),
    ];
    for (n, (from, to)) in changes.iter().enumerate() {
        let before = claims(now, &format!("claim {n}"));
        let changed = before.replacen(from, to, 1);
        assert_ne!(changed, before, "{from}");
        let assertion = signed(&key(1), HEADER, &changed);
        present(&server, "order", &assertion).await.unwrap_or_else(|_| panic!("{changed}"));
    }
    let late = signed(&key(1), HEADER, &claims(now, "late"));
    server.advance(64);
    present(&server, "order", &late).await.expect("one second of the leeway is left");
}

#[tokio::test]
async fn a_bad_assertion_gets_the_same_error_as_a_wrong_secret() {
    let (server, operator) = with_key(1).await;
    operator.create(&server, client("cron", STOCK, &[])).await.expect("created");
    operator.new_key(&server, "cron", &key(2), None).await.expect("registered");
    let wrong = wrong_secret(&server).await;
    let now = server.clock.now();

    let headers = [
        HEADER.replace("EdDSA", "none"),
        HEADER.replace("EdDSA", "HS256"),
        HEADER.replace("JWT", "at+jwt"),
        HEADER.replace("JWT", "jwt"),
        HEADER.replace("KID", key(2).kid().as_str()),
        HEADER.replace("KID", ""),
        HEADER.replace('{', r#"{"crit":[],"#),
        HEADER.replace('{', r#"{"jwk":{},"#),
        HEADER.replace('{', r#"{"x5c":[],"#),
        HEADER.replace('{', r#"{"jku":"https://x.test","#),
        HEADER.replace('{', r#"{"x5u":"https://x.test","#),
        HEADER.replace('{', r#"{"kid":"KID","#),
    ];
    for header in headers {
        let assertion = signed(&key(1), &header, &claims(now, "header"));
        assert_rejected(present(&server, "order", &assertion).await, &wrong);
    }

    let good = claims(now, "claim");
    let at = |name: &str, seconds: i64| format!(r#""{name}":{}"#, now.as_unix() as i64 + seconds);
    let (iat, exp) = (at("iat", 0), at("exp", 60));
    let issuer = format!(r#""{ISSUER}""#);
    let changes: Vec<(String, String)> = vec![
        (r#""iss":"order""#.into(), r#""iss":"cron""#.into()),
        (r#""sub":"order""#.into(), r#""sub":"cron""#.into()),
        (r#""iss":"order","#.into(), String::new()),
        (r#""sub":"order","#.into(), String::new()),
        (format!(r#""aud":{issuer},"#), String::new()),
        (issuer.clone(), r#""https://other.test""#.into()),
        (issuer.clone(), format!(r#""{ISSUER}/""#)),
        (issuer.clone(), format!(r#""{ISSUER}/oauth/introspect""#)),
        (issuer.clone(), "[]".into()),
        (issuer.clone(), "[1]".into()),
        (issuer.clone(), "null".into()),
        (format!("{iat},"), String::new()),
        (format!("{exp},"), String::new()),
        (exp.clone(), at("exp", 61)),
        (exp.clone(), at("exp", 0)),
        (exp.clone(), r#""exp":1e12"#.into()),
        (format!("{iat},{exp}"), format!("{},{}", at("iat", 6), at("exp", 66))),
        (format!("{iat},{exp}"), format!("{},{}", at("iat", -5), at("exp", -5))),
        (iat.clone(), format!("{iat},{}", at("nbf", 6))),
        (iat.clone(), format!("{iat},{iat}")),
        (r#","jti":"claim""#.into(), String::new()),
        (r#""jti":"claim""#.into(), r#""jti":"""#.into()),
        (r#""jti":"claim""#.into(), format!(r#""jti":"{}""#, "x".repeat(257))),
        (r#""jti":"claim""#.into(), r#""jti":7"#.into()),
        (r#""jti""#.into(), r#""x":1,"x":1,"jti""#.into()),
    ];
    for (from, to) in changes {
        let changed = good.replacen(&from, &to, 1);
        assert_ne!(changed, good, "{from}");
        let answer = present(&server, "order", &signed(&key(1), HEADER, &changed)).await;
        assert!(answer.is_err(), "{changed}");
        assert_rejected(answer, &wrong);
    }

    let assertion = signed(&key(1), HEADER, &good);
    // The `kid` names one key and another has signed; or the assertion is another client's.
    let others = signed(&key(2), &HEADER.replace("KID", key(1).kid().as_str()), &good);
    assert_rejected(present(&server, "order", &others).await, &wrong);
    assert_rejected(present(&server, "order", &signed(&key(2), HEADER, &good)).await, &wrong);
    assert_rejected(present(&server, "cron", &assertion).await, &wrong);
    let as_cron = good.replace("order", "cron");
    assert_rejected(present(&server, "cron", &signed(&key(1), HEADER, &as_cron)).await, &wrong);
    let as_nobody = good.replace("order", "nobody");
    assert_rejected(present(&server, "nobody", &signed(&key(1), HEADER, &as_nobody)).await, &wrong);
    // The server verifies with a decoy key where a client has none. The decoy's own signature is refused too.
    let unnamed = HEADER.replace(r#""kid":"KID","#, "");
    assert_rejected(present(&server, "order", &signed(&key(0), &unnamed, &good)).await, &wrong);
    let decoy = signed(&key(0), &unnamed, &as_nobody);
    assert_rejected(present(&server, "nobody", &decoy).await, &wrong);
    for noise in ["noise", "a.b.c", &format!("{assertion}="), &format!("{assertion}.x")] {
        assert_rejected(present(&server, "order", noise).await, &wrong);
    }

    present(&server, "order", &assertion)
        .await
        .expect("none of the rejected attempts has used it up");
    assert_field(present(&server, "order", "").await, "client_assertion");
    assert_field(present(&server, "order", &"x".repeat(9000)).await, "client_assertion");
    assert_field(present(&server, "", &assertion).await, "client_id");
}

#[tokio::test]
async fn an_assertion_is_refused_the_second_time() {
    let (server, operator) = with_key(1).await;
    operator.create(&server, client("cron", STOCK, &[])).await.expect("created");
    operator
        .new_key(&server, "cron", &key(1), None)
        .await
        .expect("two clients may have the same key");
    let wrong = wrong_secret(&server).await;
    let now = server.clock.now();
    let assertion = signed(&key(1), HEADER, &claims(now, "one"));
    present(&server, "order", &assertion).await.expect("granted");
    for seconds in [0, 1, 63, 1, 1, 60] {
        server.advance(seconds);
        assert_rejected(present(&server, "order", &assertion).await, &wrong);
    }
    let now = server.clock.now();
    let again = signed(&key(1), HEADER, &claims(now, "one"));
    present(&server, "order", &again).await.expect("the first has expired");
    let differently = signed(&key(1), HEADER, &claims(now, "one").replace("60", "59"));
    assert_rejected(present(&server, "order", &differently).await, &wrong);
    let of_another = claims(now, "one").replace("order", "cron");
    present(&server, "cron", &signed(&key(1), HEADER, &of_another))
        .await
        .expect("each client has its own `jti`s");
}

#[tokio::test]
async fn an_assertion_counts_as_used_even_if_policy_denies_the_token() {
    let (server, _) = with_key(1).await;
    let assertion = signed(&key(1), HEADER, &claims(server.clock.now(), "one"));
    let credential = Some(Credential::ClientAssertion(assertion.clone()));
    let request =
        rpc::IssueTokenRequest { credential, ..ask("order", "", "inventory", &["stock:write"]) };
    assert_refused(server.issue(request).await, Code::PermissionDenied, "SCOPE_DENIED");
    assert_rejected(present(&server, "order", &assertion).await, &wrong_secret(&server).await);
}

#[tokio::test]
async fn assertions_from_before_a_restart_are_refused() {
    let (mut server, _) = with_key(1).await;
    let assert = |now, jti: &str| signed(&key(1), HEADER, &claims(now, jti));
    let used = assert(server.clock.now(), "used");
    present(&server, "order", &used).await.expect("granted");
    // The client's clock is five seconds ahead.
    let ahead = assert(Timestamp::from_unix(server.clock.now().as_unix() + 5), "ahead");
    present(&server, "order", &ahead).await.expect("granted");
    let wrong = wrong_secret(&server).await;

    server.restart().await;
    let restarted = server.clock.now();
    for used in [&used, &ahead] {
        // Only a valid signature gets this answer. With a wrong key, the answer below is the usual rejection.
        let answer = present(&server, "order", used).await;
        assert_refused(answer, Code::Unavailable, "ASSERTIONS_BUSY");
    }
    let others = signed(&key(2), HEADER, &claims(restarted, "other"));
    assert_rejected(present(&server, "order", &others).await, &wrong);
    server.advance(5);
    let early = present(&server, "order", &assert(server.clock.now(), "early")).await;
    let retry = early
        .clone()
        .expect_err("the server does not accept assertions yet")
        .get_details_retry_info();
    assert!(retry.is_some_and(|retry| retry.retry_delay.is_some()));
    assert_refused(early, Code::Unavailable, "ASSERTIONS_BUSY");
    server.advance(1);
    for used in [&used, &ahead] {
        assert_rejected(present(&server, "order", used).await, &wrong);
    }
    present(&server, "order", &assert(server.clock.now(), "new")).await.expect("granted");
    let secret = server.new_secret("order").await;
    server.restart().await;
    server.issue(ask("order", &secret, "", &[])).await.expect("secrets work at once");
}

#[tokio::test]
async fn an_assertion_is_accepted_when_the_signing_lease_has_to_be_renewed() {
    let (server, _) = with_key(1).await;
    server.advance(2 * 60 * 60);
    let assertion = signed(&key(1), HEADER, &claims(server.clock.now(), "one"));
    present(&server, "order", &assertion).await.expect("the store can be written");
}

#[tokio::test]
async fn a_key_works_until_it_expires_is_revoked_or_its_client_is_disabled() {
    let (server, operator) = with_key(1).await;
    let wrong = wrong_secret(&server).await;
    let made = operator
        .new_key(&server, "order", &key(2), Some(60))
        .await
        .expect("fewer than eight exist");
    assert_eq!(made.credential_id, key(2).kid().as_str());
    assert_eq!(made.expire_time.map(|time| time.seconds as u64), Some(START.as_unix() + 66));
    let assert = |seed: u8, jti: &str| signed(&key(seed), HEADER, &claims(server.clock.now(), jti));
    server.advance(59);
    present(&server, "order", &assert(2, "1")).await.expect("a second is left");
    server.advance(1);
    assert_rejected(present(&server, "order", &assert(2, "2")).await, &wrong);
    present(&server, "order", &assert(1, "3")).await.expect("the other one works");

    operator.new_key(&server, "order", &key(2), None).await.expect("the expired one made room");
    present(&server, "order", &assert(2, "2")).await.expect("granted");
    operator.revoke_credential(&server, "order", &made.credential_id).await.expect("revoked");
    assert_rejected(present(&server, "order", &assert(2, "4")).await, &wrong);
    present(&server, "order", &assert(1, "4")).await.expect("the other one works");

    let disable = |disabled| {
        operator.change(&server, "order", &["disabled"], move |client| client.disabled = disabled)
    };
    disable(true).await.expect("disabled");
    assert_rejected(present(&server, "order", &assert(1, "5")).await, &wrong);
    disable(false).await.expect("enabled");
    present(&server, "order", &assert(1, "5")).await.expect("the rejection has not used it up");
}

#[tokio::test]
async fn a_client_has_at_most_eight_keys_and_each_of_them_once() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    for seed in 1..9 {
        let ttl = (seed == 1).then_some(60);
        operator.new_key(&server, "order", &key(seed), ttl).await.expect("fewer than eight exist");
    }
    let listed = operator.read(&server, "order").await.expect("the client exists").credentials;
    let expected: Vec<_> = (1..9).map(|seed| key(seed).kid().to_string()).collect();
    assert_eq!(listed.iter().map(|key| key.credential_id.clone()).collect::<Vec<_>>(), expected);
    let ninth = operator.new_key(&server, "order", &key(9), None).await;
    assert_refused(ninth, Code::FailedPrecondition, "CREDENTIAL_LIMIT");
    let again = operator.new_key(&server, "order", &key(2), None).await;
    assert_refused(again, Code::AlreadyExists, "CREDENTIAL_EXISTS");
    server.advance(60);
    operator.new_key(&server, "order", &key(9), None).await.expect("the expired one made room");
    operator.revoke_credential(&server, "order", &expected[1]).await.expect("revoked");
    operator.new_key(&server, "order", &key(1), None).await.expect("the revoked one made room");

    let again = operator.revoke_credential(&server, "order", &expected[1]).await;
    assert_refused(again, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    let of_another = operator.revoke_credential(&server, "operator", &expected[2]).await;
    assert_refused(of_another, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    let of_nobody = operator.revoke_credential(&server, "nobody", &expected[2]).await;
    assert_refused(of_nobody, Code::NotFound, "CLIENT_NOT_FOUND");
    assert_field(operator.revoke_credential(&server, "order", "").await, "credential_id");
    let for_nobody = operator.new_key(&server, "nobody", &key(1), None).await;
    assert_refused(for_nobody, Code::NotFound, "CLIENT_NOT_FOUND");
    for ttl in [0, -1, 11 * 365 * 86_400] {
        assert_field(operator.new_key(&server, "order", &key(7), Some(ttl)).await, "ttl");
    }
    let mut low_order = vec![0; 32];
    low_order[0] = 1;
    for public_key in [vec![], vec![1; 31], vec![1; 33], low_order] {
        let public_key = Kind::PublicKey(public_key);
        let answer = operator.add_credential(&server, "order", public_key, None).await;
        assert_field(answer, "public_key");
    }
}

#[tokio::test]
async fn the_last_use_of_a_key_is_shown_and_survives_a_restart() {
    let (mut server, operator) = with_key(1).await;
    let use_of =
        |client: rpc::Client| client.credentials[0].last_use_time.map(|time| time.seconds as u64);
    let read = operator.read(&server, "order").await.expect("the client exists");
    assert_eq!(use_of(read), None);
    let assertion = signed(&key(1), HEADER, &claims(server.clock.now(), "one"));
    present(&server, "order", &assertion).await.expect("granted");
    for _ in 0..2 {
        let read = operator.read(&server, "order").await.expect("the client exists");
        assert_eq!(use_of(read), Some(START.as_unix() + WARM_UP));
        server.restart().await;
    }
}

#[tokio::test]
async fn a_repeated_request_adds_a_key_only_once() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    let public_key = key(1).public().as_bytes().to_vec();
    let request = || rpc::CreateClientCredentialRequest {
        request_id: "one".to_owned(),
        ..new_credential("order", Kind::PublicKey(public_key.clone()))
    };
    let create = async || operator.create_credential(&server, request()).await;
    let first = create().await.expect("registered");
    server.advance(10);
    assert_eq!(create().await.expect("the first answer again"), first);
    assert_eq!(
        operator.read(&server, "order").await.expect("the client exists").credentials.len(),
        1
    );
}

#[tokio::test]
async fn adding_a_key_takes_the_same_scopes_as_creating_a_secret() {
    let server = TestServer::start().await;
    server.register("order", STOCK, &[]).await;
    let writer = server.operator_with("writer", &["clients:read", "clients:write"]).await;
    let made =
        writer.new_key(&server, "order", &key(1), None).await.expect("the client is no operator");
    writer
        .revoke_credential(&server, "order", &made.credential_id)
        .await
        .expect("the client is no operator");
    let answer = writer.new_key(&server, "operator", &key(1), None).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
    let scopes = ["clients:read", "clients:write", "operators:write"];
    let lesser = server.operator_with("lesser", &scopes).await;
    let answer = lesser.new_key(&server, "operator", &key(1), None).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
}

#[tokio::test]
async fn a_key_alone_is_enough_for_the_last_operator() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = operator.read(&server, "operator").await.expect("the client exists").credentials;
    let secret = secret[0].credential_id.clone();
    let answer = operator.revoke_credential(&server, "operator", &secret).await;
    assert_refused(answer, Code::FailedPrecondition, "LAST_OPERATOR");
    let made = operator.new_key(&server, "operator", &key(1), None).await.expect("registered");
    operator.revoke_credential(&server, "operator", &secret).await.expect("a key is left");
    let answer = operator.revoke_credential(&server, "operator", &made.credential_id).await;
    assert_refused(answer, Code::FailedPrecondition, "LAST_OPERATOR");

    server.advance(WARM_UP);
    let operator_id = id("operator");
    let assertion = sign_assertion(&key(1), &operator_id, ISSUER, server.clock.now(), [1; 16]);
    let credential = Some(Credential::ClientAssertion(assertion.expose().to_owned()));
    let request =
        rpc::IssueTokenRequest { credential, ..ask("operator", "", "countersign", ALL_SCOPES) };
    server.issue(request).await.expect("the key gives all administrative scopes");
}

#[tokio::test]
async fn deleting_a_client_deletes_its_keys() {
    let (mut server, operator) = with_key(1).await;
    operator.delete(&server, "order", "").await.expect("deleted");
    operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    server.restart().await;
    server.advance(WARM_UP);
    assert!(
        operator.read(&server, "order").await.expect("the client exists").credentials.is_empty()
    );
    let assertion = signed(&key(1), HEADER, &claims(server.clock.now(), "one"));
    assert_rejected(present(&server, "order", &assertion).await, &wrong_secret(&server).await);
}

#[tokio::test]
async fn an_assertion_presented_many_times_at_once_gets_one_token() {
    let (server, _) = with_key(1).await;
    let assertion = signed(&key(1), HEADER, &claims(server.clock.now(), "one"));
    let answers = (0..32).map(|_| present(&server, "order", &assertion));
    let answers = futures_util::future::join_all(answers).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn the_audit_log_has_the_reason_of_a_rejection_but_no_unknown_client_id() {
    let (server, operator) = with_key(1).await;
    let now = server.clock.now();
    let good = signed(&key(1), HEADER, &claims(now, "one"));
    present(&server, "order", &good).await.expect("granted");
    let other_audience = claims(now, "two").replace(ISSUER, "https://other.test");
    let too_long = claims(now, "two").replace(r#""exp":18000000"#, r#""exp":19000000"#);
    for rejected in [
        good,
        signed(&key(2), HEADER, &claims(now, "two")),
        signed(&key(1), HEADER, &other_audience),
        signed(&key(1), HEADER, &too_long),
        "noise".to_owned(),
    ] {
        present(&server, "order", &rejected).await.expect_err("rejected");
    }
    let of_nobody = claims(now, "two").replace("order", "misplaced");
    present(&server, "misplaced", &signed(&key(1), HEADER, &of_nobody))
        .await
        .expect_err("no such client");
    present(&server, "misplaced", "noise").await.expect_err("no such client");

    server.authority().maintain(now).await.expect("the store can be written");
    let request = bearing(&operator.token, rpc::ListAuditEventsRequest::default());
    let events = server.audit().list_audit_events(request).await.expect("the log").into_inner();
    let refused = events.events.iter().filter(|event| event.action == "token.issue");
    let mut told: Vec<_> = refused
        .map(|event| {
            assert!(!event.actor.contains("misplaced"), "{event:?}");
            let actor = if event.actor == "order" { "order" } else { "?" };
            (actor, event.outcome.as_str(), event.count)
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("?", "unknown_client", 2),
            ("order", "assertion_audience", 1),
            ("order", "assertion_time", 1),
            ("order", "assertion_used", 1),
            ("order", "bad_assertion", 1),
            ("order", "wrong_key", 1),
        ]
    );
}

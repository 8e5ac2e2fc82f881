//! `private_key_jwt` (RFC 7523) and, as far as it goes without TLS, `tls_client_auth` (RFC 8705).

use countersign::rpc::create_client_credential_request::Kind;
use countersign_mesh::claims::ClientId;
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::sign_assertion;

use crate::caller::client;
use crate::oauth::call::{assert_error, post, token};
use crate::support::{ISSUER, TestServer, id};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// What the client signs with.
fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// A server that has been up for long enough to take assertions, with a client that has a key only.
async fn start() -> TestServer {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    operator.create(&server, client("order", STOCK, &["inventory"])).await.expect("created");
    let public_key = Kind::PublicKey(key().public().as_bytes().to_vec());
    operator.add_credential(&server, "order", public_key, None).await.expect("registered");
    server.advance(6);
    server
}

/// The parameters of an assertion.
fn parameters(assertion: &str) -> String {
    format!(
        "&client_assertion={assertion}&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
    )
}

fn sign(server: &TestServer, client_id: &ClientId, audience: &str, nonce: u8) -> String {
    let now = server.clock.now();
    let assertion = sign_assertion(&key(), client_id, audience, now, [nonce; 16]);
    parameters(assertion.expose())
}

#[tokio::test]
async fn a_client_proves_who_it_is_with_its_key_at_every_endpoint() {
    let server = start().await;
    let mut nonce = 0;
    for audience in [ISSUER.to_owned(), format!("{ISSUER}/oauth/token")] {
        for named in ["", "&client_id=order"] {
            for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
                nonce += 1;
                let assertion = sign(&server, &id("order"), &audience, nonce);
                let form = format!("grant_type=client_credentials&token=noise{assertion}{named}");
                let answer = post(&server, path, "", &form).await;
                assert_eq!(answer.status, 200, "{path} {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_assertion_is_good_once_and_for_its_client_only() {
    let server = start().await;
    let good = sign(&server, &id("order"), ISSUER, 1);
    assert_eq!(token(&server, "", &good).await.status, 200);
    let mut answers = Vec::new();
    for bad in [
        good,
        sign(&server, &id("order"), "https://elsewhere.test", 2),
        sign(&server, &id("nobody"), ISSUER, 3),
        format!("{}&client_id=other", sign(&server, &id("order"), ISSUER, 4)),
        parameters("noise"),
        parameters("a.b.c"),
    ] {
        let answer = token(&server, "", &bad).await;
        assert_error(&answer, 401, "invalid_client");
        answers.push(answer.without_id());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[tokio::test]
async fn one_that_was_refused_what_it_asked_for_used_its_assertion_up() {
    let server = start().await;
    for (target, nonce) in [("&resource=https://nowhere.test/", 1), ("&scope=other", 2)] {
        let assertion = sign(&server, &id("order"), ISSUER, nonce);
        let answer = token(&server, "", &format!("{assertion}{target}")).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_error(&token(&server, "", &assertion).await, 401, "invalid_client");
    }
}

#[tokio::test]
async fn until_it_can_tell_what_was_used_before_it_is_not_available() {
    let mut server = start().await;
    server.restart().await;
    let assertion = sign(&server, &id("order"), ISSUER, 1);
    assert_error(&token(&server, "", &assertion).await, 503, "temporarily_unavailable");
    server.advance(6);
    let assertion = sign(&server, &id("order"), ISSUER, 2);
    assert_eq!(token(&server, "", &assertion).await.status, 200);
}

#[tokio::test]
async fn an_id_alone_proves_nothing_without_a_certificate() {
    let server = start().await;
    assert_error(&token(&server, "", "&client_id=order").await, 401, "invalid_client");
}

//! `/.well-known/`: what there is, where, and the keys.

use std::collections::BTreeSet;

use countersign_mesh::keys::KeySet;
use serde_json::Value;

use crate::oauth::call::{Answer, assert_error, basic, order, post, request, send, token};
use crate::support::{ISSUER, TestServer};

/// What is below an issuer's path is not described a second time.
async fn get(server: &TestServer, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    send(server, request.as_bytes()).await
}

const DOCUMENTS: [&str; 2] =
    ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

#[tokio::test]
async fn both_documents_say_the_same() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let issued = token(&server, &basic("order", &secret), "").await.text("access_token");
    let token = countersign_mesh::token::unverified_claims(&issued).expect("a token");
    for path in DOCUMENTS {
        let answer = request(&server, "GET", path, "").await;
        let document = answer.json();
        assert_eq!(document["issuer"], ISSUER);
        assert_eq!(document["issuer"], token.claims["iss"]);
        for (name, path) in [
            ("token_endpoint", "/oauth/token"),
            ("introspection_endpoint", "/oauth/introspect"),
            ("revocation_endpoint", "/oauth/revoke"),
            ("jwks_uri", "/.well-known/jwks.json"),
        ] {
            assert_eq!(document[name], format!("{ISSUER}{path}"), "{name}");
        }
        assert_eq!(document["grant_types_supported"], serde_json::json!(["client_credentials"]));
        assert_eq!(document["response_types_supported"], serde_json::json!([]));
        assert_eq!(request(&server, "HEAD", path, "").await.status, 200);
    }
}

#[tokio::test]
async fn only_what_works_is_listed_and_all_of_it() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let document = request(&server, "GET", DOCUMENTS[0], "").await.json();
    let endpoints = ["token_endpoint", "introspection_endpoint", "revocation_endpoint"];
    for endpoint in endpoints {
        let url = document[endpoint].as_str().expect("an address");
        let path = url.strip_prefix(ISSUER).expect("it is below the issuer");
        let methods = document[format!("{endpoint}_auth_methods_supported")].as_array();
        let methods: BTreeSet<&str> =
            methods.expect("methods").iter().filter_map(Value::as_str).collect();
        let algorithms = &document[format!("{endpoint}_auth_signing_alg_values_supported")];
        assert_eq!(*algorithms, serde_json::json!(["EdDSA", "Ed25519"]));
        let in_form = format!("&client_id=order&client_secret={secret}");
        let known = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
        assert_eq!(methods, BTreeSet::from(known), "those without a certificate authority");
        for (headers, more) in [(basic("order", &secret), ""), (String::new(), in_form.as_str())] {
            let form = format!("grant_type=client_credentials&token=noise{more}");
            assert_eq!(post(&server, path, &headers, &form).await.status, 200, "{endpoint}");
        }
        let answer = post(&server, path, "", "grant_type=client_credentials&token=noise").await;
        assert_error(&answer, 401, "invalid_client");
    }
}

#[tokio::test]
async fn an_issuer_with_a_path_is_found_below_it_and_where_the_standard_puts_it() {
    let issuer = "https://issuer.test/tenant/one";
    let server = TestServer::start_as(issuer).await;
    let operator = basic("operator", &server.operator_secret);
    for path in [
        "/.well-known/oauth-authorization-server/tenant/one",
        "/.well-known/openid-configuration/tenant/one",
        "/tenant/one/.well-known/openid-configuration",
        "/tenant/one/.well-known/oauth-authorization-server",
        DOCUMENTS[0],
    ] {
        let document = get(&server, path).await.json();
        assert_eq!(document["issuer"], issuer, "{path}");
        assert_eq!(document["token_endpoint"], format!("{issuer}/oauth/token"));
    }
    let keys = get(&server, "/tenant/one/.well-known/jwks.json").await;
    assert_eq!(keys.status, 200);
    let form = "grant_type=client_credentials&audience=countersign";
    let answer = post(&server, "/oauth/token", &operator, form).await;
    assert_eq!(answer.status, 200);
    for path in ["/tenant/oauth/token", "/tenant", "/tenant/oneoauth/token"] {
        assert_eq!(get(&server, path).await.status, 404, "{path}");
    }
    let home = get(&server, "/tenant/one/").await;
    assert!(home.status == 200 && home.body.contains("This is Countersign"), "{home:?}");
    assert_eq!(get(&server, "/tenant/one/oauth/token").await.status, 405);
}

#[tokio::test]
async fn the_keys_are_public_and_say_what_they_are_for() {
    let server = TestServer::start().await;
    let answer = request(&server, "GET", "/.well-known/jwks.json", "").await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(KeySet::from_jwks(&answer.body).expect("a JWK Set").len(), 2);
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    for key in body["keys"].as_array().expect("keys") {
        assert_eq!(key.get("d"), None);
        assert_eq!((&key["use"], &key["alg"]), (&Value::from("sig"), &Value::from("EdDSA")));
    }
}

#[tokio::test]
async fn keys_that_are_known_are_not_sent_again() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let path = "/.well-known/jwks.json";
    let tag = request(&server, "GET", path, "").await.header("etag").expect("a tag").to_owned();
    for known in [
        format!("if-none-match: {tag}\r\n"),
        format!("if-none-match: W/{tag}\r\n"),
        format!("if-none-match: \"other\", {tag}\r\n"),
        format!("if-none-match: \"other\"\r\nif-none-match: \"more\" ,W/{tag}\r\n"),
        "if-none-match: *\r\n".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = request(&server, method, path, &known).await;
            assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
        }
    }
    for unknown in ["if-none-match: \"other\"\r\n", "if-none-match: \u{e4}\r\n", ""] {
        assert_eq!(request(&server, "GET", path, unknown).await.status, 200, "{unknown}");
    }
    let head = request(&server, "HEAD", path, "").await;
    assert_eq!((head.status, head.header("etag")), (200, Some(tag.as_str())));

    operator.rotate(&server).await.expect("rotated");
    let answer = request(&server, "GET", path, &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("etag"), Some(tag.as_str()));
}

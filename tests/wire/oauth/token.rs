//! `POST /oauth/token`: what is granted, and what the answer looks like.

use countersign::rpc;
use serde_json::Value;

use crate::oauth::call::{assert_error, basic, order, post, token};
use crate::support::TestServer;

#[tokio::test]
async fn a_client_gets_a_token_by_basic_and_by_post() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    for path in ["/oauth/token", "/oauth2/token"] {
        let by_basic = basic("order", &secret);
        let by_post = format!("&client_id=order&client_secret={secret}");
        for (headers, more) in [(by_basic.as_str(), ""), ("", by_post.as_str())] {
            let form = format!("grant_type=client_credentials&scope=stock%3Aread{more}");
            let answer = post(&server, path, headers, &form).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("pragma"), Some("no-cache"));
            let body = answer.json();
            let names: Vec<&str> =
                body.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(names, ["access_token", "expires_in", "scope", "token_type"]);
            assert_eq!(body["token_type"], "Bearer");
            assert_eq!(body["expires_in"], Value::from(900));
            assert_eq!(body["scope"], "stock:read");
            let token = body["access_token"].as_str().expect("a token");
            assert_eq!(token.split('.').count(), 3);
        }
    }
}

#[tokio::test]
async fn without_scopes_it_gets_all_that_it_was_granted() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    for more in ["", "&scope=", "&scope=stock:write+stock:read"] {
        let answer = token(&server, &basic("order", &secret), more).await;
        assert_eq!(answer.text("scope"), "stock:read stock:write", "{more}");
    }
}

#[tokio::test]
async fn other_grant_types_are_refused_by_name() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let authorization = basic("order", &secret);
    for grant_type in [
        "password",
        "authorization_code",
        "refresh_token",
        "implicit",
        "Client_Credentials",
        "client_credentials+",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ] {
        for headers in [authorization.as_str(), ""] {
            let form = format!("grant_type={grant_type}&username=ada&password=hush&code=hush");
            let answer = post(&server, "/oauth/token", headers, &form).await;
            assert_error(&answer, 400, "unsupported_grant_type");
            let description = answer.text("error_description");
            assert!(description.contains("there are no users here"), "{description}");
        }
    }
    for form in ["", "grant_type=", "grant_type", "scope=stock:read"] {
        let answer = post(&server, "/oauth/token", &authorization, form).await;
        assert_error(&answer, 400, "invalid_request");
    }
}

#[tokio::test]
async fn scopes_that_are_not_granted_or_not_scopes_are_invalid() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    for scope in [
        "stock:burn",
        "stock:read+stock:burn",
        "stock:read++stock:write",
        "+stock:read",
        "stock:read%09stock:write",
        "%22",
        "%5C",
        "st%C3%B6ck",
        &"a".repeat(129),
    ] {
        let answer = token(&server, &basic("order", &secret), &format!("&scope={scope}")).await;
        assert_error(&answer, 400, "invalid_scope");
    }
}

#[tokio::test]
async fn a_client_that_was_cut_off_too_often_comes_again_later() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = order(&server).await;
    for _ in 0..20 {
        for disabled in [true, false] {
            let switch = move |client: &mut rpc::Client| client.disabled = disabled;
            operator.change(&server, "order", &["disabled"], switch).await.expect("updated");
        }
    }
    let answer = token(&server, &basic("order", &secret), "").await;
    assert_error(&answer, 429, "temporarily_unavailable");
    server.advance(30);
    assert_eq!(token(&server, &basic("order", &secret), "").await.status, 200);
}

#[tokio::test]
async fn a_clients_own_maximum_is_what_a_token_says() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = order(&server).await;
    let shorter = |client: &mut rpc::Client| {
        client.max_token_ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    };
    operator.change(&server, "order", &["max_token_ttl"], shorter).await.expect("updated");
    let answer = token(&server, &basic("order", &secret), "").await;
    assert_eq!(answer.json()["expires_in"], Value::from(60));
}

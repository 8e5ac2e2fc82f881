//! `POST /oauth/introspect` (RFC 7662).

use serde_json::json;

use crate::caller::tampered;
use crate::oauth::call::{Answer, assert_error, basic, order, post};
use crate::support::{ISSUER, START, TestServer};

async fn introspect(server: &TestServer, headers: &str, token: &str) -> Answer {
    post(server, "/oauth/introspect", headers, &format!("token={token}")).await
}

#[tokio::test]
async fn one_that_serves_the_audience_is_told_what_an_active_token_says() {
    let server = TestServer::start().await;
    let order = order(&server).await;
    let inventory = server.register("inventory", &[], &["inventory", "spare"]).await;
    let token = server.token("order", &order, "inventory").await.token;
    for path in ["/oauth/introspect", "/oauth2/introspect"] {
        for hint in ["", "&token_type_hint=access_token", "&token_type_hint=refresh_token"] {
            let form = format!("token={token}{hint}");
            let answer = post(&server, path, &basic("inventory", &inventory), &form).await;
            let mut body = answer.json();
            let jti = body["jti"].take();
            assert_eq!(jti.as_str().map(str::len), Some(16), "{answer:?}");
            let now = START.as_unix();
            assert_eq!(
                body,
                json!({
                    "active": true, "scope": "stock:read stock:write", "client_id": "order",
                    "sub": "order", "aud": "inventory", "iss": ISSUER, "iat": now, "exp": now + 900,
                    "jti": null, "token_type": "Bearer",
                })
            );
        }
    }
}

#[tokio::test]
async fn all_else_is_inactive_in_the_same_words() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let order_secret = order(&server).await;
    let inventory = server.register("inventory", &[], &["inventory"]).await;
    let payment = server.register("payment", &[], &["payment"]).await;
    let good = server.token("order", &order_secret, "inventory").await.token;
    let revoked = server.token("order", &order_secret, "inventory").await.token;
    let expired = server.token("order", &order_secret, "inventory").await.token;
    let by_id = countersign::rpc::revoke_token_request::Target::Token(revoked.clone());
    operator.revoke_token(&server, by_id).await.expect("revoked");

    let mut answers = Vec::new();
    for (client, secret, token) in [
        ("payment", &payment, good.as_str()),
        ("order", &order_secret, &good),
        ("operator", &server.operator_secret, &good),
        ("inventory", &inventory, &revoked),
        ("inventory", &inventory, &tampered(&good, 2)),
        ("inventory", &inventory, "noise"),
        ("inventory", &inventory, &"a.".repeat(4000)),
    ] {
        let answer = introspect(&server, &basic(client, secret), token).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"active":false}"#), "{token}");
        answers.push(answer.without_id());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let answer = introspect(&server, &basic("inventory", &inventory), &good).await;
    assert_eq!(answer.json()["active"], true);

    server.advance(900);
    let answer = introspect(&server, &basic("inventory", &inventory), &expired).await;
    assert_eq!(answer.body, r#"{"active":false}"#);
}

#[tokio::test]
async fn it_takes_a_client_that_proves_who_it_is_and_a_token() {
    let server = TestServer::start().await;
    let inventory = server.register("inventory", &[], &["inventory"]).await;
    let caller = server.token("inventory", &inventory, "countersign").await.token;
    let bearer = format!("authorization: Bearer {caller}\r\n");
    for headers in ["", &basic("inventory", "noise"), &basic("nobody", &inventory), &bearer] {
        let answer = introspect(&server, headers, &caller).await;
        assert_error(&answer, 401, "invalid_client");
    }
    for form in ["", "token=", "token=a&token=a"] {
        let headers = basic("inventory", &inventory);
        let answer = post(&server, "/oauth/introspect", &headers, form).await;
        assert_error(&answer, 400, "invalid_request");
    }
    let form = format!("client_id=inventory&client_secret={inventory}&token=noise");
    assert_eq!(post(&server, "/oauth/introspect", "", &form).await.body, r#"{"active":false}"#);
}

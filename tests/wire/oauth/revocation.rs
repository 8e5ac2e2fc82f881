//! `POST /oauth/revoke` (RFC 7009).

use countersign::rpc::InactiveReason;

use crate::caller::Caller;
use crate::oauth::call::{Answer, assert_error, basic, order, post};
use crate::support::TestServer;

async fn revoke(server: &TestServer, headers: &str, token: &str) -> Answer {
    post(server, "/oauth/revoke", headers, &format!("token={token}")).await
}

/// One that serves `inventory`, to see whether tokens are good.
async fn inventory(server: &TestServer) -> Caller {
    let secret = server.register("inventory", &[], &["inventory"]).await;
    server.token("inventory", &secret, "countersign").await
}

#[tokio::test]
async fn a_client_revokes_its_own_token_for_good() {
    let mut server = TestServer::start().await;
    let secret = order(&server).await;
    let inventory = inventory(&server).await;
    let order = basic("order", &secret);
    let mut revoked = Vec::new();
    for path in ["/oauth/revoke", "/oauth2/revoke"] {
        for hint in ["", "&token_type_hint=access_token", "&token_type_hint=saml"] {
            let token = server.token("order", &secret, "inventory").await.token;
            inventory.claims(&server, &token).await;
            let answer = post(&server, path, &order, &format!("token={token}{hint}")).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
            inventory.assert_inactive(&server, &token, InactiveReason::Revoked).await;
            revoked.push(token);
        }
    }
    server.restart().await;
    for token in &revoked {
        inventory.assert_inactive(&server, token, InactiveReason::Revoked).await;
    }
}

#[tokio::test]
async fn revoking_a_token_that_is_not_active_succeeds() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let order = basic("order", &secret);
    let token = server.token("order", &secret, "inventory").await.token;
    let expired = server.token("order", &secret, "inventory").await.token;
    for token in [token.as_str(), &token, "noise", "a.b.c", &"a".repeat(9000)] {
        assert_eq!(revoke(&server, &order, token).await.status, 200, "{token}");
    }
    server.advance(930);
    assert_eq!(revoke(&server, &order, &expired).await.status, 200);
}

#[tokio::test]
async fn another_clients_token_stays_unless_an_operator_may_revoke_any() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let inventory = inventory(&server).await;
    let stranger = server.register("stranger", &[("inventory", &["stock:read"])], &["shop"]).await;
    let auditor = server.register("auditor", &[("countersign", &["audit:read"])], &[]).await;
    let token = server.token("order", &secret, "inventory").await.token;
    for (client, secret) in [("stranger", &stranger), ("auditor", &auditor)] {
        let answer = revoke(&server, &basic(client, secret), &token).await;
        assert_error(&answer, 400, "invalid_grant");
        inventory.claims(&server, &token).await;
    }
    let operator = basic("operator", &server.operator_secret);
    assert_eq!(revoke(&server, &operator, &token).await.status, 200);
    inventory.assert_inactive(&server, &token, InactiveReason::Revoked).await;
}

#[tokio::test]
async fn it_takes_a_client_that_proves_who_it_is_and_a_token() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let inventory = inventory(&server).await;
    let token = server.token("order", &secret, "inventory").await.token;
    let bearer = format!("authorization: Bearer {token}\r\n");
    for headers in ["", &basic("order", "noise"), &basic("nobody", &secret), &bearer] {
        assert_error(&revoke(&server, headers, &token).await, 401, "invalid_client");
    }
    inventory.claims(&server, &token).await;
    for form in ["", "token=", "token_type_hint=access_token", "token=a&token=a"] {
        let answer = post(&server, "/oauth/revoke", &basic("order", &secret), form).await;
        assert_error(&answer, 400, "invalid_request");
    }
    let form = format!("client_id=order&client_secret={secret}&token={token}");
    assert_eq!(post(&server, "/oauth/revoke", "", &form).await.status, 200);
    inventory.assert_inactive(&server, &token, InactiveReason::Revoked).await;
}

#[tokio::test]
async fn nothing_is_said_to_be_revoked_that_could_not_be_written() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let inventory = inventory(&server).await;
    let token = server.token("order", &secret, "inventory").await.token;
    let store = rusqlite::Connection::open(server.database()).expect("the store is there");
    store.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    let answer = revoke(&server, &basic("order", &secret), &token).await;
    assert_error(&answer, 503, "temporarily_unavailable");
    inventory.claims(&server, &token).await;
}

//! `/health/live` and `/health/ready`.

use crate::oauth::call::{assert_error, basic, order, request, token};
use crate::support::TestServer;

#[tokio::test]
async fn a_server_that_issues_is_live_and_ready() {
    let server = TestServer::start().await;
    for (path, status) in [("/health/live", "live"), ("/health/ready", "ready")] {
        let answer = request(&server, "GET", path, "").await;
        assert_eq!((answer.status, answer.text("status")), (200, status.to_owned()));
        assert_eq!(request(&server, "HEAD", path, "").await.status, 200);
    }
}

#[tokio::test]
async fn after_a_long_sleep_the_store_is_asked_again() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    server.advance(3601);
    assert_eq!(request(&server, "GET", "/health/ready", "").await.status, 200);
    server.advance(3601);
    assert_eq!(token(&server, &basic("order", &secret), "").await.status, 200);
}

#[tokio::test]
async fn without_its_store_it_is_ready_for_as_long_as_it_signs() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let store = rusqlite::Connection::open(server.database()).expect("the store is there");
    store.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");

    server.advance(3600);
    assert_eq!(request(&server, "GET", "/health/ready", "").await.status, 200);
    assert_eq!(token(&server, &basic("order", &secret), "").await.status, 200);

    server.advance(1);
    let answer = request(&server, "GET", "/health/ready", "").await;
    assert_eq!((answer.status, answer.text("status").as_str()), (503, "store_unavailable"));
    assert_eq!(request(&server, "GET", "/health/live", "").await.status, 200);
    let answer = token(&server, &basic("order", &secret), "").await;
    assert_error(&answer, 503, "temporarily_unavailable");
    let answer = token(&server, &basic("order", "noise"), "").await;
    assert_error(&answer, 401, "invalid_client");

    store.execute_batch("ROLLBACK").expect("the lock is given back");
    assert_eq!(token(&server, &basic("order", &secret), "").await.status, 200);
}

//! Too many failures, and too many tokens, over plain HTTP: 429, and when to come again.

use std::num::NonZeroU32;

use countersign::server::{LimitSettings, Options};

use crate::oauth::call::{Answer, assert_error, basic, order, post, token};
use crate::support::TestServer;

const ENDPOINTS: [&str; 3] = ["/oauth/token", "/oauth/introspect", "/oauth/revoke"];

const FORM: &str = "grant_type=client_credentials&token=noise";

/// Fails to authenticate as this client, at all endpoints in turn.
async fn fail(server: &TestServer, client_id: &str, times: usize) {
    for path in ENDPOINTS.iter().cycle().take(times) {
        let answer = post(server, path, &basic(client_id, "noise"), FORM).await;
        assert_error(&answer, 401, "invalid_client");
    }
}

#[tokio::test]
async fn failures_are_throttled_the_same_for_right_and_wrong_known_and_unknown() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let billing = server.register("billing", &[("inventory", &["stock:read"])], &[]).await;
    fail(&server, "order", 20).await;
    fail(&server, "nobody", 20).await;

    let mut answers: Vec<Answer> = Vec::new();
    for path in ENDPOINTS {
        for (client_id, secret) in [("order", "noise"), ("order", &secret), ("nobody", "noise")] {
            answers.push(post(&server, path, &basic(client_id, secret), FORM).await);
            let in_form = format!("{FORM}&client_id={client_id}&client_secret={secret}");
            answers.push(post(&server, path, "", &in_form).await);
        }
    }
    // What it asks for cannot be: that is told only to one that proves who it is.
    answers.push(token(&server, &basic("order", &secret), "&resource=https://nowhere.test/").await);
    for answer in &answers {
        assert_error(answer, 429, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), Some("3"));
    }
    let answers: Vec<Answer> = answers.into_iter().map(Answer::without_id).collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    let other = token(&server, &basic("billing", &billing), "").await;
    assert_eq!(other.status, 200, "another client is let through");

    server.advance(3);
    let order = basic("order", &secret);
    for path in ENDPOINTS {
        assert_eq!(post(&server, path, &order, FORM).await.status, 200, "a success takes nothing");
    }
    fail(&server, "order", 1).await;
    assert_error(&token(&server, &order, "").await, 429, "temporarily_unavailable");
}

#[tokio::test]
async fn what_cannot_be_authentication_or_is_only_refused_is_no_failure() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    for _ in 0..25 {
        assert_error(&token(&server, &order, "&scope=other").await, 400, "invalid_scope");
        assert_error(&token(&server, "", "").await, 401, "invalid_client");
    }
    assert_eq!(token(&server, &order, "").await.status, 200);
}

#[tokio::test]
async fn one_client_gets_so_many_tokens_and_others_theirs() {
    let limits =
        LimitSettings { tokens_per_client: NonZeroU32::new(2), ..LimitSettings::default() };
    let server = TestServer::start_with(Options { limits, ..Options::default() }, None).await;
    let order = basic("order", &order(&server).await);
    let billing = server.register("billing", &[("inventory", &["stock:read"])], &[]).await;
    for _ in 0..20 {
        assert_eq!(token(&server, &order, "").await.status, 200, "ten times two at once");
    }
    let answer = token(&server, &order, "").await;
    assert_error(&answer, 429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Who does not prove who it is neither learns of that nor takes anything.
    fail(&server, "order", 1).await;
    assert_eq!(token(&server, &basic("billing", &billing), "").await.status, 200);
    server.advance(1);
    for _ in 0..2 {
        assert_eq!(token(&server, &order, "").await.status, 200, "two a second");
    }
    assert_error(&token(&server, &order, "").await, 429, "temporarily_unavailable");
}

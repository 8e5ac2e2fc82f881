//! Who a client is, by HTTP Basic or in the form, and everyone who is not believed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::rpc;

use crate::caller::client;
use crate::oauth::call::{Answer, assert_error, basic, order, post, token};
use crate::support::TestServer;

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// An `Authorization` header of HTTP Basic with this scheme, before any encoding of its parts.
fn header(scheme: &str, joined: &str) -> String {
    format!("authorization: {scheme} {}\r\n", STANDARD.encode(joined))
}

#[tokio::test]
async fn basic_is_read_as_the_standard_says() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let joined = format!("order:{secret}");
    for good in [
        header("Basic", &joined),
        header("basic", &joined),
        header("BASIC", &joined),
        header("Basic", &format!("%6F%72der:{encoded}")),
    ] {
        assert_eq!(token(&server, &good, "").await.status, 200, "{good}");
    }
    // The id once more, in the form, is no second way.
    let answer = token(&server, &basic("order", &secret), "&client_id=order").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = token(&server, &basic("order", &secret), "&client_id=other").await;
    assert_error(&answer, 400, "invalid_request");
}

#[tokio::test]
async fn everyone_who_is_not_believed_gets_the_same_bytes() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = order(&server).await;
    let expiring = operator.new_secret(&server, "order", Some(1)).await.expect("created");
    let disabled = server.register("disabled", STOCK, &[]).await;
    let off = |client: &mut rpc::Client| client.disabled = true;
    operator.change(&server, "disabled", &["disabled"], off).await.expect("updated");
    operator.create(&server, client("bare", STOCK, &[])).await.expect("created");
    let bearer = server.token("order", &secret, "inventory").await.token;
    server.advance(1);

    let mut answers: Vec<Answer> = Vec::new();
    for (client, secret) in [
        ("order", "noise"),
        ("order", &disabled),
        ("order", &expiring.client_secret),
        ("order", ""),
        ("Order", &secret),
        ("nobody", &secret),
        ("bare", &secret),
        ("disabled", &disabled),
        ("disabled", "noise"),
        ("not/an/id", &secret),
        ("", &secret),
    ] {
        answers.push(token(&server, &basic(client, secret), "").await);
        if !client.is_empty() && !secret.is_empty() {
            let form = format!("&client_id={client}&client_secret={secret}");
            answers.push(token(&server, "", &form).await);
        }
    }
    for headers in [
        "",
        "authorization: Basic\r\n",
        "authorization: Basic \r\n",
        "authorization: Basic !!!\r\n",
        "authorization: \r\n",
        "authorization: Digest username=\"order\"\r\n",
        "authorization: \u{e4}\r\n",
        &header("Basic", "order"),
        &header("Basic", &format!("order%:{secret}")),
        &header("Basic", &format!("order:{secret}%")),
        &header("Basic", &format!("order:{secret}%FF")),
        &header("Basic", &format!("order:{secret}%00")),
        &header("Basic ,", &format!("order:{secret}")),
        // The right secret in base64 of the wrong kind.
        &header("Basic", &format!("order:{secret}")).replace('=', ""),
        &header("Basic", &format!("order:{secret}")).replace("\r\n", "=\r\n"),
        &format!("authorization: Bearer {bearer}\r\n"),
        &format!("authorization: Basic {}\r\n", "YTpi".repeat(4000)),
    ] {
        answers.push(token(&server, headers, "").await);
    }
    answers.push(token(&server, "", "&client_id=order").await);
    answers.push(token(&server, "", "&client_id=order&client_secret=").await);
    let unknown_type = "&client_id=order&client_assertion=a.b.c&client_assertion_type=urn:saml";
    answers.push(token(&server, "", unknown_type).await);

    for answer in &answers {
        assert_error(answer, 401, "invalid_client");
        assert!(!answer.body.contains(&secret) && !answer.body.contains("order"), "{answer:?}");
    }
    let answers: Vec<Answer> = answers.into_iter().map(Answer::without_id).collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[tokio::test]
async fn a_client_that_authenticates_in_two_ways_at_once_is_refused() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let basic = basic("order", &secret);
    let in_form = format!("&client_id=order&client_secret={secret}");
    let assertion = "&client_assertion=a.b.c&client_assertion_type=\
                     urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let secret_alone = format!("&client_secret={secret}");
    let all_in_form = format!("{in_form}{assertion}");
    for (headers, more) in [
        (basic.as_str(), in_form.as_str()),
        (&basic, &secret_alone),
        (&basic, assertion),
        ("", &all_in_form),
        (&basic.repeat(2), ""),
        ("authorization: Bearer a.b.c\r\n", &in_form),
        ("", &secret_alone),
        ("", "&client_id=order&client_assertion=a.b.c"),
        ("", "&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
    ] {
        let answer = token(&server, headers, more).await;
        assert_error(&answer, 400, "invalid_request");
        assert!(!answer.body.contains(&secret), "{answer:?}");
    }
}

#[tokio::test]
async fn rejections_are_in_the_audit_log_like_those_of_grpc() {
    let mut server = TestServer::start().await;
    let secret = order(&server).await;
    token(&server, &basic("order", "noise"), "").await;
    post(&server, "/oauth/introspect", &basic("nobody", &secret), "token=a").await;
    // What was counted is written down at the latest when it stops.
    server.restart().await;
    let request = server.as_operator(rpc::ListAuditEventsRequest::default()).await;
    let answer = server.audit().list_audit_events(request).await.expect("listed").into_inner();
    let outcomes: Vec<(&str, &str)> =
        answer.events.iter().map(|event| (event.actor.as_str(), event.outcome.as_str())).collect();
    assert!(outcomes.contains(&("order", "wrong_secret")), "{outcomes:?}");
    assert!(
        outcomes.iter().any(|(actor, outcome)| {
            actor.starts_with("unknown:") && *outcome == "unknown_client"
        }),
        "{outcomes:?}"
    );
}

//! A payment provider calls us with a token of ours, and we call it with a token of theirs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_mesh::claims::Clock;
use countersign_mesh::testing::{ISSUER, TestIssuer};
use serde_json::{Value, json};

use crate::process::{Finished, Server};
use crate::shop::{Answer, Shop, call, serve};

const PAID: &str = r#"{"order":1001,"cents":250}"#;

fn report(webhook: &Server, token: Option<&str>) -> Answer {
    call(webhook, "POST /webhooks/payments", token, PAID)
}

/// An issuer in this process, with today's date.
fn issuer() -> TestIssuer {
    let issuer = TestIssuer::new();
    issuer.clock().set(Clock::system().now());
    issuer
}

#[test]
fn our_webhook_takes_reports_from_the_provider_and_from_nobody_else() {
    let shop = Shop::open();
    let provider = shop.client(
        "acme-pay",
        &["shop-webhook=payments:report,payments:refund", "orders=payments:report"],
    );
    let other = shop.client("other-pay", &["shop-webhook=payments:report"]);
    let mut webhook = shop.serve("webhook_receiver", "shop-webhook", &["--provider", "acme-pay"]);
    let token = |credentials: &str, audience: &str, scope: &str| {
        Some(shop.token(credentials, audience, scope))
    };
    let elsewhere = issuer();
    let stranger = elsewhere.token("acme-pay").audience("shop-webhook").scopes("payments:report");
    let challenge = "www-authenticate: bearer realm=\"shop-webhook\"";
    for (who, token, status, head) in [
        ("nobody", None, 401, format!("{challenge}\r\n")),
        (
            "the provider at another door",
            token(&provider, "orders", "payments:report"),
            401,
            format!("{challenge}, error=\"invalid_token\""),
        ),
        (
            "the provider for something else",
            token(&provider, "shop-webhook", "payments:refund"),
            403,
            format!("{challenge}, error=\"insufficient_scope\", scope=\"payments:report\""),
        ),
        (
            "another client with the same scope",
            token(&other, "shop-webhook", "payments:report"),
            403,
            "www-authenticate: bearer error=\"insufficient_scope\"".to_owned(),
        ),
        (
            "someone else's client of the same name",
            Some(stranger.mint().expose().to_owned()),
            401,
            format!("{challenge}, error=\"invalid_token\""),
        ),
    ] {
        let answer = report(&webhook, token.as_deref());
        assert_eq!(answer.status, status, "{who}: {answer:?}");
        assert!(format!("{}\r\n", answer.head).contains(&head), "{who}: {answer:?}");
    }

    let answer = report(&webhook, token(&provider, "shop-webhook", "payments:report").as_deref());
    assert_eq!(answer.status, 204, "{answer:?}");
    // The refused reports printed nothing: this is the first line that says so.
    let line = webhook.wait_for_output("is paid");
    assert_eq!(line, "order 1001 is paid, 250 cents, says acme-pay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_behind_another_issuer_refuses_bad_tokens_of_that_issuer() {
    let issuer = issuer();
    let jwks = issuer.bundle().to_jwks();
    let keys = serve(Router::new().route("/keys", get(|| async { jwks }))).await;
    let shop = Shop::open();
    let webhook = shop.serve_behind(
        ISSUER,
        &format!("{keys}/keys"),
        "webhook_receiver",
        &["--audience", "shop-webhook", "--provider", "acme-pay"],
    );
    let token = || issuer.token("acme-pay").audience("shop-webhook").scopes("payments:report");
    assert_eq!(report(&webhook, Some(token().mint().expose())).status, 204);
    for (token, reason) in [
        (token().expired(), "TOKEN_EXPIRED"),
        (token().not_yet_valid(), "TOKEN_INVALID"),
        (token().forged(), "TOKEN_INVALID"),
        (token().issuer("https://elsewhere.test"), "TOKEN_INVALID"),
    ] {
        let answer = report(&webhook, Some(token.mint().expose()));
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.body.contains(reason), "{answer:?}");
        assert!(answer.head.contains("error=\"invalid_token\""), "{answer:?}");
    }
}

/// The partner: a token endpoint that signs with its own key, and the API that believes it.
struct Provider {
    issuer: TestIssuer,
    events: Mutex<Vec<Value>>,
}

const SECRET: &str = "their: secret+";

async fn issue(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    form: String,
) -> (StatusCode, Json<Value>) {
    // Id and secret are form-encoded before they are joined (RFC 6749 §2.3.1).
    let basic = format!("Basic {}", STANDARD.encode("shop-0815:their%3A+secret%2B"));
    if headers.get(AUTHORIZATION).is_none_or(|value| *value != basic) {
        let problem = json!({ "error": "invalid_client", "error_description": "who are you?" });
        return (StatusCode::UNAUTHORIZED, Json(problem));
    }
    let scope = form
        .strip_prefix("grant_type=client_credentials&scope=")
        .and_then(|form| form.strip_suffix("&audience=acme-events"))
        .expect("a request for the client credentials grant")
        .replace("%3A", ":");
    let token = provider.issuer.token("shop-0815").audience("acme-events").scopes(&scope).mint();
    let answer =
        json!({ "access_token": token.expose(), "token_type": "Bearer", "expires_in": 300 });
    (StatusCode::OK, Json(answer))
}

async fn event(State(provider): State<Arc<Provider>>, Json(event): Json<Value>) {
    provider.events.lock().expect("no thread panicked with the lock").push(event);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_sender_calls_the_provider_with_a_token_of_its_issuer() {
    let provider = Arc::new(Provider { issuer: issuer(), events: Mutex::default() });
    let guard =
        provider.issuer.guard(&[]).build().for_audience("acme-events".parse().expect("one"));
    let routes = Router::new()
        .route("/events", post(event))
        .route_layer(guard.require(["events:write"]))
        .route("/oauth/token", post(issue))
        .with_state(Arc::clone(&provider));
    let url = serve(routes).await;
    let api = format!("{url}/events");

    let shop = Shop::open();
    let file = shop.sandbox.path("acme.toml");
    let send = |secret: &str, token_url: &str, scope: &str| -> Finished {
        let text = format!(
            "url = \"{token_url}\"\nclient_id = \"shop-0815\"\nclient_secret = \"{secret}\"\n"
        );
        fs::write(&file, text).expect("the test owns the file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
            .expect("the test owns the file");
        let who = ["--credentials", "acme.toml", "--audience", "acme-events", "--scope", scope];
        shop.run("webhook_sender", &[&who[..], &["--api", &api, "--order", "1001"]].concat())
    };
    let token_url = format!("{url}/oauth/token");
    let end = send(SECRET, &token_url, "events:write");
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(!end.stderr.contains(SECRET), "{end:?}");
    let sent = || provider.events.lock().expect("no thread panicked with the lock").clone();
    assert_eq!(sent(), [json!({ "event": "shipped", "order": 1001 })]);

    for (secret, token_url, scope, why) in [
        ("guessed", token_url.as_str(), "events:write", "invalid_client"),
        (SECRET, token_url.as_str(), "events:read", "403"),
        (SECRET, "http://acme.test/oauth/token", "events:write", "plaintext"),
    ] {
        let end = send(secret, token_url, scope);
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(end.stderr.contains("gave up: ") && end.stderr.contains(why), "{end:?}");
    }
    assert_eq!(sent().len(), 1);
}

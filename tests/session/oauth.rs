//! Tokens of any issuer that has an OAuth 2.0 token endpoint.

use std::time::Duration;

use countersign_mesh::claims::ScopeSet;
use countersign_mesh::session::{
    BearerToken, ClientSecret, NoToken, OAuthEndpoint, SessionError, TokenSource,
};
use tokio::time::Instant;

use crate::endpoint::{FakeEndpoint, pass};

const TOKEN: &str = r#"{"access_token":"abc.def","token_type":"bearer","expires_in":1000}"#;

fn source(endpoint: &FakeEndpoint) -> TokenSource {
    let oauth = OAuthEndpoint::new(
        &endpoint.url("/oauth/token"),
        "partner id@x",
        ClientSecret::new("hush: hush+"),
    );
    let oauth = oauth.expect("loopback").parameter("audience", "https://api.example/?a=b");
    TokenSource::oauth(oauth, ScopeSet::parse("orders:read orders:write").expect("scopes"))
}

async fn token(source: &TokenSource, seconds: u64) -> Result<BearerToken, NoToken> {
    source.token(Instant::now() + Duration::from_secs(seconds)).await
}

#[tokio::test]
async fn a_token_request_follows_rfc_6749() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", TOKEN);
    let token = token(&source(&endpoint), 20).await.expect("a token");
    assert_eq!(token.header().to_str().expect("ASCII"), "Bearer abc.def");
    assert!(token.header().is_sensitive());
    let life = token.runway();
    assert!((Duration::from_secs(970)..=Duration::from_secs(1000)).contains(&life), "{life:?}");

    let seen = endpoint.seen();
    let (head, body) = seen[0].split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("POST /oauth/token HTTP/1.1\r\n"), "{head}");
    // `partner+id%40x:hush%3A+hush%2B`, after RFC 6749 §2.3.1.
    let basic = "authorization: Basic cGFydG5lcitpZCU0MHg6aHVzaCUzQStodXNoJTJC";
    assert!(head.contains(basic), "{head}");
    assert!(head.contains("content-type: application/x-www-form-urlencoded"), "{head}");
    assert_eq!(
        body,
        "grant_type=client_credentials&scope=orders%3Aread+orders%3Awrite\
         &audience=https%3A%2F%2Fapi.example%2F%3Fa%3Db"
    );
}

#[tokio::test]
async fn a_token_is_refreshed_around_half_of_its_life() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", TOKEN);
    let source = source(&endpoint);
    token(&source, 20).await.expect("a token");
    pass(Duration::from_secs(395)).await;
    tokio::task::yield_now().await;
    assert_eq!(endpoint.seen().len(), 1);
    pass(Duration::from_secs(210)).await;
    endpoint.until_seen(2).await;
}

#[tokio::test]
async fn a_refusal_fails_at_once_and_repeats_no_secret() {
    for (status, body) in [
        ("401 Unauthorized", r#"{"error":"invalid_client","error_description":"hush: hush+"}"#),
        ("400 Bad Request", r#"{"error":"unauthorized_client"}"#),
        ("400 Bad Request", r#"{"error":"invalid_scope"}"#),
        ("401 Unauthorized", "go away"),
        ("200 OK", r#"{"access_token":"abc","token_type":"mac","expires_in":1000}"#),
    ] {
        let endpoint = FakeEndpoint::start(None).await;
        endpoint.answers(status, body);
        let refused = token(&source(&endpoint), 3600).await.expect_err("it is refused");
        assert!(matches!(refused, NoToken::Refused(_)), "{status} {body} {refused:?}");
        assert!(!format!("{refused:?} {refused}").contains("hush"), "{refused:?}");
    }
}

#[tokio::test]
async fn any_other_answer_without_a_token_is_tried_again() {
    // A good answer but for its size.
    let large = TOKEN.replace('}', &format!(",\"padding\":\"{}\"}}", "a".repeat(256 * 1024)));
    for (status, body) in [
        ("503 Service Unavailable", ""),
        ("429 Too Many Requests", r#"{"error":"invalid_client"}"#),
        ("500 Internal Server Error", "{}"),
        ("302 Found\r\nlocation: http://127.0.0.1:1/elsewhere", ""),
        ("400 Bad Request", r#"{"error":"temporarily_unavailable"}"#),
        ("200 OK", "{}"),
        ("200 OK", r#"{"access_token":"","token_type":"Bearer"}"#),
        ("200 OK", r#"{"access_token":"a\nb","token_type":"Bearer"}"#),
        ("200 OK", large.as_str()),
    ] {
        let endpoint = FakeEndpoint::start(None).await;
        endpoint.answers(status, body);
        let source = source(&endpoint);
        endpoint.pass_until_read().await;
        assert!(source.current().is_none(), "{status}");
        let late = token(&source, 0).await.expect_err("there is none");
        assert!(matches!(late, NoToken::Unavailable(_)), "{status} {late:?}");
        endpoint.answers("200 OK", TOKEN);
        pass(Duration::from_secs(30)).await;
        token(&source, 20).await.expect("a token, when it is well again");
    }
}

#[tokio::test]
async fn a_request_to_an_endpoint_that_hangs_is_given_up_and_made_again() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers_nothing();
    let source = source(&endpoint);
    endpoint.until_seen(1).await;
    endpoint.answers("200 OK", TOKEN);
    pass(Duration::from_secs(6)).await;
    token(&source, 20).await.expect("a token from the next try");
}

#[tokio::test]
async fn a_plaintext_endpoint_off_this_machine_is_refused() {
    let secret = || ClientSecret::new("hush");
    let off = OAuthEndpoint::new("http://issuer.example/token", "me", secret());
    assert!(matches!(off, Err(SessionError::Plaintext(_))), "{off:?}");
    let odd = OAuthEndpoint::new("ftp://issuer.example/token", "me", secret());
    assert!(matches!(odd, Err(SessionError::BadUrl(_))), "{odd:?}");
    let good = OAuthEndpoint::new("http://localhost:1/token", "me", secret()).expect("loopback");
    assert!(!format!("{good:?} {:?}", secret()).contains("hush"));
}

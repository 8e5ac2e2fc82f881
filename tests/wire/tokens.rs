//! Issuing and validating tokens over the wire.

use countersign::rpc::{self, InactiveReason};
use tonic::Code;

use crate::support::{TestServer, ask, assert_field, assert_refused, bearing};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read", "stock:write"])];

fn whole_seconds(duration: Option<prost_types::Duration>) -> i64 {
    duration.expect("the field is set").seconds
}

#[tokio::test]
async fn a_client_gets_a_token_for_what_it_was_granted() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;

    let issued =
        server.issue(ask("order", &secret, "inventory", &["stock:read"])).await.expect("granted");
    assert_eq!(issued.token_type, "Bearer");
    assert_eq!(issued.audience, "inventory");
    assert_eq!(issued.scopes, ["stock:read"]);
    assert_eq!(whole_seconds(issued.expires_in), 900);
    assert_eq!(issued.expire_time.expect("the field is set").seconds, 1_800_000_900);
    let refresh = whole_seconds(issued.refresh_in);
    assert!((360..=540).contains(&refresh), "{refresh}");
    assert!(issued.access_token.len() < 420, "{} bytes", issued.access_token.len());

    let all = server
        .issue(ask("order", &secret, "", &[]))
        .await
        .expect("the audience of the only grant is inferred");
    assert_eq!(all.scopes, ["stock:read", "stock:write"]);
    assert_ne!(all.access_token, issued.access_token);
}

#[tokio::test]
async fn a_rejection_does_not_reveal_whether_the_client_exists() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let rejected = |client: &'static str, secret: String| {
        let server = &server;
        async move { server.issue(ask(client, &secret, "", &[])).await.expect_err("rejected") }
    };
    let unknown = rejected("nobody", secret.clone()).await;
    let wrong = rejected("order", server.operator_secret.clone()).await;
    assert_eq!(unknown.code(), wrong.code());
    assert_eq!(unknown.message(), wrong.message());
    assert_refused::<()>(Err(unknown), Code::Unauthenticated, "CLIENT_REJECTED");
    assert_refused::<()>(Err(wrong), Code::Unauthenticated, "CLIENT_REJECTED");
}

#[tokio::test]
async fn a_malformed_request_names_its_field() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let good = || ask("order", &secret, "inventory", &["stock:read"]);

    for bad in ["", "a b", &"x".repeat(65)] {
        let request = rpc::IssueTokenRequest { client_id: bad.to_owned(), ..good() };
        assert_field(server.issue(request).await, "client_id");
    }
    assert_field(
        server.issue(rpc::IssueTokenRequest { credential: None, ..good() }).await,
        "credential",
    );
    assert_field(server.issue(ask("order", "", "", &[])).await, "client_secret");
    assert_field(server.issue(ask("order", &"x".repeat(1000), "", &[])).await, "client_secret");
    assert_field(server.issue(ask("order", &secret, "a b", &[])).await, "audience");
    for bad in ["", "stock read", "stock\"", "stöck"] {
        assert_field(server.issue(ask("order", &secret, "inventory", &[bad])).await, "scopes");
    }
    for (seconds, nanos) in [(0, 0), (-1, 0), (0, 999_999_999), (i64::MIN, 0)] {
        let requested_ttl = Some(prost_types::Duration { seconds, nanos });
        assert_field(
            server.issue(rpc::IssueTokenRequest { requested_ttl, ..good() }).await,
            "requested_ttl",
        );
    }
    let huge = server.issue(ask("order", &"x".repeat(1 << 20), "", &[])).await;
    assert_refused(huge, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
}

#[tokio::test]
async fn a_token_is_validated_for_a_client_that_serves_its_audience() {
    let server = TestServer::start().await;
    let order = server.register("order", STOCK, &[]).await;
    let inventory = server.register("inventory", &[], &["inventory"]).await;
    let asker =
        server.issue(ask("inventory", &inventory, "countersign", &["tokens:validate"])).await;
    let asker = asker.expect("a client that serves an audience may validate tokens").access_token;
    let token = server
        .issue(ask("order", &order, "inventory", &["stock:read"]))
        .await
        .expect("granted")
        .access_token;
    let validate = |token: &str, audience: &str, scopes: &[&str]| {
        let request = rpc::ValidateTokenRequest {
            token: token.to_owned(),
            audience: audience.to_owned(),
            required_scopes: scopes.iter().map(ToString::to_string).collect(),
        };
        let request = bearing(&asker, request);
        let mut tokens = server.tokens();
        async move { tokens.validate_token(request).await.map(tonic::Response::into_inner) }
    };

    let good = validate(&token, "", &["stock:read"]).await.expect("an answer");
    assert!(good.active);
    let claims = good.claims.expect("the token is active");
    assert_eq!((claims.client_id.as_str(), claims.audience.as_str()), ("order", "inventory"));
    assert_eq!(claims.issuer, crate::support::ISSUER);

    let reason = |answer: rpc::ValidateTokenResponse| {
        assert!(!answer.active && answer.claims.is_none());
        answer.inactive_reason()
    };
    let scope = validate(&token, "inventory", &["stock:write"]).await.expect("an answer");
    assert_eq!(reason(scope), InactiveReason::ScopeMissing);
    let noise = validate("noise", "", &[]).await.expect("an answer");
    assert_eq!(reason(noise), InactiveReason::Invalid);
    let own = validate(&asker, "", &[]).await.expect("an answer");
    assert_eq!(reason(own), InactiveReason::AudienceMismatch);
    assert_refused(
        validate(&token, "payment", &[]).await,
        Code::PermissionDenied,
        "AUDIENCE_DENIED",
    );
    assert_field(validate("", "", &[]).await, "token");

    // The issuer asks its own clock, and needs no leeway. The caller's token is good within the guard's.
    server.advance(899);
    assert!(validate(&token, "", &[]).await.expect("an answer").active);
    server.advance(1);
    let expired = validate(&token, "", &[]).await.expect("an answer");
    assert_eq!(reason(expired), InactiveReason::Expired);
    server.advance(30);
    // After the leeway the token has expired. So has the token of the client that asks, hence this refusal.
    assert_refused(validate(&token, "", &[]).await, Code::Unauthenticated, "TOKEN_EXPIRED");
}

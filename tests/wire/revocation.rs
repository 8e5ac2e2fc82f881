//! Revoking one token, or all tokens of a client.

use std::time::Duration;

use countersign::rpc::revoke_token_request::Target;
use countersign::rpc::{self, InactiveReason};
use tonic::Code;

use crate::caller::{Caller, tampered};
use crate::support::{START, TestServer, ask, assert_field, assert_refused};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// The client `order`, which may call `inventory`, and the client `inventory`, which serves it.
struct Pair {
    order_secret: String,
    /// A caller with the scopes that `order` has at Countersign.
    order: Caller,
    inventory: Caller,
}

impl Pair {
    async fn register(server: &TestServer) -> Self {
        let order_secret = server.register("order", STOCK, &[]).await;
        let inventory = server.register("inventory", STOCK, &["inventory"]).await;
        let order = server.token("order", &order_secret, "countersign").await;
        let inventory = server.token("inventory", &inventory, "countersign").await;
        Self { order_secret, order, inventory }
    }

    async fn token(&self, server: &TestServer) -> String {
        server.token("order", &self.order_secret, "inventory").await.token
    }

    async fn assert_revoked(&self, server: &TestServer, token: &str) {
        self.inventory.assert_inactive(server, token, InactiveReason::Revoked).await;
    }

    async fn assert_good(&self, server: &TestServer, token: &str) {
        self.inventory.claims(server, token).await;
    }
}

fn whole(token: &str) -> Target {
    Target::Token(token.to_owned())
}

#[tokio::test]
async fn a_client_revokes_its_own_token_and_only_that_one() {
    let mut server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let (token, other) = (pair.token(&server).await, pair.token(&server).await);

    pair.order.revoke_token(&server, whole(&token)).await.expect("its own token");
    pair.assert_revoked(&server, &token).await;
    pair.assert_good(&server, &other).await;
    pair.order.revoke_token(&server, whole(&token)).await.expect("once more is fine");
    server.restart().await;
    pair.assert_revoked(&server, &token).await;
    pair.assert_good(&server, &other).await;
}

#[tokio::test]
async fn a_token_that_revokes_itself_is_refused_afterwards() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let other = server.operator().await;
    operator.keys(&server).await.expect("the guard knows it now");
    operator.revoke_token(&server, whole(&operator.token)).await.expect("its own token");
    operator.assert_shut_out(&server, "TOKEN_REVOKED").await;
    other.keys(&server).await.expect("the other one is good");
}

#[tokio::test]
async fn the_token_of_another_client_stays_good() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;

    // Not even the client that serves the token's audience can revoke it.
    let answer = pair.inventory.revoke_token(&server, whole(&token)).await;
    assert_refused(answer, Code::PermissionDenied, "TOKEN_NOT_OWNED");
    pair.assert_good(&server, &token).await;
    let operator = server.operator().await;
    operator.revoke_token(&server, whole(&token)).await.expect("with tokens:revoke");
    pair.assert_revoked(&server, &token).await;
}

#[tokio::test]
async fn revoking_a_token_by_its_id_takes_the_scope_tokens_revoke() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;
    let id = pair.inventory.claims(&server, &token).await.token_id;

    // A client cannot revoke even its own token by id, since the id does not show whose token it is.
    let answer = pair.order.revoke_token(&server, Target::TokenId(id.clone())).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
    pair.assert_good(&server, &token).await;
    let operator = server.operator().await;
    for _ in 0..2 {
        operator.revoke_token(&server, Target::TokenId(id.clone())).await.expect("revoked");
        pair.assert_revoked(&server, &token).await;
    }
    operator.revoke_token(&server, Target::TokenId("unknown".to_owned())).await.expect("is fine");
    let bad = operator.revoke_token(&server, Target::TokenId("a b".to_owned())).await;
    assert_field(bad, "token_id");
}

#[tokio::test]
async fn revoking_an_invalid_token_succeeds_and_does_nothing() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let request = rpc::IssueTokenRequest {
        requested_ttl: Some(crate::caller::seconds(1)),
        ..ask("order", &pair.order_secret, "", &[])
    };
    let short = server.issue(request).await.expect("granted").access_token;
    // The short token has expired by our clock with its leeway, and by a clock that is behind by the leeway.
    server.advance(61);
    let forged = tampered(&pair.token(&server).await, 2);
    for token in ["noise", "a.b.c", &short, &forged] {
        pair.inventory
            .revoke_token(&server, whole(token))
            .await
            .expect("there is nothing to revoke");
    }
    assert_field(pair.order.revoke_token(&server, whole("")).await, "token");
    let long = "x".repeat(20_000);
    assert_field(pair.order.revoke_token(&server, whole(&long)).await, "token");
    let request = crate::support::bearing(&pair.order.token, rpc::RevokeTokenRequest::default());
    assert_field(server.tokens().revoke_token(request).await, "target");
}

#[tokio::test]
async fn revoking_a_clients_tokens_ends_those_issued_so_far_but_not_later_ones() {
    let mut server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let operator = server.operator().await;
    let early = pair.token(&server).await;
    server.advance(10);
    let same_second = pair.token(&server).await;

    let before = operator.revoke_tokens(&server, "order").await.expect("revoked");
    assert!(before as u64 > server.clock.now().as_unix());
    pair.assert_revoked(&server, &early).await;
    pair.assert_revoked(&server, &same_second).await;
    // The client's token for Countersign itself is revoked as well.
    let answer = pair.order.revoke_token(&server, whole(&early)).await;
    assert_refused(answer, Code::Unauthenticated, "TOKEN_REVOKED");

    // A new token of the same second is valid, also after a restart.
    let later = pair.token(&server).await;
    let claims = pair.inventory.claims(&server, &later).await;
    assert!(claims.issue_time.expect("the field is set").seconds >= before);
    server.restart().await;
    pair.assert_revoked(&server, &early).await;
    pair.assert_revoked(&server, &same_second).await;
    pair.assert_good(&server, &later).await;

    // A second cut in the same second also revokes the tokens that were dated ahead.
    let again = operator.revoke_tokens(&server, "order").await.expect("revoked");
    assert!(again > before);
    pair.assert_revoked(&server, &later).await;
    pair.assert_good(&server, &pair.token(&server).await).await;
}

#[tokio::test]
async fn once_the_clock_has_passed_a_cut_tokens_are_dated_by_the_clock_again() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let operator = server.operator().await;
    let before = operator.revoke_tokens(&server, "order").await.expect("revoked");
    server.clock.set(START + Duration::from_secs(60));
    let claims = pair.inventory.claims(&server, &pair.token(&server).await).await;
    assert!(claims.issue_time.expect("the field is set").seconds > before);
    assert_eq!(claims.expires_in, Some(crate::caller::seconds(900)));
}

#[tokio::test]
async fn revoking_the_tokens_of_one_client_does_not_affect_other_clients() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;
    let operator = server.operator().await;
    let nobody = operator.revoke_tokens(&server, "orders").await;
    assert_refused(nobody, Code::NotFound, "CLIENT_NOT_FOUND");
    operator.revoke_tokens(&server, "operator").await.expect("its own token");
    operator.assert_shut_out(&server, "TOKEN_REVOKED").await;
    pair.assert_good(&server, &token).await;
    let operator = server.operator().await;
    operator.keys(&server).await.expect("the new token is valid");
    assert_field(operator.revoke_tokens(&server, "a b").await, "client_id");

    // Revoking a client's tokens takes the scope `tokens:revoke`.
    let clerk = server.operator_with("clerk", &["clients:write", "operators:write"]).await;
    let answer = clerk.revoke_tokens(&server, "order").await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn repeated_cuts_are_refused_before_new_tokens_are_dated_too_far_ahead() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let operator = server.operator().await;
    let mut cuts = 0;
    let refused = loop {
        match operator.revoke_tokens(&server, "order").await {
            Ok(_) if cuts < 30 => cuts += 1,
            answer => break answer,
        }
    };
    assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");
    assert!(cuts > 10, "{cuts}");
    pair.assert_good(&server, &pair.token(&server).await).await;
    server.advance(2);
    operator.revoke_tokens(&server, "order").await.expect("a little later a cut is possible again");
}

/// A verifier whose clock is behind by as much as is allowed still accepts the token until then, so a verifier that
/// starts must still be told.
#[tokio::test]
async fn a_revocation_is_kept_until_every_clock_within_the_leeway_sees_the_token_expired() {
    let mut server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;
    pair.order.revoke_token(&server, whole(&token)).await.expect("its own token");
    for (seconds, told) in [(900 + 59, 1), (1, 0)] {
        server.advance(seconds);
        // An orderly stop runs the maintenance too.
        server.restart().await;
        let bundle = server.authority().bundle();
        assert_eq!(bundle.since(0, &["inventory".parse().expect("a name")]).tokens.len(), told);
    }
}

#[tokio::test]
async fn a_token_issued_before_the_clock_was_set_back_can_be_revoked() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    server.advance(600);
    let token = pair.token(&server).await;
    server.clock.set(START);
    pair.order.revoke_token(&server, whole(&token)).await.expect("its own token");
    server.advance(600);
    pair.assert_revoked(&server, &token).await;
}

#[tokio::test]
async fn revoking_a_clients_tokens_never_misses_those_issued_before_the_clock_was_set_back() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    server.advance(600);
    let token = pair.token(&server).await;
    server.clock.set(START + Duration::from_secs(594));
    let operator = server.operator().await;
    let refused = operator.revoke_tokens(&server, "order").await;
    // The call fails, because a cut at the current time would miss the token.
    assert_refused(refused, Code::FailedPrecondition, "CLOCK_BEHIND");
    let request = rpc::DeleteClientRequest { client_id: "order".into(), ..Default::default() };
    let request = crate::support::bearing(&operator.token, request);
    server.clients().delete_client(request).await.expect("the call is allowed");
    server.advance(30);
    pair.assert_revoked(&server, &token).await;
}

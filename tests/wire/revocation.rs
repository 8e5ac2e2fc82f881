//! Revoking tokens: one, or all of a client's.

use std::time::Duration;

use countersign::rpc::revoke_token_request::Target;
use countersign::rpc::{self, InactiveReason};
use tonic::Code;

use crate::caller::{Caller, tampered};
use crate::support::{START, TestServer, ask, assert_field, assert_refused};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// A client that may call `inventory`, and one that serves it.
struct Pair {
    order_secret: String,
    /// With its own scope at Countersign.
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

    pair.order.revoke_token(&server, whole(&token)).await.expect("its own");
    pair.assert_revoked(&server, &token).await;
    pair.assert_good(&server, &other).await;
    pair.order.revoke_token(&server, whole(&token)).await.expect("once more is fine");
    server.restart().await;
    pair.assert_revoked(&server, &token).await;
    pair.assert_good(&server, &other).await;
}

#[tokio::test]
async fn a_token_that_revokes_itself_is_shut_out() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let other = server.operator().await;
    operator.keys(&server).await.expect("the guard knows it now");
    operator.revoke_token(&server, whole(&operator.token)).await.expect("its own");
    operator.assert_shut_out(&server, "TOKEN_REVOKED").await;
    other.keys(&server).await.expect("the other one is good");
}

#[tokio::test]
async fn the_token_of_another_client_stays_good() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;

    // Not even whoever the token is for.
    let answer = pair.inventory.revoke_token(&server, whole(&token)).await;
    assert_refused(answer, Code::PermissionDenied, "TOKEN_NOT_OWNED");
    pair.assert_good(&server, &token).await;
    let operator = server.operator().await;
    operator.revoke_token(&server, whole(&token)).await.expect("with tokens:revoke");
    pair.assert_revoked(&server, &token).await;
}

#[tokio::test]
async fn by_its_id_a_token_is_revoked_only_with_the_scope_for_it() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;
    let id = pair.inventory.claims(&server, &token).await.token_id;

    // Its own, even: that the token is its own an id does not show.
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
async fn what_is_no_valid_token_needs_no_revoking() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let request = rpc::IssueTokenRequest {
        requested_ttl: Some(crate::caller::seconds(1)),
        ..ask("order", &pair.order_secret, "", &[])
    };
    let short = server.issue(request).await.expect("granted").access_token;
    // Past its leeway by our clock, and by one that is as far behind.
    server.advance(61);
    let forged = tampered(&pair.token(&server).await, 2);
    for token in ["noise", "a.b.c", &short, &forged] {
        pair.inventory.revoke_token(&server, whole(token)).await.expect("nothing to do");
    }
    assert_field(pair.order.revoke_token(&server, whole("")).await, "token");
    let long = "x".repeat(20_000);
    assert_field(pair.order.revoke_token(&server, whole(&long)).await, "token");
    let request = crate::support::bearing(&pair.order.token, rpc::RevokeTokenRequest::default());
    assert_field(server.tokens().revoke_token(request).await, "target");
}

#[tokio::test]
async fn all_tokens_of_a_client_up_to_this_second_die_and_later_ones_live() {
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
    // That with which the client could speak for itself is among them.
    let answer = pair.order.revoke_token(&server, whole(&early)).await;
    assert_refused(answer, Code::Unauthenticated, "TOKEN_REVOKED");

    // In the same second still, and after a restart.
    let later = pair.token(&server).await;
    let claims = pair.inventory.claims(&server, &later).await;
    assert!(claims.issue_time.expect("it is set").seconds >= before);
    server.restart().await;
    pair.assert_revoked(&server, &early).await;
    pair.assert_revoked(&server, &same_second).await;
    pair.assert_good(&server, &later).await;

    // Once more, in the same second: also those dated ahead.
    let again = operator.revoke_tokens(&server, "order").await.expect("revoked");
    assert!(again > before);
    pair.assert_revoked(&server, &later).await;
    pair.assert_good(&server, &pair.token(&server).await).await;
}

#[tokio::test]
async fn tokens_are_dated_by_the_clock_again_when_it_has_passed_the_cut() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let operator = server.operator().await;
    let before = operator.revoke_tokens(&server, "order").await.expect("revoked");
    server.clock.set(START + Duration::from_secs(60));
    let claims = pair.inventory.claims(&server, &pair.token(&server).await).await;
    assert!(claims.issue_time.expect("it is set").seconds > before);
    assert_eq!(claims.expires_in, Some(crate::caller::seconds(900)));
}

#[tokio::test]
async fn revoking_the_tokens_of_one_client_leaves_the_others_alone() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;
    let operator = server.operator().await;
    let nobody = operator.revoke_tokens(&server, "orders").await;
    assert_refused(nobody, Code::NotFound, "CLIENT_NOT_FOUND");
    operator.revoke_tokens(&server, "operator").await.expect("its own");
    operator.assert_shut_out(&server, "TOKEN_REVOKED").await;
    pair.assert_good(&server, &token).await;
    let operator = server.operator().await;
    operator.keys(&server).await.expect("its new token is good");
    assert_field(operator.revoke_tokens(&server, "a b").await, "client_id");

    // It takes a scope of its own.
    let clerk = server.operator_with("clerk", &["clients:write", "operators:write"]).await;
    let answer = clerk.revoke_tokens(&server, "order").await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn tokens_are_not_cut_off_so_often_that_new_ones_are_dated_too_far_ahead() {
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
    operator.revoke_tokens(&server, "order").await.expect("a moment later");
}

/// A verifier that starts when we would have forgotten, with a clock as far behind as a clock may be, is
/// still told.
#[tokio::test]
async fn a_revoked_token_is_remembered_until_no_clock_within_the_leeway_takes_it_for_valid() {
    let mut server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    let token = pair.token(&server).await;
    pair.order.revoke_token(&server, whole(&token)).await.expect("its own");
    for (seconds, told) in [(900 + 59, 1), (1, 0)] {
        server.advance(seconds);
        // What is due now and then is done at the end, too.
        server.restart().await;
        let bundle = server.authority().bundle();
        assert_eq!(bundle.since(0, &["inventory".parse().expect("a name")]).tokens.len(), told);
    }
}

#[tokio::test]
async fn a_token_from_before_the_clock_was_set_back_is_revoked_all_the_same() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    server.advance(600);
    let token = pair.token(&server).await;
    server.clock.set(START);
    pair.order.revoke_token(&server, whole(&token)).await.expect("its own");
    server.advance(600);
    pair.assert_revoked(&server, &token).await;
}

#[tokio::test]
async fn tokens_of_a_client_from_before_the_clock_was_set_back_do_not_survive_it() {
    let server = TestServer::start().await;
    let pair = Pair::register(&server).await;
    server.advance(600);
    let token = pair.token(&server).await;
    server.clock.set(START + Duration::from_secs(594));
    let operator = server.operator().await;
    let refused = operator.revoke_tokens(&server, "order").await;
    // Nobody is told that it was done when it was not.
    assert_refused(refused, Code::FailedPrecondition, "CLOCK_BEHIND");
    let request = rpc::DeleteClientRequest { client_id: "order".into(), ..Default::default() };
    let request = crate::support::bearing(&operator.token, request);
    server.clients().delete_client(request).await.expect("it is allowed");
    server.advance(30);
    pair.assert_revoked(&server, &token).await;
}

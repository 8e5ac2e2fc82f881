//! Issuing: which client gets a token, for what, and for how long.

use std::collections::HashSet;

use countersign::rpc;
use tonic::Code;
use tonic_types::StatusExt;

use crate::caller::{client, seconds};
use crate::support::{TestServer, ask, assert_field, assert_refused};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read", "stock:write"])];

/// Grants for two audiences. Each has scopes of its own, and one scope is in both.
const TWO: &[(&str, &[&str])] =
    &[("inventory", &["stock:read", "ping"]), ("payment", &["charge", "ping"])];

const DAY: i64 = 24 * 60 * 60;

fn whole_seconds(duration: Option<prost_types::Duration>) -> i64 {
    duration.expect("the field is set").seconds
}

#[tokio::test]
async fn a_disabled_client_is_rejected_until_it_is_enabled() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = server.register("order", STOCK, &[]).await;
    let ask = || server.issue(ask("order", &secret, "", &[]));

    let disable = |disabled| {
        operator.change(&server, "order", &["disabled"], move |client| client.disabled = disabled)
    };
    disable(true).await.expect("updated");
    assert_refused(ask().await, Code::Unauthenticated, "CLIENT_REJECTED");
    disable(false).await.expect("updated");
    ask().await.expect("the client is enabled again");
}

#[tokio::test]
async fn a_secret_works_until_it_expires() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    server.register("order", STOCK, &[]).await;
    let created = operator.new_secret(&server, "order", Some(60)).await.expect("created");
    let secret = created.client_secret;

    server.advance(59);
    server.issue(ask("order", &secret, "", &[])).await.expect("a second is left");
    server.advance(1);
    let answer = server.issue(ask("order", &secret, "", &[])).await;
    assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
}

#[tokio::test]
async fn a_deleted_client_is_rejected_even_after_its_id_is_registered_again() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = server.register("order", STOCK, &[]).await;
    operator.delete(&server, "order", "").await.expect("deleted");
    let answer = server.issue(ask("order", &secret, "", &[])).await;
    assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");

    let new_secret = server.register("order", STOCK, &[]).await;
    let answer = server.issue(ask("order", &secret, "", &[])).await;
    assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
    server
        .issue(ask("order", &new_secret, "", &[]))
        .await
        .expect("the new client has its own secret");
}

#[tokio::test]
async fn every_rejection_of_a_client_reads_the_same() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let order = server.register("order", STOCK, &[]).await;
    let expiring = operator.new_secret(&server, "order", Some(1)).await.expect("created");
    let disabled = server.register("disabled", STOCK, &[]).await;
    let off = |client: &mut rpc::Client| client.disabled = true;
    operator.change(&server, "disabled", &["disabled"], off).await.expect("updated");
    operator.create(&server, client("bare", STOCK, &[])).await.expect("created");
    server.advance(1);

    let mut answers = HashSet::new();
    for (client, secret) in [
        ("nobody", &order),
        ("bare", &order),
        ("order", &disabled),
        ("order", &expiring.client_secret),
        ("order", &"noise".to_owned()),
        ("disabled", &disabled),
        ("disabled", &order),
    ] {
        let status = server.issue(ask(client, secret, "", &[])).await.expect_err("rejected");
        let info = status.get_details_error_info().expect("every error carries ErrorInfo");
        answers.insert((status.code() as i32, info.reason, status.message().to_owned()));
        answers.insert((
            status.code() as i32,
            "CLIENT_REJECTED".to_owned(),
            status.message().to_owned(),
        ));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    server.issue(ask("order", &order, "", &[])).await.expect("the right secret works");
}

#[tokio::test]
async fn a_client_gets_the_scopes_that_it_was_granted_and_no_others() {
    let server = TestServer::start().await;
    let secret = server.register("order", TWO, &[]).await;
    let ask = |audience, scopes: &[&str]| server.issue(ask("order", &secret, audience, scopes));

    let issued = ask("inventory", &["ping", "stock:read", "ping"]).await.expect("granted");
    assert_eq!(issued.scopes, ["ping", "stock:read"]);
    // A scope that nobody has, a scope of another audience, and one that begins with a granted scope.
    for scope in ["stock:burn", "charge", "stock:read:all"] {
        let answer = ask("inventory", &["stock:read", scope]).await;
        assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
    }
    assert_refused(ask("", &["stock:burn"]).await, Code::PermissionDenied, "SCOPE_DENIED");
    for audience in ["shipping", "Inventory", "inventory/"] {
        let answer = ask(audience, &[]).await;
        assert_refused(answer, Code::PermissionDenied, "AUDIENCE_DENIED");
    }
}

#[tokio::test]
async fn the_audience_is_inferred_only_if_exactly_one_fits() {
    let server = TestServer::start().await;
    let secret = server.register("order", TWO, &[]).await;
    let ask = |scopes: &[&str]| server.issue(ask("order", &secret, "", scopes));

    assert_eq!(ask(&["charge"]).await.expect("one audience has the scope").audience, "payment");
    assert_eq!(
        ask(&["ping", "stock:read"]).await.expect("one audience has both scopes").audience,
        "inventory"
    );
    for ambiguous in [&[][..], &["ping"], &["charge", "stock:read"]] {
        assert_refused(ask(ambiguous).await, Code::PermissionDenied, "AUDIENCE_DENIED");
    }
}

#[tokio::test]
async fn a_request_without_an_audience_never_means_countersign() {
    let server = TestServer::start().await;
    let operator = |audience, scopes: &[&str]| {
        server.issue(ask("operator", &server.operator_secret, audience, scopes))
    };
    operator("countersign", &["keys:rotate"]).await.expect("the audience is named");
    assert_refused(operator("", &[]).await, Code::PermissionDenied, "AUDIENCE_DENIED");
    let answer = operator("", &["keys:rotate"]).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");

    // With one grant for another audience, that audience is inferred.
    let grants = [("countersign", &["keys:read"][..]), ("inventory", &["stock:read"])];
    let secret = server.register("both", &grants, &[]).await;
    let issued = server.issue(ask("both", &secret, "", &[])).await.expect("granted");
    assert_eq!(issued.audience, "inventory");
    let answer = server.issue(ask("both", &secret, "", &["keys:read"])).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
}

#[tokio::test]
async fn every_client_has_ordinary_scopes_and_those_that_serve_have_more() {
    let server = TestServer::start().await;
    let caller = server.register("caller", STOCK, &[]).await;
    let callee = server.register("callee", &[], &["inventory"]).await;

    let issued = server
        .issue(ask("caller", &caller, "countersign", &[]))
        .await
        .expect("every client has ordinary scopes");
    assert_eq!(issued.scopes, ["tokens:revoke-own"]);
    let issued = server
        .issue(ask("callee", &callee, "countersign", &[]))
        .await
        .expect("every client has ordinary scopes");
    assert_eq!(issued.scopes, ["tokens:revoke-own", "tokens:validate", "trust:watch"]);
    let answer = server.issue(ask("caller", &caller, "countersign", &["tokens:validate"])).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
    // Any other scope needs a grant.
    let answer = server.issue(ask("callee", &callee, "countersign", &["tokens:revoke"])).await;
    assert_refused(answer, Code::PermissionDenied, "AUDIENCE_DENIED");
}

#[tokio::test]
async fn a_requested_life_can_shorten_a_token_and_not_lengthen_it() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let life = |requested| {
        let requested_ttl = Some(prost_types::Duration { seconds: requested, nanos: 999_999_999 });
        let request = rpc::IssueTokenRequest { requested_ttl, ..ask("order", &secret, "", &[]) };
        async { whole_seconds(server.issue(request).await.expect("granted").expires_in) }
    };
    for (requested, given) in [(1, 1), (60, 60), (899, 899), (901, 900), (i64::MAX, 900)] {
        assert_eq!(life(requested).await, given, "{requested}");
    }
}

#[tokio::test]
async fn a_client_can_have_its_own_maximum_token_lifetime() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let secret = server.register("order", STOCK, &[]).await;
    let set = |ttl: Option<prost_types::Duration>| {
        operator.change(&server, "order", &["max_token_ttl"], move |client| {
            client.max_token_ttl = ttl;
        })
    };
    let life = |requested: Option<i64>| {
        let requested_ttl = requested.map(seconds);
        let request = rpc::IssueTokenRequest { requested_ttl, ..ask("order", &secret, "", &[]) };
        async { whole_seconds(server.issue(request).await.expect("granted").expires_in) }
    };

    let updated = set(Some(seconds(60))).await.expect("updated");
    assert_eq!(updated.max_token_ttl, Some(seconds(60)));
    assert_eq!((life(None).await, life(Some(61)).await, life(Some(59)).await), (60, 60, 59));
    set(Some(seconds(DAY))).await.expect("a day is the most");
    assert_eq!(life(None).await, DAY);
    for refused in [DAY + 1, i64::MAX, 0, -1] {
        assert_field(set(Some(seconds(refused))).await, "client.max_token_ttl");
    }
    assert_eq!(life(None).await, DAY, "what was refused changed nothing");
    set(None).await.expect("updated");
    assert_eq!(life(None).await, 900, "the default again");
}

#[tokio::test]
async fn refresh_times_are_spread_over_the_middle_of_a_tokens_lifetime() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let mut millis = HashSet::new();
    for _ in 0..16 {
        let issued = server.issue(ask("order", &secret, "", &[])).await.expect("granted");
        let refresh_in = issued.refresh_in.expect("the field is set");
        let at = refresh_in.seconds * 1000 + i64::from(refresh_in.nanos) / 1_000_000;
        assert!((360_000..=540_000).contains(&at), "{at}");
        millis.insert(at);
    }
    // The times are spread over 65,536 values. It is practically impossible that sixteen of them give only two.
    assert!(millis.len() > 2, "{millis:?}");
}

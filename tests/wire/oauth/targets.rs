//! `audience` and `resource` (RFC 8707): which service a token is for.

use countersign::rpc;
use tonic::Code;

use crate::caller::client;
use crate::oauth::call::{Answer, assert_error, basic, token};
use crate::support::{TestServer, assert_field, assert_refused};

const GRANTS: &[(&str, &[&str])] = &[("shop", &["read"]), ("till", &["read"])];

const SHOP: &str = "https://shop.test/api";

fn alias(uri: &str, audience: &str) -> rpc::ResourceAlias {
    rpc::ResourceAlias { uri: uri.to_owned(), audience: audience.to_owned() }
}

/// A client that serves audiences and has other names for them.
fn serving(id: &str, serves: &[&str], aliases: &[(&str, &str)]) -> rpc::Client {
    let resources = aliases.iter().map(|(uri, audience)| alias(uri, audience)).collect();
    rpc::Client { resources, ..client(id, &[], serves) }
}

/// A server where `shop` and `till` have other names, and the header of one that may call both.
async fn start() -> (TestServer, String) {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let shop = [(SHOP, "shop"), ("urn:shop?a=b", "shop"), ("https://both.test/", "shop")];
    operator.create(&server, serving("shop", &["shop"], &shop)).await.expect("created");
    let till = [("https://till.test/", "till"), ("https://both.test/", "till")];
    operator.create(&server, serving("till", &["till"], &till)).await.expect("created");
    let secret = server.register("order", GRANTS, &[]).await;
    (server, basic("order", &secret))
}

/// The audience of the token in an answer.
fn audience(answer: &Answer) -> String {
    let token = countersign_mesh::token::unverified_claims(&answer.text("access_token"));
    token.expect("a token").claims["aud"].as_str().expect("one audience").to_owned()
}

#[tokio::test]
async fn an_audience_is_a_name_and_a_resource_another_name_for_it() {
    let (mut server, order) = start().await;
    for _ in 0..2 {
        for (target, meant) in [
            ("&audience=shop", "shop"),
            ("&audience=till", "till"),
            ("&resource=https%3A%2F%2Fshop.test%2Fapi", "shop"),
            ("&resource=https://shop.test/api", "shop"),
            ("&resource=https://till.test/", "till"),
            ("&resource=https://shop.test/api&resource=urn:shop?a%3Db", "shop"),
            ("&resource=https://shop.test/api&resource=https://shop.test/api", "shop"),
            ("&resource=https://shop.test/api&resource=&audience=shop", "shop"),
        ] {
            let answer = token(&server, &order, target).await;
            assert_eq!(answer.status, 200, "{target} {answer:?}");
            assert_eq!(audience(&answer), meant, "{target}");
        }
        // What a store remembers is what it was told.
        server.restart().await;
    }
}

#[tokio::test]
async fn a_target_that_is_not_clear_is_invalid() {
    let (server, order) = start().await;
    for target in [
        "",
        "&audience=nowhere",
        "&audience=countersign/",
        "&audience=sh%20op",
        "&audience=https://shop.test/%3F",
        "&resource=https://nowhere.test/",
        "&resource=https://shop.test/api/",
        "&resource=shop",
        "&resource=/api",
        "&resource=//shop.test/api",
        "&resource=https://shop.test/api%23part",
        "&resource=https://shop.test/api%23",
        "&resource=https://both.test/",
        "&resource=https://shop.test/api&resource=https://till.test/",
        "&resource=https://shop.test/api&resource=https://nowhere.test/",
        "&resource=https://shop.test/api&audience=till",
    ] {
        assert_error(&token(&server, &order, target).await, 400, "invalid_target");
    }
    let twice = token(&server, &order, "&audience=shop&audience=shop").await;
    assert_error(&twice, 400, "invalid_request");
}

#[tokio::test]
async fn what_resources_mean_is_told_only_to_those_who_prove_who_they_are() {
    let (server, _) = start().await;
    let wrong = basic("order", "noise");
    for target in ["&resource=https://shop.test/api", "&resource=https://nowhere.test/"] {
        assert_error(&token(&server, &wrong, target).await, 401, "invalid_client");
    }
    let secret = server.register("stranger", &[("other", &["read"])], &[]).await;
    let ask = |target| {
        let stranger = basic("stranger", &secret);
        let server = &server;
        async move { token(server, &stranger, target).await.without_id() }
    };
    let (known, unknown) = (
        ask("&resource=https://shop.test/api").await,
        ask("&resource=https://nowhere.test/").await,
    );
    assert_error(&known, 400, "invalid_target");
    assert_eq!(known, unknown);
}

#[tokio::test]
async fn a_request_without_an_audience_never_means_countersign() {
    let server = TestServer::start().await;
    let operator = basic("operator", &server.operator_secret);
    assert_error(&token(&server, &operator, "").await, 400, "invalid_target");
    let answer = token(&server, &operator, "&audience=countersign&scope=keys:read").await;
    assert_eq!(
        (audience(&answer).as_str(), answer.text("scope").as_str()),
        ("countersign", "keys:read")
    );
    let answer = token(&server, &operator, "&scope=keys:read").await;
    assert_error(&answer, 400, "invalid_scope");
}

#[tokio::test]
async fn who_has_no_grant_for_countersign_asks_for_a_wrong_target() {
    let server = TestServer::start().await;
    let secret = server.register("order", &[("shop", &["read"])], &[]).await;
    let order = basic("order", &secret);
    let answer = token(&server, &order, "&audience=countersign&scope=keys:read").await;
    assert_error(&answer, 400, "invalid_target");
    // An operator who lacks the scope has the target right.
    let operator = basic("operator", &server.operator_secret);
    let answer = token(&server, &operator, "&audience=countersign&scope=keys:eat").await;
    assert_error(&answer, 400, "invalid_scope");
    // What every client holds is no question of grants.
    let answer = token(&server, &order, "&audience=countersign").await;
    assert_eq!(audience(&answer), "countersign");
}

#[tokio::test]
async fn a_resource_means_what_clients_name_it_for_now() {
    let (server, order) = start().await;
    let operator = server.operator().await;
    let ask = || token(&server, &order, "&resource=https://both.test/");
    assert_error(&ask().await, 400, "invalid_target");

    let only = |client: &mut rpc::Client| client.resources = vec![alias(SHOP, "shop")];
    let updated = operator.change(&server, "shop", &["resources"], only).await.expect("updated");
    assert_eq!(updated.resources, [alias(SHOP, "shop")]);
    assert_eq!(audience(&ask().await), "till", "only one is left who names it");
    operator.delete(&server, "till", "").await.expect("deleted");
    assert_error(&ask().await, 400, "invalid_target");
}

#[tokio::test]
async fn a_client_names_only_audiences_that_it_serves() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let create = |id, serves, aliases| operator.create(&server, serving(id, serves, aliases));
    create("shop", &["shop"], &[(SHOP, "shop")]).await.expect("it serves shop");

    for stranger in [create("a", &[], &[(SHOP, "shop")]), create("a", &["till"], &[(SHOP, "shop")])]
    {
        let refused = stranger.await;
        assert_refused(refused.clone(), Code::InvalidArgument, "AUDIENCE_DENIED");
        assert_field(refused, "client.resources");
    }
    let relative = create("a", &["shop"], &[("/api", "shop")]).await;
    assert_field(relative, "client.resources[0].uri");
    let twice = create("a", &["shop"], &[(SHOP, "shop"), (SHOP, "shop")]).await;
    assert_field(twice, "client.resources");
    let leaves =
        operator.change(&server, "shop", &["serves"], |client| client.serves.clear()).await;
    assert_field(leaves, "client.resources");
}

//! The guard before axum routes.

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use countersign_mesh::guard::{
    Access, Guard, MethodPolicy, Permitted, Refusal, ServicePolicy, Trust,
};
use countersign_mesh::testing::TestIssuer;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::support::{POLICIES, audience};

fn routes(guard: &Guard) -> Router {
    let customers = |Extension(caller): Extension<Permitted>| async move {
        caller.claims().client_id.to_string()
    };
    Router::new()
        .route("/customers", get(customers))
        .route_layer(guard.require(["customers:read", "customers:list"]))
        .route("/open", get(|| async { "open" }))
}

async fn get_with(
    routes: &Router,
    path: &str,
    authorization: Option<String>,
) -> Response<axum::body::Body> {
    let mut request = Request::get(path);
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(axum::body::Body::empty()).expect("a request");
    routes.clone().oneshot(request).await.expect("axum never fails")
}

async fn body(response: Response<axum::body::Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_route_admits_tokens_with_its_scopes_and_answers_others_as_rfc_6750_says() {
    let issuer = TestIssuer::new();
    let routes = routes(&issuer.guard(&[]).build().for_audience(audience("crm")));
    let order = || issuer.token("order").audience("crm").scopes("customers:read customers:list");

    let good = get_with(&routes, "/customers", Some(order().mint().bearer())).await;
    assert_eq!(good.status(), StatusCode::OK);
    assert_eq!(body(good).await, "order");
    assert_eq!(get_with(&routes, "/open", None).await.status(), StatusCode::OK);

    let invalid = r#"Bearer realm="crm", error="invalid_token""#;
    let cases = [
        (None, 401, r#"Bearer realm="crm""#, "TOKEN_MISSING"),
        (Some("Basic b3JkZXI6eA==".to_owned()), 401, invalid, "TOKEN_INVALID"),
        (Some(order().forged().mint().bearer()), 401, invalid, "TOKEN_INVALID"),
        (Some(order().expired().mint().bearer()), 401, invalid, "TOKEN_EXPIRED"),
        (Some(order().signed_by_stranger().mint().bearer()), 401, invalid, "KEY_UNKNOWN"),
        (Some(order().audience("echo").mint().bearer()), 401, invalid, "AUDIENCE_MISMATCH"),
        (
            Some(order().scopes("customers:read").mint().bearer()),
            403,
            r#"Bearer realm="crm", error="insufficient_scope", scope="customers:list customers:read""#,
            "SCOPE_MISSING",
        ),
    ];
    for (authorization, status, challenge, reason) in cases {
        let response = get_with(&routes, "/customers", authorization).await;
        assert_eq!(response.status(), status, "{reason}");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], challenge);
        let refusal = response.extensions().get::<Refusal>().map(Refusal::reason);
        assert_eq!(refusal, Some(reason));
        let body: serde_json::Value = serde_json::from_str(&body(response).await).expect("JSON");
        assert_eq!(body["reason"], reason);
        let error = if status == 403 { "insufficient_scope" } else { "invalid_token" };
        assert_eq!(body["error"], error);
    }
}

#[tokio::test]
async fn without_a_trust_bundle_a_route_answers_503() {
    let (_bundles, bundle) = watch::channel(None);
    let guard = Guard::new(Trust::live(bundle, Arc::default()), &[]).for_audience(audience("crm"));
    let token = TestIssuer::new().token("order").audience("crm").mint();
    let response = get_with(&routes(&guard), "/customers", Some(token.bearer())).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
}

#[tokio::test]
async fn routes_take_the_audience_of_the_services_beside_them() {
    let issuer = TestIssuer::new();
    let routes = routes(&issuer.guard(POLICIES).build());
    let token = issuer.token("order").audience("echo").scopes("customers:read customers:list");
    let response = get_with(&routes, "/customers", Some(token.mint().bearer())).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn routes_beside_services_of_two_audiences_are_refused() {
    const OTHER: &[ServicePolicy] = &[ServicePolicy {
        service: "test.Other",
        audience: "other",
        methods: &[MethodPolicy { path: "/test.Other/Call", access: Access::Scopes(&[]) }],
    }];
    let issuer = TestIssuer::new();
    let routes = routes(&issuer.guard(POLICIES).services(OTHER).build());
    for audience in ["echo", "other"] {
        let token = issuer.token("order").audience(audience);
        let token = token.scopes("customers:read customers:list").mint();
        let response = get_with(&routes, "/customers", Some(token.bearer())).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn routes_without_an_audience_are_refused() {
    let issuer = TestIssuer::new();
    let token = issuer.token("order").scopes("customers:read customers:list").mint();
    let response =
        get_with(&routes(&issuer.guard(&[]).build()), "/customers", Some(token.bearer())).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

//! What the types promise and only a running guard can show.

use std::convert::Infallible;

use countersign::policy::Operator;
use countersign_mesh::claims::Audience;
use countersign_mesh::guard;
use countersign_mesh::testing::TestIssuer;
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};

/// The operator that a handler makes of a call that was permitted with a token for this audience.
async fn operator_of_a_call_for(audience: &str) -> Option<Operator> {
    let issuer = TestIssuer::new();
    let guard = issuer.guard(&[]).build();
    let routes = guard.for_audience(Audience::new(audience).expect("an audience"));
    let handler = service_fn(|request: Request<String>| async move {
        let call = guard::caller(request.extensions()).expect("the route demands a token");
        let mut response = Response::new(String::new());
        response.extensions_mut().insert(Operator::permitted(call));
        Ok::<_, Infallible>(response)
    });
    let token = issuer.token("ops").audience(audience).scopes("clients:write").mint();
    let request = Request::builder()
        .header("authorization", format!("Bearer {}", token.expose()))
        .body(String::new())
        .expect("a request");
    let response = routes.require(["clients:write"]).layer(handler).oneshot(request).await;
    let response = response.expect("it does not fail");
    response.extensions().get::<Option<Operator>>().expect("the call is permitted").clone()
}

#[tokio::test]
async fn only_a_call_of_countersign_makes_an_operator() {
    let operator = operator_of_a_call_for("countersign").await.expect("an operator");
    assert_eq!(operator.client_id().as_str(), "ops");
    assert!(operator.holds("clients:write"));
    // Another service may well name a scope of its own the same.
    assert!(operator_of_a_call_for("inventory").await.is_none());
}

//! The guard in front of Countersign's own services: which calls it accepts, and which it refuses.

use std::time::Duration;

use countersign::rpc;
use countersign_mesh::guard::Access;
use http::uri::PathAndQuery;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1 as reflection;
use tonic_types::StatusExt;

use crate::caller::{ALL_SCOPES, tampered};
use crate::support::{START, TestServer, ask, assert_refused, bearing};

const LIST_KEYS: &str = "/countersign.v1.KeyService/ListKeys";

/// How a service refuses an empty message, after the guard has accepted the call.
const INVALID: (Code, &str) = (Code::InvalidArgument, "REQUEST_INVALID");

/// Calls any path with an empty message. Every request type can be decoded from it.
async fn call(server: &TestServer, path: &str, request: Request<()>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.expect("the server is there");
    let path = PathAndQuery::try_from(path).expect("a valid path");
    grpc.unary(request, path, ProstCodec::<(), ()>::default()).await.map(Response::into_inner)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error carries ErrorInfo").reason
}

/// Every method that is not public, with the scopes that it demands.
fn methods() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    rpc::POLICIES.iter().flat_map(|service| service.methods).filter_map(|method| {
        match method.access {
            Access::Public => None,
            Access::Scopes(scopes) => Some((method.path, scopes)),
        }
    })
}

fn with_authorization(values: &[&str]) -> Request<()> {
    let mut request = Request::new(());
    for value in values {
        request.metadata_mut().append("authorization", value.parse().expect("ASCII"));
    }
    request
}

#[tokio::test]
async fn only_issuing_can_be_called_without_a_token() {
    let server = TestServer::start().await;
    assert!(methods().count() >= 14);
    for (path, _) in methods() {
        let answer = call(&server, path, Request::new(())).await;
        assert_refused(answer, Code::Unauthenticated, "TOKEN_MISSING");
    }
    let open: Vec<&str> = rpc::POLICIES
        .iter()
        .flat_map(|service| service.methods)
        .filter(|method| method.access == Access::Public)
        .map(|method| method.path)
        .collect();
    assert_eq!(open, ["/countersign.v1.TokenService/IssueToken"]);
    // This answer comes from the service, not from the guard.
    let answer = call(&server, open[0], Request::new(())).await;
    assert_refused(answer, Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn every_method_demands_its_scopes_and_nothing_more() {
    let server = TestServer::start().await;
    // An operator that serves an audience holds all scopes of Countersign.
    let grants = [("countersign", ALL_SCOPES)];
    let secret = server.register("all", &grants, &["inventory"]).await;
    let issue = |scopes: &[&str]| server.issue(ask("all", &secret, "countersign", scopes));
    let held = issue(&[]).await.expect("granted").scopes;
    for (path, scopes) in methods() {
        assert!(!scopes.is_empty(), "{path}");
        let others: Vec<&str> =
            held.iter().map(String::as_str).filter(|scope| !scopes.contains(scope)).collect();
        let without = issue(&others).await.expect("granted").access_token;
        let answer = call(&server, path, bearing(&without, ())).await;
        assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");

        let with = issue(scopes).await.expect("granted").access_token;
        if let Err(status) = call(&server, path, bearing(&with, ())).await {
            // The guard accepted the call; the service refuses the empty message.
            assert_eq!((status.code(), reason(&status).as_str()), INVALID, "{path}");
        }
    }
}

#[tokio::test]
async fn a_token_is_read_only_from_one_authorization_header_with_scheme_bearer() {
    let server = TestServer::start().await;
    let token = server.operator_token().await;
    let list = async |request| call(&server, LIST_KEYS, request).await;

    for scheme in ["Bearer", "bearer", "BEARER"] {
        list(with_authorization(&[&format!("{scheme} {token}")]))
            .await
            .expect("the scheme is case-insensitive (RFC 9110 §11.1)");
    }
    let good = format!("Bearer {token}");
    for bad in [
        &[&*good, &*good][..],
        &[&*good, "Bearer noise"],
        &["Bearer noise", &*good],
        &[&*token],
        &[&*format!("Basic {token}")],
        &[&*format!("DPoP {token}")],
        &[&*format!("Bearer  {token}")],
        &[&*format!("Bearer {token} {token}")],
        &[&*format!("Bearer {token},")],
        &[&*format!("Bearer {token}=")],
        &["Bearer noise"],
        &["Bearer "],
        &["Bearer"],
        &[""],
    ] {
        let answer = list(with_authorization(bad)).await;
        assert_refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
    }
    let mut elsewhere = Request::new(());
    elsewhere.metadata_mut().insert("x-authorization", good.parse().expect("ASCII"));
    assert_refused(list(elsewhere).await, Code::Unauthenticated, "TOKEN_MISSING");
}

#[tokio::test]
async fn a_tampered_token_is_refused_even_if_the_guard_has_cached_the_real_one() {
    let server = TestServer::start().await;
    let token = server.operator_token().await;
    call(&server, LIST_KEYS, bearing(&token, ()))
        .await
        .expect("the token is valid, and the guard caches it");
    for part in [1, 2] {
        let answer = call(&server, LIST_KEYS, bearing(&tampered(&token, part), ())).await;
        assert_refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
    }
    let (signed, _signature) = token.rsplit_once('.').expect("a token has three parts");
    for unsigned in [signed.to_owned(), format!("{signed}.")] {
        let answer = call(&server, LIST_KEYS, bearing(&unsigned, ())).await;
        assert_refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
    }
}

#[tokio::test]
async fn a_token_of_another_store_is_refused_because_its_key_is_unknown() {
    // The two servers have the same issuer.
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let token = other.operator_token().await;
    let answer = call(&server, LIST_KEYS, bearing(&token, ())).await;
    assert_refused(answer, Code::Unauthenticated, "KEY_UNKNOWN");
    call(&other, LIST_KEYS, bearing(&token, ())).await.expect("its own server accepts it");
}

#[tokio::test]
async fn a_token_expires_after_the_leeway_whether_or_not_the_guard_has_cached_it() {
    let server = TestServer::start().await;
    let (known, fresh) = (server.operator_token().await, server.operator_token().await);
    server.advance(929);
    call(&server, LIST_KEYS, bearing(&known, ())).await.expect("a second is left");
    server.advance(1);
    for token in [known, fresh] {
        let answer = call(&server, LIST_KEYS, bearing(&token, ())).await;
        assert_refused(answer, Code::Unauthenticated, "TOKEN_EXPIRED");
    }
}

#[tokio::test]
async fn a_token_issued_in_the_future_is_refused_beyond_the_leeway() {
    let server = TestServer::start().await;
    let token = server.operator_token().await;
    server.clock.set(START.before(Duration::from_secs(31)));
    let answer = call(&server, LIST_KEYS, bearing(&token, ())).await;
    assert_refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
    server.clock.set(START.before(Duration::from_secs(30)));
    call(&server, LIST_KEYS, bearing(&token, ())).await.expect("within the leeway");
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused_and_the_error_names_the_right_one() {
    let server = TestServer::start().await;
    let grants = [("inventory", &["keys:read"][..]), ("countersign", &["keys:read"])];
    let secret = server.register("both", &grants, &[]).await;
    let token = server.token("both", &secret, "inventory").await.token;
    let status = call(&server, LIST_KEYS, bearing(&token, ())).await.expect_err("refused");
    let info = status.get_details_error_info().expect("every error carries ErrorInfo");
    assert_eq!(info.metadata.get("audience").map(String::as_str), Some("countersign"));
    assert_refused::<()>(Err(status), Code::Unauthenticated, "AUDIENCE_MISMATCH");
    let token = server.token("both", &secret, "countersign").await.token;
    call(&server, LIST_KEYS, bearing(&token, ())).await.expect("this token has the right audience");
}

#[tokio::test]
async fn an_undeclared_method_is_unimplemented_for_every_caller() {
    let server = TestServer::start().await;
    let token = server.operator_token().await;
    for path in [
        "/countersign.v1.KeyService/ExportKeys",
        "/countersign.v1.KeyService/listKeys",
        "/countersign.v1.KeyService/ListKeys/",
        "/countersign.v1.KeyService//ListKeys",
        "/countersign.v1.KeyService/%4cistKeys",
        "/countersign.v1.Nothing/Nothing",
        "/grpc.health.v1.Health/../countersign.v1.KeyService/ListKeys",
        "/grpc.health.v1.Health/Nothing",
        "/",
    ] {
        for request in [Request::new(()), bearing(&token, ())] {
            let answer = call(&server, path, request).await;
            assert_refused(answer, Code::Unimplemented, "METHOD_UNDECLARED");
        }
    }
}

#[tokio::test]
async fn health_checks_need_no_token() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    let services = rpc::POLICIES.iter().map(|policy| policy.service);
    for service in services.chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect("the method needs no token").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest { service: "nothing".to_owned() };
    let status = health.check(request).await.expect_err("there is no such service");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn anyone_may_call_the_reflection_service() {
    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;

    let server = TestServer::start().await;
    let ask = reflection::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client =
        reflection::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let asked = tokio_stream::once(ask);
    let mut answers =
        client.server_reflection_info(asked).await.expect("the method needs no token").into_inner();
    let answer = answers.message().await.expect("an answer").expect("one answer");
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("another answer: {answer:?}");
    };
    for service in rpc::POLICIES.iter().map(|policy| policy.service) {
        assert!(listed.service.iter().any(|listed| listed.name == service), "{service}");
    }
}

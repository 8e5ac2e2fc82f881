//! A session's calls, against Countersign's own services: they are protected like anyone's.

use std::time::Duration;

use countersign::guard::Access;
use countersign::guard::Guard;
use countersign::guard::MethodPolicy;
use countersign::guard::ServicePolicy;
use countersign::mesh::Credentials;
use countersign::mesh::Session;
use countersign::rpc;
use countersign::rpc::key_service_client::KeyServiceClient;
use countersign::rpc::token_service_client::TokenServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

use crate::support::TestServer;
use crate::support::assert_refused;
use crate::support::id;

fn session(server: &TestServer, client: &str, secret: &str) -> Session {
    Session::builder(&server.url, Credentials::new(id(client), secret))
        .connect()
        .expect("a loopback address")
}

#[tokio::test]
async fn a_call_carries_what_its_method_demands() {
    let server = TestServer::start().await;
    let secret = server.register("inventory", &[], &["inventory"]).await;
    let session = session(&server, "inventory", &secret);
    let transport = session.attach(server.channel.clone(), rpc::POLICIES);

    let question = rpc::ValidateTokenRequest { token: "noise".to_owned(), ..Default::default() };
    let answer = TokenServiceClient::new(transport.clone()).validate_token(question).await;
    assert!(!answer.expect("the call carries tokens:validate").into_inner().active);

    let refused = KeyServiceClient::new(transport).list_keys(rpc::ListKeysRequest::default()).await;
    let status = refused.expect_err("the client may not have keys:read");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn a_call_of_a_method_that_is_not_declared_does_not_leave() {
    let server = TestServer::start().await;
    let session = session(&server, "operator", &server.operator_secret);
    let transport = session.attach(server.channel.clone(), &rpc::POLICIES[..1]);
    let refused = KeyServiceClient::new(transport).list_keys(rpc::ListKeysRequest::default()).await;
    assert_eq!(refused.expect_err("it is not declared").code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_revoked_token_costs_the_call_one_retry() {
    let server = TestServer::start().await;
    let session = session(&server, "operator", &server.operator_secret);
    let mut keys = KeyServiceClient::new(session.attach(server.channel.clone(), rpc::POLICIES));
    let before =
        keys.list_keys(rpc::ListKeysRequest::default()).await.expect("allowed").into_inner();

    // The token that the session holds was signed with the active key.
    let active = before.keys[1].kid.clone();
    let revoke = rpc::RevokeKeyRequest { kid: active, ..Default::default() };
    server.keys().revoke_key(server.as_operator(revoke).await).await.expect("revoked");
    keys.list_keys(rpc::ListKeysRequest::default()).await.expect("allowed, with another token");
}

#[tokio::test]
async fn one_session_serves_both_directions() {
    let server = TestServer::start().await;
    let order = server.register("order", &[("shop", &["grpc:reflect"])], &[]).await;
    let caller = session(&server, "order", &order);
    let callee = session(&server, "order", &order);

    // Any service will do for a callee: this one reflects nothing but itself.
    const POLICIES: &[ServicePolicy] = &[ServicePolicy {
        service: "grpc.health.v1.Health",
        audience: "shop",
        methods: &[MethodPolicy {
            path: "/grpc.health.v1.Health/Check",
            access: Access::Scopes(&["grpc:reflect"]),
        }],
    }];
    let guard = Guard::builder(&callee).services(POLICIES).clock(server.clock.clone()).build();
    callee.ready(Duration::from_secs(10)).await.expect("the keys are there");
    let (_, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let shop = tonic::transport::Server::builder()
        .layer(guard)
        .add_service(health)
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(shop);

    let channel = Channel::from_shared(format!("http://{address}")).expect("valid").connect_lazy();
    let check = tonic_health::pb::HealthCheckRequest::default;
    let bare = HealthClient::new(channel.clone()).check(check()).await;
    assert_refused(bare, Code::Unauthenticated, "TOKEN_MISSING");
    let mut health = HealthClient::new(caller.attach(channel, POLICIES));
    caller.ready(Duration::from_secs(10)).await.expect("a token is there");
    health.check(check()).await.expect("allowed");
}

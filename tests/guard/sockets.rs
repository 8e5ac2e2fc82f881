//! A guarded server over a real socket, called by tonic's own client.

use std::net::SocketAddr;
use std::time::Duration;

use countersign_mesh::guard::{Access, MethodPolicy, ServicePolicy};
use countersign_mesh::testing::TestIssuer;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::reason;

const POLICIES: &[ServicePolicy] = &[ServicePolicy {
    service: "grpc.health.v1.Health",
    audience: "health",
    methods: &[
        MethodPolicy {
            path: "/grpc.health.v1.Health/Check",
            access: Access::Scopes(&["health:read"]),
        },
        MethodPolicy {
            path: "/grpc.health.v1.Health/Watch",
            access: Access::Scopes(&["health:watch"]),
        },
    ],
}];

async fn client(issuer: &TestIssuer) -> HealthClient<tonic::transport::Channel> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("it is bound");
    let (_, health) = tonic_health::server::health_reporter();
    let guard = issuer.guard(POLICIES).build();
    let server = Server::builder().layer(guard).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    HealthClient::new(endpoint.connect_lazy())
}

#[tokio::test]
async fn a_served_call_is_admitted_or_told_why_not() {
    let issuer = TestIssuer::new();
    let mut client = client(&issuer).await;
    let order = || issuer.token("order").audience("health").scopes("health:read");
    let question = HealthCheckRequest::default;

    client.check(order().mint().on(question())).await.expect("admitted");
    let cases = [
        (Request::new(question()), Code::Unauthenticated, "TOKEN_MISSING"),
        (order().scopes("").mint().on(question()), Code::PermissionDenied, "SCOPE_MISSING"),
        (order().audience("x").mint().on(question()), Code::Unauthenticated, "AUDIENCE_MISMATCH"),
        (order().issuer("http://x").mint().on(question()), Code::Unauthenticated, "TOKEN_INVALID"),
        (order().expired().mint().on(question()), Code::Unauthenticated, "TOKEN_EXPIRED"),
        (order().signed_by_stranger().mint().on(question()), Code::Unauthenticated, "KEY_UNKNOWN"),
    ];
    for (request, code, expected) in cases {
        let status = client.check(request).await.expect_err(expected);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
    }
}

#[tokio::test]
async fn a_served_stream_ends_when_its_token_is_revoked() {
    let issuer = TestIssuer::new();
    let mut client = client(&issuer).await;
    let token = issuer.token("order").audience("health").scopes("health:watch").mint();
    let watching = client.watch(token.on(HealthCheckRequest::default())).await.expect("admitted");
    let mut watching = watching.into_inner();
    watching.message().await.expect("the first answer");
    issuer.revoke_token(&token);
    let ended = tokio::time::timeout(Duration::from_secs(10), watching.message()).await;
    let status = ended.expect("it ends, and soon").expect_err("it ends with a reason");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_REVOKED"));
}

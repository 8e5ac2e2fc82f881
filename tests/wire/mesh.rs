//! The calls of a session. Most go to Countersign's own services, which a guard protects like any other.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use countersign::rpc;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::key_service_client::KeyServiceClient;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign_mesh::claims::{Audience, ScopeSet};
use countersign_mesh::guard::{Access, Guard, MethodPolicy, ServicePolicy};
use countersign_mesh::session::{Credentials, Session, SessionBuilder, TokenSource};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::caller::{new_credential, seconds};
use crate::support::{ISSUER, TestServer, ask, assert_refused, id};

fn session(server: &TestServer, client: &str, secret: &str) -> Session {
    Session::builder(&server.url, Credentials::new(id(client), secret))
        .connect()
        .expect("a loopback address")
}

#[tokio::test]
async fn a_call_carries_a_token_with_the_scopes_that_its_method_demands() {
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
    // The error itself says who refused the call and which grant is missing.
    let info = status.get_details_error_info().expect("the error has a reason");
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("AUDIENCE_DENIED", "countersign.dev")
    );
    assert_eq!(info.metadata["audience"], "countersign");
    assert_eq!(info.metadata["scopes"], "keys:read");
    assert!(status.message().contains("no grant for audience countersign"), "{status:?}");
}

#[tokio::test]
async fn a_call_of_an_undeclared_method_is_not_sent() {
    let server = TestServer::start().await;
    let session = session(&server, "operator", &server.operator_secret);
    let transport = session.attach(server.channel.clone(), &rpc::POLICIES[..1]);
    let refused = KeyServiceClient::new(transport).list_keys(rpc::ListKeysRequest::default()).await;
    assert_eq!(refused.expect_err("the method is not declared").code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_revoked_token_costs_the_call_one_retry() {
    let server = TestServer::start().await;
    let session = session(&server, "operator", &server.operator_secret);
    let mut keys = KeyServiceClient::new(session.attach(server.channel.clone(), rpc::POLICIES));
    let before =
        keys.list_keys(rpc::ListKeysRequest::default()).await.expect("allowed").into_inner();

    // The session's token was signed with the active key, so revoking the key revokes it.
    let active = before.keys[1].kid.clone();
    let revoke = rpc::RevokeKeyRequest { kid: active, ..Default::default() };
    server.keys().revoke_key(server.as_operator(revoke).await).await.expect("revoked");
    keys.list_keys(rpc::ListKeysRequest::default()).await.expect("allowed, with another token");
}

/// The callee is a health service. Any service would do.
const SHOP: &[ServicePolicy] = &[ServicePolicy {
    service: "grpc.health.v1.Health",
    audience: "shop",
    methods: &[MethodPolicy {
        path: "/grpc.health.v1.Health/Check",
        access: Access::Scopes(&["shop:look"]),
    }],
}];

/// A shop whose guard gets its trust from the shop's own session, and a channel to it.
async fn open_shop(server: &TestServer, session: &Session) -> Channel {
    let guard = Guard::builder(session).services(SHOP).clock(server.clock.clone()).build();
    session.ready(Duration::from_secs(10)).await.expect("the keys are there");
    let (_, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let shop = tonic::transport::Server::builder()
        .layer(guard)
        .add_service(health)
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(shop);
    Channel::from_shared(format!("http://{address}")).expect("valid").connect_lazy()
}

#[tokio::test]
async fn one_session_serves_both_directions() {
    let server = TestServer::start().await;
    let secret = server.register("order", &[("shop", &["shop:look"])], &[]).await;
    let caller = session(&server, "order", &secret);
    let channel = open_shop(&server, &session(&server, "order", &secret)).await;

    let bare = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    assert_refused(bare, Code::Unauthenticated, "TOKEN_MISSING");
    let mut shop = HealthClient::new(caller.attach(channel, SHOP));
    caller.ready(Duration::from_secs(10)).await.expect("a token is there");
    shop.check(HealthCheckRequest::default()).await.expect("allowed");
}

#[tokio::test]
async fn no_call_fails_while_the_keys_are_rotated_under_load() {
    const CALLERS: usize = 20;
    let server = TestServer::start().await;
    let secret = server.register("order", &[("shop", &["shop:look"])], &[]).await;
    let channel = open_shop(&server, &session(&server, "order", &secret)).await;
    let operator = server.operator().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (session, channel) = (session(&server, "order", &secret), channel.clone());
        let (stopped, called) = (stopped.clone(), called.clone());
        callers.spawn(async move {
            let mut shop = HealthClient::new(session.attach(channel, SHOP));
            // Callers go on until they are told to stop, and make a few more calls after that.
            let mut left = 5;
            while left > 0 {
                left -= u32::from(*stopped.borrow());
                shop.check(HealthCheckRequest::default()).await.expect("every call is valid");
                called.send(()).expect("someone counts");
            }
        });
    }
    for _ in 0..10 * CALLERS {
        calls.recv().await.expect("calls go on");
    }
    operator.rotate(&server).await.expect("allowed");
    // Tokens from before the rotations are valid, and so are tokens signed with the key that is active now.
    let late = session(&server, "order", &secret);
    let mut shop = HealthClient::new(late.attach(channel, SHOP));
    shop.check(HealthCheckRequest::default()).await.expect("the guard has had the next key");
    stop.send(true).expect("the callers still run");
    while let Some(ended) = callers.join_next().await {
        ended.expect("no call failed");
    }
}

/// Replaces a credentials file by renaming, so that a reader never sees half a file.
fn write_credentials(path: &Path, server: &TestServer, secret: &str) {
    let new = path.with_extension("new");
    let url = &server.url;
    let text = format!(
        "url = {url:?}\nissuer = {ISSUER:?}\nclient_id = \"order\"\nclient_secret = {secret:?}\n"
    );
    fs::write(&new, text).expect("the file can be written");
    fs::set_permissions(&new, Permissions::from_mode(0o600)).expect("the test owns the file");
    fs::rename(&new, path).expect("both are in the same directory");
}

fn shop_tokens(session: &Session, scopes: &str) -> TokenSource {
    let shop = Audience::new("shop").expect("an audience");
    session.token_source(shop, ScopeSet::parse(scopes).expect("scopes"))
}

#[tokio::test]
async fn no_call_fails_while_a_secret_is_rotated_under_a_session() {
    let server = TestServer::start().await;
    let old = server.register("order", &[("shop", &["shop:look", "shop:buy"])], &[]).await;
    let shop_secret = server.register("shop", &[], &["shop"]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("order.toml");
    write_credentials(&file, &server, &old);
    let caller = SessionBuilder::from_credentials_file(&file).expect("a credentials file");
    let caller = caller.connect().expect("a loopback address");
    let channel = open_shop(&server, &session(&server, "shop", &shop_secret)).await;
    let mut shop = HealthClient::new(caller.attach(channel, SHOP));
    let mut call = async || {
        shop.check(HealthCheckRequest::default()).await.expect("every call is valid");
    };
    let soon = || Instant::now() + Duration::from_secs(10);
    call().await;

    let request = rpc::CreateClientCredentialRequest {
        retire_others_when_idle: Some(seconds(60)),
        ..new_credential("order", Kind::Secret(rpc::ClientSecret {}))
    };
    let made = server.operator().await.create_credential(&server, request).await.expect("made");
    let last_uses = async || {
        let order =
            server.operator().await.read(&server, "order").await.expect("the client exists");
        order.credentials.iter().map(|secret| secret.last_use_time.is_some()).collect::<Vec<_>>()
    };
    call().await;
    assert_eq!(last_uses().await, [true, false]);
    write_credentials(&file, &server, &made.client_secret);
    call().await;

    // The session gets its next token with the new secret.
    let source = shop_tokens(&caller, "shop:look");
    let first = source.token(soon()).await.expect("a token");
    source.replace(&first, soon()).await.expect("another token");
    assert_eq!(last_uses().await, [true, true]);
    call().await;

    server.advance(60);
    server.authority().maintain(server.clock.now()).await.expect("the store can be written");
    let answer = server.issue(ask("order", &old, "", &[])).await;
    assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
    assert_eq!(last_uses().await, [true]);
    call().await;
    shop_tokens(&caller, "shop:buy").token(soon()).await.expect("a token by the new secret");
}

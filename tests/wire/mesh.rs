//! A session's calls, against Countersign's own services: they are protected like anyone's.

use countersign::mesh::Credentials;
use countersign::mesh::Session;
use countersign::rpc;
use countersign::rpc::key_service_client::KeyServiceClient;
use countersign::rpc::token_service_client::TokenServiceClient;
use tonic::Code;

use crate::support::TestServer;
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

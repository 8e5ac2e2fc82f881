//! Malformed requests, and errors that arise below the methods: from decoding, size limits and deadlines.

use countersign::rpc;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;

use crate::caller::client;
use crate::support::{TestServer, assert_field, assert_refused, bearing};

/// Sends any message to any method.
async fn send<M: Message + Default + 'static>(
    server: &TestServer,
    path: &'static str,
    message: M,
) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.expect("the server is there");
    let request = bearing(&server.operator_token().await, message);
    let codec = ProstCodec::<M, ()>::default();
    grpc.unary(request, PathAndQuery::from_static(path), codec).await.map(Response::into_inner)
}

#[tokio::test]
async fn bytes_that_are_not_the_methods_message_are_malformed() {
    let server = TestServer::start().await;
    for path in [
        "/countersign.v1.TokenService/IssueToken",
        "/countersign.v1.TokenService/RevokeToken",
        "/countersign.v1.ClientService/GetClient",
        "/countersign.v1.KeyService/RevokeKey",
    ] {
        // Field 1 of these messages is a string. Neither invalid UTF-8 nor a number decodes as one.
        let answer = send(&server, path, b"\xff\xfe".to_vec()).await;
        assert_refused(answer, Code::InvalidArgument, "REQUEST_MALFORMED");
        let answer = send(&server, path, 7_u64).await;
        assert_refused(answer, Code::InvalidArgument, "REQUEST_MALFORMED");
        // A string does decode. The method may still refuse its content.
        if let Err(status) = send(&server, path, "noise".to_owned()).await {
            let info = status.get_details_error_info().expect("every error carries ErrorInfo");
            assert_ne!(info.reason, "REQUEST_MALFORMED", "{path}");
        }
    }
}

#[tokio::test]
async fn a_call_without_a_message_is_malformed() {
    let server = TestServer::start().await;
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.expect("the server is there");
    let path = PathAndQuery::from_static("/countersign.v1.TokenService/IssueToken");
    let nothing = Request::new(tokio_stream::empty());
    let answer = grpc.client_streaming(nothing, path, ProstCodec::<(), ()>::default()).await;
    assert_refused(answer, Code::InvalidArgument, "REQUEST_MALFORMED");
}

#[tokio::test]
async fn a_compressed_message_is_refused_and_the_error_names_the_accepted_encoding() {
    let server = TestServer::start().await;
    let list = |encoding: &'static str| {
        let mut keys = server.keys();
        let server = &server;
        async move {
            let mut request = server.as_operator(rpc::ListKeysRequest::default()).await;
            request.metadata_mut().insert("grpc-encoding", encoding.parse().expect("ASCII"));
            keys.list_keys(request).await.map(drop)
        }
    };
    list("identity").await.expect("the encoding `identity` is no compression");
    let status = list("gzip").await.expect_err("refused");
    assert_eq!(
        status.metadata().get("grpc-accept-encoding").expect("the field is set"),
        "identity"
    );
    assert_refused::<()>(Err(status), Code::Unimplemented, "ENCODING_UNSUPPORTED");
}

#[tokio::test]
async fn a_message_over_the_maximum_size_is_refused() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let list = |size: usize| {
        let request = rpc::ListKeysRequest { page_size: 0, page_token: "x".repeat(size) };
        let request = bearing(&operator.token, request);
        let mut keys = server.keys();
        async move { keys.list_keys(request).await.map(drop) }
    };
    assert_field(list(60 * 1024).await, "page_token");
    assert_refused(list(64 * 1024).await, Code::ResourceExhausted, "REQUEST_TOO_LARGE");

    // Messages to `ClientService` may be larger.
    let describe =
        |size: usize| rpc::Client { description: "x".repeat(size), ..client("order", &[], &[]) };
    assert_field(operator.create(&server, describe(500 * 1024)).await, "client.description");
    let answer = operator.create(&server, describe(512 * 1024)).await;
    assert_refused(answer, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
}

#[tokio::test]
async fn public_methods_have_the_same_maximum_message_size() {
    let server = TestServer::start().await;
    let check = |size: usize| {
        let request = HealthCheckRequest { service: "x".repeat(size) };
        let mut health = HealthClient::new(server.channel.clone());
        async move { health.check(request).await.map(drop) }
    };
    let status = check(60 * 1024).await.expect_err("there is no such service");
    assert_eq!(status.code(), Code::NotFound);
    assert_refused(check(64 * 1024).await, Code::ResourceExhausted, "REQUEST_TOO_LARGE");

    // Reflection is a stream. After a message that is too large it ends without an answer.
    let v1 = |size: usize| {
        let host = "x".repeat(size);
        let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
        let asked = v1::ServerReflectionRequest { host, message_request: Some(list) };
        let channel = server.channel.clone();
        async move {
            let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
            let answers = client.server_reflection_info(tokio_stream::iter([asked])).await;
            answers
                .expect("the method is public")
                .into_inner()
                .message()
                .await
                .expect("the stream ends without an error")
        }
    };
    assert!(v1(60 * 1024).await.is_some());
    assert!(v1(64 * 1024).await.is_none());
    let v1alpha = |size: usize| {
        let host = "x".repeat(size);
        let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let asked = v1alpha::ServerReflectionRequest { host, message_request: Some(list) };
        let channel = server.channel.clone();
        async move {
            let mut client =
                v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
            let answers = client.server_reflection_info(tokio_stream::iter([asked])).await;
            answers
                .expect("the method is public")
                .into_inner()
                .message()
                .await
                .expect("the stream ends without an error")
        }
    };
    assert!(v1alpha(60 * 1024).await.is_some());
    assert!(v1alpha(64 * 1024).await.is_none());
}

#[tokio::test]
async fn a_client_with_the_maximum_of_every_setting_fits_in_a_message() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    // 64 grants with audiences of the maximum length, each with as many scopes of the maximum length as fit in a set.
    let scopes: Vec<String> = (0..31).map(|n| format!("{n:x>128}")).collect();
    let audience = |n: usize| format!("{n:x>255}");
    let settings = rpc::Client {
        description: "\u{1f511}".repeat(256),
        grants: (0..64)
            .map(|n| rpc::Grant { audience: audience(n), scopes: scopes.clone() })
            .collect(),
        serves: (0..64).map(audience).collect(),
        ..client("order", &[], &[])
    };
    let created = operator.create(&server, settings.clone()).await.expect("the message fits");
    assert_eq!(created.grants.len(), 64);
    assert_eq!(operator.read(&server, "order").await.expect("the client exists"), created);
}

#[tokio::test]
async fn a_call_past_its_deadline_ends_with_deadline_exceeded() {
    let server = TestServer::start().await;
    // The call never sends its message, so it passes its deadline. It is made with h2, because tonic's own client
    // would stop waiting before the server's answer.
    let stream =
        tokio::net::TcpStream::connect(server.address()).await.expect("the server listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post("http://localhost/countersign.v1.TokenService/IssueToken")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "1m")
        .body(())
        .expect("a valid request");
    let (response, _message) = client.send_request(request, false).expect("sent");
    let response = response.await.expect("an answer");
    let status = Status::from_header_map(response.headers()).expect("the response has a status");
    assert_refused::<()>(Err(status), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_malformed_deadline_is_ignored() {
    let server = TestServer::start().await;
    for deadline in ["99999999H", "noise", "S", "1", "-1S", "123456789n", ""] {
        let mut request = server.as_operator(rpc::ListKeysRequest::default()).await;
        request.metadata_mut().insert("grpc-timeout", deadline.parse().expect("ASCII"));
        server.keys().list_keys(request).await.expect("the deadline is ignored");
    }
}

//! The same over HTTP/2, on the same port.

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::oauth::call::order;
use crate::support::TestServer;

/// Posts a form in pieces, and gives status, `cache-control` and body.
async fn post(server: &TestServer, path: &str, pieces: &[&str]) -> (u16, String, String) {
    let stream = TcpStream::connect(server.address()).await.expect("it listens");
    let (sender, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("it takes requests");
    let request = http::Request::post(format!("{}{path}", server.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(())
        .expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("it is sent");
    for piece in pieces {
        // A server that has read enough takes no more.
        let _ = body.send_data(Bytes::copy_from_slice(piece.as_bytes()), false);
    }
    let _ = body.send_data(Bytes::new(), true);
    let answer = answer.await.expect("an answer");
    let status = answer.status().as_u16();
    let caching = answer.headers()["cache-control"].to_str().expect("ASCII").to_owned();
    assert!(!answer.headers().contains_key("connection"), "that is HTTP/1.1");
    let mut text = Vec::new();
    let mut stream = answer.into_body();
    while let Some(data) = stream.data().await {
        let data = data.expect("the body");
        stream.flow_control().release_capacity(data.len()).expect("it was received");
        text.extend_from_slice(&data);
    }
    drop(sender);
    connection.abort();
    (status, caching, String::from_utf8(text).expect("text"))
}

#[tokio::test]
async fn a_token_is_issued_over_http2() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let credentials = format!("&client_id=order&client_secret={secret}");
    let (status, caching, body) =
        post(&server, "/oauth/token", &["grant_type=client_credentials", &credentials]).await;
    assert_eq!((status, caching.as_str()), (200, "no-store"), "{body}");
    assert!(body.contains("\"token_type\":\"Bearer\""), "{body}");
    let (status, _, body) = post(
        &server,
        "/oauth/token",
        &["grant_type=client_credentials", "&client_id=order&client_secret=noise"],
    )
    .await;
    assert_eq!(status, 401, "{body}");
}

#[tokio::test]
async fn a_large_body_is_refused_over_http2() {
    let server = TestServer::start().await;
    let piece = "a".repeat(8 * 1024);
    let (status, _, body) = post(&server, "/oauth/token", &[&piece, &piece, "a"]).await;
    assert_eq!(status, 413, "{body}");
}

//! What there is over plain HTTP/1.1, beside gRPC on the same port.

use countersign_mesh::keys::KeySet;
use countersign_mesh::trust::TrustBundle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ISSUER, TestServer};

/// Sends a request as it is, and returns head and body of the answer.
async fn send(server: &TestServer, request: &str) -> (String, String) {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn get(server: &TestServer, path: &str, headers: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    send(server, &request).await
}

#[tokio::test]
async fn the_public_keys_are_a_jwk_set_with_a_tag() {
    let server = TestServer::start().await;
    let (head, body) = get(&server, "/.well-known/jwks.json", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/jwk-set+json"), "{head}");
    assert!(head.contains("cache-control: public, max-age=60"), "{head}");
    assert_eq!(KeySet::from_jwks(&body).expect("a JWK Set").len(), 2);
    let bundle = TrustBundle::from_jwks(&body).expect("it names issuer and epoch");
    assert_eq!(bundle.issuer.as_str(), ISSUER);
    assert!(!body.contains("\"d\""), "no private key");

    let tag = format!("if-none-match: \"{}\"\r\n", bundle.epoch);
    let (head, body) = get(&server, "/.well-known/jwks.json", &tag).await;
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    let (head, _) = get(&server, "/.well-known/jwks.json", "if-none-match: \"0\"\r\n").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn what_is_neither_a_route_nor_grpc_is_not_found() {
    let server = TestServer::start().await;
    for path in ["/", "/.well-known/", "/countersign.v1.TokenService/IssueToken"] {
        let (head, _) = get(&server, path, "").await;
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
    }
    let post = "POST /.well-known/jwks.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (head, _) = send(&server, post).await;
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: get"), "{head}");
}

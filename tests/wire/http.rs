//! Plain HTTP/1.1 on the same port as gRPC.

use countersign_mesh::keys::KeySet;
use countersign_mesh::trust::TrustBundle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ISSUER, TestServer};

/// Sends a request byte for byte, and returns the head and the body of the answer.
async fn send(server: &TestServer, request: &str) -> (String, String) {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the server answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn get(server: &TestServer, path: &str, headers: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    send(server, &request).await
}

#[tokio::test]
async fn the_public_keys_are_served_as_a_jwk_set_with_an_etag() {
    let server = TestServer::start().await;
    let (head, body) = get(&server, "/.well-known/jwks.json", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/jwk-set+json"), "{head}");
    assert!(head.contains("cache-control: public, max-age=60"), "{head}");
    assert_eq!(KeySet::from_jwks(&body).expect("a JWK Set").len(), 2);
    let bundle = TrustBundle::from_jwks(&body).expect("the JWK Set has an issuer and an epoch");
    assert_eq!(bundle.issuer.as_str(), ISSUER);
    assert!(!body.contains("\"d\""), "no private key");

    let tag = format!("if-none-match: \"{}\"\r\n", bundle.epoch);
    let (head, body) = get(&server, "/.well-known/jwks.json", &tag).await;
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    let (head, _) = get(&server, "/.well-known/jwks.json", "if-none-match: \"0\"\r\n").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn the_root_page_says_what_the_server_is_and_links_its_documents() {
    let server = TestServer::start().await;
    let (head, body) = get(&server, "/", "").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("text/plain"), "{head}");
    for path in
        ["/.well-known/oauth-authorization-server", "/.well-known/jwks.json", "/openapi.json"]
    {
        assert!(body.contains(path), "{body}");
        assert!(get(&server, path, "").await.0.starts_with("http/1.1 200"), "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_neither_a_route_nor_grpc_is_not_found() {
    let server = TestServer::start().await;
    for path in ["/.well-known/", "/nowhere", "/countersign.v1.TokenService/IssueToken"] {
        let (head, _) = get(&server, path, "").await;
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
    }
    let post = "POST /.well-known/jwks.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (head, _) = send(&server, post).await;
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: get"), "{head}");
}

/// Sends a request whose head two servers could read differently. It must be refused, and the server must not
/// read what follows it as a second request. Returns the head of the answer.
async fn refused(server: &TestServer, head: &str, rest: &str) -> String {
    let (head_of_answer, body) = send(server, &format!("{head}\r\n{rest}")).await;
    assert!(head_of_answer.contains("connection: close"), "{head}: {head_of_answer}");
    assert!(!body.contains("HTTP/1.1 2"), "{head}: a second answer: {body}");
    head_of_answer
}

#[tokio::test]
async fn a_request_with_no_host_two_hosts_or_a_bad_host_is_refused() {
    let server = TestServer::start().await;
    for hosts in [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a b\r\n",
        "host: u@a\r\n",
        "host: a/b\r\n",
    ] {
        let head = format!("GET /health/live HTTP/1.1\r\n{hosts}");
        let answer = refused(&server, &head, "GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("http/1.1 400"), "{hosts:?}: {answer}");
    }
    let (answer, _) = send(&server, "GET /health/live HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("http/1.0 200"), "HTTP/1.0 has no Host: {answer}");
    let absolute = "GET http://a/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(send(&server, absolute).await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_body_with_conflicting_framing_is_refused_and_a_chunked_body_is_read() {
    let server = TestServer::start().await;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let post = |framing: &str| format!("POST /oauth/token HTTP/1.1\r\nhost: a\r\n{form}{framing}");
    let smuggled = "0\r\n\r\nGET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    for framing in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 0\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    ] {
        let answer = refused(&server, &post(framing), smuggled).await;
        assert!(answer.starts_with("http/1.1 400"), "{framing:?}: {answer}");
    }
    // The same after an ordinary request on the same connection.
    let before = format!("{}\r\n", post("content-length: 0\r\n"));
    let after = post("content-length: 5\r\ntransfer-encoding: chunked\r\n");
    let (head, rest) = send(&server, &format!("{before}{after}\r\n{smuggled}")).await;
    assert!(head.starts_with("http/1.1 4"), "{head}");
    assert!(rest.contains("HTTP/1.1 400") && !rest.contains("200 OK"), "{rest}");

    let coded = refused(&server, &post("transfer-encoding: gzip, chunked\r\n"), smuggled).await;
    assert!(coded.starts_with("http/1.1 501"), "{coded}");
    let chunked = post("transfer-encoding: chunked\r\nconnection: close\r\n");
    let body = "3\r\na=b\r\n0\r\n\r\n";
    let (answer, body) = send(&server, &format!("{chunked}\r\n{body}")).await;
    assert!(answer.starts_with("http/1.1 400") && body.contains("grant_type"), "{answer}{body}");
}

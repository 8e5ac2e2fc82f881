//! Limits: callers that send too much, too often or too slowly.

use std::num::NonZeroU32;
use std::time::Duration;

use countersign::rpc;
use countersign::server::{LimitSettings, Options};
use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::{TestServer, ask, assert_refused};

async fn server(limits: LimitSettings) -> TestServer {
    TestServer::start_with(Options { limits, ..Options::default() }, None).await
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.address()).await.expect("the server listens")
}

/// Connects from another loopback address.
async fn connect_from(address: &str, server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(format!("{address}:0").parse().expect("an address"))
        .expect("the address is loopback");
    socket.connect(server.address()).await.expect("the server listens")
}

async fn get(server: &TestServer, path: &str) -> String {
    get_over(connect(server).await, path).await
}

async fn get_over(mut stream: TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the server answers and closes");
    answer.to_ascii_lowercase()
}

/// How long the error tells the caller to wait.
fn retry_after(status: &Status) -> Duration {
    let info = status.get_details_retry_info().expect("the error says when to try again");
    info.retry_delay.expect("a delay")
}

async fn issue(
    server: &TestServer,
    client_id: &str,
    secret: &str,
) -> Result<rpc::IssueTokenResponse, Status> {
    server.issue(ask(client_id, secret, "shop", &[])).await
}

/// Fails to authenticate as this client, several times.
async fn fail(server: &TestServer, client_id: &str, times: usize) {
    for _ in 0..times {
        let refused = issue(server, client_id, "csec_wrong").await;
        assert_refused(refused, Code::Unauthenticated, "CLIENT_REJECTED");
    }
}

#[tokio::test]
async fn throttling_does_not_reveal_whether_the_client_exists_or_the_secret_is_right() {
    let server = TestServer::start().await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    let other = server.register("billing", &[("shop", &["stock:read"])], &[]).await;
    fail(&server, "order", 20).await;
    fail(&server, "nobody", 20).await;

    let mut told = Vec::new();
    for (client_id, secret) in
        [("order", "csec_wrong"), ("order", &secret), ("nobody", "csec_wrong")]
    {
        let status = issue(&server, client_id, secret).await.expect_err("too many failures");
        told.push((status.message().to_owned(), retry_after(&status)));
        assert_refused(Err::<(), _>(status), Code::ResourceExhausted, "RATE_LIMITED");
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    assert_eq!(told[0].1, Duration::from_secs(3));
    issue(&server, "billing", &other).await.expect("another client is let through");

    server.advance(3);
    issue(&server, "order", &secret).await.expect("one attempt every three seconds");
    // A successful attempt does not count.
    issue(&server, "order", &secret).await.expect("a success does not count");
    fail(&server, "order", 1).await;
    let refused = issue(&server, "order", &secret).await;
    assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");
}

#[tokio::test]
async fn throttling_can_be_switched_off() {
    let server = TestServer::start_unthrottled().await;
    fail(&server, "order", 30).await;
}

#[tokio::test]
async fn asking_for_an_audience_without_a_grant_does_not_count_as_a_failed_authentication() {
    let server = TestServer::start().await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    for _ in 0..30 {
        let refused = server.issue(ask("order", &secret, "elsewhere", &[])).await;
        assert_refused(refused, Code::PermissionDenied, "AUDIENCE_DENIED");
    }
    issue(&server, "order", &secret).await.expect("a token");
}

#[tokio::test]
async fn each_client_has_its_own_token_rate() {
    let limits =
        LimitSettings { tokens_per_client: NonZeroU32::new(2), ..LimitSettings::default() };
    let server = server(limits).await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    let other = server.register("billing", &[("shop", &["stock:read"])], &[]).await;
    for _ in 0..20 {
        issue(&server, "order", &secret).await.expect("a burst of ten times the rate is allowed");
    }
    let status = issue(&server, "order", &secret).await.expect_err("too many tokens");
    assert_eq!(retry_after(&status), Duration::from_secs(1));
    assert_refused(Err::<(), _>(status), Code::ResourceExhausted, "RATE_LIMITED");
    // A caller that fails to authenticate does not learn that the rate is used up, and does not use it.
    fail(&server, "order", 1).await;
    issue(&server, "billing", &other).await.expect("each client has its own rate");
    server.advance(1);
    for _ in 0..2 {
        issue(&server, "order", &secret).await.expect("the rate is two a second");
    }
    assert!(issue(&server, "order", &secret).await.is_err());
}

#[tokio::test]
async fn a_denied_request_does_not_count_towards_a_clients_token_rate() {
    let limits =
        LimitSettings { tokens_per_client: NonZeroU32::new(1), ..LimitSettings::default() };
    let server = server(limits).await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    for _ in 0..9 {
        issue(&server, "order", &secret).await.expect("a burst of ten is allowed");
    }
    for _ in 0..3 {
        let refused = server.issue(ask("order", &secret, "elsewhere", &[])).await;
        assert_refused(refused, Code::PermissionDenied, "AUDIENCE_DENIED");
    }
    issue(&server, "order", &secret).await.expect("denied requests do not count");
    assert!(issue(&server, "order", &secret).await.is_err());
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_at_once_but_health_checks_never_are() {
    let server = server(LimitSettings { requests: 1, ..LimitSettings::default() }).await;
    let mut health = HealthClient::new(server.channel.clone());
    let request = HealthCheckRequest::default();
    let mut watching =
        health.watch(request.clone()).await.expect("the server answers").into_inner();
    watching.message().await.expect("the server answers").expect("a first answer");
    let ok = |answer: &str| answer.starts_with("http/1.1 200");
    assert!(
        ok(&get(&server, "/.well-known/jwks.json").await),
        "an open stream does not count as a request"
    );

    let mut slow = connect(&server).await;
    let head = "POST /countersign.v1.TokenService/IssueToken HTTP/1.1\r\nhost: x\r\n\
                content-type: application/grpc\r\ncontent-length: 100\r\n\r\n";
    slow.write_all(head.as_bytes()).await.expect("the server reads");
    // It takes a moment until the server has read the slow request's head.
    let mut refused = get(&server, "/.well-known/jwks.json").await;
    while ok(&refused) {
        refused = get(&server, "/.well-known/jwks.json").await;
    }
    assert!(refused.starts_with("http/1.1 503"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("\r\nx-request-id: "), "{refused}");
    assert!(refused.contains("\r\ncache-control: no-store\r\n"), "{refused}");
    assert!(refused.contains(r#"{"error":"temporarily_unavailable","error_description":"#));
    let status = issue(&server, "order", "csec_wrong").await.expect_err("the only place is taken");
    assert_eq!(retry_after(&status), Duration::from_secs(1));
    assert_refused(Err::<(), _>(status), Code::Unavailable, "OVERLOADED");
    health.check(request).await.expect("health checks are never refused");

    // The server does not wait forever for the body of the slow request.
    tokio::time::pause();
    let mut answer = String::new();
    let begun = Instant::now();
    while !answer.contains("grpc-status") {
        let mut buffer = [0; 1024];
        let read = slow.read(&mut buffer).await.expect("the server answers");
        assert_ne!(read, 0, "{answer}");
        answer.push_str(std::str::from_utf8(&buffer[..read]).expect("the text is UTF-8"));
    }
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    assert!(begun.elapsed() <= Duration::from_secs(121), "{:?}", begun.elapsed());
    tokio::time::resume();
    assert!(ok(&get(&server, "/.well-known/jwks.json").await));
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_and_a_closed_one_frees_its_place() {
    // The test's own channel is one of the two connections.
    let server = server(LimitSettings { connections: 2, ..LimitSettings::default() }).await;
    let second = connect(&server).await;
    let mut third = connect(&server).await;
    let read = third.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    server.operator_token().await;

    drop(second);
    loop {
        let mut stream = connect(&server).await;
        // The server may have closed the connection already.
        let _ = stream
            .write_all(b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await;
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            return;
        }
    }
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let server = server(LimitSettings { connections: 8, ..LimitSettings::default() }).await;
    // With the test's own channel these are six connections.
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(connect(&server).await);
    }
    let read = connect(&server).await.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let answer = get_over(connect_from("127.0.0.2", &server).await, "/health/live").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
}

#[tokio::test]
async fn one_address_cannot_take_all_concurrent_requests() {
    let server = server(LimitSettings { requests: 4, ..LimitSettings::default() }).await;
    let mut slow = Vec::new();
    let head = "POST /oauth/token HTTP/1.1\r\nhost: x\r\n\
                content-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\n";
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        slow.push(stream);
    }
    // It takes a moment until the server has read the three heads.
    while get(&server, "/openapi.json").await.starts_with("http/1.1 200") {}
    let answer = get_over(connect_from("127.0.0.2", &server).await, "/openapi.json").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_sends_nothing_or_half_a_head_is_closed() {
    let server = TestServer::start().await;
    let halves = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\n",
    ];
    for half in halves {
        let mut stream = connect(&server).await;
        stream.write_all(half.as_bytes()).await.expect("the server reads");
        tokio::time::pause();
        let begun = Instant::now();
        let mut answer = Vec::new();
        // The server closes without an answer, or answers with a timeout.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{half:?}");
        assert!(begun.elapsed() <= Duration::from_secs(12), "{half:?}: {:?}", begun.elapsed());
        tokio::time::resume();
    }
    server.operator_token().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_but_not_one_with_an_open_stream() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    let watch = health.watch(HealthCheckRequest::default()).await;
    let mut watching = watch.expect("the server answers").into_inner();
    watching.message().await.expect("the server answers").expect("a first answer");

    let (mut requests, connection) =
        h2::client::handshake(connect(&server).await).await.expect("the server speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http_get(&server, "/.well-known/jwks.json");
    let (answer, _) =
        requests.send_request(request, true).expect("the connection takes another stream");
    assert_eq!(answer.await.expect("the server answers").status(), 200);

    tokio::time::pause();
    let begun = Instant::now();
    let ended = connection.await.expect("the task is not cancelled");
    assert!(ended.is_ok(), "the connection ends without an error: {ended:?}");
    let idle = begun.elapsed();
    assert!((Duration::from_secs(300)..=Duration::from_secs(660)).contains(&idle), "{idle:?}");
    let waiting = tokio::time::timeout(Duration::from_secs(3600), watching.message()).await;
    assert!(waiting.is_err(), "the watch goes on: {waiting:?}");
}

fn http_get(server: &TestServer, path: &str) -> http::Request<()> {
    http::Request::get(format!("{}{path}", server.url)).body(()).expect("a valid request")
}

#[tokio::test]
async fn headers_and_streams_are_limited_and_a_flood_of_resets_is_cut_off() {
    let server = TestServer::start().await;
    let (mut requests, connection) =
        h2::client::handshake(connect(&server).await).await.expect("the server speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let (answer, _) = requests
        .send_request(http_get(&server, "/.well-known/jwks.json"), true)
        .expect("the connection takes another stream");
    answer.await.expect("the server answers");
    assert_eq!(requests.current_max_send_streams(), 256);

    let mut long = http_get(&server, "/.well-known/jwks.json");
    let value = "x".repeat(17 * 1024).parse().expect("a header");
    long.headers_mut().insert("x-long", value);
    let (answer, _) =
        requests.send_request(long, true).expect("the connection takes another stream");
    let answer = answer.await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 431), "{answer:?}");

    for _ in 0..200 {
        let request = http_get(&server, "/.well-known/jwks.json");
        let Ok((_, mut stream)) = requests.send_request(request, false) else { break };
        stream.send_reset(Reason::CANCEL);
    }
    let ended = connection.await.expect("the task is not cancelled");
    let reason = ended.expect_err("the connection is cut off").reason();
    assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM));
    server.operator_token().await;
}

/// An HTTP/2 frame on stream 0, the connection itself.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("the payload is short");
    [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn floods_of_pings_and_settings_get_a_goaway() {
    const PING: u8 = 6;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let server = TestServer::start().await;
    for flood in [frame(PING, &[7; 8]), frame(SETTINGS, &[])] {
        let stream = connect(&server).await;
        let (mut answers, mut requests) = stream.into_split();
        let begin =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, &[])].concat();
        requests.write_all(&begin).await.expect("the server reads");
        let sending = tokio::spawn(async move {
            for sent in 0..20_000 {
                if requests.write_all(&flood).await.is_err() {
                    return sent;
                }
            }
            20_000
        });
        let mut kinds = Vec::new();
        let mut head = [0; 9];
        while answers.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if answers.read_exact(&mut payload).await.is_err() {
                break;
            }
            kinds.push(head[3]);
        }
        assert!(kinds.contains(&GOAWAY), "{} answers", kinds.len());
        assert!(kinds.len() < 2000, "{} answers", kinds.len());
        sending.await.expect("the task does not panic");
    }
    server.operator_token().await;
}

#[tokio::test]
async fn a_connection_may_ping_ten_times_a_second() {
    let server = TestServer::start().await;
    let (mut requests, mut connection) =
        h2::client::handshake(connect(&server).await).await.expect("the server speaks HTTP/2");
    let mut pings = connection.ping_pong().expect("nothing else has taken it");
    let connection = tokio::spawn(connection);
    // 900 pings as fast as possible. That is the count of 90 seconds, and fewer than a burst may have.
    for _ in 0..900 {
        pings.ping(h2::Ping::opaque()).await.expect("the server answers");
    }
    let (answer, _) = requests
        .send_request(http_get(&server, "/.well-known/jwks.json"), true)
        .expect("the connection takes another stream");
    assert_eq!(answer.await.expect("the server answers").status(), 200);
    drop(requests);
    connection.await.expect("the task does not panic").expect("the connection ends in order");
}

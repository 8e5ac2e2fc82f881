//! Those who ask for too much, too often or too slowly.

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
    TcpStream::connect(server.address()).await.expect("it listens")
}

/// From another address of this machine.
async fn connect_from(address: &str, server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{address}:0").parse().expect("an address")).expect("it is loopback");
    socket.connect(server.address()).await.expect("it listens")
}

async fn get(server: &TestServer, path: &str) -> String {
    get_over(connect(server).await, path).await
}

async fn get_over(mut stream: TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers and closes");
    answer.to_ascii_lowercase()
}

/// How long the caller is told to wait.
fn retry_after(status: &Status) -> Duration {
    let info = status.get_details_retry_info().expect("it says when to try again");
    info.retry_delay.expect("a delay")
}

async fn issue(
    server: &TestServer,
    client_id: &str,
    secret: &str,
) -> Result<rpc::IssueTokenResponse, Status> {
    server.issue(ask(client_id, secret, "shop", &[])).await
}

/// Fails to authenticate as this client.
async fn fail(server: &TestServer, client_id: &str, times: usize) {
    for _ in 0..times {
        let refused = issue(server, client_id, "csec_wrong").await;
        assert_refused(refused, Code::Unauthenticated, "CLIENT_REJECTED");
    }
}

#[tokio::test]
async fn failures_are_throttled_the_same_for_right_and_wrong_known_and_unknown() {
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
    // A success takes nothing.
    issue(&server, "order", &secret).await.expect("it did not fail");
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
async fn what_a_client_is_not_granted_is_no_failure_to_authenticate() {
    let server = TestServer::start().await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    for _ in 0..30 {
        let refused = server.issue(ask("order", &secret, "elsewhere", &[])).await;
        assert_refused(refused, Code::PermissionDenied, "AUDIENCE_DENIED");
    }
    issue(&server, "order", &secret).await.expect("a token");
}

#[tokio::test]
async fn one_client_gets_so_many_tokens_and_others_theirs() {
    let limits =
        LimitSettings { tokens_per_client: NonZeroU32::new(2), ..LimitSettings::default() };
    let server = server(limits).await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    let other = server.register("billing", &[("shop", &["stock:read"])], &[]).await;
    for _ in 0..20 {
        issue(&server, "order", &secret).await.expect("ten times two at once");
    }
    let status = issue(&server, "order", &secret).await.expect_err("too many tokens");
    assert_eq!(retry_after(&status), Duration::from_secs(1));
    assert_refused(Err::<(), _>(status), Code::ResourceExhausted, "RATE_LIMITED");
    // Who does not prove who it is neither learns of that nor takes anything.
    fail(&server, "order", 1).await;
    issue(&server, "billing", &other).await.expect("another client");
    server.advance(1);
    for _ in 0..2 {
        issue(&server, "order", &secret).await.expect("two a second");
    }
    assert!(issue(&server, "order", &secret).await.is_err());
}

#[tokio::test]
async fn what_a_client_is_not_granted_takes_nothing_from_its_tokens() {
    let limits =
        LimitSettings { tokens_per_client: NonZeroU32::new(1), ..LimitSettings::default() };
    let server = server(limits).await;
    let secret = server.register("order", &[("shop", &["stock:read"])], &[]).await;
    for _ in 0..9 {
        issue(&server, "order", &secret).await.expect("ten at once");
    }
    for _ in 0..3 {
        let refused = server.issue(ask("order", &secret, "elsewhere", &[])).await;
        assert_refused(refused, Code::PermissionDenied, "AUDIENCE_DENIED");
    }
    issue(&server, "order", &secret).await.expect("the tenth");
    assert!(issue(&server, "order", &secret).await.is_err());
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_health_never() {
    let server = server(LimitSettings { requests: 1, ..LimitSettings::default() }).await;
    let mut health = HealthClient::new(server.channel.clone());
    let request = HealthCheckRequest::default();
    let mut watching = health.watch(request.clone()).await.expect("it answers").into_inner();
    watching.message().await.expect("it answers").expect("a first answer");
    let ok = |answer: &str| answer.starts_with("http/1.1 200");
    assert!(ok(&get(&server, "/.well-known/jwks.json").await), "a stream takes no place");

    let mut slow = connect(&server).await;
    let head = "POST /countersign.v1.TokenService/IssueToken HTTP/1.1\r\nhost: x\r\n\
                content-type: application/grpc\r\ncontent-length: 100\r\n\r\n";
    slow.write_all(head.as_bytes()).await.expect("it reads");
    // It is read some time.
    let mut refused = get(&server, "/.well-known/jwks.json").await;
    while ok(&refused) {
        refused = get(&server, "/.well-known/jwks.json").await;
    }
    assert!(refused.starts_with("http/1.1 503"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("\r\nx-request-id: "), "{refused}");
    assert!(refused.contains("\r\ncache-control: no-store\r\n"), "{refused}");
    assert!(refused.contains(r#"{"error":"temporarily_unavailable","error_description":"#));
    let status = issue(&server, "order", "csec_wrong").await.expect_err("there is no place");
    assert_eq!(retry_after(&status), Duration::from_secs(1));
    assert_refused(Err::<(), _>(status), Code::Unavailable, "OVERLOADED");
    health.check(request).await.expect("it says that it lives");

    // A body that never comes is not waited for without end.
    tokio::time::pause();
    let mut answer = String::new();
    let begun = Instant::now();
    while !answer.contains("grpc-status") {
        let mut buffer = [0; 1024];
        let read = slow.read(&mut buffer).await.expect("it answers");
        assert_ne!(read, 0, "{answer}");
        answer.push_str(std::str::from_utf8(&buffer[..read]).expect("it is text"));
    }
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    assert!(begun.elapsed() <= Duration::from_secs(121), "{:?}", begun.elapsed());
    tokio::time::resume();
    assert!(ok(&get(&server, "/.well-known/jwks.json").await));
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_its_place_is_free_again() {
    // One is the test's own channel.
    let server = server(LimitSettings { connections: 2, ..LimitSettings::default() }).await;
    let second = connect(&server).await;
    let mut third = connect(&server).await;
    let read = third.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    server.operator_token().await;

    drop(second);
    loop {
        let mut stream = connect(&server).await;
        // It may be closed already.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            return;
        }
    }
}

#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    let server = server(LimitSettings { connections: 8, ..LimitSettings::default() }).await;
    // The channel is the sixth.
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
async fn one_address_does_not_take_all_places_for_requests() {
    let server = server(LimitSettings { requests: 4, ..LimitSettings::default() }).await;
    let mut slow = Vec::new();
    let head = "POST /oauth/token HTTP/1.1\r\nhost: x\r\n\
                content-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\n";
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        stream.write_all(head.as_bytes()).await.expect("it reads");
        slow.push(stream);
    }
    // They are read some time.
    while get(&server, "/openapi.json").await.starts_with("http/1.1 200") {}
    let answer = get_over(connect_from("127.0.0.2", &server).await, "/openapi.json").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_let_go() {
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
        stream.write_all(half.as_bytes()).await.expect("it reads");
        tokio::time::pause();
        let begun = Instant::now();
        let mut answer = Vec::new();
        // Nothing, or that it took too long.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{half:?}");
        assert!(begun.elapsed() <= Duration::from_secs(12), "{half:?}: {:?}", begun.elapsed());
        tokio::time::resume();
    }
    server.operator_token().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_not() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    let watch = health.watch(HealthCheckRequest::default()).await;
    let mut watching = watch.expect("it answers").into_inner();
    watching.message().await.expect("it answers").expect("a first answer");

    let (mut requests, connection) =
        h2::client::handshake(connect(&server).await).await.expect("it speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http_get(&server, "/.well-known/jwks.json");
    let (answer, _) = requests.send_request(request, true).expect("there is room");
    assert_eq!(answer.await.expect("it answers").status(), 200);

    tokio::time::pause();
    let begun = Instant::now();
    let ended = connection.await.expect("it is not cancelled");
    assert!(ended.is_ok(), "it is told: {ended:?}");
    let idle = begun.elapsed();
    assert!((Duration::from_secs(300)..=Duration::from_secs(660)).contains(&idle), "{idle:?}");
    let waiting = tokio::time::timeout(Duration::from_secs(3600), watching.message()).await;
    assert!(waiting.is_err(), "the watch goes on: {waiting:?}");
}

fn http_get(server: &TestServer, path: &str) -> http::Request<()> {
    http::Request::get(format!("{}{path}", server.url)).body(()).expect("a valid request")
}

#[tokio::test]
async fn headers_and_streams_have_their_bounds_and_floods_of_resets_an_end() {
    let server = TestServer::start().await;
    let (mut requests, connection) =
        h2::client::handshake(connect(&server).await).await.expect("it speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let (answer, _) = requests
        .send_request(http_get(&server, "/.well-known/jwks.json"), true)
        .expect("there is room");
    answer.await.expect("it answers");
    assert_eq!(requests.current_max_send_streams(), 256);

    let mut long = http_get(&server, "/.well-known/jwks.json");
    let value = "x".repeat(17 * 1024).parse().expect("a header");
    long.headers_mut().insert("x-long", value);
    let (answer, _) = requests.send_request(long, true).expect("there is room");
    let answer = answer.await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 431), "{answer:?}");

    for _ in 0..200 {
        let request = http_get(&server, "/.well-known/jwks.json");
        let Ok((_, mut stream)) = requests.send_request(request, false) else { break };
        stream.send_reset(Reason::CANCEL);
    }
    let ended = connection.await.expect("it is not cancelled");
    let reason = ended.expect_err("it is cut off").reason();
    assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM));
    server.operator_token().await;
}

/// A frame of HTTP/2 on the connection itself.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn floods_of_pings_and_settings_are_told_to_go_away() {
    const PING: u8 = 6;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let server = TestServer::start().await;
    for flood in [frame(PING, &[7; 8]), frame(SETTINGS, &[])] {
        let stream = connect(&server).await;
        let (mut answers, mut requests) = stream.into_split();
        let begin =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, &[])].concat();
        requests.write_all(&begin).await.expect("it reads");
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
        sending.await.expect("it does not panic");
    }
    server.operator_token().await;
}

#[tokio::test]
async fn who_pings_ten_times_a_second_is_welcome() {
    let server = TestServer::start().await;
    let (mut requests, mut connection) =
        h2::client::handshake(connect(&server).await).await.expect("it speaks HTTP/2");
    let mut pings = connection.ping_pong().expect("there is one");
    let connection = tokio::spawn(connection);
    // As many as in two minutes, at the pace of the loopback: fewer than a burst may have.
    for _ in 0..900 {
        pings.ping(h2::Ping::opaque()).await.expect("it answers");
    }
    let (answer, _) = requests
        .send_request(http_get(&server, "/.well-known/jwks.json"), true)
        .expect("there is room");
    assert_eq!(answer.await.expect("it answers").status(), 200);
    drop(requests);
    connection.await.expect("it does not panic").expect("it ends in order");
}

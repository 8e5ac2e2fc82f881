//! What is read as a form, and what is refused: size, time, encoding, repetition.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::oauth::call::{assert_error, basic, order, post, post_as, send, token};
use crate::support::TestServer;

const GRANT: &str = "grant_type=client_credentials";

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

#[tokio::test]
async fn only_forms_are_read() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let post_as = |content_type: &str| {
        let headers = format!("{content_type}{order}");
        let server = &server;
        async move { post_as(server, "/oauth/token", &headers, GRANT.as_bytes()).await }
    };
    for good in [
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: application/x-www-form-urlencoded; charset=UTF-8\r\n",
        "content-type: Application/X-WWW-Form-URLEncoded ;charset=\"utf-8\"\r\n",
    ] {
        assert_eq!(post_as(good).await.status, 200, "{good}");
    }
    for bad in [
        "",
        "content-type: \r\n",
        "content-type: application/json\r\n",
        "content-type: text/plain\r\n",
        "content-type: multipart/form-data; boundary=a\r\n",
        "content-type: application/x-www-form-urlencoded2\r\n",
        "content-type: application/grpc\r\n",
        &FORM.repeat(2),
    ] {
        assert_error(&post_as(bad).await, 400, "invalid_request");
    }
}

#[tokio::test]
async fn parameters_are_unique_well_encoded_and_not_too_many() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let order = basic("order", &secret);
    let many = |count| (0..count).map(|n| format!("&p{n}=")).collect::<String>();
    for good in [
        "&unknown=a&another=b",
        "&audience=&scope=&client_id=&client_secret=&client_assertion=&resource=",
        "&&&",
        "&scope=stock%3Aread+stock%3awrite",
        &many(63),
    ] {
        assert_eq!(token(&server, &order, good).await.status, 200, "{good}");
    }
    for bad in [
        "&grant_type=client_credentials",
        "&scope=stock:read&scope=stock:read",
        "&scope=&scope=stock:read",
        "&unknown=a&unknown=a",
        "&a=%",
        "&a=%4",
        "&a=%zz",
        "&a=%00",
        "&%00=a",
        "&a=%FF",
        "&a=%C3%28",
        &many(64),
    ] {
        let answer = token(&server, &order, bad).await;
        assert_error(&answer, 400, "invalid_request");
    }
    let headers = format!("{FORM}{order}");
    for raw in [&b"&a=\xff"[..], b"&a=\0", b"\x1f\x8b\x08"] {
        let body = [GRANT.as_bytes(), raw].concat();
        let answer = post_as(&server, "/oauth/token", &headers, &body).await;
        assert_error(&answer, 400, "invalid_request");
    }
}

#[tokio::test]
async fn a_body_of_16_kib_is_the_largest() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let form = |size: usize| format!("{GRANT}&a={}", "b".repeat(size - GRANT.len() - 3));
    assert_eq!(post(&server, "/oauth/token", &order, &form(16 * 1024)).await.status, 200);
    for size in [16 * 1024 + 1, 1024 * 1024] {
        let answer = post(&server, "/oauth/token", &order, &form(size)).await;
        assert_error(&answer, 413, "invalid_request");
    }
    // The client that asks first is not told to go on.
    let head = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: localhost\r\n{FORM}content-length: 16385\r\n\
         expect: 100-continue\r\n\r\n"
    );
    assert_error(&send(&server, head.as_bytes()).await, 413, "invalid_request");
}

#[tokio::test]
async fn a_body_with_a_content_encoding_is_refused() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let post = |coding: &str| {
        let headers = format!("{FORM}{order}content-encoding: {coding}\r\n");
        let server = &server;
        async move { post_as(server, "/oauth/token", &headers, GRANT.as_bytes()).await }
    };
    assert_eq!(post("Identity").await.status, 200);
    for coding in ["gzip", "br", "identity, gzip", "noise"] {
        assert_error(&post(coding).await, 400, "invalid_request");
    }
}

#[tokio::test]
async fn the_deadlines_of_grpc_are_nothing_to_plain_http() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let head = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: localhost\r\n{FORM}{order}grpc-timeout: 1m\r\n\
         content-length: 100\r\n\r\n{GRANT}"
    );
    tokio::time::pause();
    // Its body does not come in time, and it is told so in JSON.
    assert_error(&send(&server, head.as_bytes()).await, 408, "invalid_request");
}

#[tokio::test]
async fn chunked_bodies_are_read_within_the_same_bounds() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let head = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{FORM}{order}\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunked = |chunks: &[&str]| {
        let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
    };
    let answer =
        send(&server, chunked(&["grant_", "type=client_cre", "dentials"]).as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let padding = "a".repeat(4096);
    let large = chunked(&[GRANT, "&a=", &padding, &padding, &padding, &padding]);
    assert_error(&send(&server, large.as_bytes()).await, 413, "invalid_request");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
    let head = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{FORM}{order}\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        GRANT.len(),
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("an interim answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(GRANT.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_long() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let head = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: localhost\r\n{FORM}{order}content-length: 100\r\n\r\n{GRANT}"
    );
    let started = tokio::time::Instant::now();
    // From here time passes as soon as everyone waits.
    tokio::time::pause();
    let answer = send(&server, head.as_bytes()).await;
    assert_error(&answer, 408, "invalid_request");
    let waited = started.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn a_body_that_ends_before_its_end_is_no_request() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    for body in ["content-length: 100\r\n\r\n", "transfer-encoding: chunked\r\n\r\n1d\r\n"] {
        let request =
            format!("POST /oauth/token HTTP/1.1\r\nhost: localhost\r\n{FORM}{order}{body}{GRANT}");
        let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("nothing more comes");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(!answer.contains("access_token"), "{answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_http_gets_no_token() {
    let server = TestServer::start().await;
    let order = basic("order", &order(&server).await);
    let head = format!("POST /oauth/token HTTP/1.1\r\nhost: localhost\r\n{FORM}{order}");
    for bad in [
        format!("{head}content-length: 29\r\ncontent-length: 30\r\n\r\n{GRANT}"),
        format!("{head}content-length: -1\r\n\r\n{GRANT}"),
        format!("{head}content-length: a\r\n\r\n{GRANT}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{GRANT}\r\n0\r\n\r\n"),
        format!("{head}transfer-encoding: gzip\r\n\r\n{GRANT}"),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
        let _ = stream.write_all(bad.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{bad:?} {answer}");
    }
}

#[tokio::test]
async fn credentials_do_not_stand_in_the_address() {
    let server = TestServer::start().await;
    let secret = order(&server).await;
    let order = basic("order", &secret);
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        let form = format!("{GRANT}&token=noise");
        for query in [
            format!("client_secret={secret}"),
            format!("client%5Fsecret={secret}"),
            format!("a=b&client_id=order&client_secret={secret}"),
            "client_assertion=a.b.c".to_owned(),
            "client_id=".to_owned(),
            "scope=stock:read".to_owned(),
            "token=a".to_owned(),
            "a=%".to_owned(),
            "a=b&a=b".to_owned(),
        ] {
            let answer = post(&server, &format!("{path}?{query}"), &order, &form).await;
            assert_error(&answer, 400, "invalid_request");
            assert!(!answer.body.contains(&secret), "{answer:?}");
        }
        for harmless in ["", "a=b", "Client_Secret=a"] {
            let answer = post(&server, &format!("{path}?{harmless}"), &order, &form).await;
            assert_eq!(answer.status, 200, "{harmless}");
        }
    }
}

#[test]
fn any_body_gets_an_answer_of_the_protocol() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(TestServer::start());
    let (order, address) =
        runtime.block_on(async { (basic("order", &order(&server).await), server.address()) });
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    let near = proptest::collection::vec(
        prop_oneof![
            Just("grant_type=client_credentials"),
            Just("&"),
            Just("="),
            Just("%"),
            Just("%41"),
            Just("+"),
            Just("\0"),
            Just("scope"),
            Just("resource=https://a.test/"),
            Just("client_id=order"),
            Just("client_assertion=a.b.c"),
            Just("client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ],
        0..12,
    )
    .prop_map(|parts| parts.concat().into_bytes());
    let header = prop_oneof![
        Just(order),
        Just(String::new()),
        "[ -~]{0,40}".prop_map(|text| format!("authorization: Basic {text}\r\n")),
    ];
    let path = prop_oneof![Just("/oauth/token"), Just("/oauth/introspect"), Just("/oauth/revoke")];
    let config = Config { cases: 200, ..Config::default() };
    let requests = (path, header, prop_oneof![noise, near]);
    TestRunner::new(config)
        .run(&requests, |(path, header, body)| {
            let headers = format!("{FORM}{header}");
            assert_eq!(server.address(), address);
            // Held against the document, too, which knows no 500.
            let answer = runtime.block_on(post_as(&server, path, &headers, &body));
            prop_assert!([200, 400, 401, 413].contains(&answer.status), "{:?}", answer);
            Ok(())
        })
        .expect("no request breaks it");
    drop(runtime);
}

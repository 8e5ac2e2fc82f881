//! Stopping a server: in order, with calls still under way, and at once.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::support::{Sandbox, Server};

/// A call that stays open until one side ends it: a stream that has answered once and waits for more.
struct CallUnderWay {
    answers: Streaming<ServerReflectionResponse>,
    _questions: mpsc::Sender<ServerReflectionRequest>,
}

async fn call_under_way(server: &Server) -> CallUnderWay {
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let (questions, asked) = mpsc::channel(1);
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    questions.send(question).await.expect("the channel has room");
    let answers = reflection.server_reflection_info(ReceiverStream::new(asked)).await;
    let mut answers = answers.expect("the server answers").into_inner();
    answers.message().await.expect("the server answers").expect("a first answer");
    CallUnderWay { answers, _questions: questions }
}

/// A second thread drives the connection while the test blocks on the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_watchers_are_told_of_a_stop_and_do_not_delay_it() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&["--dev", "--shutdown-grace", "1h"]);
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    let mut answers = health.watch(request).await.expect("the server answers").into_inner();
    let first = answers.message().await.expect("the server answers").expect("a first answer");
    assert_eq!(first.status, ServingStatus::Serving as i32);
    server.signal("TERM");
    let mut last = first.status;
    while let Ok(Some(answer)) = answers.message().await {
        last = answer.status;
    }
    assert_eq!(last, ServingStatus::NotServing as i32);
    drop(health);
    assert_eq!(server.end().code, Some(0));
}

#[test]
fn sigterm_and_sigint_each_stop_the_server_in_order() {
    for signal in ["TERM", "INT"] {
        let sandbox = Sandbox::new();
        let server = sandbox.dev();
        server.signal(signal);
        let end = server.end();
        assert_eq!(end.code, Some(0), "{signal}: {}", end.stderr);
        // The write-ahead log was moved into the database.
        assert!(!sandbox.path("countersign-dev/countersign.db-wal").exists());
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_server_while_calls_are_under_way() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let sandbox = Sandbox::new();
        let mut server = sandbox.serve(&["--dev", "--shutdown-grace", "1h"]);
        let call = call_under_way(&server).await;
        server.signal(first);
        server.wait_for_log("a second signal ends at once");
        server.signal(second);
        assert_eq!(server.end().code, Some(130));
        drop(call);
    }
}

#[tokio::test]
async fn the_server_waits_for_calls_under_way_but_no_longer_than_the_grace() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&["--dev", "--shutdown-grace", "1s"]);
    let call = call_under_way(&server).await;
    let asked = Instant::now();
    server.signal("TERM");
    let end = server.end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert!(
        end.stderr.contains("calls were still under way after the grace period"),
        "{}",
        end.stderr
    );
    drop(call);
}

/// A second thread drives the connection while the test blocks on the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_draining_server_takes_no_new_connection_and_ends_with_the_last_call() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.serve(&["--dev", "--shutdown-grace", "1h"]);
    let address = server.url.replace("http://", "");
    let mut call = call_under_way(&server).await;
    server.signal("TERM");
    server.wait_for_log("a second signal ends at once");
    // The signal did not cut off the call.
    let waiting = tokio::time::timeout(Duration::ZERO, call.answers.message()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    // The listener is closed right after that line is logged.
    while TcpStream::connect(&address).is_ok() {
        std::thread::yield_now();
    }
    drop(call);
    let end = server.end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(!end.stderr.contains("still under way"), "{}", end.stderr);
}

//! Stopping: in order, with calls still under way, and at once.

use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use tonic::Streaming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_client::HealthClient;

use crate::support::Sandbox;
use crate::support::Server;

/// A call that is under way until one side goes: it answered once and has more to say.
async fn call_under_way(server: &Server) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    let mut answers = health.watch(request).await.expect("it answers").into_inner();
    answers.message().await.expect("it answers").expect("a first answer");
    answers
}

#[test]
fn either_signal_stops_it_in_order() {
    for signal in ["TERM", "INT"] {
        let sandbox = Sandbox::new();
        let server = sandbox.dev();
        server.signal(signal);
        let end = server.end();
        assert_eq!(end.code, Some(0), "{signal}: {}", end.stderr);
        // The write-ahead log went back into the database.
        assert!(!sandbox.path("countersign-dev/countersign.db-wal").exists());
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_while_calls_are_under_way() {
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
async fn calls_under_way_are_waited_for_but_not_for_longer_than_the_grace() {
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

/// The connection goes on while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_it_drains_it_takes_no_new_connection_and_ends_with_the_last_call() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.serve(&["--dev", "--shutdown-grace", "1h"]);
    let address = server.url.replace("http://", "");
    let mut call = call_under_way(&server).await;
    server.signal("TERM");
    server.wait_for_log("a second signal ends at once");
    // The call is still there: it is not cut off by the signal.
    let waiting = tokio::time::timeout(Duration::ZERO, call.message()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    // The listener goes right after that line.
    while TcpStream::connect(&address).is_ok() {
        std::thread::yield_now();
    }
    drop(call);
    let end = server.end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(!end.stderr.contains("still under way"), "{}", end.stderr);
}

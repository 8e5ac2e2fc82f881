//! A rotation that waits, on the command line.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use countersign::rpc;
use countersign::rpc::trust_service_client::TrustServiceClient;
use countersign::rpc::watch_trust_bundle_request::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::support::{PROGRAM, Sandbox};

const OPERATOR: &str = "countersign-dev/operator.toml";

#[test]
fn a_waiting_rotation_succeeds_once_the_verifier_holds_the_next_key() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let create =
        ["client", "create", "inventory", "--serves", "inventory", "--out", "service.toml"];
    sandbox.json(OPERATOR, &create);
    let issue = ["token", "issue", "--audience", "countersign", "--credentials", "service.toml"];
    let token = sandbox.run(&issue).ok();

    // A verifier that was sent everything and has not acknowledged it yet.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("the system has threads");
    let event = |event| rpc::WatchTrustBundleRequest { event: Some(event) };
    let (says, said) = mpsc::channel(2);
    let (_stream, epoch) = runtime.block_on(async {
        let hello = rpc::TrustHello { verifier_name: "pod-1".to_owned(), ..Default::default() };
        says.send(event(Event::Hello(hello))).await.expect("the channel has room");
        let mut request = Request::new(ReceiverStream::new(said));
        let bearer = format!("Bearer {}", token.trim()).parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", bearer);
        let mut client = TrustServiceClient::new(server.channel().await);
        let stream =
            client.watch_trust_bundle(request).await.expect("the server accepts the stream");
        let mut stream = stream.into_inner();
        let first =
            stream.message().await.expect("the stream goes on").expect("the stream goes on");
        (stream, first.epoch)
    });

    let rotate = ["keys", "rotate", "--credentials", OPERATOR];
    let hurried = [&rotate[..], &["--wait", "--timeout", "1s"]].concat();
    for args in [&rotate[..], &hurried] {
        let line = sandbox.run(args).failed(3);
        assert!(line.contains("VERIFIERS_BEHIND"), "{line}");
        assert!(line.contains("inventory/pod-1 (has nothing yet)"), "{line}");
        assert!(line.contains("try again in 2s, have that done with --wait"), "{line}");
    }
    let both = [&rotate[..], &["--wait", "--force"]].concat();
    assert_eq!(sandbox.run(&both).code, Some(2));

    let mut command = sandbox.program(PROGRAM);
    let command = command.args(rotate).arg("--wait").stdin(Stdio::null());
    let mut waiting =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program exists");
    let mut progress = BufReader::new(waiting.stderr.take().expect("the stream is piped")).lines();
    let line =
        progress.next().expect("the command says that it waits").expect("the output is UTF-8");
    assert!(line.contains("inventory/pod-1") && line.contains("trying again in 2s"), "{line}");
    let ack = event(Event::Ack(rpc::TrustAck { epoch }));
    runtime.block_on(says.send(ack)).expect("the stream goes on");
    let end = waiting.wait_with_output().expect("the process ends");
    let stdout = String::from_utf8(end.stdout).expect("the output is UTF-8");
    assert!(end.status.success() && stdout.contains("retired:"), "{stdout}");

    let listed = sandbox.json(OPERATOR, &["keys", "list"]);
    assert_eq!(listed["verifiers_connected"], 1);
    let holding: Vec<_> = listed["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| key["verifiers_holding"].as_u64().expect("a number"))
        .collect();
    assert_eq!(holding, [0, 1, 1]);

    let forced = [&rotate[..], &["--force", "--format", "json"]].concat();
    let forced = sandbox.run(&forced).json();
    assert_eq!(forced["verifiers_behind"][0], "inventory/pod-1 (1 epochs behind)");
    server.stop();
}

//! `kill -9` loses no acknowledged change.

use std::collections::BTreeSet;

use countersign::rpc;
use countersign::rpc::client_service_client::ClientServiceClient;
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::token_service_client::TokenServiceClient;
use tokio::sync::mpsc;
use tonic::Request;
use tonic::transport::Channel;

use crate::support::Sandbox;

const OPERATOR: &str = "countersign-dev/operator.toml";

/// How many writers there are at the same time.
const WRITERS: usize = 8;

async fn operator_token(sandbox: &Sandbox, channel: &Channel) -> String {
    let request = rpc::IssueTokenRequest {
        client_id: "operator".to_owned(),
        credential: Some(Credential::ClientSecret(sandbox.credential(OPERATOR, "client_secret"))),
        audience: "countersign".to_owned(),
        ..Default::default()
    };
    let issued = TokenServiceClient::new(channel.clone()).issue_token(request).await;
    issued.expect("the operator gets a token").into_inner().access_token
}

fn bearing<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Registers one client after another until the server is gone. Sends the id of each that was acknowledged.
async fn write_on(
    channel: Channel,
    token: String,
    prefix: String,
    acknowledged: mpsc::UnboundedSender<String>,
) {
    for n in 0.. {
        let client_id = format!("{prefix}-{n}");
        let client = rpc::Client { client_id: client_id.clone(), ..Default::default() };
        let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
        let answer =
            ClientServiceClient::new(channel.clone()).create_client(bearing(&token, request)).await;
        if answer.is_err() || acknowledged.send(client_id).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn acknowledged_changes_survive_a_kill() {
    let sandbox = Sandbox::new();
    let mut acknowledged = BTreeSet::from(["demo".to_owned(), "operator".to_owned()]);
    for (round, enough) in [1, 10, 25, 60, 100].into_iter().enumerate() {
        let server = sandbox.dev();
        let channel = server.channel().await;
        let token = operator_token(&sandbox, &channel).await;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for writer in 0..WRITERS {
            let prefix = format!("r{round}w{writer}");
            tokio::spawn(write_on(channel.clone(), token.clone(), prefix, sender.clone()));
        }
        drop(sender);
        for _ in 0..enough {
            acknowledged.insert(receiver.recv().await.expect("the writers are at it"));
        }
        server.kill();
        // Some answers were still on their way. The channel ends when the last writer gets no more answers.
        while let Some(client_id) = receiver.recv().await {
            acknowledged.insert(client_id);
        }
        assert_survived(&sandbox, &acknowledged);
    }
}

/// Revokes one token after another until the server is gone, and sends a message for each.
async fn revoke_on(
    channel: Channel,
    token: String,
    round: usize,
    acknowledged: mpsc::UnboundedSender<()>,
) {
    for n in 0.. {
        let target = Some(rpc::revoke_token_request::Target::TokenId(format!("{round}-{n}")));
        let request = bearing(&token, rpc::RevokeTokenRequest { target });
        let answer = TokenServiceClient::new(channel.clone()).revoke_token(request).await;
        if answer.is_err() || acknowledged.send(()).is_err() {
            return;
        }
    }
}

/// A kill may hit between the commit and the mark. The store must not be taken for an old copy of itself.
#[tokio::test]
async fn epochs_continue_after_a_kill() {
    let sandbox = Sandbox::new();
    let mut last = 0;
    for (round, enough) in [1, 3, 7, 12, 20].into_iter().enumerate() {
        let server = sandbox.dev();
        let channel = server.channel().await;
        let token = operator_token(&sandbox, &channel).await;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(revoke_on(channel.clone(), token, round, sender));
        let mut acknowledged = 0;
        while acknowledged < enough {
            receiver.recv().await.expect("the writer is at it");
            acknowledged += 1;
        }
        server.kill();
        while receiver.recv().await.is_some() {
            acknowledged += 1;
        }
        let server = sandbox.dev();
        server.stop();
        let connection = rusqlite::Connection::open(sandbox.path("countersign-dev/countersign.db"));
        let epoch: [u8; 8] = connection
            .and_then(|db| {
                db.query_row("SELECT value FROM meta WHERE name = 'epoch'", [], |row| row.get(0))
            })
            .expect("the store has an epoch");
        let epoch = u64::from_be_bytes(epoch);
        assert!(epoch > last && epoch > acknowledged, "{epoch} after {last}, {acknowledged} told");
        last = epoch;
    }
}

fn assert_survived(sandbox: &Sandbox, acknowledged: &BTreeSet<String>) {
    sandbox.run(&["audit", "verify", "--data-dir", "countersign-dev"]).ok();
    let server = sandbox.dev();
    let listed = sandbox.json(OPERATOR, &["client", "list"]);
    let names = |list: &serde_json::Value, key: &str| -> Vec<String> {
        let entries = list.as_array().expect("a list").iter();
        entries.map(|entry| entry[key].as_str().expect("a name").to_owned()).collect()
    };
    let there = BTreeSet::from_iter(names(&listed["clients"], "client_id"));
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    // A change and its event are atomic: no client without its event, and no event without its client.
    let mut audit = sandbox.json(OPERATOR, &["audit", "list", "--limit", "100000"]);
    let events = audit["events"].as_array_mut().expect("a list");
    events.retain(|event| event["action"] == "client.create");
    let mut recorded = names(&audit["events"], "target");
    recorded.extend(["demo", "operator"].map(str::to_owned));
    assert_eq!(recorded.len(), there.len());
    assert_eq!(BTreeSet::from_iter(recorded), there);
    server.stop();
}

//! The audit log: what is in it, and what never is.

use countersign::rpc;
use countersign::rpc::revoke_token_request::Target;
use tonic::Code;

use crate::support::TestServer;
use crate::support::ask;
use crate::support::assert_refused;
use crate::support::grant;

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// All events, oldest first.
async fn events(server: &TestServer) -> Vec<rpc::AuditEvent> {
    let request = rpc::ListAuditEventsRequest { page_size: 1000, page_token: String::new() };
    let answer = server.audit().list_audit_events(server.as_operator(request).await).await;
    let mut events = answer.expect("the operator may read it").into_inner().events;
    events.reverse();
    events
}

#[tokio::test]
async fn each_act_of_an_operator_has_its_event() {
    let server = TestServer::start().await;
    let (mut clients, mut keys) = (server.clients(), server.keys());
    let done = "it is allowed";
    let client_id = || "order".to_owned();

    let client = rpc::Client {
        client_id: client_id(),
        grants: vec![grant("inventory", &["stock:read"])],
        ..Default::default()
    };
    let create = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
    let created = clients.create_client(server.as_operator(create).await).await.expect(done);
    let mut client = created.into_inner().client.expect("it is created");
    client.description = "orders".to_owned();
    let update = rpc::UpdateClientRequest {
        client: Some(client),
        update_mask: Some(prost_types::FieldMask { paths: vec!["description".to_owned()] }),
        ..Default::default()
    };
    clients.update_client(server.as_operator(update).await).await.expect(done);
    let make = rpc::CreateClientSecretRequest { client_id: client_id(), ..Default::default() };
    let made = clients.create_client_secret(server.as_operator(make).await).await.expect(done);
    let made = made.into_inner();
    let secret_id = made.secret.expect("it has an id").secret_id;
    let token = server.issue(ask("order", &made.client_secret, "", &[])).await.expect(done);
    let target = Some(Target::Token(token.access_token));
    let revoke = rpc::RevokeTokenRequest { target };
    server.tokens().revoke_token(server.as_operator(revoke).await).await.expect(done);
    let revoke = rpc::RevokeClientSecretRequest {
        client_id: client_id(),
        secret_id: secret_id.clone(),
        ..Default::default()
    };
    clients.revoke_client_secret(server.as_operator(revoke).await).await.expect(done);
    let cut = rpc::RevokeClientTokensRequest { client_id: client_id(), ..Default::default() };
    clients.revoke_client_tokens(server.as_operator(cut).await).await.expect(done);
    let delete = rpc::DeleteClientRequest { client_id: client_id(), ..Default::default() };
    clients.delete_client(server.as_operator(delete).await).await.expect(done);
    let rotate = rpc::RotateKeysRequest::default();
    let rotated =
        keys.rotate_keys(server.as_operator(rotate).await).await.expect(done).into_inner();
    let force = rpc::RotateKeysRequest { force: true, ..Default::default() };
    let forced = keys.rotate_keys(server.as_operator(force).await).await.expect(done).into_inner();
    let kid = |key: &Option<rpc::Key>| key.as_ref().expect("it is there").kid.clone();
    let retired = kid(&rotated.retired);
    let revoke = rpc::RevokeKeyRequest { kid: retired.clone(), ..Default::default() };
    keys.revoke_key(server.as_operator(revoke).await).await.expect(done);

    let events = events(&server).await;
    let told: Vec<_> =
        events.iter().map(|event| (event.action.as_str(), event.target.as_str())).collect();
    let token_id = events[4].target.clone();
    assert_eq!(
        told,
        [
            ("store.init", crate::support::ISSUER),
            ("client.create", "order"),
            ("client.update", "order"),
            ("client.secret.create", "order"),
            ("token.revoke", &token_id),
            ("client.secret.revoke", "order"),
            ("client.tokens.revoke", "order"),
            ("client.delete", "order"),
            ("keys.rotate", &kid(&rotated.active)),
            ("keys.rotate.force", &kid(&forced.active)),
            ("keys.revoke", &retired),
        ]
    );
    assert_eq!((events[0].actor.as_str(), events[0].peer.as_str()), ("host", ""));
    for (event, sequence) in events.iter().zip(1..) {
        assert_eq!((event.sequence, event.outcome.as_str(), event.count), (sequence, "ok", 1));
        assert_eq!(event.create_time.expect("it has a time").seconds, 1_800_000_000);
    }
    for event in &events[1..] {
        assert_eq!(event.actor, "operator", "{event:?}");
        assert!(event.peer.starts_with("127.0.0.1:"), "{event:?}");
    }
    assert_eq!(events[1].detail, "grant inventory: stock:read");
    assert_eq!(events[3].detail, format!("secret {secret_id}"));
}

#[tokio::test]
async fn a_repeated_request_leaves_one_event() {
    let server = TestServer::start().await;
    for _ in 0..3 {
        let rotate = rpc::RotateKeysRequest { request_id: "once".to_owned(), ..Default::default() };
        server.keys().rotate_keys(server.as_operator(rotate).await).await.expect("it is allowed");
    }
    let rotated = events(&server).await;
    assert_eq!(rotated.iter().filter(|event| event.action == "keys.rotate").count(), 1);
}

#[tokio::test]
async fn refusals_are_counted_together_and_names_that_nobody_has_are_hashed() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    for _ in 0..1000 {
        let wrong = server.issue(ask("order", &server.operator_secret, "", &[])).await;
        assert_refused(wrong, Code::Unauthenticated, "CLIENT_REJECTED");
    }
    // Two of them pasted a secret where the name belongs.
    for client_id in [&secret, &secret, &server.operator_secret, "ordre"] {
        let unknown = server.issue(ask(client_id, &secret, "", &[])).await;
        assert_refused(unknown, Code::Unauthenticated, "CLIENT_REJECTED");
    }
    for _ in 0..2 {
        let client = rpc::Client { client_id: "order".to_owned(), ..Default::default() };
        let again = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
        let again = server.clients().create_client(server.as_operator(again).await).await;
        assert_refused(again, Code::AlreadyExists, "CLIENT_EXISTS");
        let missing = rpc::DeleteClientRequest { client_id: secret.clone(), ..Default::default() };
        let missing = server.clients().delete_client(server.as_operator(missing).await).await;
        assert_refused(missing, Code::NotFound, "CLIENT_NOT_FOUND");
    }
    server.restart().await;

    let events = events(&server).await;
    let refused: Vec<_> = events.iter().filter(|event| event.outcome != "ok").collect();
    let find = |action: &str, outcome: &str| {
        let found = |event: &&&rpc::AuditEvent| event.action == action && event.outcome == outcome;
        refused.iter().filter(found).collect::<Vec<_>>()
    };
    let wrong = find("token.issue", "wrong_secret");
    assert_eq!(wrong.len(), 1);
    assert_eq!((wrong[0].actor.as_str(), wrong[0].count), ("order", 1000));
    assert_eq!(wrong[0].peer, "127.0.0.1");
    let mut unknown: Vec<_> = find("token.issue", "unknown_client")
        .iter()
        .map(|event| (event.count, event.actor.as_str()))
        .collect();
    unknown.sort_unstable();
    assert_eq!(unknown.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [1, 1, 2]);
    assert!(unknown.iter().all(|(_, actor)| is_pseudonym(actor)), "{unknown:?}");
    let exists = find("client.create", "CLIENT_EXISTS");
    assert_eq!((exists[0].target.as_str(), exists[0].count), ("order", 2));
    let missing = find("client.delete", "CLIENT_NOT_FOUND");
    assert!(is_pseudonym(&missing[0].target) && missing[0].count == 2, "{missing:?}");
    // The same name has the same pseudonym, wherever it comes up.
    assert_eq!(missing[0].target, unknown[2].1);
    assert_eq!(refused.len(), 6);

    for extension in ["db", "db-wal"] {
        let bytes =
            std::fs::read(server.database().with_extension(extension)).expect("it is there");
        for text in ["ordre", secret.as_str(), server.operator_secret.as_str()] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
        }
    }
}

fn is_pseudonym(text: &str) -> bool {
    let digits = text.strip_prefix("unknown:").unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[tokio::test]
async fn an_attacker_cannot_fill_the_log_and_the_gap_is_counted() {
    let mut server = TestServer::start().await;
    for n in 0..600 {
        let unknown = server.issue(ask(&format!("guess-{n}"), "wrong", "", &[])).await;
        assert_refused(unknown, Code::Unauthenticated, "CLIENT_REJECTED");
    }
    server.restart().await;
    let events = events(&server).await;
    let refused: Vec<_> = events.iter().filter(|event| event.outcome != "ok").collect();
    assert_eq!(refused.len(), 513);
    assert_eq!(refused.iter().map(|event| event.count).sum::<i64>(), 600);
    let gap = refused.last().expect("there are some");
    assert_eq!((gap.action.as_str(), gap.count), ("audit.gap", 600 - 512));
}

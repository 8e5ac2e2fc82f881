//! Refusals in the audit log: they are counted, limited in number, and never contain a misplaced secret.

use countersign::rpc;
use tonic::Code;

use crate::support::{TestServer, ask, assert_refused, bearing};

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
async fn equal_refusals_are_counted_in_one_event_and_unknown_client_ids_are_hashed() {
    let mut server = TestServer::start_unthrottled().await;
    let secret = server.register("order", STOCK, &[]).await;
    for _ in 0..1000 {
        let wrong = server.issue(ask("order", &server.operator_secret, "", &[])).await;
        assert_refused(wrong, Code::Unauthenticated, "CLIENT_REJECTED");
    }
    // Three of these calls have a secret in the place of the client id.
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
    // The same name has the same pseudonym in every event.
    assert_eq!(missing[0].target, unknown[2].1);
    assert_eq!(refused.len(), 6);

    for extension in ["db", "db-wal"] {
        let bytes =
            std::fs::read(server.database().with_extension(extension)).expect("the file exists");
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
async fn an_attacker_cannot_fill_the_log_and_omitted_refusals_are_counted() {
    let mut server = TestServer::start_unthrottled().await;
    for n in 0..600 {
        let unknown = server.issue(ask(&format!("guess-{n}"), "wrong", "", &[])).await;
        assert_refused(unknown, Code::Unauthenticated, "CLIENT_REJECTED");
    }
    server.restart().await;
    let events = events(&server).await;
    let refused: Vec<_> = events.iter().filter(|event| event.outcome != "ok").collect();
    assert_eq!(refused.len(), 128 + 1);
    assert_eq!(refused.iter().map(|event| event.count).sum::<i64>(), 600);
    let gap = refused.last().expect("refusals were recorded");
    assert_eq!((gap.action.as_str(), gap.count), ("audit.gap", 600 - 128));
}

#[tokio::test]
async fn a_call_without_the_required_scope_is_recorded_with_its_caller() {
    let mut server = TestServer::start_unthrottled().await;
    let narrow = ask("operator", &server.operator_secret, "countersign", &["keys:read"]);
    let token = server.issue(narrow).await.expect("granted").access_token;
    for _ in 0..3 {
        let rotate = bearing(&token, rpc::RotateKeysRequest::default());
        let refused = server.keys().rotate_keys(rotate).await;
        assert_refused(refused, Code::PermissionDenied, "SCOPE_MISSING");
    }
    server.restart().await;
    let events = events(&server).await;
    let refused =
        events.iter().find(|event| event.action == "call").expect("there is such an event");
    assert_eq!((refused.actor.as_str(), refused.count), ("operator", 3));
    assert_eq!(refused.target, "/countersign.v1.KeyService/RotateKeys");
    assert_eq!((refused.outcome.as_str(), refused.peer.as_str()), ("SCOPE_MISSING", "127.0.0.1"));
}

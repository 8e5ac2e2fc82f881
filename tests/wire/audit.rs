//! The audit log: what it contains after operators have acted and callers were refused.

use countersign::rpc;
use countersign::rpc::revoke_token_request::Target;
use tonic::{Code, Response, Status};

use crate::caller::{Caller, client};
use crate::support::{TestServer, ask, assert_field, assert_refused, bearing};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

async fn list(
    server: &TestServer,
    page_size: i32,
    page_token: &str,
) -> Result<rpc::ListAuditEventsResponse, Status> {
    let request = rpc::ListAuditEventsRequest { page_size, page_token: page_token.to_owned() };
    let request = server.as_operator(request).await;
    server.audit().list_audit_events(request).await.map(Response::into_inner)
}

/// All events, newest first.
async fn events(server: &TestServer) -> Vec<rpc::AuditEvent> {
    list(server, 0, "").await.expect("the operator may read it").events
}

/// The actor, action, target and outcome of an event.
fn told(event: &rpc::AuditEvent) -> (&str, &str, &str, &str) {
    (&event.actor, &event.action, &event.target, &event.outcome)
}

#[tokio::test]
async fn every_act_is_in_the_audit_log_once_it_is_answered() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    server.advance(5);
    let secret = server.register("order", STOCK, &[]).await;
    let made = operator.new_secret(&server, "order", Some(60)).await.expect("created");
    let secret_id = made.credential.expect("the field is set").credential_id;
    operator.change(&server, "order", &["description"], |_| ()).await.expect("updated");
    operator.revoke_credential(&server, "order", &secret_id).await.expect("revoked");
    operator.revoke_tokens(&server, "order").await.expect("revoked");
    let token = server.token("order", &secret, "countersign").await.token;
    for _ in 0..2 {
        // The second call changes nothing, so it writes no event.
        operator.revoke_token(&server, Target::TokenId("id".to_owned())).await.expect("revoked");
    }
    let rotated = operator.rotate(&server).await.expect("rotated");
    let active = rotated.active.expect("the field is set").kid;
    operator.revoke_key(&server, &active).await.expect("revoked");
    // The operator's token still works: it was signed with an older key.
    operator.delete(&server, "order", "").await.expect("deleted");

    let mut events = events(&server).await;
    events.reverse();
    let expected = [
        ("host", "store.init", "https://issuer.test", "ok"),
        ("operator", "client.create", "order", "ok"),
        ("operator", "client.credential.create", "order", "ok"),
        ("operator", "client.credential.create", "order", "ok"),
        ("operator", "client.update", "order", "ok"),
        ("operator", "client.credential.revoke", "order", "ok"),
        ("operator", "client.tokens.revoke", "order", "ok"),
        ("operator", "token.revoke", "id", "ok"),
        ("operator", "keys.rotate", &active, "ok"),
        ("operator", "keys.revoke", &active, "ok"),
        ("operator", "client.delete", "order", "ok"),
    ];
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected);
    for (at, event) in events.iter().enumerate() {
        assert_eq!((event.sequence, event.count), (at as i64 + 1, 1));
        assert_eq!(event.peer.starts_with("127.0.0.1"), at > 0, "{event:?}");
    }
    let times: Vec<i64> =
        events.iter().map(|event| event.create_time.expect("the field is set").seconds).collect();
    assert_eq!(times[1] - times[0], 5);
    let text = format!("{events:?}");
    for leak in [&secret, &made.client_secret, &operator.token, &token] {
        assert!(!text.contains(&leak[leak.len() - 20..]));
    }
}

#[tokio::test]
async fn refusals_are_counted_and_a_misplaced_name_is_not_repeated() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let narrow = ask("operator", &server.operator_secret, "countersign", &["clients:write"]);
    let clerk = Caller { token: server.issue(narrow).await.expect("granted").access_token };
    for _ in 0..3 {
        let answer = server.issue(ask("order", "noise", "", &[])).await;
        assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
    }
    // The caller put a secret in the place of the client id.
    let answer = server.issue(ask(&secret, "order", "", &[])).await;
    assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
    let answer =
        clerk.create(&server, client("new", &[("countersign", &["keys:read"])], &[])).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");

    let before = events(&server).await.len();
    server.restart().await;
    let events = events(&server).await;
    let new = &events[..events.len() - before];
    let counted = |actor: &str| {
        let of_actor = |event: &&rpc::AuditEvent| event.actor.starts_with(actor);
        let event = new.iter().find(of_actor).expect("the refusal was written down");
        assert_eq!(event.peer, "127.0.0.1", "an attacker has a new port for every connection");
        (event.action.as_str(), event.target.as_str(), event.outcome.as_str(), event.count)
    };
    assert_eq!(new.len(), 3, "{new:?}");
    assert_eq!(counted("order"), ("token.issue", "", "wrong_secret", 3));
    assert_eq!(counted("unknown:"), ("token.issue", "", "unknown_client", 1));
    assert_eq!(counted("operator"), ("client.create", "new", "SCOPE_MISSING", 1));
    assert!(!format!("{events:?}").contains(&secret[..20]));
}

#[tokio::test]
async fn events_are_listed_page_by_page() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c", "d"] {
        server.operator().await.create(&server, client(name, STOCK, &[])).await.expect("created");
    }
    let mut sequences = Vec::new();
    let mut token = String::new();
    loop {
        let page = list(&server, 2, &token).await.expect("a page");
        assert!(page.events.len() <= 2);
        sequences.extend(page.events.iter().map(|event| event.sequence));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(sequences, [5, 4, 3, 2, 1]);
    let whole = list(&server, 5, "").await.expect("a page");
    assert_eq!((whole.events.len(), whole.next_page_token.as_str()), (5, ""));
    assert_field(list(&server, -1, "").await, "page_size");
    for noise in ["noise", "-1", "1.5"] {
        assert_field(list(&server, 2, noise).await, "page_token");
    }
}

#[tokio::test]
async fn a_repeated_request_is_recorded_once() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let request = || rpc::RotateKeysRequest { force: false, request_id: "one".to_owned() };
    for _ in 0..3 {
        server.keys().rotate_keys(bearing(&operator.token, request())).await.expect("rotated");
    }
    let events = events(&server).await;
    assert_eq!(events.iter().filter(|event| event.action == "keys.rotate").count(), 1);
}

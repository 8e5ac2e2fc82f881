//! Operators: what one may do to another, and that the last one always stays.

use std::future::Future;

use countersign::rpc;
use tonic::{Code, Status};

use crate::caller::{ALL_SCOPES, Caller, client};
use crate::support::{TestServer, ask, assert_field, assert_refused, grant};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];
const READER: &[(&str, &[&str])] = &[("countersign", &["keys:read"])];

fn grant_only(scopes: &'static [&'static str]) -> impl FnOnce(&mut rpc::Client) {
    move |client| client.grants = vec![grant("countersign", scopes)]
}

#[tokio::test]
async fn a_caller_without_operators_write_cannot_change_operators() {
    let server = TestServer::start().await;
    let all_but_one: Vec<&str> =
        ALL_SCOPES.iter().copied().filter(|scope| *scope != "operators:write").collect();
    let caller = server.operator_with("deputy", &all_but_one).await;
    server.register("reader", READER, &[]).await;
    server.register("order", STOCK, &[]).await;
    let reader = server.operator().await.read(&server, "reader").await.expect("the client exists");
    let secret = &reader.credentials[0].credential_id;
    let refused = |answer: Result<(), Status>| {
        assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
    };

    refused(caller.create(&server, client("new", READER, &[])).await.map(drop));
    let promote = caller.change(&server, "order", &["grants"], grant_only(&["keys:read"])).await;
    refused(promote.map(drop));
    let describe = caller.change(&server, "reader", &["description"], |_| ()).await;
    refused(describe.map(drop));
    let demote = caller.change(&server, "reader", &["grants"], |client| client.grants.clear());
    refused(demote.await.map(drop));
    refused(caller.delete(&server, "reader", "").await);
    refused(caller.new_secret(&server, "reader", None).await.map(drop));
    refused(caller.revoke_credential(&server, "reader", secret).await);
    refused(caller.revoke_tokens(&server, "reader").await.map(drop));
    assert_eq!(
        server.operator().await.read(&server, "reader").await.expect("the client exists"),
        reader
    );

    // It can change other clients, even one with an ordinary scope of Countersign.
    caller.change(&server, "order", &["description"], |_| ()).await.expect("updated");
    let watcher = client("watcher", &[("countersign", &["trust:watch"])], &[]);
    caller.create(&server, watcher).await.expect("created");
    caller.new_secret(&server, "order", None).await.expect("created");
    caller.revoke_tokens(&server, "order").await.expect("revoked");
    caller.delete(&server, "order", "").await.expect("deleted");
}

#[tokio::test]
async fn an_operator_cannot_grant_a_scope_that_it_lacks() {
    let server = TestServer::start().await;
    let scopes = ["clients:read", "clients:write", "operators:write"];
    let caller = server.operator_with("staff", &scopes).await;

    let answer = caller.create(&server, client("new", READER, &[])).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
    let own = [("countersign", &["clients:read", "clients:write"][..])];
    caller.create(&server, client("new", &own, &[])).await.expect("the caller holds these scopes");
    let add = grant_only(&["clients:read", "clients:write", "tokens:revoke"]);
    let answer = caller.change(&server, "new", &["grants"], add).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
    // It cannot grant them to itself either.
    let add = grant_only(&["clients:read", "clients:write", "operators:write", "keys:rotate"]);
    let answer = caller.change(&server, "staff", &["grants"], add).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");

    // A client keeps scopes that the caller lacks when other settings of it change.
    server.register("reader", READER, &[]).await;
    caller.change(&server, "reader", &["description"], |_| ()).await.expect("updated");
    let add = grant_only(&["keys:read", "clients:read"]);
    caller
        .change(&server, "reader", &["grants"], add)
        .await
        .expect("the caller holds the added scope");
}

#[tokio::test]
async fn an_operator_may_do_what_its_token_allows_not_what_its_grants_would() {
    let server = TestServer::start().await;
    let request =
        ask("operator", &server.operator_secret, "countersign", &["clients:read", "clients:write"]);
    let issued = server.issue(request).await.expect("granted");
    let caller = Caller { token: issued.access_token };
    let answer = caller.create(&server, client("new", READER, &[])).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
    caller.create(&server, client("new", STOCK, &[])).await.expect("the client is no operator");
}

#[tokio::test]
async fn only_known_scopes_of_countersign_can_be_granted() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    for scope in ["keys:reed", "root", "keys:*", "stock:read"] {
        let settings = client("new", &[("countersign", &["keys:read", scope])], &[]);
        let answer = operator.create(&server, settings).await;
        assert_refused(answer.clone(), Code::InvalidArgument, "SCOPE_UNKNOWN");
        assert_field(answer, "client.grants");
    }
    operator.create(&server, client("new", READER, &[])).await.expect("the scope exists");
    let answer = operator.change(&server, "new", &["grants"], grant_only(&["nothing"])).await;
    assert_refused(answer, Code::InvalidArgument, "SCOPE_UNKNOWN");
}

#[tokio::test]
async fn creating_a_secret_for_an_operator_takes_all_scopes_of_that_operator() {
    let server = TestServer::start().await;
    let scopes = ["clients:write", "keys:read", "operators:write"];
    let caller = server.operator_with("staff", &scopes).await;
    server.register("reader", READER, &[]).await;

    // Whoever has a secret of `operator` can do everything that `operator` can.
    let answer = caller.new_secret(&server, "operator", None).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_DENIED");
    caller
        .new_secret(&server, "reader", None)
        .await
        .expect("the caller holds the scopes of `reader`");
    caller
        .new_secret(&server, "staff", None)
        .await
        .expect("the caller may create a secret for itself");
}

/// Tries each change that would leave no client able to administer operators, on the operator `who`.
async fn each_way_out(server: &TestServer, by: &Caller, who: &str) -> Vec<Result<(), Status>> {
    let read =
        || async { server.operator().await.read(server, who).await.expect("the client exists") };
    let demote = grant_only(&["clients:read", "clients:write", "keys:read"]);
    let secret = read().await.credentials[0].credential_id.clone();
    vec![
        by.change(server, who, &["disabled"], |client| client.disabled = true).await.map(drop),
        by.change(server, who, &["grants"], demote).await.map(drop),
        by.change(server, who, &["grants"], |client| client.grants.clear()).await.map(drop),
        by.revoke_credential(server, who, &secret).await,
        by.delete(server, who, "").await,
    ]
}

#[tokio::test]
async fn the_last_operator_can_be_neither_deleted_nor_disabled() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    // None of these clients could take the operator's place.
    server.register("reader", READER, &[]).await;
    let whole: &[(&str, &[&str])] = &[("countersign", ALL_SCOPES)];
    operator.create(&server, client("without-secret", whole, &[])).await.expect("created");
    operator.create(&server, client("expired", whole, &[])).await.expect("created");
    operator.new_secret(&server, "expired", Some(1)).await.expect("created");
    server.register("disabled", whole, &[]).await;
    let disable = |client: &mut rpc::Client| client.disabled = true;
    operator.change(&server, "disabled", &["disabled"], disable).await.expect("updated");
    server.advance(1);

    for answer in each_way_out(&server, &operator, "operator").await {
        assert_refused(answer, Code::FailedPrecondition, "LAST_OPERATOR");
    }
    let known = operator.read(&server, "operator").await.expect("nothing happened to it");
    assert!(!known.disabled && known.credentials.len() == 1);
    // An operator that lacks one of the necessary scopes could not get it back.
    for lame in [
        &["operators:write"][..],
        &["clients:write", "operators:write"],
        &["clients:read", "operators:write"],
    ] {
        let answer = operator.change(&server, "operator", &["grants"], grant_only(lame)).await;
        assert_refused(answer, Code::FailedPrecondition, "LAST_OPERATOR");
    }
    // Other changes are allowed.
    operator.change(&server, "operator", &["description"], |_| ()).await.expect("updated");
    let narrow = grant_only(&["clients:read", "clients:write", "operators:write"]);
    operator.change(&server, "operator", &["grants"], narrow).await.expect("updated");
}

#[tokio::test]
async fn one_of_two_operators_can_be_deleted() {
    // Each way of removing one is tried on a server of its own.
    async fn goes<F: Future<Output = Result<(), Status>>>(
        way: impl FnOnce(TestServer, Caller) -> F,
    ) {
        let server = TestServer::start().await;
        let second = server.operator_with("second", ALL_SCOPES).await;
        way(server, second).await.expect("the other operator stays");
    }
    goes(|server, by| async move { by.delete(&server, "operator", "").await }).await;
    goes(|server, by| async move {
        let disable = |client: &mut rpc::Client| client.disabled = true;
        by.change(&server, "operator", &["disabled"], disable).await.map(drop)
    })
    .await;
    goes(|server, by| async move {
        let demote = grant_only(&["keys:read"]);
        by.change(&server, "operator", &["grants"], demote).await.map(drop)
    })
    .await;
    goes(|server, by| async move {
        let known = by.read(&server, "operator").await?;
        by.revoke_credential(&server, "operator", &known.credentials[0].credential_id).await?;
        // Now `second` is the last operator.
        let answer = by.delete(&server, "second", "").await;
        assert_refused(answer, Code::FailedPrecondition, "LAST_OPERATOR");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn removing_an_administrative_scope_revokes_the_tokens_that_carry_it() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let scopes = ["keys:read", "keys:rotate"];
    let secret = server.register("staff", &[("countersign", &scopes)], &[]).await;
    let staff = server.token("staff", &secret, "countersign").await;
    staff.keys(&server).await.expect("the token is valid");

    let add = grant_only(&["audit:read", "keys:read", "keys:rotate"]);
    operator.change(&server, "staff", &["grants"], add).await.expect("updated");
    staff.keys(&server).await.expect("more scopes revoke nothing");

    operator
        .change(&server, "staff", &["grants"], grant_only(&["audit:read", "keys:read"]))
        .await
        .expect("updated");
    staff.assert_shut_out(&server, "TOKEN_REVOKED").await;
    let staff = server.token("staff", &secret, "countersign").await;
    staff.keys(&server).await.expect("a new token has what is left");
    assert_refused(staff.rotate(&server).await, Code::PermissionDenied, "SCOPE_MISSING");

    operator
        .change(&server, "staff", &["grants"], |client| client.grants.clear())
        .await
        .expect("updated");
    staff.assert_shut_out(&server, "TOKEN_REVOKED").await;
}

#[tokio::test]
async fn the_token_of_a_deleted_operator_stays_revoked_when_its_id_is_registered_again() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let former = server.operator_with("staff", &["clients:read", "keys:read"]).await;
    former.keys(&server).await.expect("the token is valid");
    operator.delete(&server, "staff", "").await.expect("deleted");
    former.assert_shut_out(&server, "TOKEN_REVOKED").await;
    let staff = server.operator_with("staff", &["keys:read"]).await;
    former.assert_shut_out(&server, "TOKEN_REVOKED").await;
    staff.keys(&server).await.expect("the new one's token is good");
}

#[tokio::test]
async fn when_two_operators_delete_each_other_one_is_left() {
    let server = TestServer::start().await;
    let first = server.operator().await;
    let second = server.operator_with("second", ALL_SCOPES).await;
    let (one, other) =
        tokio::join!(first.delete(&server, "second", ""), second.delete(&server, "operator", ""));
    // The slower one is refused: as the last operator, or by the guard if its token is revoked by then.
    assert_eq!(one.is_ok() as u8 + other.is_ok() as u8, 1, "{one:?} {other:?}");
}

//! Rotating secrets: the old one is revoked by schedule once nobody uses it.

use countersign::rpc;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::issue_token_request::Credential;
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::sign_assertion;
use tonic::Code;

use crate::caller::{new_credential, seconds};
use crate::support::{ISSUER, TestServer, ask, assert_field, assert_refused, bearing, id};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read", "stock:write"])];
const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

impl TestServer {
    /// Creates a secret for `order` and marks its older ones to be retired when idle. Returns its text and its id.
    async fn rotate_secret(&self, idle: u64, ttl: Option<i64>) -> (String, String) {
        let request = rpc::CreateClientCredentialRequest {
            ttl: ttl.map(seconds),
            retire_others_when_idle: Some(seconds(idle as i64)),
            ..new_credential("order", Kind::Secret(rpc::ClientSecret {}))
        };
        let made = self.operator().await.create_credential(self, request).await.expect("made");
        (made.client_secret, made.credential.expect("the field is set").credential_id)
    }

    /// Lets time pass, and then runs the maintenance.
    async fn pass(&self, seconds: u64) {
        self.advance(seconds);
        self.authority().maintain(self.clock.now()).await.expect("the store can be written");
    }

    async fn secrets(&self) -> Vec<rpc::ClientCredential> {
        self.operator().await.read(self, "order").await.expect("the client exists").credentials
    }

    async fn use_secret(&self, secret: &str) {
        self.issue(ask("order", secret, "", &[])).await.expect("the credential works");
    }

    async fn assert_rejected(&self, secret: &str) {
        let answer = self.issue(ask("order", secret, "", &[])).await;
        assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
    }
}

#[tokio::test]
async fn an_old_secret_is_retired_once_it_is_idle_and_a_newer_one_is_in_use() {
    let server = TestServer::start().await;
    let old = server.register("order", STOCK, &[]).await;
    server.advance(10);
    let (new, _) = server.rotate_secret(DAY, None).await;
    let marks: Vec<_> = server.secrets().await.into_iter().map(|s| s.retire_when_idle).collect();
    assert_eq!(marks, [Some(seconds(DAY as i64)), None]);
    server.use_secret(&new).await;
    server.advance(10);
    server.use_secret(&old).await;

    server.pass(DAY - 1).await;
    let known = server.secrets().await;
    assert_eq!(known.len(), 2);
    server.pass(1).await;
    assert_eq!(server.secrets().await.len(), 1);
    server.assert_rejected(&old).await;
    server.use_secret(&new).await;

    let request = server.as_operator(rpc::ListAuditEventsRequest::default()).await;
    let events = server.audit().list_audit_events(request).await.expect("allowed").into_inner();
    let events: Vec<_> =
        events.events.into_iter().filter(|e| e.action == "client.credential.retire").collect();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((&*event.actor, &*event.target, &*event.outcome), ("schedule", "order", "ok"));
    let detail = format!("secret {}; last used 86400s ago", known[0].credential_id);
    assert_eq!(event.detail, detail);
}

#[tokio::test]
async fn a_secret_that_is_used_or_not_marked_is_not_retired() {
    let server = TestServer::start().await;
    let old = server.register("order", STOCK, &[]).await;
    let (new, _) = server.rotate_secret(DAY, None).await;
    for _ in 0..5 {
        server.use_secret(&old).await;
        server.use_secret(&new).await;
        server.pass(DAY - 1).await;
    }
    assert_eq!(server.secrets().await.len(), 2);
    server.pass(1).await;
    assert_eq!(server.secrets().await.len(), 1);
    // The newest secret is not marked, so it may be idle for any time.
    server.pass(30 * DAY).await;
    server.use_secret(&new).await;
}

#[tokio::test]
async fn an_idle_secret_is_kept_until_a_newer_valid_one_has_been_used() {
    let server = TestServer::start().await;
    let old = server.register("order", STOCK, &[]).await;
    let (_, unused) = server.rotate_secret(HOUR, None).await;
    server.pass(3 * DAY).await;
    assert_eq!(server.secrets().await.len(), 2, "nobody has used the newer one");
    let operator = server.operator().await;
    operator.revoke_credential(&server, "order", &unused).await.expect("revoked");
    server.pass(DAY).await;
    assert_eq!(server.secrets().await.len(), 1, "it is the last one");

    let (short, _) = server.rotate_secret(HOUR, Some(60)).await;
    server.use_secret(&short).await;
    server.pass(DAY).await;
    server.use_secret(&old).await;
    assert_eq!(server.secrets().await.len(), 2, "the newer one has been used, but works no more");

    let (new, _) = server.rotate_secret(HOUR, None).await;
    server.pass(DAY).await;
    assert_eq!(server.secrets().await.len(), 2);
    server.use_secret(&new).await;
    server.pass(60).await;
    assert_eq!(server.secrets().await.len(), 1);
    server.assert_rejected(&old).await;
}

#[tokio::test]
async fn of_several_old_secrets_only_the_idle_ones_are_retired() {
    let mut server = TestServer::start().await;
    // The secrets are created in the same second, so a restart may read them in another order.
    let first = server.register("order", STOCK, &[]).await;
    let (second, _) = server.rotate_secret(HOUR, None).await;
    let (third, _) = server.rotate_secret(HOUR, None).await;
    server.use_secret(&second).await;
    server.restart().await;
    server.pass(HOUR).await;
    assert_eq!(server.secrets().await.len(), 3, "nobody has used the newest");
    server.use_secret(&second).await;
    server.use_secret(&third).await;
    server.pass(60).await;
    server.assert_rejected(&first).await;
    server.use_secret(&second).await;
    server.pass(HOUR).await;
    server.assert_rejected(&second).await;
    server.use_secret(&third).await;
}

#[tokio::test]
async fn rotating_the_secret_of_the_last_operator_leaves_the_new_one() {
    let server = TestServer::start().await;
    let request = rpc::CreateClientCredentialRequest {
        retire_others_when_idle: Some(seconds(60)),
        ..new_credential("operator", Kind::Secret(rpc::ClientSecret {}))
    };
    let made = server.operator().await.create_credential(&server, request).await.expect("made");
    server.pass(DAY).await;
    server.operator().await;
    let new = made.client_secret;
    server.issue(ask("operator", &new, "countersign", &[])).await.expect("the credential works");
    server.pass(DAY).await;
    let operator = server.token("operator", &new, "countersign").await;
    let known = operator.read(&server, "operator").await.expect("the client exists").credentials;
    assert_eq!(known.len(), 1);
}

#[tokio::test]
async fn idle_time_continues_after_an_orderly_stop() {
    let mut server = TestServer::start().await;
    let old = server.register("order", STOCK, &[]).await;
    let (new, _) = server.rotate_secret(HOUR, None).await;
    server.use_secret(&new).await;
    server.advance(600);
    // This use is only in memory when the server stops.
    server.use_secret(&old).await;
    for _ in 0..2 {
        server.restart().await;
        server.pass(HOUR / 2 - 1).await;
    }
    server.pass(1).await;
    assert_eq!(server.secrets().await.len(), 2);
    server.pass(1).await;
    assert_eq!(server.secrets().await.len(), 1);
}

#[tokio::test]
async fn idle_time_starts_again_after_a_crash() {
    let mut server = TestServer::start().await;
    let old = server.register("order", STOCK, &[]).await;
    server.advance(1);
    let (new, _) = server.rotate_secret(HOUR, None).await;
    server.use_secret(&new).await;
    server.pass(HOUR / 2).await;
    // The note of this orderly stop must not make the later crash look orderly.
    server.restart().await;
    server.use_secret(&old).await;
    server.crash().await;
    let used = server.secrets().await[0].last_use_time;
    assert_eq!(used, None, "the use is lost");
    server.pass(HOUR - 1).await;
    assert_eq!(server.secrets().await.len(), 2);
    // An orderly stop after the crash does not bring the lost use back, so the idle time keeps its start.
    server.restart().await;
    server.pass(0).await;
    assert_eq!(server.secrets().await.len(), 2);
    server.pass(1).await;
    assert_eq!(server.secrets().await.len(), 1);
    server.assert_rejected(&old).await;
}

#[tokio::test]
async fn an_idle_time_shorter_than_a_minute_is_refused() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let old = server.register("order", STOCK, &[]).await;
    for bad in [-1, 0, 59, i64::MAX] {
        let request = rpc::CreateClientCredentialRequest {
            retire_others_when_idle: Some(seconds(bad)),
            ..new_credential("order", Kind::Secret(rpc::ClientSecret {}))
        };
        let answer = operator.create_credential(&server, request).await;
        assert_field(answer, "retire_others_when_idle");
    }
    assert_eq!(server.secrets().await.len(), 1);
    server.rotate_secret(60, None).await;
    server.use_secret(&old).await;
}

#[tokio::test]
async fn revoking_a_secret_can_also_revoke_the_tokens_so_far_if_the_operator_may() {
    let server = TestServer::start().await;
    let old = server.register("order", STOCK, &["inventory"]).await;
    let (new, _) = server.rotate_secret(DAY, None).await;
    let id = server.secrets().await[0].credential_id.clone();
    let order = server.token("order", &new, "countersign").await;
    let token = server.token("order", &old, "inventory").await.token;

    let writer = server.operator_with("writer", &["clients:read", "clients:write"]).await;
    let refused = writer.revoke_credential_and_tokens(&server, "order", &id).await;
    assert_refused(refused, Code::PermissionDenied, "SCOPE_MISSING");
    server.use_secret(&old).await;
    order.claims(&server, &token).await;

    let operator = server.operator().await;
    let unknown = operator.revoke_credential_and_tokens(&server, "order", "00000000").await;
    assert_refused(unknown, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    order.claims(&server, &token).await;

    operator.revoke_credential_and_tokens(&server, "order", &id).await.expect("revoked");
    server.assert_rejected(&old).await;
    // The guard refuses the token, and validation says that it is revoked.
    let question = rpc::ValidateTokenRequest { token: token.clone(), ..Default::default() };
    let answer = server.tokens().validate_token(bearing(&order.token, question)).await;
    assert_refused(answer, Code::Unauthenticated, "TOKEN_REVOKED");
    let order = server.token("order", &new, "countersign").await;
    order.assert_inactive(&server, &token, rpc::InactiveReason::Revoked).await;

    // Without that option, revoking a secret leaves the tokens valid.
    let token = server.token("order", &new, "inventory").await.token;
    let id = server.secrets().await[0].credential_id.clone();
    writer.revoke_credential(&server, "order", &id).await.expect("revoked");
    server.assert_rejected(&new).await;
    order.claims(&server, &token).await;
}

#[tokio::test]
async fn an_old_key_is_retired_by_a_newer_key_but_not_by_a_newer_secret() {
    let server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let key = |seed| SigningKey::from_seed(&[seed; 32]);
    let rotate = async |seed| {
        let public_key = key(seed).public().as_bytes().to_vec();
        let request = rpc::CreateClientCredentialRequest {
            retire_others_when_idle: Some(seconds(HOUR as i64)),
            ..new_credential("order", Kind::PublicKey(public_key))
        };
        let made = server.operator().await.create_credential(&server, request).await;
        made.expect("made").credential.expect("the field is set").credential_id
    };
    let first = rotate(1).await;
    server.advance(10);
    let second = rotate(2).await;
    let ids = async || {
        let known = server.secrets().await;
        known.into_iter().map(|known| known.credential_id).collect::<Vec<_>>()
    };
    // Making a key marks only keys, so the older secret has no mark. A newer secret does not replace a key.
    assert_eq!(server.secrets().await[0].retire_when_idle, None);
    server.use_secret(&secret).await;
    let (newer, _) = server.rotate_secret(HOUR, None).await;
    server.use_secret(&newer).await;
    server.pass(HOUR / 2).await;
    server.use_secret(&secret).await;
    server.pass(HOUR - 1).await;
    assert_eq!(ids().await.len(), 4, "nobody has used the newer key");

    let now = server.clock.now();
    let assertion = sign_assertion(&key(2), &id("order"), ISSUER, now, [1; 16]);
    let credential = Some(Credential::ClientAssertion(assertion.expose().to_owned()));
    let request = rpc::IssueTokenRequest { credential, ..ask("order", "", "", &[]) };
    server.issue(request).await.expect("the credential works");
    server.use_secret(&secret).await;
    server.pass(0).await;
    let left = ids().await;
    assert!(!left.contains(&first) && left.contains(&second), "{left:?}");
    assert_eq!(left.len(), 3, "both secrets stay");
}

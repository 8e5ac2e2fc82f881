//! The secrets of clients: how many there can be, how long they work, and what is shown of them.

use countersign::client::ClientSecret;
use countersign::rpc;
use countersign::rpc::create_client_credential_request::Kind;
use tonic::Code;

use crate::caller::client;
use crate::support::{START, TestServer, ask, assert_field, assert_refused, bearing};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

fn unix(time: Option<prost_types::Timestamp>) -> Option<u64> {
    time.map(|time| time.seconds as u64)
}

#[tokio::test]
async fn eight_secrets_work_and_a_ninth_is_refused() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    let mut secrets = Vec::new();
    for n in 0..8 {
        // Only the first secret expires.
        let ttl = (n == 0).then_some(60);
        secrets.push(
            operator.new_secret(&server, "order", ttl).await.expect("fewer than eight exist"),
        );
    }
    for secret in &secrets {
        assert!(ClientSecret::looks_like_one(&secret.client_secret));
        server.issue(ask("order", &secret.client_secret, "", &[])).await.expect("each works");
    }
    let listed = operator.read(&server, "order").await.expect("the client exists").credentials;
    let ids = |secrets: &[rpc::ClientCredential]| {
        secrets.iter().map(|secret| secret.credential_id.clone()).collect::<Vec<_>>()
    };
    let created: Vec<_> = secrets.iter().filter_map(|made| made.credential.clone()).collect();
    assert_eq!(ids(&listed), ids(&created), "oldest first");

    let ninth = operator.new_secret(&server, "order", None).await;
    assert_refused(ninth, Code::FailedPrecondition, "CREDENTIAL_LIMIT");
    let name = rpc::certificate_name::Name::SanDns("order.example".to_owned());
    let name = Kind::CertificateName(rpc::CertificateName { name: Some(name) });
    let other = operator.add_credential(&server, "order", name, None).await;
    let other = other.expect("the limit is per kind of credential").credential_id;
    operator.revoke_credential(&server, "order", &other).await.expect("revoked");
    server.advance(60);
    operator.new_secret(&server, "order", None).await.expect("the expired one made room");
    let listed = operator.read(&server, "order").await.expect("the client exists").credentials;
    assert_eq!(listed.len(), 8);
    assert!(!ids(&listed).contains(&ids(&created)[0]));
    let tenth = operator.new_secret(&server, "order", None).await;
    assert_refused(tenth, Code::FailedPrecondition, "CREDENTIAL_LIMIT");

    operator.revoke_credential(&server, "order", &ids(&created)[1]).await.expect("revoked");
    operator.new_secret(&server, "order", None).await.expect("the revoked one made room");
}

#[tokio::test]
async fn a_revoked_secret_stops_working_and_the_others_still_work() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let kept = server.register("order", STOCK, &[]).await;
    let made = operator.new_secret(&server, "order", None).await.expect("created");
    let id = made.credential.expect("the field is set").credential_id;

    operator.revoke_credential(&server, "order", &id).await.expect("revoked");
    let answer = server.issue(ask("order", &made.client_secret, "", &[])).await;
    assert_refused(answer, Code::Unauthenticated, "CLIENT_REJECTED");
    server.issue(ask("order", &kept, "", &[])).await.expect("the other one works");

    let again = operator.revoke_credential(&server, "order", &id).await;
    assert_refused(again, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    let of_another = operator.revoke_credential(&server, "operator", &id).await;
    assert_refused(of_another, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    let of_nobody = operator.revoke_credential(&server, "nobody", &id).await;
    assert_refused(of_nobody, Code::NotFound, "CLIENT_NOT_FOUND");
    let unknown = operator.revoke_credential(&server, "order", "noise").await;
    assert_refused(unknown, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    for no_id in ["", &kept, &"x".repeat(2000)] {
        let answer = operator.revoke_credential(&server, "order", no_id).await;
        assert!(!format!("{answer:?}").contains(&kept));
        assert_field(answer, "credential_id");
    }
    let for_nobody = operator.new_secret(&server, "nobody", None).await;
    assert_refused(for_nobody, Code::NotFound, "CLIENT_NOT_FOUND");
}

#[tokio::test]
async fn a_secret_can_expire_but_its_lifetime_must_be_positive() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    server.register("order", STOCK, &[]).await;
    let made = operator.new_secret(&server, "order", Some(1)).await.expect("created");
    let known = made.credential.expect("the field is set");
    assert_eq!(unix(known.create_time), Some(START.as_unix()));
    assert_eq!(unix(known.expire_time), Some(START.as_unix() + 1));
    for ttl in [0, -1, i64::MIN] {
        assert_field(operator.new_secret(&server, "order", Some(ttl)).await, "ttl");
    }
}

#[tokio::test]
async fn the_last_use_of_a_secret_is_shown_and_survives_a_restart() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let operator = server.operator().await;
    let last_use = |server: &TestServer| {
        let (operator, clients) = (operator.clone(), server.clients());
        let request = rpc::GetClientRequest { client_id: "order".to_owned() };
        let mut clients = clients;
        async move {
            let answer = clients.get_client(bearing(&operator.token, request)).await;
            let client =
                answer.expect("the client exists").into_inner().client.expect("the field is set");
            unix(client.credentials[0].last_use_time)
        }
    };
    assert_eq!(last_use(&server).await, None);
    server.advance(7);
    let refused = server.issue(ask("order", &server.operator_secret, "", &[])).await;
    assert_refused(refused, Code::Unauthenticated, "CLIENT_REJECTED");
    assert_eq!(last_use(&server).await, None, "nobody used it");
    server.issue(ask("order", &secret, "", &[])).await.expect("granted");
    assert_eq!(last_use(&server).await, Some(START.as_unix() + 7));
    server.restart().await;
    assert_eq!(last_use(&server).await, Some(START.as_unix() + 7));
}

#[tokio::test]
async fn a_secret_is_shown_only_in_the_answer_that_creates_it() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    server.restart().await;
    let operator = server.operator().await;
    let client = operator.read(&server, "order").await.expect("the client exists");
    let shown = prost::Message::encode_to_vec(&client);
    assert!(!shown.windows(8).any(|part| part == &secret.as_bytes()[5..13]));
    server.issue(ask("order", &secret, "", &[])).await.expect("the secret still works");
}

//! Requests that are sent again because their answer got lost.

use countersign::rpc;
use countersign::rpc::create_client_credential_request::Kind;
use prost::Message;
use prost_types::FieldMask;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::caller::{ALL_SCOPES, Caller, client, new_credential};
use crate::support::{TestServer, ask, assert_field, assert_refused, bearing};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];
const DAY: u64 = 24 * 60 * 60;

async fn create(
    server: &TestServer,
    caller: &Caller,
    settings: rpc::Client,
    request_id: &str,
) -> Result<rpc::CreateClientResponse, Status> {
    let request =
        rpc::CreateClientRequest { client: Some(settings), request_id: request_id.to_owned() };
    server.clients().create_client(bearing(&caller.token, request)).await.map(Response::into_inner)
}

async fn rotate(
    server: &TestServer,
    caller: &Caller,
    request_id: &str,
) -> Result<rpc::RotateKeysResponse, Status> {
    let request = rpc::RotateKeysRequest { force: false, request_id: request_id.to_owned() };
    server.keys().rotate_keys(bearing(&caller.token, request)).await.map(Response::into_inner)
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    let settings = || client("order", STOCK, &[]);
    let first = create(&server, &operator, settings(), "one").await.expect("created");
    server.advance(10);
    assert_eq!(
        create(&server, &operator, settings(), "one").await.expect("the first answer again"),
        first
    );
    server.restart().await;
    assert_eq!(
        create(&server, &operator, settings(), "one").await.expect("the first answer again"),
        first
    );
    // With another token of the same client, the actor is the same.
    let operator = server.operator().await;
    assert_eq!(
        create(&server, &operator, settings(), "one").await.expect("the first answer again"),
        first
    );

    let without = create(&server, &operator, settings(), "").await;
    assert_refused(without, Code::AlreadyExists, "CLIENT_EXISTS");
    let another = create(&server, &operator, settings(), "two").await;
    assert_refused(another, Code::AlreadyExists, "CLIENT_EXISTS");
}

#[tokio::test]
async fn a_rotation_that_is_sent_again_rotates_nothing_again() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    let first = rotate(&server, &operator, "one").await.expect("rotated");
    let keys = operator.keys(&server).await.expect("keys");
    assert_eq!(rotate(&server, &operator, "one").await.expect("the first answer again"), first);
    server.restart().await;
    assert_eq!(rotate(&server, &operator, "one").await.expect("the first answer again"), first);
    assert_eq!(operator.keys(&server).await.expect("keys"), keys);

    assert_ne!(rotate(&server, &operator, "two").await.expect("rotated"), first);
    assert_eq!(rotate(&server, &operator, "one").await.expect("the answer of then"), first);
    assert_eq!(operator.keys(&server).await.expect("keys").len(), keys.len() + 1);
}

#[tokio::test]
async fn a_request_id_cannot_be_reused_for_another_request() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    create(&server, &operator, client("order", STOCK, &[]), "one").await.expect("created");
    let other_content = create(&server, &operator, client("orders", STOCK, &[]), "one").await;
    assert_refused(other_content.clone(), Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_field(other_content, "request_id");
    let other_method = rotate(&server, &operator, "one").await;
    assert_refused(other_method, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let absent = operator.read(&server, "orders").await;
    assert_refused(absent, Code::NotFound, "CLIENT_NOT_FOUND");
    assert_eq!(operator.keys(&server).await.expect("keys").len(), 2);
}

#[tokio::test]
async fn requests_to_two_methods_are_different_even_with_the_same_bytes() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    create(&server, &operator, client("order", STOCK, &[]), "").await.expect("created");
    let made = operator.new_secret(&server, "order", None).await.expect("created");
    let id = made.credential.expect("the field is set").credential_id;
    // Both messages have the client id in field 1, eight hexadecimal digits in field 2 and the request id in
    // field 3, so their bytes are equal.
    let (client_id, request_id) = ("order".to_owned(), "one".to_owned());
    let revoke = rpc::RevokeClientCredentialRequest {
        client_id: client_id.clone(),
        credential_id: id.clone(),
        request_id: request_id.clone(),
        ..Default::default()
    };
    let delete = rpc::DeleteClientRequest { client_id, etag: id, request_id };
    assert_eq!(revoke.encode_to_vec(), delete.encode_to_vec());
    let revoke = bearing(&operator.token, revoke);
    server.clients().revoke_client_credential(revoke).await.expect("revoked");
    let answer = server.clients().delete_client(bearing(&operator.token, delete)).await;
    assert_refused(answer, Code::InvalidArgument, "REQUEST_ID_REUSED");
    operator.read(&server, "order").await.expect("the client still exists");
}

#[tokio::test]
async fn two_operators_can_use_the_same_request_id() {
    let server = TestServer::start().await;
    let (first, second) =
        (server.operator().await, server.operator_with("second", ALL_SCOPES).await);
    let one = rotate(&server, &first, "one").await.expect("rotated");
    assert_ne!(rotate(&server, &second, "one").await.expect("rotated"), one);
    assert_eq!(rotate(&server, &first, "one").await.expect("the first answer again"), one);
}

#[tokio::test]
async fn a_repeated_request_does_not_show_the_secret_again() {
    let mut server = TestServer::start().await;
    let operator = server.operator().await;
    create(&server, &operator, client("order", STOCK, &[]), "").await.expect("created");
    let request = |ttl: Option<i64>| rpc::CreateClientCredentialRequest {
        ttl: ttl.map(crate::caller::seconds),
        request_id: "one".to_owned(),
        ..new_credential("order", Kind::Secret(rpc::ClientSecret {}))
    };
    let make = async |server: &TestServer, ttl| {
        let request = bearing(&operator.token, request(ttl));
        server.clients().create_client_credential(request).await.map(Response::into_inner)
    };

    let made = make(&server, None).await.expect("created");
    let id = made.credential.expect("the field is set").credential_id;
    for _ in 0..2 {
        let status = make(&server, None).await.expect_err("the secret was shown before");
        let info = status.get_details_error_info().expect("every error carries ErrorInfo");
        assert_eq!(info.metadata.get("credential_id"), Some(&id));
        assert!(!status.message().contains(&made.client_secret));
        assert_refused::<()>(Err(status), Code::AlreadyExists, "SECRET_SHOWN");
        server.restart().await;
    }
    assert_refused(make(&server, Some(60)).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let retiring = rpc::CreateClientCredentialRequest {
        retire_others_when_idle: Some(crate::caller::seconds(60)),
        ..request(None)
    };
    let answer = operator.create_credential(&server, retiring).await;
    assert_refused(answer, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let known = operator.read(&server, "order").await.expect("the client exists");
    assert_eq!(known.credentials.len(), 1);
    assert_eq!(known.credentials[0].retire_when_idle, None);
    server.issue(ask("order", &made.client_secret, "", &[])).await.expect("the first one works");
}

#[tokio::test]
async fn a_refused_request_can_be_repeated_under_its_id() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let settings = || client("order", STOCK, &[]);
    create(&server, &operator, settings(), "").await.expect("created");
    let refused = create(&server, &operator, settings(), "one").await;
    assert_refused(refused, Code::AlreadyExists, "CLIENT_EXISTS");
    operator.delete(&server, "order", "").await.expect("deleted");
    create(&server, &operator, settings(), "one").await.expect("now it can be");
}

#[tokio::test]
async fn every_kind_of_change_can_be_repeated_under_its_id() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    create(&server, &operator, client("order", STOCK, &[]), "").await.expect("created");
    let made = operator.new_secret(&server, "order", None).await.expect("created");
    let known = operator.read(&server, "order").await.expect("the client exists");
    let key = operator.keys(&server).await.expect("keys")[0].kid.clone();
    let (client_id, credential_id) =
        ("order".to_owned(), made.credential.expect("the field is set").credential_id);
    let revoke_key = rpc::RevokeKeyRequest { kid: key, request_id: "key".to_owned() };
    let update = rpc::UpdateClientRequest {
        client: Some(known),
        update_mask: Some(FieldMask { paths: vec!["description".to_owned()] }),
        request_id: "update".to_owned(),
    };
    let revoke_secret = rpc::RevokeClientCredentialRequest {
        client_id: client_id.clone(),
        credential_id,
        request_id: "secret".to_owned(),
        ..Default::default()
    };
    let revoke_tokens = rpc::RevokeClientTokensRequest {
        client_id: client_id.clone(),
        request_id: "tokens".to_owned(),
    };
    let delete = rpc::DeleteClientRequest {
        client_id,
        request_id: "delete".to_owned(),
        ..Default::default()
    };

    // Without its id, each repeated request would be refused or get another answer.
    let (mut keys, mut clients) = (server.keys(), server.clients());
    let token = &operator.token;
    let mut answers = Vec::new();
    for _ in 0..2 {
        server.advance(1);
        let again = "the same answer again";
        let revoked = keys.revoke_key(bearing(token, revoke_key.clone())).await.expect(again);
        let updated = clients.update_client(bearing(token, update.clone())).await.expect(again);
        let request = bearing(token, revoke_secret.clone());
        clients.revoke_client_credential(request).await.expect(again);
        let request = bearing(token, revoke_tokens.clone());
        let cut = clients.revoke_client_tokens(request).await.expect(again);
        answers.push((revoked.into_inner(), updated.into_inner(), cut.into_inner()));
    }
    assert_eq!(answers[0], answers[1]);
    for _ in 0..2 {
        clients.delete_client(bearing(token, delete.clone())).await.expect("deleted, and so again");
    }
}

#[tokio::test]
async fn an_answer_is_remembered_for_a_day() {
    let mut server = TestServer::start().await;
    let first = rotate(&server, &server.operator().await, "one").await.expect("rotated");
    server.advance(DAY - 1);
    server.restart().await;
    let operator = server.operator().await;
    assert_eq!(rotate(&server, &operator, "one").await.expect("the first answer again"), first);
    server.advance(2);
    server.restart().await;
    assert_ne!(rotate(&server, &operator, "one").await.expect("a new one"), first);
}

#[tokio::test]
async fn a_request_id_must_be_short_and_printable() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    for bad in ["a b", "a\n", "\u{e4}", &"x".repeat(65)] {
        assert_field(rotate(&server, &operator, bad).await, "request_id");
    }
    assert_eq!(operator.keys(&server).await.expect("keys").len(), 2);
    rotate(&server, &operator, &"x".repeat(64)).await.expect("64 are fine");
    rotate(&server, &operator, "!~").await.expect("so are these");
}

#[tokio::test]
async fn two_identical_concurrent_requests_are_carried_out_once() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let (one, other) =
        tokio::join!(rotate(&server, &operator, "one"), rotate(&server, &operator, "one"));
    assert_eq!(one.expect("rotated"), other.expect("rotated"));
    assert_eq!(operator.keys(&server).await.expect("keys").len(), 3);
}

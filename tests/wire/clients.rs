//! Clients: how they are created, read, changed and deleted, and how ids are registered again.

use countersign::rpc::{self, InactiveReason};
use tonic::{Code, Status};

use crate::caller::client;
use crate::support::{START, TestServer, ask, assert_field, assert_refused, bearing, grant};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

#[tokio::test]
async fn a_client_is_read_as_it_was_registered() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let settings = rpc::Client {
        description: "Größe: the order service".to_owned(),
        max_token_ttl: Some(crate::caller::seconds(60)),
        // These fields are output only, so the server ignores them.
        etag: "noise".to_owned(),
        create_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..client("order", &[("payment", &["b", "a", "b"]), ("inventory", &["c"])], &["z", "y", "z"])
    };
    let created = operator.create(&server, settings.clone()).await.expect("created");
    assert_eq!(created.description, settings.description);
    assert_eq!(created.grants, [grant("inventory", &["c"]), grant("payment", &["a", "b"])]);
    assert_eq!(created.serves, ["y", "z"]);
    assert_eq!(created.max_token_ttl, settings.max_token_ttl);
    assert_eq!(created.create_time.expect("the field is set").seconds as u64, START.as_unix());
    assert!(created.credentials.is_empty() && !created.disabled);
    assert_eq!(operator.read(&server, "order").await.expect("the client exists"), created);

    assert_refused(operator.read(&server, "orders").await, Code::NotFound, "CLIENT_NOT_FOUND");
    assert_field(operator.read(&server, "a b").await, "client_id");
    let again = operator.create(&server, client("order", STOCK, &[])).await;
    assert_refused(again, Code::AlreadyExists, "CLIENT_EXISTS");
    assert_eq!(operator.read(&server, "order").await.expect("the client exists"), created);
}

#[tokio::test]
async fn malformed_settings_name_the_field_at_fault() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let described = |description: String| rpc::Client { description, ..client("c", STOCK, &[]) };
    let granted = |grants: &[(&str, &[&str])]| client("c", grants, &[]);
    let many_grants = |count| rpc::Client {
        grants: (0..count).map(|n| grant(&format!("a{n}"), &["x"])).collect(),
        ..granted(&[])
    };
    let many_scopes = |count| rpc::Client {
        grants: vec![rpc::Grant {
            audience: "a".to_owned(),
            scopes: (0..count).map(|n| format!("s{n}")).collect(),
        }],
        ..granted(&[])
    };
    let many_served = |count| rpc::Client {
        serves: (0..count).map(|n| format!("a{n}")).collect(),
        ..granted(&[])
    };

    for (bad, field) in [
        (client("", STOCK, &[]), "client.client_id"),
        (client("a/b", STOCK, &[]), "client.client_id"),
        (client(&"x".repeat(65), STOCK, &[]), "client.client_id"),
        (described("x".repeat(257)), "client.description"),
        (described("two\nlines".to_owned()), "client.description"),
        (described("\u{1b}[31mred".to_owned()), "client.description"),
        (described("c1 control \u{85}".to_owned()), "client.description"),
        (granted(&[("a", &["x"]), ("a", &["y"])]), "client.grants"),
        (granted(&[("a", &[])]), "client.grants"),
        (many_grants(65), "client.grants"),
        (granted(&[("a", &["x"]), ("b c", &["x"])]), "client.grants[1].audience"),
        (granted(&[("", &["x"])]), "client.grants[0].audience"),
        (granted(&[("a", &["x", "y z"])]), "client.grants[0].scopes"),
        (granted(&[("a", &["x\""])]), "client.grants[0].scopes"),
        (granted(&[("a", &["x\\"])]), "client.grants[0].scopes"),
        (granted(&[("a", &["ä"])]), "client.grants[0].scopes"),
        (granted(&[("a", &[""])]), "client.grants[0].scopes"),
        (many_scopes(65), "client.grants[0].scopes"),
        (client("c", STOCK, &["ok", "not ok"]), "client.serves[1]"),
        (many_served(65), "client.serves"),
    ] {
        assert_field(operator.create(&server, bad).await, field);
    }
    let request = bearing(&operator.token, rpc::CreateClientRequest::default());
    assert_field(server.clients().create_client(request).await, "client");
    assert_refused(operator.read(&server, "c").await, Code::NotFound, "CLIENT_NOT_FOUND");

    for good in [described("ä".repeat(256)), many_grants(64), many_scopes(64), many_served(64)] {
        operator.create(&server, good).await.expect("the most that is allowed");
        operator.delete(&server, "c", "").await.expect("deleted");
    }
}

#[tokio::test]
async fn no_client_may_serve_the_audience_countersign() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let answer = operator.create(&server, client("c", &[], &["countersign"])).await;
    assert_refused(answer.clone(), Code::InvalidArgument, "AUDIENCE_DENIED");
    assert_field(answer, "client.serves");
    operator
        .create(&server, client("c", &[], &["countersigned"]))
        .await
        .expect("only the exact name is reserved");
    let serve = |client: &mut rpc::Client| client.serves = vec!["countersign".to_owned()];
    let answer = operator.change(&server, "c", &["serves"], serve).await;
    assert_refused(answer, Code::InvalidArgument, "AUDIENCE_DENIED");
}

#[tokio::test]
async fn clients_are_listed_page_by_page_in_order() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    for name in ["delta", "alpha", "Zulu", "charlie", "bravo", "a.b"] {
        operator.create(&server, client(name, STOCK, &[])).await.expect("created");
    }
    let list = |page_size, page_token: &str| {
        let request = rpc::ListClientsRequest { page_size, page_token: page_token.to_owned() };
        let request = bearing(&operator.token, request);
        let mut clients = server.clients();
        async move { clients.list_clients(request).await.map(tonic::Response::into_inner) }
    };

    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let page = list(2, &token).await.expect("a page");
        pages.push(page.clients.into_iter().map(|client| client.client_id).collect::<Vec<_>>());
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: [&[&str]; 4] =
        [&["Zulu", "a.b"], &["alpha", "bravo"], &["charlie", "delta"], &["operator"]];
    assert_eq!(pages, expected);

    let whole = list(7, "").await.expect("a page");
    assert_eq!((whole.clients.len(), whole.next_page_token.as_str()), (7, ""));
    assert_eq!(list(0, "").await.expect("a page").clients.len(), 7);
    assert_eq!(list(i32::MAX, "").await.expect("a page").clients.len(), 7);
    // The page token still works although the client that it names was deleted.
    operator.delete(&server, "bravo", "").await.expect("deleted");
    assert_eq!(list(1, "bravo").await.expect("a page").clients[0].client_id, "charlie");

    assert_field(list(-1, "").await, "page_size");
    assert_field(list(i32::MIN, "").await, "page_size");
    assert_field(list(2, "not a token").await, "page_token");
    assert_field(list(2, &"x".repeat(65)).await, "page_token");
}

#[tokio::test]
async fn an_update_changes_what_the_mask_names_and_nothing_else() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let mut known = operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    let wanted = rpc::Client {
        description: "new".to_owned(),
        grants: vec![grant("payment", &["charge"])],
        serves: vec!["order".to_owned()],
        max_token_ttl: Some(crate::caller::seconds(60)),
        disabled: true,
        ..known.clone()
    };
    type Take = fn(&mut rpc::Client, rpc::Client);
    let fields: [(&str, Take); 5] = [
        ("description", |to, from| to.description = from.description),
        ("grants", |to, from| to.grants = from.grants),
        ("serves", |to, from| to.serves = from.serves),
        ("max_token_ttl", |to, from| to.max_token_ttl = from.max_token_ttl),
        ("disabled", |to, from| to.disabled = from.disabled),
    ];
    for (path, take) in fields {
        server.advance(1);
        let mut request = wanted.clone();
        request.etag.clone_from(&known.etag);
        let updated = operator.update(&server, request, &[path]).await.expect("updated");
        take(&mut known, wanted.clone());
        assert_ne!(updated.etag, known.etag);
        assert_ne!(updated.update_time, known.update_time);
        known.etag.clone_from(&updated.etag);
        known.update_time = updated.update_time;
        assert_eq!(updated, known, "{path}");
        assert_eq!(
            operator.read(&server, "order").await.expect("the client exists"),
            known,
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_update_with_a_bad_mask_or_etag_is_refused_with_its_field() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let known = operator.create(&server, client("order", STOCK, &[])).await.expect("created");

    assert_field(operator.update(&server, known.clone(), &[]).await, "update_mask");
    for unknown in
        ["client_id", "etag", "credentials", "*", "Description", "client.description", ""]
    {
        let answer = operator.update(&server, known.clone(), &["description", unknown]).await;
        assert_field(answer, "update_mask");
    }
    for bad in ["", "noise", "-1"] {
        let request = rpc::Client { etag: bad.to_owned(), ..known.clone() };
        assert_field(operator.update(&server, request, &["description"]).await, "client.etag");
    }
    let request = rpc::Client { grants: vec![grant("a", &[])], ..known.clone() };
    assert_field(operator.update(&server, request.clone(), &["grants"]).await, "client.grants");
    operator.update(&server, request, &["description"]).await.expect("the mask leaves it out");
    let nobody = rpc::Client { client_id: "nobody".to_owned(), ..known };
    let answer = operator.update(&server, nobody, &["description"]).await;
    assert_refused(answer, Code::NotFound, "CLIENT_NOT_FOUND");
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let first = operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    let describe = |description: &str, of: &rpc::Client| rpc::Client {
        description: description.to_owned(),
        ..of.clone()
    };
    let update = |client| operator.update(&server, client, &["description"]);
    let second = update(describe("second", &first)).await.expect("updated");
    assert_refused(update(describe("late", &first)).await, Code::Aborted, "ETAG_STALE");

    // Creating a secret changes the client's etag too.
    let secret = operator.new_secret(&server, "order", None).await.expect("created");
    assert_refused(update(describe("late", &second)).await, Code::Aborted, "ETAG_STALE");
    let third = operator.read(&server, "order").await.expect("the client exists");
    assert_eq!(third.description, "second");
    let stale = operator.delete(&server, "order", &second.etag).await;
    assert_refused(stale, Code::Aborted, "ETAG_STALE");
    assert_field(operator.delete(&server, "order", "noise").await, "etag");
    server
        .issue(ask("order", &secret.client_secret, "", &[]))
        .await
        .expect("the client still exists");
    operator.delete(&server, "order", &third.etag).await.expect("deleted");
    let again = operator.delete(&server, "order", "").await;
    assert_refused(again, Code::NotFound, "CLIENT_NOT_FOUND");

    // An etag of the deleted client does not fit the new client with the same id.
    operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    assert_refused(update(describe("late", &third)).await, Code::Aborted, "ETAG_STALE");
}

#[tokio::test]
async fn tokens_of_a_deleted_client_stay_revoked_when_its_id_is_registered_again() {
    let mut server = TestServer::start().await;
    let inventory = server.register("inventory", &[], &["inventory"]).await;
    let inventory = server.token("inventory", &inventory, "countersign").await;
    let secret = server.register("order", STOCK, &[]).await;
    let old = server.token("order", &secret, "inventory").await.token;
    inventory.claims(&server, &old).await;

    server.operator().await.delete(&server, "order", "").await.expect("deleted");
    inventory.assert_inactive(&server, &old, InactiveReason::Revoked).await;
    let secret = server.register("order", STOCK, &[]).await;
    inventory.assert_inactive(&server, &old, InactiveReason::Revoked).await;

    let new = server.token("order", &secret, "inventory").await.token;
    let claims = inventory.claims(&server, &new).await;
    assert!(claims.issue_time.expect("the field is set").seconds as u64 > START.as_unix());
    server.restart().await;
    inventory.assert_inactive(&server, &old, InactiveReason::Revoked).await;
    inventory.claims(&server, &new).await;
}

#[tokio::test]
async fn disabling_a_client_revokes_its_tokens() -> Result<(), Status> {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let inventory = server.register("inventory", &[], &["inventory"]).await;
    let inventory = server.token("inventory", &inventory, "countersign").await;
    let secret = server.register("order", STOCK, &[]).await;
    let token = server.token("order", &secret, "inventory").await.token;

    let change = |paths, change: fn(&mut rpc::Client)| {
        let (server, operator) = (&server, &operator);
        async move { operator.change(server, "order", paths, change).await }
    };
    change(&["description"], |client| client.description = "new".to_owned()).await?;
    inventory.claims(&server, &token).await;
    change(&["disabled"], |client| client.disabled = true).await?;
    inventory.assert_inactive(&server, &token, InactiveReason::Revoked).await;
    change(&["disabled"], |client| client.disabled = false).await?;
    inventory.assert_inactive(&server, &token, InactiveReason::Revoked).await;
    let token = server.token("order", &secret, "inventory").await.token;
    inventory.claims(&server, &token).await;
    Ok(())
}

#[tokio::test]
async fn of_two_concurrent_updates_with_the_same_etag_one_succeeds() {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    let known = operator.create(&server, client("order", STOCK, &[])).await.expect("created");
    let describe = |description: &str| {
        let client = rpc::Client { description: description.to_owned(), ..known.clone() };
        operator.update(&server, client, &["description"])
    };
    let (one, other) = tokio::join!(describe("one"), describe("other"));
    let (updated, refused) = if one.is_ok() { (one, other) } else { (other, one) };
    assert_refused(refused, Code::Aborted, "ETAG_STALE");
    let updated = updated.expect("one of the two updates succeeds");
    assert_eq!(operator.read(&server, "order").await.expect("the client exists"), updated);
}

//! The store: a fault is reported clearly and nothing is changed, and acknowledged changes are durable.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign::authority::{Authority, OpenError, Settings};
use countersign::rpc;
use countersign::store::{Kek, StoreError};
use countersign_mesh::claims::Clock;
use countersign_mesh::keys::SigningKey;
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{START, TestServer, ask, assert_refused, bearing};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

fn open(path: &Path, kek: Kek) -> Result<Authority, OpenError> {
    let settings = Settings {
        default_ttl: Duration::from_secs(900),
        audit_retention: Duration::from_secs(365 * 86_400),
        ..Settings::default()
    };
    Authority::open(path, kek, settings, &Clock::fixed(START))
}

/// Opens a store that must be refused, and returns the error. Nothing in its directory may change but the lock file.
#[track_caller]
fn refused(path: &Path, kek: Kek) -> StoreError {
    let before = snapshot(path);
    let error = match open(path, kek) {
        Err(OpenError::Store(error)) => error,
        Err(OpenError::ClockBehind(error)) => panic!("{error}"),
        Ok(_) => panic!("it opens"),
    };
    assert!(snapshot(path) == before, "{error}: something was changed");
    error
}

/// The files in the directory of a store, with their contents.
fn snapshot(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = path.parent().expect("the database is in a directory");
    let entries = fs::read_dir(directory).expect("the directory exists");
    let paths = entries.map(|entry| entry.expect("the entry can be read").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_none_or(|extension| extension != "lock"))
        .map(|path| (path.clone(), fs::read(path).expect("it can be read")))
        .collect();
    files.sort();
    files
}

/// A closed store with a client, a secret and revocations, whose copies are damaged by tests.
struct Closed {
    server: TestServer,
    copies: TempDir,
}

impl Closed {
    async fn new() -> Self {
        let mut server = TestServer::start().await;
        server.register("order", STOCK, &["orders"]).await;
        let cut =
            rpc::RevokeClientTokensRequest { client_id: "order".to_owned(), ..Default::default() };
        let cut = server.clients().revoke_client_tokens(server.as_operator(cut).await).await;
        cut.expect("the call is allowed");
        let target = Some(rpc::revoke_token_request::Target::TokenId("a-token".to_owned()));
        let revoke = server.as_operator(rpc::RevokeTokenRequest { target }).await;
        server.tokens().revoke_token(revoke).await.expect("the call is allowed");
        server.stop().await;
        Self { server, copies: TempDir::new().expect("a temporary directory") }
    }

    fn copy(&self) -> PathBuf {
        let path = self.copies.path().join("copy.db");
        fs::copy(self.server.database(), &path).expect("the file can be written");
        path
    }

    /// The error of opening a copy on which some SQL was run.
    #[track_caller]
    fn refused_after(&self, sql: &str) -> StoreError {
        let path = self.copy();
        let connection = Connection::open(&path).expect("the file is a database");
        connection.execute_batch(sql).expect("the SQL fits the schema");
        drop(connection);
        refused(&path, self.server.kek())
    }
}

#[tokio::test]
async fn a_fresh_store_has_the_current_version() {
    let store = Closed::new().await;
    let connection = Connection::open(store.server.database()).expect("the file is a database");
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .expect("the pragma has a value")
    };
    assert_eq!((pragma("user_version"), pragma("application_id")), (3, 0x4353_474e));
    let mode: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .expect("the pragma has a value");
    assert_eq!(mode, "wal");
    drop(connection);
    drop(open(&store.server.database(), store.server.kek()).expect("the store opens"));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_not_changed() {
    let store = Closed::new().await;
    let error = store.refused_after("PRAGMA user_version = 4");
    assert_eq!(error, StoreError::TooNew { found: 4, known: 3 });
    assert!(error.to_string().contains("use a newer program"), "{error}");
    let path = store.copies.path().join("copy.db");
    let audit = countersign::store::verify_audit(&path, &store.server.kek(), None);
    assert_eq!(audit, Err(error));
}

#[tokio::test]
async fn a_file_that_is_not_a_countersign_store_is_refused_and_not_changed() {
    let kek = || Kek::generate().expect("the system has randomness");
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("countersign.db");
    assert_eq!(refused(&path, kek()), StoreError::NotFound(path.clone()));
    assert!(snapshot(&path).is_empty());

    for content in [&b""[..], b"hello", &[0; 8192], b"SQLite format 3\0 or so it says"] {
        fs::write(&path, content).expect("the file can be written");
        assert_eq!(refused(&path, kek()), StoreError::NotOurs(path.clone()));
    }
    fs::remove_file(&path).expect("the file can be removed");
    let other = Connection::open(&path).expect("a new database");
    other
        .execute_batch("CREATE TABLE meta (name TEXT); PRAGMA user_version = 1")
        .expect("the file is an empty database");
    drop(other);
    assert_eq!(refused(&path, kek()), StoreError::NotOurs(path.clone()));
}

#[tokio::test]
async fn a_store_does_not_open_with_another_kek() {
    let store = Closed::new().await;
    let other = Kek::generate().expect("the system has randomness");
    assert_eq!(refused(&store.server.database(), other), StoreError::WrongKek);
    drop(open(&store.server.database(), store.server.kek()).expect("the right one does"));
}

#[tokio::test]
async fn a_key_ring_changed_without_the_kek_is_refused() {
    let mut store = Closed::new().await;
    let kid = {
        store.server.restart().await;
        let operator = store.server.operator().await;
        let active = operator.keys(&store.server).await.expect("allowed")[1].kid.clone();
        operator.revoke_key(&store.server, &active).await.expect("revoked");
        store.server.stop().await;
        active
    };
    let other = SigningKey::from_seed(&[7; 32]);
    let hex: String = other.public().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for sql in [
        // A retired key has no sealed half, so anyone could add one.
        format!(
            "INSERT INTO keys VALUES ('{}', 'retired', x'{hex}', NULL, 1, 1, 1, 9999999999)",
            other.kid()
        ),
        // A revoked key becomes a retired one, which would verify.
        format!("UPDATE keys SET state = 'retired', activated_at = created_at WHERE kid = '{kid}'"),
        format!("DELETE FROM keys WHERE kid = '{kid}'"),
        format!("UPDATE keys SET gone_at = gone_at + 1 WHERE kid = '{kid}'"),
        "DELETE FROM meta WHERE name = 'ring'".to_owned(),
    ] {
        assert_eq!(store.refused_after(&sql), StoreError::BadKeyRing, "{sql}");
    }
}

#[tokio::test]
async fn a_signing_key_that_was_tampered_with_is_refused() {
    let store = Closed::new().await;
    let bad = |sql: &str| match store.refused_after(sql) {
        StoreError::BadSealedKey(kid) => kid,
        error => panic!("{sql}: {error}"),
    };
    for sql in [
        // The sealed keys are swapped, cut or replaced.
        "CREATE TEMP TABLE k AS SELECT * FROM keys;
         UPDATE keys SET sealed = (SELECT sealed FROM k WHERE k.kid <> keys.kid)",
        "UPDATE keys SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE state = 'active'",
        "UPDATE keys SET sealed = substr(sealed, 1, 10) WHERE state = 'next'",
        "UPDATE keys SET sealed = zeroblob(72) WHERE state = 'next'",
        "UPDATE keys SET sealed = x'' WHERE state = 'active'",
        // The public keys are swapped, but the `kid`s are not.
        "CREATE TEMP TABLE k AS SELECT * FROM keys;
         UPDATE keys SET public = (SELECT public FROM k WHERE k.kid <> keys.kid)",
    ] {
        bad(sql);
    }
    let sealed: Vec<u8> = Connection::open(store.copy())
        .expect("the file is a database")
        .query_row("SELECT sealed FROM keys WHERE state = 'active'", [], |row| row.get(0))
        .expect("the store has an active key");
    // One bit is changed: in the nonce, in the ciphertext, or in its tag.
    for place in [0, 24, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        let hex: String = changed.iter().map(|byte| format!("{byte:02x}")).collect();
        bad(&format!("UPDATE keys SET sealed = x'{hex}' WHERE state = 'active'"));
    }

    // Another public key with its own `kid`. Only the seal shows that it does not belong to the private key.
    let other = SigningKey::from_seed(&[7; 32]);
    let path = store.copy();
    let connection = Connection::open(&path).expect("the file is a database");
    connection
        .execute(
            "UPDATE keys SET kid = ?1, public = ?2 WHERE state = 'active'",
            params![other.kid().as_str(), other.public().as_bytes()],
        )
        .expect("the SQL fits the schema");
    drop(connection);
    assert_eq!(
        refused(&path, store.server.kek()),
        StoreError::BadSealedKey(other.kid().to_string())
    );
}

#[tokio::test]
async fn a_store_that_lacks_required_data_is_reported_as_damaged() {
    let store = Closed::new().await;
    for sql in [
        "DELETE FROM meta WHERE name = 'store_id'",
        "DELETE FROM meta WHERE name = 'kek'",
        "DELETE FROM meta WHERE name = 'issuer'",
        "UPDATE meta SET value = x'ff' WHERE name = 'issuer'",
        "UPDATE meta SET value = x'00' WHERE name = 'epoch'",
        "DELETE FROM keys WHERE state = 'active'",
        "DELETE FROM keys WHERE state = 'next'",
        "UPDATE keys SET activated_at = NULL",
        "UPDATE clients SET grants = '[{' WHERE client_id = 'order'",
        "UPDATE clients SET client_id = 'a b' WHERE client_id = 'operator'",
        "UPDATE client_credential SET content = x'00'",
        "UPDATE client_credential SET kind = 'password'",
        "UPDATE client_credential SET kind = 'public_key'",
        "UPDATE client_credential SET credential_id = ''",
        "UPDATE revoked_tokens SET token_id = ''",
        "UPDATE revoked_clients SET client_id = ''",
        "DROP TABLE client_credential",
    ] {
        let error = store.refused_after(&format!("PRAGMA foreign_keys = OFF; {sql}"));
        assert!(matches!(error, StoreError::Corrupt(_)), "{sql}: {error}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }
}

#[tokio::test]
async fn damaged_pages_are_detected_when_the_store_is_opened() {
    const PAGE: usize = 4096;
    let store = Closed::new().await;
    let pages: Vec<(String, usize)> = {
        let connection = Connection::open(store.server.database()).expect("the file is a database");
        let mut roots = connection
            .prepare("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'")
            .expect("the database has tables");
        let rows = roots.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)));
        rows.expect("the database has tables")
            .map(|row| row.expect("the row can be read"))
            .collect()
    };
    assert_eq!(pages.len(), 8);
    let whole = fs::read(store.server.database()).expect("the file exists");
    for (table, page) in pages.iter().filter(|(table, _)| table != "requests") {
        for noise in [0x00, 0xff, 0x5a] {
            let mut bytes = whole.clone();
            bytes[(page - 1) * PAGE..page * PAGE].fill(noise);
            let path = store.copy();
            fs::write(&path, bytes).expect("the file can be written");
            let error = refused(&path, store.server.kek());
            assert!(matches!(error, StoreError::Corrupt(_)), "{table} {noise}: {error}");
        }
    }
    for length in [PAGE, 2 * PAGE, whole.len() - PAGE] {
        let path = store.copy();
        fs::write(&path, &whole[..length]).expect("the file can be written");
        let error = refused(&path, store.server.kek());
        assert!(matches!(error, StoreError::Corrupt(_)), "{length} bytes: {error}");
    }
}

#[tokio::test]
async fn a_second_process_cannot_open_a_store() {
    let mut server = TestServer::start().await;
    let Err(OpenError::Store(error)) = open(&server.database(), server.kek()) else {
        panic!("it opens twice")
    };
    assert_eq!(error, StoreError::InUse(server.database()));
    server.restart().await;
}

async fn create(server: &TestServer, token: &str, client_id: &str) -> Result<(), Status> {
    let client = rpc::Client { client_id: client_id.to_owned(), ..Default::default() };
    let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
    server.clients().create_client(bearing(token, request)).await.map(|_| ())
}

async fn client_ids(server: &TestServer) -> Vec<String> {
    let request = rpc::ListClientsRequest { page_size: 1000, page_token: String::new() };
    let listed = server.clients().list_clients(server.as_operator(request).await).await;
    let clients = listed.expect("the call is allowed").into_inner().clients;
    clients.into_iter().map(|client| client.client_id).collect()
}

#[tokio::test]
async fn while_the_store_is_locked_only_writes_fail() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let token = server.operator_token().await;
    let other = Connection::open(server.database()).expect("another process may");
    other.execute_batch("BEGIN EXCLUSIVE").expect("no transaction is open");

    let (one, two, issued) = tokio::join!(
        create(&server, &token, "one"),
        create(&server, &token, "two"),
        server.issue(ask("order", &secret, "", &[])),
    );
    issued.expect("issuing touches no disk");
    let status = one.clone().expect_err("the store is locked");
    assert!(status.message().contains("nothing was changed"), "{}", status.message());
    assert!(status.message().contains("locked by another process"), "{}", status.message());
    assert!(status.get_details_retry_info().is_some());
    assert_refused(one, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_refused(two, Code::Unavailable, "STORE_UNAVAILABLE");
    // Reads still work: of clients, which are in memory, and of the audit log, which is on disk.
    assert_eq!(client_ids(&server).await, ["operator", "order"]);
    let events = rpc::ListAuditEventsRequest::default();
    let events = server.audit().list_audit_events(bearing(&token, events)).await;
    assert_eq!(events.expect("the audit log can be read").into_inner().events.len(), 3);

    other.execute_batch("ROLLBACK").expect("the other connection holds the lock");
    create(&server, &token, "one").await.expect("the store can be written again");
    server.restart().await;
    assert_eq!(client_ids(&server).await, ["one", "operator", "order"]);
    server.stop().await;
    let audit = countersign::store::verify_audit(&server.database(), &server.kek(), None);
    let report = audit.expect("it can be read").expect("the backup is intact");
    assert_eq!(report.head.sequence, 4);
}

#[tokio::test]
async fn concurrent_writes_all_survive_a_restart() {
    let mut server = TestServer::start().await;
    let token = server.operator_token().await;
    let mut writes = JoinSet::new();
    for n in 0..64 {
        let (mut clients, token) = (server.clients(), token.clone());
        writes.spawn(async move {
            let client = rpc::Client { client_id: format!("c{n:02}"), ..Default::default() };
            let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
            let created = clients.create_client(bearing(&token, request)).await;
            created
                .expect("the client is created")
                .into_inner()
                .client
                .expect("the answer has the client")
                .etag
        });
    }
    // Each write got an etag of its own.
    let mut etags = writes.join_all().await;
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 64);
    let expected: Vec<_> =
        (0..64).map(|n| format!("c{n:02}")).chain(["operator".to_owned()]).collect();
    assert_eq!(client_ids(&server).await, expected);
    server.restart().await;
    assert_eq!(client_ids(&server).await, expected);
}

#[tokio::test]
async fn of_many_identical_concurrent_writes_one_succeeds() {
    let server = TestServer::start().await;
    let token = server.operator_token().await;
    let mut writes = JoinSet::new();
    for _ in 0..16 {
        let (mut clients, token) = (server.clients(), token.clone());
        writes.spawn(async move {
            let client = rpc::Client { client_id: "one".to_owned(), ..Default::default() };
            let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
            clients.create_client(bearing(&token, request)).await
        });
    }
    let (created, refused): (Vec<_>, Vec<_>) =
        writes.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((created.len(), refused.len()), (1, 15));
    for answer in refused {
        assert_refused(answer, Code::AlreadyExists, "CLIENT_EXISTS");
    }
}

//! The chain of the audit log: every change is detected, and retention deletes only rows that are old enough.

use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign::authority::{Authority, Settings};
use countersign::client::PresentedCredential;
use countersign::rpc;
use countersign::store::{self, AuditHead, AuditReport, ChainError, Kek, StoreError};
use countersign_mesh::claims::{Clock, Timestamp};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{START, TestServer, issue_at};

/// A closed store whose audit log has five rows, and a directory for tampered copies of it.
struct Log {
    server: TestServer,
    copies: TempDir,
}

impl Log {
    const ROWS: u64 = 5;

    async fn new() -> Self {
        let mut server = TestServer::start().await;
        for _ in 1..Self::ROWS {
            rotate(&server).await;
        }
        server.stop().await;
        Self { server, copies: TempDir::new().expect("a temporary directory") }
    }

    /// A copy of the store on which some SQL was run.
    fn tampered(&self, sql: &str) -> PathBuf {
        let path = self.copies.path().join("copy.db");
        std::fs::copy(self.server.database(), &path).expect("the file can be written");
        let connection = Connection::open(&path).expect("the file is a database");
        connection.execute_batch(sql).expect("the SQL fits the schema");
        path
    }

    fn verify(&self, path: &Path, head: Option<&AuditHead>) -> Result<AuditReport, ChainError> {
        store::verify_audit(path, &self.server.kek(), head).expect("the store can be read")
    }

    fn head(&self) -> AuditHead {
        self.verify(&self.server.database(), None).expect("the chain holds").head
    }

    /// Does what a server does with a copy: opens it and adds to the log.
    async fn use_store(&self, path: &Path, retention: Duration) {
        let authority = authority(path, self.server.kek(), retention, START);
        let wrong = PresentedCredential::Secret("wrong");
        issue_at(&authority, "nobody", wrong, "", START)
            .await
            .expect_err("the client does not exist");
        authority.maintain(START).await.expect("the store can be written");
    }
}

async fn rotate(server: &TestServer) {
    let rotate = rpc::RotateKeysRequest::default();
    server.keys().rotate_keys(server.as_operator(rotate).await).await.expect("the call is allowed");
}

fn authority(path: &Path, kek: Kek, audit_retention: Duration, now: Timestamp) -> Authority {
    let settings =
        Settings { default_ttl: Duration::from_secs(900), audit_retention, ..Settings::default() };
    Authority::open(path, kek, settings, &Clock::fixed(now)).expect("the store opens")
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[tokio::test]
async fn verifying_a_changed_log_names_the_changed_row() {
    let log = Log::new().await;
    let untouched = log.verify(&log.server.database(), None).expect("the chain holds");
    assert_eq!((untouched.first, untouched.head.sequence), (1, Log::ROWS));

    for change in [
        "at = at + 1",
        "actor = 'someone'",
        "action = 'keys.revoke'",
        "target = ''",
        "outcome = 'refused'",
        "peer = '10.0.0.1'",
        "count = 2",
        "detail = detail || ' '",
        "mac = zeroblob(32)",
        "mac = x'00'",
        "target = target || 'o', outcome = 'k'",
    ] {
        let path = log.tampered(&format!("UPDATE audit SET {change} WHERE sequence = 3"));
        assert_eq!(log.verify(&path, None), Err(ChainError::BadRow(3)), "{change}");
    }
    for (sql, found) in [
        ("DELETE FROM audit WHERE sequence = 3", ChainError::MissingRow(3)),
        ("DELETE FROM audit WHERE sequence = 1", ChainError::MissingRow(1)),
        ("DELETE FROM audit WHERE sequence = 5", ChainError::CutAfter(4)),
        ("DELETE FROM audit WHERE sequence > 2", ChainError::CutAfter(2)),
        ("DELETE FROM audit", ChainError::CutAfter(0)),
        (
            "INSERT INTO audit SELECT 6, at, actor, action, target, outcome, peer, count, detail, mac FROM audit WHERE sequence = 5",
            ChainError::BadRow(6),
        ),
        (
            "UPDATE audit SET sequence = 9 WHERE sequence = 3; UPDATE audit SET sequence = 3 WHERE sequence = 4; UPDATE audit SET sequence = 4 WHERE sequence = 9",
            ChainError::BadRow(3),
        ),
        ("UPDATE meta SET value = zeroblob(72) WHERE name = 'audit_head'", ChainError::BadAnchor),
        (
            "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'audit_start') WHERE name = 'audit_head'",
            ChainError::BadAnchor,
        ),
        ("UPDATE meta SET value = x'' WHERE name = 'audit_start'", ChainError::BadAnchor),
        ("DELETE FROM meta WHERE name = 'audit_head'", ChainError::BadAnchor),
        ("DELETE FROM meta WHERE name = 'audit_start'", ChainError::BadAnchor),
    ] {
        assert_eq!(log.verify(&log.tampered(sql), None), Err(found), "{sql}");
    }
}

#[tokio::test]
async fn an_exported_head_shows_that_an_old_state_was_put_back() {
    let mut log = Log::new().await;
    let old = log.tampered("");
    let old_head = log.head();
    log.server.restart().await;
    rotate(&log.server).await;
    log.server.stop().await;
    let head = log.head();

    assert_eq!(
        log.verify(&log.server.database(), Some(&head)).map(|report| report.head),
        Ok(head.clone())
    );
    assert!(log.verify(&log.server.database(), Some(&old_head)).is_ok());
    // The old state is consistent in itself. Only the exported head shows that it is old.
    assert!(log.verify(&old, None).is_ok());
    assert_eq!(log.verify(&old, Some(&head)), Err(ChainError::HeadMismatch(head.sequence)));
    let other = AuditHead { sequence: 2, ..head };
    assert_eq!(log.verify(&log.server.database(), Some(&other)), Err(ChainError::HeadMismatch(2)));

    let other_kek = Kek::generate().expect("the system has randomness");
    let wrong = store::verify_audit(&old, &other_kek, None).map(|_| ());
    assert_eq!(wrong, Err(StoreError::WrongKek));
}

#[tokio::test]
async fn a_server_that_continues_a_cut_log_does_not_hide_the_cut() {
    let log = Log::new().await;
    for (sql, found) in [
        ("DELETE FROM audit WHERE sequence = 5", ChainError::MissingRow(5)),
        ("DELETE FROM audit", ChainError::MissingRow(1)),
        (
            "DELETE FROM audit WHERE sequence = 5; DELETE FROM meta WHERE name = 'audit_head'",
            ChainError::BadRow(5),
        ),
        ("DELETE FROM audit; DELETE FROM meta WHERE name = 'audit_head'", ChainError::BadRow(1)),
        ("UPDATE audit SET mac = zeroblob(32) WHERE sequence = 5", ChainError::BadRow(5)),
        ("UPDATE audit SET sequence = 7 WHERE sequence = 5", ChainError::MissingRow(5)),
    ] {
        let path = log.tampered(sql);
        log.use_store(&path, YEAR).await;
        assert_eq!(log.verify(&path, None), Err(found), "{sql}");
    }
}

#[tokio::test]
async fn a_backdated_row_is_not_deleted_by_retention_and_is_detected() {
    let log = Log::new().await;
    let path = log.tampered("UPDATE audit SET at = 0 WHERE sequence = 4");
    log.use_store(&path, YEAR).await;
    assert_eq!(log.verify(&path, None), Err(ChainError::BadRow(4)));
    let path = log.tampered("UPDATE audit SET at = 0");
    log.use_store(&path, YEAR).await;
    assert_eq!(log.verify(&path, None), Err(ChainError::BadRow(1)));
}

#[tokio::test]
async fn retention_deletes_the_oldest_rows_and_the_rest_still_verifies() {
    let mut log = Log::new().await;
    let oldest = AuditHead { sequence: 1, mac: String::new() };
    let kept_from = log.head();
    log.server.restart().await;
    log.server.advance(3000);
    rotate(&log.server).await;
    log.server.stop().await;
    let head = log.head();

    let (hour, now) = (Duration::from_secs(3600), log.server.clock.now());
    let authority = authority(&log.server.database(), log.server.kek(), hour, now);
    authority.maintain(START + Duration::from_secs(3600)).await.expect("the store can be written");
    let report = log.verify(&log.server.database(), None).expect("the chain holds");
    assert_eq!(report.first, 1, "an event of exactly an hour is kept");
    authority.maintain(START + Duration::from_secs(3601)).await.expect("the store can be written");
    let report = log.verify(&log.server.database(), Some(&head)).expect("the chain holds");
    assert_eq!((report.first, report.head), (Log::ROWS + 1, head.clone()));
    // The anchor still has the last row that was deleted. The rows before it cannot be compared any more.
    assert!(log.verify(&log.server.database(), Some(&kept_from)).is_ok());
    assert_eq!(log.verify(&log.server.database(), Some(&oldest)), Err(ChainError::HeadExpired(1)));

    // After all rows were deleted, the chain continues from its last row.
    authority.maintain(START + 3 * hour).await.expect("the store can be written");
    drop(authority);
    let report = log.verify(&log.server.database(), Some(&head)).expect("the chain holds");
    assert_eq!((report.first, report.head), (Log::ROWS + 2, head));
    log.server.restart().await;
    rotate(&log.server).await;
    log.server.stop().await;
    assert_eq!(log.head().sequence, Log::ROWS + 2);
}

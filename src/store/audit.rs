//! The audit log: a chain of HMACs that shows when a row was rewritten, removed or cut off at the end.
//!
//! The MAC of a row covers the row and the MAC of the row before it. Two anchors in `meta` name the ends: the last
//! row that retention has removed, and the newest row. They have MACs under the same key, which is derived from
//! the KEK, so nobody without the KEK can make one.
//!
//! Whoever can write to the database can still put back an *old* state as a whole, with its anchors. Only a head
//! that was exported elsewhere shows that.

use std::fmt;

use countersign_mesh::claims::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::kek::{Kek, hmac_sha256};

/// Something that an operator did, or that was refused. It never contains a secret or a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// When it happened.
    pub at: Timestamp,
    /// Who did it: a client id, `host`, or `unknown:` and a hash.
    pub actor: String,
    /// What was done: `client.create`, `keys.rotate`, ...
    pub action: String,
    /// What it was done to: a client id, a `kid`, ...
    pub target: String,
    /// `ok`, or the reason for the refusal.
    pub outcome: String,
    /// The peer's address; empty for the host itself.
    pub peer: String,
    /// How many times it happened. Equal refusals are counted in one event.
    pub count: u64,
    /// More about it, as text.
    pub detail: String,
}

/// An event and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The number of the row. Numbers start at 1 and have no gaps.
    pub sequence: u64,
    /// The event.
    pub event: AuditEvent,
    mac: [u8; 32],
}

/// The end of the chain at some time. Whoever keeps it elsewhere can later check that no row up to it was
/// changed, and that no older state was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The last row's sequence.
    pub sequence: u64,
    /// The last row's MAC, in hexadecimal.
    pub mac: String,
}

/// The result of verifying a chain that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// The sequence of the first row that is still kept.
    pub first: u64,
    /// The end of the chain.
    pub head: AuditHead,
}

/// Where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainError {
    /// This row was changed, or does not follow from the row before it.
    BadRow(u64),
    /// This row is missing.
    MissingRow(u64),
    /// The chain once continued after this row.
    CutAfter(u64),
    /// An anchor is missing or was not made with this KEK.
    BadAnchor,
    /// The exported head names a row that is missing or was changed.
    HeadMismatch(u64),
    /// The exported head names a row that retention has removed, so it cannot be compared any more.
    HeadExpired(u64),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRow(row) => write!(f, "row {row} is not what was written"),
            Self::MissingRow(row) => write!(f, "row {row} is missing"),
            Self::CutAfter(row) => write!(f, "the log has been cut off after row {row}"),
            Self::BadAnchor => {
                f.write_str("the anchor of the log is missing or was not made with this KEK")
            }
            Self::HeadMismatch(row) => {
                write!(f, "row {row} is not the one that the exported head names")
            }
            Self::HeadExpired(row) => {
                write!(f, "row {row} of the exported head is past retention; use a newer head")
            }
        }
    }
}

impl std::error::Error for ChainError {}

/// The end that new rows are added to: the key of the chain, and its last row.
pub(super) struct Chain {
    key: Zeroizing<[u8; 32]>,
    last: Link,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Link {
    sequence: u64,
    mac: [u8; 32],
}

impl Link {
    fn head(self) -> AuditHead {
        AuditHead { sequence: self.sequence, mac: hex(&self.mac) }
    }
}

const START: Link = Link { sequence: 0, mac: [0; 32] };

/// A MAC that no row has. A row that follows it does not verify.
const BROKEN: [u8; 32] = [0xff; 32];

impl Chain {
    /// Begins the chain of a new store, without rows.
    pub(super) fn begin(connection: &Connection, kek: &Kek) -> rusqlite::Result<Self> {
        let chain = Self { key: chain_key(kek), last: START };
        chain.write_anchor(connection, "audit_start", START)?;
        chain.write_anchor(connection, "audit_head", START)?;
        Ok(chain)
    }

    /// Continues the chain of an existing store, without verifying it: a damaged log must not keep the service
    /// from starting. [`verify`] finds the damage.
    ///
    /// Nor does it mend the chain, which would hide the damage. The next row follows the row that the anchor
    /// names, even if rows were cut off since. If the anchor is missing, forged or behind the rows, the next row
    /// follows nothing and does not verify.
    pub(super) fn resume(connection: &Connection, kek: &Kek) -> rusqlite::Result<Self> {
        let key = chain_key(kek);
        let last_row = connection
            .query_row("SELECT COALESCE(MAX(sequence), 0) FROM audit", [], |row| {
                row.get::<_, i64>(0)
            })
            .map(i64::cast_unsigned)?;
        let last = match read_anchor(connection, &key, "audit_head")? {
            Some(head) if head.sequence >= last_row => head,
            _ => Link { sequence: last_row, mac: BROKEN },
        };
        Ok(Self { key, last })
    }

    /// Adds an event, within the transaction of the act. If that transaction fails, call [`Chain::rewind`].
    pub(super) fn append(
        &mut self,
        connection: &Connection,
        event: &AuditEvent,
    ) -> rusqlite::Result<()> {
        let sequence = self.last.sequence + 1;
        let mac = row_mac(&self.key, &self.last.mac, sequence, event);
        connection
            .prepare_cached(
                "INSERT INTO audit (sequence, at, actor, action, target, outcome, peer, count, detail, mac)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                sequence as i64,
                event.at.as_unix() as i64,
                event.actor,
                event.action,
                event.target,
                event.outcome,
                event.peer,
                event.count as i64,
                event.detail,
                mac,
            ])?;
        self.last = Link { sequence, mac };
        self.write_anchor(connection, "audit_head", self.last)
    }

    /// Deletes rows that are older than a time, from the start of the log, and moves the start anchor past them.
    ///
    /// It stops at the first row that does not verify. Moving the anchor vouches for the rows before it, and
    /// someone may have backdated a row to have it deleted.
    pub(super) fn prune(
        &mut self,
        connection: &Connection,
        before: Timestamp,
    ) -> rusqlite::Result<()> {
        let Some(start) = read_anchor(connection, &self.key, "audit_start")? else {
            return Ok(());
        };
        let mut last = start;
        let mut statement = connection.prepare_cached(ROWS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row = read_row(row)?;
            match follow(&self.key, last, &row) {
                Ok(link) if row.event.at < before => last = link,
                _ => break,
            }
        }
        if last == start {
            return Ok(());
        }
        connection.execute("DELETE FROM audit WHERE sequence <= ?1", [last.sequence as i64])?;
        self.write_anchor(connection, "audit_start", last)
    }

    /// The current end of the chain, for [`Chain::rewind`].
    pub(super) fn mark(&self) -> ChainMark {
        ChainMark(self.last)
    }

    /// The end of the chain, if it has grown since a mark.
    pub(super) fn head_since(&self, mark: ChainMark) -> Option<AuditHead> {
        (self.last != mark.0).then(|| self.last.head())
    }

    /// Goes back to a mark, after a transaction failed.
    pub(super) fn rewind(&mut self, mark: ChainMark) {
        self.last = mark.0;
    }

    fn write_anchor(
        &self,
        connection: &Connection,
        name: &str,
        link: Link,
    ) -> rusqlite::Result<()> {
        let mut value = Vec::with_capacity(72);
        value.extend_from_slice(&link.sequence.to_be_bytes());
        value.extend_from_slice(&link.mac);
        value.extend_from_slice(&anchor_mac(&self.key, name, link));
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute(params![name, value])
            .map(|_| ())
    }
}

/// A place in the chain.
#[derive(Clone, Copy)]
pub(super) struct ChainMark(Link);

/// A page of events, newest first, with sequences less than `before`.
pub(super) fn list(
    connection: &Connection,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<AuditRow>> {
    connection
        .prepare_cached(
            "SELECT sequence, at, actor, action, target, outcome, peer, count, detail, mac FROM audit
             WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2",
        )?
        .query_map(params![before.map_or(i64::MAX, |before| before as i64), limit as i64], read_row)?
        .collect()
}

/// Verifies the whole chain, and that it contains an exported head.
pub(super) fn verify(
    connection: &Connection,
    kek: &Kek,
    exported: Option<&AuditHead>,
) -> rusqlite::Result<Result<AuditReport, ChainError>> {
    let key = chain_key(kek);
    let anchors = (
        read_anchor(connection, &key, "audit_start")?,
        read_anchor(connection, &key, "audit_head")?,
    );
    let (Some(start), Some(head)) = anchors else { return Ok(Err(ChainError::BadAnchor)) };
    let mut last = start;
    let mut exported_seen = exported.is_some_and(|exported| named_by(exported, start));

    let mut statement = connection.prepare(ROWS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        last = match follow(&key, last, &read_row(row)?) {
            Ok(link) => link,
            Err(broken) => return Ok(Err(broken)),
        };
        exported_seen |= exported.is_some_and(|exported| named_by(exported, last));
    }
    if last != head {
        return Ok(Err(ChainError::CutAfter(last.sequence)));
    }
    match exported {
        Some(exported) if exported_seen => debug_assert!(exported.sequence <= last.sequence),
        Some(exported) if exported.sequence < start.sequence => {
            return Ok(Err(ChainError::HeadExpired(exported.sequence)));
        }
        Some(exported) => return Ok(Err(ChainError::HeadMismatch(exported.sequence))),
        None => {}
    }
    Ok(Ok(AuditReport { first: start.sequence + 1, head: last.head() }))
}

/// Selects all rows, oldest first.
const ROWS: &str = "SELECT sequence, at, actor, action, target, outcome, peer, count, detail, mac
                    FROM audit ORDER BY sequence";

/// Verifies that a row is the one that was written after `last`, and returns its link.
fn follow(key: &[u8; 32], last: Link, row: &AuditRow) -> Result<Link, ChainError> {
    if row.sequence != last.sequence + 1 {
        return Err(ChainError::MissingRow(last.sequence + 1));
    }
    if row.mac != row_mac(key, &last.mac, row.sequence, &row.event) {
        return Err(ChainError::BadRow(row.sequence));
    }
    Ok(Link { sequence: row.sequence, mac: row.mac })
}

fn named_by(head: &AuditHead, link: Link) -> bool {
    head.sequence == link.sequence && head.mac == hex(&link.mac)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        sequence: row.get::<_, i64>(0)? as u64,
        event: AuditEvent {
            at: Timestamp::from_unix(row.get::<_, i64>(1)? as u64),
            actor: row.get(2)?,
            action: row.get(3)?,
            target: row.get(4)?,
            outcome: row.get(5)?,
            peer: row.get(6)?,
            count: row.get::<_, i64>(7)? as u64,
            detail: row.get(8)?,
        },
        // Bytes of another length are no MAC. They become one that never verifies.
        mac: row.get::<_, Vec<u8>>(9)?.try_into().unwrap_or(BROKEN),
    })
}

fn read_anchor(
    connection: &Connection,
    key: &[u8; 32],
    name: &str,
) -> rusqlite::Result<Option<Link>> {
    let value: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .optional()?;
    Ok(value.and_then(|value| {
        let (sequence, rest) = value.split_first_chunk::<8>()?;
        let (mac, proof) = rest.split_first_chunk::<32>()?;
        let link = Link { sequence: u64::from_be_bytes(*sequence), mac: *mac };
        (proof == anchor_mac(key, name, link)).then_some(link)
    }))
}

fn chain_key(kek: &Kek) -> Zeroizing<[u8; 32]> {
    kek.derive("countersign audit chain v1")
}

/// The MAC of a row. It includes the MAC of the previous row, which makes the rows a chain.
fn row_mac(key: &[u8; 32], previous: &[u8; 32], sequence: u64, event: &AuditEvent) -> [u8; 32] {
    let AuditEvent { at, actor, action, target, outcome, peer, count, detail } = event;
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(previous);
    for number in [sequence, at.as_unix(), *count] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    // Each text comes after its length. Otherwise moving characters from one field to the next would not change
    // the MAC.
    for text in [actor, action, target, outcome, peer, detail] {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    hmac_sha256(key, &[b"row", &bytes])
}

fn anchor_mac(key: &[u8; 32], name: &str, link: Link) -> [u8; 32] {
    hmac_sha256(key, &[b"anchor", name.as_bytes(), &link.sequence.to_be_bytes(), &link.mac])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

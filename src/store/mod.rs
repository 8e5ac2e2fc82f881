//! What Countersign remembers, in SQLite: clients, keys, revocations, answered requests and the audit log.
//!
//! A [`Store`] is one database with one writer. A [`State`] is what was last committed, whole and in memory.
//! Readers take a [`State`] and never wait for the disk; only the audit log is read from SQLite.
//!
//! # How a change is made
//!
//! ```text
//! Store::commit ─▶ queue ─▶ BEGIN ─▶ decide ─▶ write rows + audit event ─▶ COMMIT ─▶ mark ─▶ publish ─▶ answer
//!                             └── up to 256 queued jobs in one transaction ──┘
//! ```
//!
//! 1. The caller passes a closure to [`Store::commit`]. The writer runs it on the latest [`State`], while nobody
//!    else can change it. The closure returns a [`Decision`]: the [`Change`]s, their [`AuditEvent`]s and the
//!    answer. Or it refuses.
//! 2. The writer writes the changes and their events in one SQLite transaction. Jobs that queued during the
//!    last commit share a transaction, and so one wait for the disk.
//! 3. After the commit, the writer raises the high-water mark (`mark`): a file beside the [`Kek`] with the highest
//!    epoch that anyone can have been told. Then it publishes the new state, and then it answers.
//!
//! [`Store::commit_once`] also remembers the answer under a [`RequestKey`] for a day. A request that is sent
//! again gets the first answer and changes nothing.
//!
//! # How a store comes and goes
//!
//! [`reserve`] locks the place of a new store and [`create`] fills it. [`Store::open`] checks the database, migrates
//! it, and reads it whole; [`OpenedStore::start`] then starts the writer. [`back_up`] copies a store while it is in
//! use. [`restore`] puts a backup in place and begins a new generation of epochs. [`verify_audit`] proves the audit
//! log.
//!
//! # Invariants
//!
//! - One process at a time has the store open for writing. The lock file exists before the database does.
//! - A change and its audit events are committed together or not at all.
//! - A change is on disk (`synchronous=FULL`) before it is published, and published before it is answered.
//! - Epochs never go backwards. A database that is behind its mark does not open ([`StoreError::PutBack`]).
//! - Private keys are sealed with the KEK, which is never in the database. Whoever can write to the database but
//!   lacks the KEK can neither add a key nor rewrite the audit log without being noticed.
//! - A failed transaction changes neither the state nor the audit chain, and every job in it gets the error.
//!
//! # What it does not do
//!
//! It decides nothing: `authority` and `policy` do. It stores no client's secret, only its hash. It does not
//! repair a damaged database or mend a broken audit chain; it reports them. It has no connection pool: one
//! connection writes, and another reads the audit log. It does not replicate, and has no way back to an older
//! version of the schema.

mod audit;
mod commit;
mod durable;
mod kek;
mod mark;
mod migrations;
mod reservation;
mod resources;
mod sqlite;
mod state;
mod writer;

pub use self::audit::{AuditEvent, AuditHead, AuditReport, AuditRow, ChainError};
pub use self::commit::{CommitError, Committed, Decision, RequestError, RequestKey};
pub use self::durable::sync_name;
pub use self::kek::{InvalidKek, Kek};
pub use self::reservation::{Reservation, reserve};
pub use self::resources::ResourceIndex;
pub use self::sqlite::{Restored, StoreError, back_up, create, restore, verify_audit};
pub use self::state::{Change, State};
pub use self::writer::{OpenedStore, Store, Writes};

//! What Countersign remembers, in SQLite: clients, keys, revocations, requests and the audit log.
//!
//! ```text
//! readers ◀── State (in memory, shared) ◀── publish ◀─┐
//!                                                      │
//! commit(decide) ──▶ queue ──▶ writer thread: decide ─▶ rows + audit row ─▶ COMMIT ─▶ mark ─▶ answer
//! ```
//!
//! 1. [`Store::open`] takes the lock beside the database, checks whose it is, migrates it, and reads all of it into a
//!    [`State`]. Readers take the state that was published last, and touch no disk.
//! 2. [`Store::commit`] hands a decision to the one writer thread. The decision runs on the latest state, and returns the
//!    [`Change`]s, the [`AuditEvent`]s and the answer.
//! 3. The writer applies the changes to rows and to the state, and adds the events to the audit chain, in one transaction.
//!    Jobs that queued up meanwhile share it.
//! 4. After the commit it raises the mark of the highest epoch, publishes the state, and gives the answers; in this order.
//!
//! # What holds
//!
//! - An answer means that the change is durable and published. A failed batch changed nothing.
//! - A change and its audit event are committed together, or not at all.
//! - Private keys are sealed under the [`Kek`], which is not in the database. Without it a row cannot be swapped, added or
//!   forged unnoticed.
//! - An old copy that was put back is noticed, by a mark beside the KEK, and by verifiers that prove a later epoch.
//!
//! The room knows nothing of who may do what: decisions come from the `authority`. It has no second engine, no cache and
//! no pool: one connection writes, and another reads the audit log.

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

//! What Countersign remembers, in SQLite: clients, keys, revocations, requests and the audit log.
//!
//! Readers take the [`State`] that was last committed and touch no disk. Every change goes through
//! one writer thread: it decides on the latest state, applies what was decided together with its
//! audit event, and answers once that is durable. What queued while it committed is committed
//! together.

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

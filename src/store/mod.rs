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

pub use self::audit::AuditEvent;
pub use self::audit::AuditHead;
pub use self::audit::AuditReport;
pub use self::audit::AuditRow;
pub use self::audit::ChainError;
pub use self::commit::CommitError;
pub use self::commit::Committed;
pub use self::commit::Decision;
pub use self::commit::RequestKey;
pub use self::durable::sync_name;
pub use self::kek::InvalidKek;
pub use self::kek::Kek;
pub use self::reservation::Reservation;
pub use self::reservation::reserve;
pub use self::resources::ResourceIndex;
pub use self::sqlite::Restored;
pub use self::sqlite::StoreError;
pub use self::sqlite::back_up;
pub use self::sqlite::create;
pub use self::sqlite::restore;
pub use self::sqlite::verify_audit;
pub use self::state::Change;
pub use self::state::State;
pub use self::writer::OpenedStore;
pub use self::writer::Store;
pub use self::writer::Writes;

//! Trust that keeps itself fresh: the stream or the JWK Set, what is kept in a file, how old it is.
//!
//! 1. `source` starts one task for a trust. The task ends when the last handle of the trust is dropped.
//! 2. `stream` opens Countersign's stream, and opens it again when it is lost. `parts` gathers its
//!    messages to snapshots and deltas. Where there is no stream, `source` polls the JWK Set.
//! 3. `feed` decides whether what came may replace what is at hand, and publishes it to the guards. An
//!    epoch is acknowledged only after that. Older epochs and other issuers are refused.
//! 4. `file` keeps what was published, for the next start.
//! 5. `freshness` counts the time since Countersign's store last confirmed what is known, and says when
//!    it is stale. `health` sums up for people.

pub(crate) mod feed;
pub(crate) mod file;
pub(crate) mod freshness;
pub(crate) mod health;
pub(crate) mod parts;
pub(crate) mod source;
pub(crate) mod stream;
pub(crate) mod verifier_name;

pub use self::feed::FedBy;
pub use self::health::Health;
pub use self::source::trust_in;

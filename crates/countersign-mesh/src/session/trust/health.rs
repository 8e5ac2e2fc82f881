//! What a service may say of its own health.

use std::time::Duration;

use crate::session::trust::feed::FedBy;

/// How well a session's guards are fed, for a service's own health endpoint and for people. See
/// [`Session::health`](crate::session::Session::health).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether there are keys, and they and the revocations were confirmed recently enough. When not,
    /// a guard that fails closed refuses calls; any other goes on.
    pub is_fresh: bool,
    /// How long ago that was; `None` when it never was.
    pub age: Option<Duration>,
    /// The epoch of what is at hand.
    pub epoch: Option<u64>,
    /// Who brings keys and revocations.
    pub fed_by: FedBy,
}

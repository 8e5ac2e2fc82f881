//! What is told to whoever asks for too much.

use std::time::Duration;

/// Too much was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Throttled {
    /// When to try again: whole seconds, at least one.
    pub(in crate::server) retry_after: Duration,
}

//! What is found out about a request on its way, for the log.

use std::sync::OnceLock;

use countersign_mesh::claims::{Audience, ClientId};

/// The reason of a request that was turned away before anything was done for it. It is no error of ours, and in an
/// overload there are too many of them to log each as one.
pub(super) const OVERLOADED: &str = "OVERLOADED";

/// What handlers find out about a request. The request log writes it down.
#[derive(Debug, Default)]
pub(super) struct RequestNotes {
    /// Who asks.
    pub(super) client: OnceLock<ClientId>,
    /// For which audience.
    pub(super) audience: OnceLock<Audience>,
    /// Why it failed: the reason that the caller is told, and a detail that only the log gets.
    pub(super) failure: OnceLock<(&'static str, &'static str)>,
}

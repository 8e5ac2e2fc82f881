//! What a request is found to be, for the log.

use std::sync::OnceLock;

use countersign_mesh::claims::{Audience, ClientId};

/// Why a request was turned away before anything was done for it. Not an error of ours, and too many
/// lines to be told as one.
pub(super) const OVERLOADED: &str = "OVERLOADED";

/// What a request is found to be on its way through. Handlers note it; the layer tells it.
#[derive(Debug, Default)]
pub(super) struct RequestNotes {
    /// Who asks.
    pub(super) client: OnceLock<ClientId>,
    /// For which audience.
    pub(super) audience: OnceLock<Audience>,
    /// Why it failed: the reason that the caller is told, and more that it is not.
    pub(super) failure: OnceLock<(&'static str, &'static str)>,
}

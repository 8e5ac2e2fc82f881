//! What the routes share.

use tokio::sync::watch;

use crate::server::desk::Desk;

/// What the routes work with.
#[derive(Clone)]
pub(in crate::server) struct Endpoints {
    pub(super) desk: Desk,
    /// Whether connections can carry client certificates.
    pub(super) takes_certificates: bool,
    /// Its sender is dropped when the server begins to stop.
    stopping: watch::Receiver<()>,
}

impl Endpoints {
    pub(in crate::server) fn new(
        desk: Desk,
        takes_certificates: bool,
        stopping: watch::Receiver<()>,
    ) -> Self {
        Self { desk, takes_certificates, stopping }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.has_changed().is_err()
    }
}

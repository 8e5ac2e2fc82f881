//! What every door works with.

use std::sync::Arc;

use countersign_mesh::claims::Clock;

use crate::authority::Authority;
use crate::server::limits::Limits;

/// The authority, the clock and the limits. gRPC services and HTTP routes each hold a clone.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) authority: Arc<Authority>,
    pub(super) clock: Clock,
    pub(super) limits: Arc<Limits>,
}

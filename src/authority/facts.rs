//! Questions about the authority itself: its issuer, whether it can sign, what its resources stand for.

use countersign_mesh::claims::{Audience, Issuer, Timestamp};

use crate::authority::Authority;
use crate::client::ResourceUri;

/// Why resources do not lead to an audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAudience {
    /// A resource stands for no audience, or for several.
    Unknown,
    /// The resources stand for different audiences.
    Ambiguous,
}

impl Authority {
    /// The issuer of the tokens (`iss`).
    pub fn issuer(&self) -> Issuer {
        self.published.snapshot().state.issuer.clone()
    }

    /// Whether tokens can be signed now: the store was reached within the signing lease, and is not known to
    /// be an old copy.
    pub fn can_issue(&self, now: Timestamp) -> bool {
        self.has_lease(now) && !self.was_put_back()
    }

    /// The one audience that all these resources stand for (RFC 8707 §2). `None` for an empty list.
    ///
    /// # Errors
    /// When a resource stands for no audience or for several, or two stand for different ones.
    pub fn audience_of(&self, resources: &[ResourceUri]) -> Result<Option<Audience>, NoAudience> {
        let snapshot = self.published.snapshot();
        let mut meant: Option<&Audience> = None;
        for uri in resources {
            let audience = snapshot.state.resources.audience(uri).ok_or(NoAudience::Unknown)?;
            if meant.is_some_and(|meant| meant != audience) {
                return Err(NoAudience::Ambiguous);
            }
            meant = Some(audience);
        }
        Ok(meant.cloned())
    }
}

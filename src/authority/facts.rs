//! What others ask the authority about itself.

use countersign_mesh::claims::{Audience, Issuer, Timestamp};

use crate::authority::Authority;
use crate::client::ResourceUri;

/// Why resources tell no audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAudience {
    /// Nobody has such a resource.
    Unknown,
    /// They mean more than one.
    Ambiguous,
}

impl Authority {
    /// Who issues tokens here.
    pub fn issuer(&self) -> Issuer {
        self.published.snapshot().state.issuer.clone()
    }

    /// Whether tokens can be signed now: the store was reached within the signing lease, and is not known
    /// to be an old copy.
    pub fn can_issue(&self, now: Timestamp) -> bool {
        self.has_lease(now) && !self.was_put_back()
    }

    /// The one audience that all of these resources mean (RFC 8707 §2); none if there are none.
    ///
    /// # Errors
    /// When one of them means no audience or several, or they mean different ones.
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

//! What others ask the authority about itself.

use crate::authority::Authority;
use crate::authority::IssueError;
use crate::authority::IssueRequest;
use crate::authority::IssuedToken;
use crate::claims::Audience;
use crate::claims::ClientId;
use crate::claims::Issuer;
use crate::claims::ScopeSet;
use crate::claims::Timestamp;
use crate::client::AuthenticatedClient;
use crate::client::ResourceUri;
use crate::client::authenticate;
use crate::policy::TokenRequest;
use crate::policy::decide;

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

    /// Whether tokens can be signed now: the store was reached within the signing lease.
    pub fn can_issue(&self, now: Timestamp) -> bool {
        self.check_lease(now).is_ok()
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

// Until keys and certificates are credentials.
impl Authority {
    /// Believes a client that proves who it is.
    ///
    /// # Errors
    /// When it does not.
    pub fn prove(
        &self,
        client_id: &ClientId,
        client_secret: &str,
        peer: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedClient, IssueError> {
        let snapshot = self.published.snapshot();
        let candidate = snapshot.state.clients.get(client_id);
        let token =
            TokenRequest { audience: None, scopes: ScopeSet::default(), requested_ttl: None };
        let request = IssueRequest { client_id, client_secret, token, peer };
        authenticate(candidate, client_secret, now).map_err(|reason| self.reject(&request, reason))
    }

    /// Issues a token to a client that has proven who it is.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue_to(
        &self,
        client: &AuthenticatedClient,
        request: &TokenRequest,
        now: Timestamp,
    ) -> Result<IssuedToken, IssueError> {
        let grant = decide(client, request, self.settings.default_ttl).map_err(IssueError::Denied)?;
        self.check_lease(now)?;
        let mut bits = [0; 12];
        getrandom::fill(&mut bits).map_err(|_| IssueError::NoRandomness)?;
        self.published.snapshot().mint(&grant, now, bits).ok_or(IssueError::CutTooOften)
    }
}

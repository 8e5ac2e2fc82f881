//! Where tokens come from: Countersign's `IssueToken`, or any OAuth 2.0 token endpoint.

use crate::claims::{Audience, ScopeSet};
use crate::session::tokens::countersign::Countersign;
use crate::session::tokens::fetched::{FetchError, Fetched};
use crate::session::tokens::oauth::OAuthEndpoint;

/// Whom to ask for a token, and for which.
pub(crate) enum Endpoint {
    /// Countersign.
    Countersign { countersign: Countersign, audience: Audience, scopes: ScopeSet },
    /// A token endpoint over HTTP.
    OAuth { endpoint: Box<OAuthEndpoint>, scopes: ScopeSet },
}

impl Endpoint {
    pub(crate) async fn fetch(&self) -> Result<Fetched, FetchError> {
        match self {
            Self::Countersign { countersign, audience, scopes } => {
                countersign.issue(audience, scopes).await
            }
            Self::OAuth { endpoint, scopes } => endpoint.fetch(scopes).await,
        }
    }

    /// What the token is for, in logs and metrics.
    pub(crate) fn audience(&self) -> &str {
        match self {
            Self::Countersign { audience, .. } => audience.as_str(),
            Self::OAuth { endpoint, .. } => endpoint.host(),
        }
    }

    pub(crate) fn scopes(&self) -> &ScopeSet {
        match self {
            Self::Countersign { scopes, .. } | Self::OAuth { scopes, .. } => scopes,
        }
    }
}

//! Where tokens come from: Countersign's `IssueToken`, or any OAuth 2.0 token endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::claims::{Audience, Clock, Issuer, ScopeSet};
use crate::rpc::IssueTokenRequest;
use crate::rpc::issue_token_request::Credential;
use crate::rpc::token_service_client::TokenServiceClient;
use crate::session::credentials::{Credentials, Proof};
use crate::session::oauth::OAuthEndpoint;
use crate::session::presenting::Presenting;
use crate::token::Token;

/// A token as it was issued.
pub(super) struct Fetched {
    pub(super) token: Token,
    pub(super) expires_in: Duration,
    pub(super) refresh_in: Duration,
}

/// Why no token was issued.
#[derive(Debug, Clone)]
pub(super) enum FetchError {
    /// The issuer said no: asking again soon will not help.
    Refused(Status),
    /// It did not answer, or could not.
    Unavailable(Status),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, status) = match self {
            Self::Refused(status) => ("refused", status),
            Self::Unavailable(status) => ("unavailable", status),
        };
        write!(f, "{what}: {:?}: {}", status.code(), status.message())
    }
}

impl FetchError {
    /// Whether another secret may do: the issuer does not believe who we are.
    pub(super) fn is_of_secret(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unauthenticated)
    }
}

/// Whom to ask for a token, and for which.
pub(super) enum Endpoint {
    /// Countersign.
    Countersign { countersign: Countersign, audience: Audience, scopes: ScopeSet },
    /// A token endpoint over HTTP.
    OAuth { endpoint: Box<OAuthEndpoint>, scopes: ScopeSet },
}

impl Endpoint {
    pub(super) async fn fetch(&self) -> Result<Fetched, FetchError> {
        match self {
            Self::Countersign { countersign, audience, scopes } => {
                countersign.issue(audience, scopes).await
            }
            Self::OAuth { endpoint, scopes } => endpoint.fetch(scopes).await,
        }
    }

    /// What the token is for, in logs and metrics.
    pub(super) fn audience(&self) -> &str {
        match self {
            Self::Countersign { audience, .. } => audience.as_str(),
            Self::OAuth { endpoint, .. } => endpoint.host(),
        }
    }

    pub(super) fn scopes(&self) -> &ScopeSet {
        match self {
            Self::Countersign { scopes, .. } | Self::OAuth { scopes, .. } => scopes,
        }
    }
}

/// Countersign, and who we are there. Cheap to clone.
#[derive(Clone)]
pub(super) struct Countersign {
    channel: Channel,
    credentials: Credentials,
    issuer: Option<Issuer>,
    clock: Clock,
    /// For a certificate; without it the channel presents it itself.
    presenting: Option<Arc<Presenting>>,
}

impl Countersign {
    pub(super) fn new(
        channel: Channel,
        credentials: Credentials,
        issuer: Option<Issuer>,
        clock: Clock,
    ) -> Self {
        Self { channel, credentials, issuer, clock, presenting: None }
    }

    /// Has tokens asked for over connections that present the client's certificate, if it has one.
    pub(super) fn presenting(self, presenting: Presenting) -> Self {
        Self { presenting: Some(Arc::new(presenting)), ..self }
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    async fn issue(&self, audience: &Audience, scopes: &ScopeSet) -> Result<Fetched, FetchError> {
        let proof = self
            .credentials
            .prove(self.issuer.as_ref(), self.clock.now())
            .map_err(|error| FetchError::Unavailable(Status::unavailable(error.to_string())))?;
        let tried = match &proof {
            Proof::Secret(secret) => Some(secret.clone()),
            Proof::Assertion(_) | Proof::Certificate(_) => None,
        };
        let issued = self.issue_for(proof, audience, scopes).await;
        match (&issued, tried) {
            (Err(error), Some(tried)) if error.is_of_secret() => {
                match self.credentials.newer_secret(&tried) {
                    Some(newer) => self.issue_for(Proof::Secret(newer), audience, scopes).await,
                    None => issued,
                }
            }
            _ => issued,
        }
    }

    async fn issue_for(
        &self,
        proof: Proof,
        audience: &Audience,
        scopes: &ScopeSet,
    ) -> Result<Fetched, FetchError> {
        let mut channel = self.channel.clone();
        let credential = match proof {
            Proof::Secret(secret) => Some(Credential::ClientSecret(secret.to_string())),
            Proof::Assertion(assertion) => {
                Some(Credential::ClientAssertion(assertion.into_exposed()))
            }
            Proof::Certificate(certified) => {
                if let Some(presenting) = &self.presenting {
                    channel = presenting.channel(&certified).map_err(|error| {
                        FetchError::Unavailable(Status::unavailable(error.to_string()))
                    })?;
                }
                None
            }
        };
        let request = IssueTokenRequest {
            client_id: self.credentials.client_id().to_string(),
            credential,
            audience: audience.to_string(),
            scopes: scopes.iter().map(str::to_owned).collect(),
            requested_ttl: None,
        };
        let issued = TokenServiceClient::new(channel).issue_token(request).await;
        let issued = issued.map_err(FetchError::from)?.into_inner();
        let duration = |duration: Option<prost_types::Duration>| {
            duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
        };
        Ok(Fetched {
            token: Token::issued(issued.access_token),
            expires_in: duration(issued.expires_in),
            refresh_in: duration(issued.refresh_in),
        })
    }
}

impl From<Status> for FetchError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => {
                Self::Refused(status)
            }
            _ => Self::Unavailable(status),
        }
    }
}

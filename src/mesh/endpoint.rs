//! Where tokens come from: Countersign's `IssueToken`.

use std::time::Duration;

use tonic::Code;
use tonic::Status;
use tonic::transport::Channel;

use crate::claims::Audience;
use crate::claims::ScopeSet;
use crate::mesh::credentials::Credentials;
use crate::rpc::IssueTokenRequest;
use crate::rpc::issue_token_request::Credential;
use crate::rpc::token_service_client::TokenServiceClient;
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
    /// Countersign said no: asking again soon will not help.
    Refused(Status),
    /// It did not answer, or could not.
    Unavailable(Status),
}

/// Countersign, and who we are there. Cheap to clone.
#[derive(Clone)]
pub(super) struct Endpoint {
    channel: Channel,
    credentials: Credentials,
}

impl Endpoint {
    pub(super) fn new(channel: Channel, credentials: Credentials) -> Self {
        Self { channel, credentials }
    }

    pub(super) async fn fetch(
        &self,
        audience: &Audience,
        scopes: &ScopeSet,
    ) -> Result<Fetched, FetchError> {
        let secret = self
            .credentials
            .secret()
            .map_err(|error| FetchError::Unavailable(Status::unavailable(error.to_string())))?;
        let request = IssueTokenRequest {
            client_id: self.credentials.client_id().to_string(),
            credential: Some(Credential::ClientSecret(secret.to_string())),
            audience: audience.to_string(),
            scopes: scopes.iter().map(str::to_owned).collect(),
            requested_ttl: None,
        };
        let issued = TokenServiceClient::new(self.channel.clone()).issue_token(request).await;
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

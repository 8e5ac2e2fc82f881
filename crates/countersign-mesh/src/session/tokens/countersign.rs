//! Countersign's `IssueToken`, and who we are there.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::claims::{Audience, Clock, Issuer, ScopeSet};
use crate::rpc::issue_token_request::Credential;
use crate::rpc::token_service_client::TokenServiceClient;
use crate::rpc::{IssueTokenRequest, IssueTokenResponse};
use crate::session::reach::credentials::{Credentials, Proof};
use crate::session::reach::presenting::Presenting;
use crate::session::tokens::fetched::{FetchError, Fetched};
use crate::token::Token;

/// Countersign, and who we are there. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Countersign {
    channel: Channel,
    credentials: Credentials,
    issuer: Option<Issuer>,
    clock: Clock,
    /// The channel that presents our certificate. Without it, a channel that the program made presents
    /// one itself, or there is none.
    presenting: Option<Arc<Presenting>>,
}

impl Countersign {
    pub(crate) fn new(
        channel: Channel,
        credentials: Credentials,
        issuer: Option<Issuer>,
        clock: Clock,
    ) -> Self {
        Self { channel, credentials, issuer, clock, presenting: None }
    }

    /// Asks for tokens over connections that present the client's certificate, if it has one.
    pub(crate) fn presenting(self, presenting: Presenting) -> Self {
        Self { presenting: Some(Arc::new(presenting)), ..self }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Asks for a token.
    pub(crate) async fn issue(
        &self,
        audience: &Audience,
        scopes: &ScopeSet,
    ) -> Result<Fetched, FetchError> {
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
                // The secret's file may have been replaced while the request was under way: try the new
                // one at once.
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
        let scopes = scopes.iter().map(str::to_owned).collect();
        let issued = self.ask(channel, credential, audience.as_str(), scopes, None).await?;
        let duration = |duration: Option<prost_types::Duration>| {
            duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
        };
        Ok(Fetched {
            token: Token::issued(issued.access_token),
            expires_in: duration(issued.expires_in),
            refresh_in: duration(issued.refresh_in),
        })
    }

    /// Asks once, over the channel, for what a program names; no scopes mean all that were granted.
    ///
    /// # Errors
    /// What the server answered, or that there is nothing to prove who we are with.
    pub(crate) async fn issue_once(
        &self,
        audience: &str,
        scopes: Vec<String>,
        requested_ttl: Option<prost_types::Duration>,
    ) -> Result<IssueTokenResponse, Status> {
        let proof = self.credentials.prove(self.issuer.as_ref(), self.clock.now());
        let credential = match proof.map_err(|error| Status::unavailable(error.to_string()))? {
            Proof::Secret(secret) => Some(Credential::ClientSecret(secret.to_string())),
            Proof::Assertion(assertion) => {
                Some(Credential::ClientAssertion(assertion.into_exposed()))
            }
            Proof::Certificate(_) => None,
        };
        self.ask(self.channel.clone(), credential, audience, scopes, requested_ttl).await
    }

    async fn ask(
        &self,
        channel: Channel,
        credential: Option<Credential>,
        audience: &str,
        scopes: Vec<String>,
        requested_ttl: Option<prost_types::Duration>,
    ) -> Result<IssueTokenResponse, Status> {
        let request = IssueTokenRequest {
            client_id: self.credentials.client_id().to_string(),
            credential,
            audience: audience.to_owned(),
            scopes,
            requested_ttl,
        };
        let issued = TokenServiceClient::new(channel).issue_token(request).await;
        issued.map(Response::into_inner)
    }
}

//! A connection to Countersign without a session: nothing runs in the background, and nothing is tried
//! twice. The command line uses one: it asks, prints and ends, and whoever waits for it wants to hear
//! at once that nobody answers.

use std::fmt;

use tonic::Status;
use tonic::transport::Channel;

use crate::rpc::IssueTokenResponse;
use crate::session::reach::error::SessionError;
use crate::session::tokens::countersign::Countersign;

/// A connection, and who we are at its other end. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    channel: Channel,
    countersign: Countersign,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum LinkError {
    /// The settings are no good: a session would fail in the same way.
    Session(SessionError),
    /// Nobody answers there.
    Unreachable(tonic::transport::Error),
}

impl From<SessionError> for LinkError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<tonic::transport::Error> for LinkError {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Unreachable(error)
    }
}

impl Link {
    pub(crate) fn new(channel: Channel, countersign: Countersign) -> Self {
        Self { channel, countersign }
    }

    /// The channel, for calls that carry their own tokens.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Asks for a token; no scopes mean all that were granted.
    ///
    /// # Errors
    /// What the server answered, or that there is nothing to prove who we are with.
    pub async fn issue(
        &self,
        audience: &str,
        scopes: Vec<String>,
        requested_ttl: Option<prost_types::Duration>,
    ) -> Result<IssueTokenResponse, Status> {
        self.countersign.issue_once(audience, scopes, requested_ttl).await
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

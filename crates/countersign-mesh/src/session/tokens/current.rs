//! What a token source and the task behind it share: the token at hand, and what callers wish for.

use std::fmt;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use crate::session::tokens::bearer_token::BearerToken;
use crate::session::tokens::fetched::FetchError;

/// Why there is no token.
#[derive(Debug, Clone)]
pub enum NoToken {
    /// The issuer refuses to issue it.
    Refused(Status),
    /// The issuer has not answered in time.
    Unavailable(Status),
}

/// What there is: a token perhaps, and what became of the last try to get one.
#[derive(Default)]
pub(crate) struct Current {
    pub(crate) token: Option<BearerToken>,
    pub(crate) failure: Option<FetchError>,
    /// How often a try has ended, well or not.
    pub(crate) tries: u64,
}

/// What callers ask of the task that refreshes.
#[derive(Default)]
pub(crate) struct Wishes {
    /// A callee refused the token: get another one now.
    pub(crate) refresh: Notify,
    /// Someone needed a token and was told that it is refused.
    pub(crate) asked: Notify,
    pub(crate) forced: Mutex<Option<Forced>>,
}

/// The last time that a token was replaced because a callee refused it.
#[derive(Clone, Copy)]
pub(crate) struct Forced {
    pub(crate) at: Instant,
    /// How many tries had ended by then: the next one is the answer.
    pub(crate) tries: u64,
}

impl Current {
    pub(crate) fn unexpired(&self) -> Option<BearerToken> {
        self.token.as_ref().filter(|token| !token.has_expired()).cloned()
    }

    /// What can be answered without waiting any longer.
    pub(crate) fn answer(&self) -> Option<Result<BearerToken, NoToken>> {
        match (self.unexpired(), &self.failure) {
            (Some(token), _) => Some(Ok(token)),
            (None, Some(FetchError::Refused(status))) => {
                Some(Err(NoToken::Refused(status.clone())))
            }
            (None, Some(FetchError::Unavailable(_)) | None) => None,
        }
    }

    pub(crate) fn not_in_time(&self) -> NoToken {
        NoToken::Unavailable(match &self.failure {
            Some(FetchError::Unavailable(status)) => {
                Status::unavailable(format!("no token in time: {}", status.message()))
            }
            Some(FetchError::Refused(_)) | None => Status::unavailable("no token in time"),
        })
    }
}

impl From<NoToken> for Status {
    fn from(error: NoToken) -> Self {
        match error {
            // Whatever code the issuer chose: for this call it means that the caller cannot
            // authenticate.
            NoToken::Refused(status) => {
                Status::unauthenticated(format!("no token is issued: {}", status.message()))
            }
            NoToken::Unavailable(status) => status,
        }
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "no token is issued: {}", status.message()),
            Self::Unavailable(status) => f.write_str(status.message()),
        }
    }
}

impl std::error::Error for NoToken {}

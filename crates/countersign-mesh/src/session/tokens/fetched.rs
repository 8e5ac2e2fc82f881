//! What a token endpoint answers: a token, or why there is none.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

use crate::token::Token;

/// A token as it was issued.
pub(crate) struct Fetched {
    pub(crate) token: Token,
    pub(crate) expires_in: Duration,
    pub(crate) refresh_in: Duration,
}

/// Why no token was issued.
#[derive(Debug, Clone)]
pub(crate) enum FetchError {
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
    /// Whether another secret may help: the issuer does not believe who we are.
    pub(crate) fn is_of_secret(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unauthenticated)
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

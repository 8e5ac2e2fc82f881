//! From what went wrong to an OAuth 2.0 error (RFC 6749 §5.2): one status, one code and one
//! description each, in one place.
//!
//! Descriptions are fixed texts: nothing that the sender wrote is repeated, for it may be a secret.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::authority::{ActError, IssueError};
use crate::policy::Denial;
use crate::server::attempt::Failed;
use crate::server::limits::Throttled;
use crate::server::notes::RequestNotes;
use crate::server::oauth::answer::json;
use crate::server::oauth::form::FormError;

/// When to try again, in seconds, after a failure that passes by itself.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// An overload passes sooner.
const RETRY_AFTER_OVERLOAD: HeaderValue = HeaderValue::from_static("1");

/// The way to authenticate that a 401 names (RFC 7617 §2).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"countersign\"");

/// Everything that a request to an OAuth endpoint can fail with.
#[derive(Debug)]
pub(super) enum OAuthError {
    /// The body is larger than any request.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body ended before its end.
    BodyBroken,
    /// The body is no form.
    Form(FormError),
    /// The request is not one; what is wrong with it, in a fixed text.
    Invalid(&'static str),
    /// A grant type that is not served.
    GrantType,
    /// A scope that cannot be one.
    Scope,
    /// An audience or a resource that cannot be meant; what is wrong, in a fixed text.
    Target(&'static str),
    /// The client is not believed; why, for the log only.
    Client(&'static str),
    /// Too many requests are under way.
    Overloaded,
    /// There is no answer now; why not, in a fixed text.
    Unavailable(&'static str),
    /// Too many attempts failed, or the client gets too many tokens.
    Throttled(Throttled),
    /// No token was issued.
    Issue(IssueError),
    /// No token was revoked.
    Act(ActError),
}

impl From<FormError> for OAuthError {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl From<Failed> for OAuthError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Throttled(throttled) => Self::Throttled(throttled),
            Failed::Issue(error) => Self::Issue(error),
        }
    }
}

impl From<ActError> for OAuthError {
    fn from(error: ActError) -> Self {
        Self::Act(error)
    }
}

/// What the sender is told, and what only the log is.
struct ErrorAnswer {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
    detail: &'static str,
}

#[derive(Serialize)]
struct Body {
    error: &'static str,
    error_description: &'static str,
}

impl OAuthError {
    fn told(&self) -> ErrorAnswer {
        match self {
            Self::TooLarge => ErrorAnswer {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                ..invalid("the body is larger than 16 KiB")
            },
            Self::TooSlow => ErrorAnswer {
                status: StatusCode::REQUEST_TIMEOUT,
                ..invalid("the body did not come in time")
            },
            Self::BodyBroken => invalid("the body is not complete"),
            Self::Form(error) => invalid(error.as_str()),
            Self::Invalid(problem) => invalid(problem),
            Self::GrantType => told(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "only client_credentials is supported: there are no users here",
            ),
            Self::Scope => told(
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                "the scope is malformed: scopes are separated by single spaces",
            ),
            Self::Target(problem) => target(problem),
            Self::Client(reason) => rejected(reason),
            Self::Overloaded => unavailable("too many requests are under way; try again later"),
            Self::Unavailable(problem) => unavailable(problem),
            Self::Throttled(_) => told(
                StatusCode::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "too many requests, or too many that failed; try again later",
            ),
            Self::Issue(error) => not_issued(error),
            // The only act here is to revoke a token, and the only refusal that it is another
            // client's. RFC 7009 §2.1 leaves the code open; in the words of RFC 6749 §5.2, a token
            // that "was issued to another client" is this one.
            Self::Act(ActError::Refused(refusal)) => ErrorAnswer {
                detail: refusal.reason(),
                ..told(
                    StatusCode::BAD_REQUEST,
                    "invalid_grant",
                    "the token was issued to another client",
                )
            },
            Self::Act(ActError::Store(_) | ActError::RequestIdReused) => {
                unavailable("nothing was changed: the store cannot be written")
            }
        }
    }

    /// The answer, its reason noted for the log.
    pub(super) fn into_response(self, notes: &RequestNotes) -> Response {
        let retry_after = match &self {
            Self::Throttled(throttled) => HeaderValue::from(throttled.retry_after.as_secs()),
            Self::Overloaded => RETRY_AFTER_OVERLOAD,
            _ => RETRY_AFTER,
        };
        let ErrorAnswer { status, error, description, detail } = self.told();
        let _ = notes.failure.set((error, detail));
        let mut response = json(&Body { error, error_description: description });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, retry_after);
            }
            // The rest of the body is not read, so that the connection cannot be used again.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response.into_response()
    }
}

fn not_issued(error: &IssueError) -> ErrorAnswer {
    match error {
        IssueError::ClientRejected(reason) => rejected(reason.as_str()),
        IssueError::CannotRemember => {
            unavailable("the assertion cannot be remembered now; try again with another one")
        }
        IssueError::Denied(Denial::AudienceNotGranted(_)) => target(NOT_GRANTED),
        IssueError::Denied(Denial::AudienceAmbiguous) => {
            target("the request does not tell which audience is meant: name it")
        }
        IssueError::Denied(Denial::ScopeNotGranted(_)) => told(
            StatusCode::BAD_REQUEST,
            "invalid_scope",
            "the client was not granted a scope that it asks for",
        ),
        IssueError::LeaseOver => {
            unavailable("the store has been out of reach for longer than tokens may be signed")
        }
        IssueError::PutBack => unavailable("the store is an old copy that was put back"),
        IssueError::NoRandomness => unavailable("the system has no randomness to give"),
        IssueError::CutTooOften => told(
            StatusCode::TOO_MANY_REQUESTS,
            "temporarily_unavailable",
            "the tokens of the client were revoked too often within seconds",
        ),
    }
}

/// The same for a resource that nobody has, so that nobody learns about the resources of others.
pub(super) const NOT_GRANTED: &str = "the client has no grant for the audience or resource";

/// One answer for every reason.
fn rejected(detail: &'static str) -> ErrorAnswer {
    ErrorAnswer {
        detail,
        ..told(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "unknown or disabled client, or wrong credential",
        )
    }
}

fn invalid(description: &'static str) -> ErrorAnswer {
    told(StatusCode::BAD_REQUEST, "invalid_request", description)
}

fn target(description: &'static str) -> ErrorAnswer {
    told(StatusCode::BAD_REQUEST, "invalid_target", description)
}

fn unavailable(description: &'static str) -> ErrorAnswer {
    told(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", description)
}

fn told(status: StatusCode, error: &'static str, description: &'static str) -> ErrorAnswer {
    ErrorAnswer { status, error, description, detail: "" }
}

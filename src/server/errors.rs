//! From what went wrong to what the caller is told: one status and one reason each.
//!
//! Failures that an attacker must not tell apart get the same status and reason. The log and the audit log keep the
//! difference.

use std::collections::HashMap;
use std::time::Duration;

use countersign_mesh::guard::ERROR_DOMAIN;
use http::Response;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authority::{ActError, IssueError, NotServed, Refusal, TooManyStreams};
use crate::policy::{ChangeDenial, Denial};
use crate::server::attempt::Failed;
use crate::server::fields::InvalidField;
use crate::server::limits::Throttled;
use crate::store::StoreError;

/// Everything that a call can fail with, once the guard has admitted it.
#[derive(Debug)]
pub(super) enum CallError {
    /// A field is at fault.
    Invalid(InvalidField),
    /// Too many failures, or too many tokens.
    Throttled(Throttled),
    /// No token was issued.
    Issue(IssueError),
    /// The caller asked about tokens of an audience that it does not serve.
    NotServed(NotServed),
    /// An operator's act was refused or could not be written.
    Act(ActError),
    /// The guard did not permit the call.
    NotPermitted,
    /// The caller's client is disabled or deleted, and so its token revoked.
    ClientGone,
    /// The caller proved an epoch that this store never had: an old copy of the store was put back.
    PutBack,
    /// The caller's client has too many trust streams.
    TooManyStreams(TooManyStreams),
    /// The same request made this secret before.
    SecretShown(String),
    /// The store could not be read.
    Store(StoreError),
}

impl From<InvalidField> for CallError {
    fn from(error: InvalidField) -> Self {
        Self::Invalid(error)
    }
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Throttled(throttled) => Self::Throttled(throttled),
            Failed::Issue(error) => Self::Issue(error),
        }
    }
}

impl From<NotServed> for CallError {
    fn from(error: NotServed) -> Self {
        Self::NotServed(error)
    }
}

impl From<ActError> for CallError {
    fn from(error: ActError) -> Self {
        Self::Act(error)
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the caller is told, and what only the log is.
pub(super) struct StatusAnswer {
    code: Code,
    reason: &'static str,
    message: String,
    /// For the log only.
    pub(super) detail: &'static str,
}

impl CallError {
    /// What the caller is told.
    pub(super) fn told(&self) -> StatusAnswer {
        match self {
            Self::Invalid(field) => told(Code::InvalidArgument, "REQUEST_INVALID", field.message()),
            Self::Throttled(_) => told(
                Code::ResourceExhausted,
                "RATE_LIMITED",
                "too many attempts or tokens within seconds; try again later",
            ),
            Self::Issue(IssueError::ClientRejected(reason)) => StatusAnswer {
                detail: reason.as_str(),
                ..told(
                    Code::Unauthenticated,
                    "CLIENT_REJECTED",
                    "unknown or disabled client, or wrong credential",
                )
            },
            Self::Issue(IssueError::Denied(denial)) => denied(denial),
            Self::Issue(IssueError::CannotRemember) => told(
                Code::Unavailable,
                "ASSERTIONS_BUSY",
                "the assertion cannot be remembered now, so that it could be used twice; send another one later",
            ),
            Self::Issue(IssueError::LeaseOver) => told(
                Code::Unavailable,
                "STORE_UNAVAILABLE",
                "the store has been out of reach for longer than tokens may be signed without it",
            ),
            Self::Issue(IssueError::PutBack) => told(
                Code::Unavailable,
                "STORE_PUT_BACK",
                "the store is an old copy that was put back; nothing is signed until `countersign restore` was run",
            ),
            Self::Issue(IssueError::CutTooOften) => told(
                Code::Unavailable,
                "RATE_LIMITED",
                "the client's tokens were revoked too often within seconds; try again later",
            ),
            Self::Issue(IssueError::NoRandomness) => told(
                Code::Unavailable,
                "RANDOMNESS_UNAVAILABLE",
                "the system has no randomness to give",
            ),
            Self::NotServed(NotServed) => told(
                Code::PermissionDenied,
                "AUDIENCE_DENIED",
                "a caller may ask about tokens only for audiences that it serves",
            ),
            Self::NotPermitted => told(
                Code::Unauthenticated,
                "TOKEN_MISSING",
                "the method demands a token for audience countersign",
            ),
            Self::ClientGone => told(
                Code::Unauthenticated,
                "TOKEN_REVOKED",
                "the token has been revoked; get a new one",
            ),
            Self::PutBack => told(
                Code::Unavailable,
                "STORE_PUT_BACK",
                "the verifier has a later epoch than this store: an old copy of the store was put back",
            ),
            Self::TooManyStreams(TooManyStreams(most)) => told(
                Code::ResourceExhausted,
                "STREAM_LIMIT",
                format!("the client has {most} trust streams, which is the most; close one first"),
            ),
            Self::Act(ActError::Refused(refusal)) => refused(refusal),
            Self::Act(ActError::RequestIdReused) => told(
                Code::InvalidArgument,
                "REQUEST_ID_REUSED",
                "this request_id was used for another request; use a new one",
            ),
            Self::SecretShown(id) => told(
                Code::AlreadyExists,
                "SECRET_SHOWN",
                format!(
                    "this request made the secret {id} before; it is shown only once: revoke it and make another"
                ),
            ),
            Self::Act(ActError::Store(error)) | Self::Store(error) => told(
                Code::Unavailable,
                "STORE_UNAVAILABLE",
                format!("nothing was changed: {error}"),
            ),
        }
    }

    /// What the caller is told, on the wire.
    pub(super) fn to_status(&self) -> Status {
        let StatusAnswer { code, reason, message, detail: _ } = self.told();
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
        match self {
            Self::Invalid(field) => {
                details.set_bad_request(vec![field.to_violation()]);
            }
            Self::Throttled(throttled) => {
                details.set_retry_info(Some(throttled.retry_after));
            }
            Self::Act(ActError::RequestIdReused) => {
                details.add_bad_request_violation("request_id", message.as_str());
            }
            Self::Act(ActError::Refused(Refusal::Denied(ChangeDenial::NoSuchScope(_)))) => {
                details.add_bad_request_violation("client.grants", message.as_str());
            }
            Self::Act(ActError::Refused(Refusal::Denied(ChangeDenial::ServesCountersign))) => {
                details.add_bad_request_violation("client.serves", message.as_str());
            }
            Self::Act(ActError::Refused(Refusal::Denied(ChangeDenial::ResourceNotServed))) => {
                details.add_bad_request_violation("client.resources", message.as_str());
            }
            Self::SecretShown(id) => {
                details.set_error_info(
                    reason,
                    ERROR_DOMAIN,
                    HashMap::from([("credential_id".to_owned(), id.clone())]),
                );
            }
            Self::Act(ActError::Refused(Refusal::CutTooOften))
            | Self::Act(ActError::Store(_))
            | Self::Store(_)
            | Self::Issue(
                IssueError::LeaseOver | IssueError::CutTooOften | IssueError::CannotRemember,
            ) => {
                details.set_retry_info(Some(Duration::from_secs(5)));
            }
            Self::Act(ActError::Refused(Refusal::VerifiersBehind(behind))) => {
                let verifiers = HashMap::from([("verifiers".to_owned(), behind.brief())]);
                details.set_error_info(reason, ERROR_DOMAIN, verifiers);
                details.set_retry_info(Some(behind.retry_in));
            }
            Self::TooManyStreams(_) => {
                details.set_retry_info(Some(Duration::from_secs(5)));
            }
            Self::NotPermitted | Self::ClientGone | Self::PutBack => {}
            Self::Issue(
                IssueError::ClientRejected(_)
                | IssueError::Denied(_)
                | IssueError::PutBack
                | IssueError::NoRandomness,
            )
            | Self::NotServed(NotServed)
            | Self::Act(ActError::Refused(
                Refusal::Denied(ChangeDenial::NeedsOperatorsWrite | ChangeDenial::LacksScope(_))
                | Refusal::ScopeMissing(_)
                | Refusal::ClientExists
                | Refusal::NoSuchClient
                | Refusal::NoSuchCredential
                | Refusal::CredentialExists
                | Refusal::TooManyCredentials
                | Refusal::EtagStale
                | Refusal::LastOperator
                | Refusal::NoSuchKey
                | Refusal::KeyRevoked
                | Refusal::ClockBehind(_)
                | Refusal::DatedAhead(_)
                | Refusal::TooManyKeys
                | Refusal::PutBack
                | Refusal::NotOwnToken,
            )) => {}
        }
        Status::with_error_details(code, message, details)
    }
}

impl StatusAnswer {
    /// The reason in one word.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }
}

fn told(code: Code, reason: &'static str, message: impl Into<String>) -> StatusAnswer {
    StatusAnswer { code, reason, message: message.into(), detail: "" }
}

fn denied(denial: &Denial) -> StatusAnswer {
    let reason = match denial {
        Denial::AudienceNotGranted(_) | Denial::AudienceAmbiguous => "AUDIENCE_DENIED",
        Denial::ScopeNotGranted(_) => "SCOPE_DENIED",
    };
    told(Code::PermissionDenied, reason, denial.to_string())
}

fn refused(refusal: &Refusal) -> StatusAnswer {
    let (code, message) = match refusal {
        Refusal::Denied(
            denial @ (ChangeDenial::NeedsOperatorsWrite | ChangeDenial::LacksScope(_)),
        ) => (Code::PermissionDenied, denial.to_string()),
        Refusal::Denied(
            denial @ (ChangeDenial::NoSuchScope(_)
            | ChangeDenial::ServesCountersign
            | ChangeDenial::ResourceNotServed),
        ) => (Code::InvalidArgument, denial.to_string()),
        Refusal::ScopeMissing(scope) => {
            (Code::PermissionDenied, format!("this takes the scope {scope}"))
        }
        Refusal::ClientExists => {
            (Code::AlreadyExists, "there is a client of this id already".to_owned())
        }
        Refusal::NoSuchClient => (Code::NotFound, "there is no client of this id".to_owned()),
        Refusal::NoSuchCredential => {
            (Code::NotFound, "the client has no credential of this id".to_owned())
        }
        Refusal::CredentialExists => {
            (Code::AlreadyExists, "the client has this credential already".to_owned())
        }
        Refusal::TooManyCredentials => (
            Code::FailedPrecondition,
            "the client has eight credentials of this kind, which is the most; revoke one that is not used any more"
                .to_owned(),
        ),
        Refusal::EtagStale => (
            Code::Aborted,
            "the client has changed since its etag was read; read it again and repeat the change"
                .to_owned(),
        ),
        Refusal::LastOperator => (
            Code::FailedPrecondition,
            "no operator would be left who could administer operators; make another one first"
                .to_owned(),
        ),
        Refusal::NoSuchKey => (Code::NotFound, "there is no key of this kid".to_owned()),
        Refusal::KeyRevoked => (Code::FailedPrecondition, "the key is revoked already".to_owned()),
        Refusal::ClockBehind(behind) => (Code::FailedPrecondition, behind.to_string()),
        Refusal::DatedAhead(ahead) => (
            Code::FailedPrecondition,
            format!(
                "the clock was set back: tokens are dated up to {} seconds ahead of it; set it right and try again, \
                 or disable the client",
                ahead.as_secs(),
            ),
        ),
        Refusal::TooManyKeys => (
            Code::FailedPrecondition,
            "as many retired keys as verifiers read still verify; rotate less often".to_owned(),
        ),
        Refusal::PutBack => (
            Code::FailedPrecondition,
            "the store is an old copy that was put back; stop the server and run `countersign restore`".to_owned(),
        ),
        Refusal::CutTooOften => (
            Code::ResourceExhausted,
            "the client's tokens were revoked too often within seconds; try again later".to_owned(),
        ),
        Refusal::VerifiersBehind(behind) => (
            Code::FailedPrecondition,
            format!("would refuse the next key's tokens, or may: {}", behind.brief()),
        ),
        Refusal::NotOwnToken => (
            Code::PermissionDenied,
            "the token is another client's; revoking it takes tokens:revoke".to_owned(),
        ),
    };
    told(code, refusal.reason(), message)
}

/// Completes errors that came from tonic or a library rather than from a method: they get the form and the code
/// that all of ours have.
pub(super) fn complete<B: Default>(response: Response<B>) -> Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if status.code() == Code::Ok || !status.details().is_empty() {
        return response;
    }
    let (code, reason) = match status.code() {
        // tonic's word for a message over the size limit.
        Code::OutOfRange => (Code::ResourceExhausted, "REQUEST_TOO_LARGE"),
        Code::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        Code::Internal => (Code::InvalidArgument, "REQUEST_MALFORMED"),
        // tonic says along with it which compressions are understood.
        Code::Unimplemented if status.metadata().contains_key("grpc-accept-encoding") => {
            (Code::Unimplemented, "ENCODING_UNSUPPORTED")
        }
        Code::Unimplemented => (Code::Unimplemented, "METHOD_UNDECLARED"),
        other => (other, "UNSPECIFIED"),
    };
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    let (parts, _) = response.into_parts();
    let metadata = status.metadata().clone();
    let completed =
        Status::with_error_details_and_metadata(code, status.message(), details, metadata);
    let mut completed = completed.into_http();
    *completed.extensions_mut() = parts.extensions;
    completed
}

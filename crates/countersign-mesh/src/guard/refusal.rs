//! Why a call was refused, and how the caller is told.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::claims::{Audience, ClientId};
use crate::token::Rejection;

/// The domain of every reason in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "countersign.dev";

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody declared who may call this method, so nobody may.
    MethodUndeclared,
    /// There is no token with the call.
    TokenMissing {
        /// The audience that it would have to name.
        audience: Audience,
    },
    /// The call does not bring one valid token of the issuer: it is malformed, forged or not valid yet,
    /// or there are two.
    TokenInvalid,
    /// The token has expired.
    TokenExpired,
    /// The token's key is not known here.
    KeyUnknown,
    /// The token, its client or its key has been revoked.
    TokenRevoked,
    /// The token is for another audience.
    AudienceMismatch {
        /// The audience that it would have to name.
        audience: Audience,
    },
    /// The guard has no trust bundle yet, so it can verify nothing.
    TrustUnavailable,
    /// The guard's trust bundle is stale, and the guard fails closed.
    TrustStale,
    /// The token does not carry this scope.
    ScopeMissing {
        /// The first missing scope.
        scope: Box<str>,
    },
}

/// The client whose call was refused although its token was good, since a scope was missing. It is in
/// the extensions of the response, beside the [`Refusal`], for layers that log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedClient(pub ClientId);

impl Refusal {
    /// The refusal of a rejected token by a service of this audience.
    pub(super) fn of(rejection: &Rejection, audience: &Audience) -> Self {
        match rejection {
            Rejection::Malformed(_)
            | Rejection::IssuerMismatch
            | Rejection::SignatureInvalid
            | Rejection::NotYetValid => Self::TokenInvalid,
            Rejection::KeyUnknown => Self::KeyUnknown,
            Rejection::Expired => Self::TokenExpired,
            Rejection::AudienceMismatch => Self::AudienceMismatch { audience: audience.clone() },
            Rejection::Revoked => Self::TokenRevoked,
        }
    }

    /// The reason in one word, as in `ErrorInfo.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MethodUndeclared => "METHOD_UNDECLARED",
            Self::TokenMissing { .. } => "TOKEN_MISSING",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::KeyUnknown => "KEY_UNKNOWN",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::AudienceMismatch { .. } => "AUDIENCE_MISMATCH",
            Self::TrustUnavailable => "TRUST_UNAVAILABLE",
            Self::TrustStale => "TRUST_STALE",
            Self::ScopeMissing { .. } => "SCOPE_MISSING",
        }
    }

    /// What the caller is told, as a gRPC status with `google.rpc.ErrorInfo`.
    pub fn to_status(&self) -> Status {
        let (code, message) = self.told();
        let mut metadata = HashMap::new();
        match self {
            Self::TokenMissing { audience } | Self::AudienceMismatch { audience } => {
                metadata.insert("audience".to_owned(), audience.to_string());
            }
            Self::ScopeMissing { scope } => {
                metadata.insert("scope".to_owned(), scope.to_string());
            }
            _ => {}
        }
        let details = ErrorDetails::with_error_info(self.reason(), ERROR_DOMAIN, metadata);
        Status::with_error_details(code, message, details)
    }

    /// What the caller is told: the code, and a sentence for people.
    pub(super) fn told(&self) -> (Code, String) {
        match self {
            // To a caller, a method that nobody declared is not there.
            Self::MethodUndeclared => {
                (Code::Unimplemented, "there is no such method here".to_owned())
            }
            Self::TokenMissing { audience } => (
                Code::Unauthenticated,
                format!(
                    "no token: call with `authorization: Bearer` and a token for audience {audience}"
                ),
            ),
            Self::TokenInvalid => {
                (Code::Unauthenticated, "not a valid token of this issuer".to_owned())
            }
            Self::TokenExpired => {
                (Code::Unauthenticated, "the token has expired; get a new one".to_owned())
            }
            Self::KeyUnknown => (
                Code::Unauthenticated,
                "the token's signing key is not known here; get a new token".to_owned(),
            ),
            Self::TokenRevoked => {
                (Code::Unauthenticated, "the token has been revoked; get a new one".to_owned())
            }
            Self::AudienceMismatch { audience } => (
                Code::Unauthenticated,
                format!("the token is for another audience; get one for {audience}"),
            ),
            Self::TrustUnavailable => {
                (Code::Unavailable, "no token can be verified here yet; try again".to_owned())
            }
            Self::TrustStale => (
                Code::Unavailable,
                "what is known here of keys and revocations is too old; try again".to_owned(),
            ),
            Self::ScopeMissing { scope } => {
                (Code::PermissionDenied, format!("the token does not carry the scope {scope}"))
            }
        }
    }
}

/// A refusal, with details for the log that the caller is not told.
pub(super) struct RefusalDetail {
    pub(super) refusal: Refusal,
    /// Why exactly.
    pub(super) rejection: Option<Rejection>,
    /// Whose token it is, once it has verified.
    pub(super) client: Option<ClientId>,
}

impl From<Refusal> for RefusalDetail {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, rejection: None, client: None }
    }
}

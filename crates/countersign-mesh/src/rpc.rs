//! The wire: messages and clients of Countersign's own services, generated from `proto/` and checked
//! in, so that nobody who links this crate compiles protos. A test of the service holds them to it.
//!
//! Messages that carry a secret or a token redact it in their `Debug`.

use std::fmt;

pub use self::generated::*;

#[allow(
    missing_docs,
    reason = "generated code: messages and fields carry the comments of the protos, clients none"
)]
mod generated {
    include!("rpc/countersign.v1.rs");
}

const REDACTED: &str = "[redacted]";

impl fmt::Debug for IssueTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_id, credential, audience, scopes, requested_ttl } = self;
        f.debug_struct("IssueTokenRequest")
            .field("client_id", client_id)
            .field("credential", credential)
            .field("audience", audience)
            .field("scopes", scopes)
            .field("requested_ttl", requested_ttl)
            .finish()
    }
}

impl fmt::Debug for issue_token_request::Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientSecret(_) => f.debug_tuple("ClientSecret").field(&REDACTED).finish(),
            Self::ClientAssertion(_) => f.debug_tuple("ClientAssertion").field(&REDACTED).finish(),
        }
    }
}

impl fmt::Debug for IssueTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            access_token: _,
            token_type,
            expire_time,
            expires_in,
            refresh_in,
            audience,
            scopes,
        } = self;
        f.debug_struct("IssueTokenResponse")
            .field("access_token", &REDACTED)
            .field("token_type", token_type)
            .field("expire_time", expire_time)
            .field("expires_in", expires_in)
            .field("refresh_in", refresh_in)
            .field("audience", audience)
            .field("scopes", scopes)
            .finish()
    }
}

impl fmt::Debug for ValidateTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, audience, required_scopes } = self;
        f.debug_struct("ValidateTokenRequest")
            .field("token", &REDACTED)
            .field("audience", audience)
            .field("required_scopes", required_scopes)
            .finish()
    }
}

impl fmt::Debug for RevokeTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokeTokenRequest").field("target", &self.target).finish()
    }
}

impl fmt::Debug for revoke_token_request::Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.debug_tuple("Token").field(&REDACTED).finish(),
            Self::TokenId(id) => f.debug_tuple("TokenId").field(id).finish(),
        }
    }
}

impl fmt::Debug for CreateClientCredentialResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { credential, client_secret: _ } = self;
        f.debug_struct("CreateClientCredentialResponse")
            .field("credential", credential)
            .field("client_secret", &REDACTED)
            .finish()
    }
}

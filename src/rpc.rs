//! The wire: what `build.rs` makes of the files in `proto/`.
//!
//! Messages that carry a secret or a token redact it in their `Debug`.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

pub use self::generated::*;

#[allow(
    missing_docs,
    reason = "generated code: messages and fields carry the comments of the protos, clients and servers none"
)]
mod generated {
    tonic::include_proto!("countersign.v1");
}

include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// The compiled protos with their options, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// How long the caller of a gRPC method waits, if it says so: up to eight digits and a unit. What makes
/// no sense is taken as nothing said, as tonic does.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let count = Some(count).filter(|count| (1..=8).contains(&count.len()))?.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 60 * 60),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Whether a host is this machine: the only one that plaintext goes to without being asked for.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(
        |_| host.eq_ignore_ascii_case("localhost"),
        |address| address.to_canonical().is_loopback(),
    )
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

impl fmt::Debug for CreateClientSecretResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_secret: _, secret } = self;
        f.debug_struct("CreateClientSecretResponse")
            .field("client_secret", &REDACTED)
            .field("secret", secret)
            .finish()
    }
}

//! Tokens: signed JSON in JWS compact form (RFC 7515 §3.1) after the profile of RFC 9068.
//!
//! [`Minter`] writes tokens: it encodes [`Claims`](crate::claims::Claims) and signs them. Reading takes
//! two steps:
//!
//! 1. The text is split and decoded, strictly: one spelling for one token. [`FormatError`] says what is
//!    wrong with it.
//! 2. Issuer, key and signature are checked, in this order. [`Rejection`] says why a token is not
//!    believed.
//!
//! Neither step knows what was revoked, so both are private to this crate: only a
//! [`TrustBundle`](crate::trust::TrustBundle) makes a [`VerifiedToken`](crate::trust::VerifiedToken).
//!
//! ```compile_fail
//! // A signature alone proves too little: there is no such function.
//! use countersign_mesh::token::verify;
//! ```
//!
//! [`Assertion`] is the other JWT: a client signs it to prove who it is (RFC 7523). A token's `typ` keeps
//! the two apart, so that neither is taken for the other.
//!
//! [`unverified_claims`] decodes a token for people who debug. Nothing that it returns was verified.

mod assertion;
mod format;
mod mint;
mod verify;

pub use self::assertion::{Assertion, sign_assertion};
pub use self::format::{FormatError, MAX_LEN, UnverifiedToken, unverified_claims};
pub use self::mint::{Minter, Token};
pub use self::verify::{Audiences, Rejection};
pub(crate) use self::verify::{SignedToken, signed};

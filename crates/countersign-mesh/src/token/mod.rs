//! Tokens: signed JSON in JWS compact form (RFC 7515 §3.1) after the profile of RFC 9068.
//!
//! [`Minter`] writes them. What reads them here knows a signature and no revocation, so it is not for
//! others: only a [`TrustBundle`](crate::trust::TrustBundle) makes a
//! [`VerifiedToken`](crate::trust::VerifiedToken).
//!
//! ```compile_fail
//! // A signature alone proves too little: there is no such function.
//! use countersign_mesh::token::verify;
//! ```
//!
//! [`Assertion`] is the other JWT: a client's, by which it proves who it is.

mod assertion;
mod format;
mod mint;
mod verify;

pub use self::assertion::{Assertion, sign_assertion};
pub use self::format::{FormatError, MAX_LEN, UnverifiedToken, unverified_claims};
pub use self::mint::{Minter, Token};
pub use self::verify::{Audiences, Rejection};
pub(crate) use self::verify::{SignedToken, signed};

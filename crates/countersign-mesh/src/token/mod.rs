//! Tokens: signed JSON in JWS compact form (RFC 7515 §3.1) after the profile of RFC 9068.
//!
//! [`Minter`] writes them, [`verify`] reads them, and only `verify` makes a [`VerifiedToken`].
//! [`Assertion`] is the other JWT: a client's, by which it proves who it is.

mod assertion;
mod format;
mod mint;
mod verify;

pub use self::assertion::{Assertion, sign_assertion};
pub use self::format::{FormatError, MAX_LEN, UnverifiedToken, unverified_claims};
pub use self::mint::{Minter, Token};
pub use self::verify::{Audiences, Expected, Rejection, VerifiedToken, verify};

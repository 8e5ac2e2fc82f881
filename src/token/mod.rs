//! Tokens: signed JSON in JWS compact form (RFC 7515 §3.1) after the profile of RFC 9068.
//!
//! [`Minter`] writes them, [`verify`] reads them, and only `verify` makes a [`VerifiedToken`].
//! [`Assertion`] is the other JWT: a client's, by which it proves who it is.

mod assertion;
mod format;
mod mint;
mod verify;

pub use self::assertion::Assertion;
pub use self::assertion::sign_assertion;
pub use self::format::FormatError;
pub use self::format::MAX_LEN;
pub use self::format::UnverifiedToken;
pub use self::format::unverified_claims;
pub use self::mint::Minter;
pub use self::mint::Token;
pub use self::verify::Audiences;
pub use self::verify::Expected;
pub use self::verify::Rejection;
pub use self::verify::VerifiedToken;
pub use self::verify::verify;

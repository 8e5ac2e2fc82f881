//! Keys: the private half that signs, the public half that verifies, and sets of them.
//!
//! - [`SigningKey`] is an Ed25519 private key (RFC 8032). It is erased when dropped, and never shown.
//! - [`PublicKey`] is its public half, with a name, the `kid`. Our own name for a key is the start of
//!   its JWK thumbprint (RFC 7638), so that everyone derives the same name from the same key.
//! - [`KeySet`] holds the public keys that a verifier trusts, and reads and writes them as a JWK Set
//!   (RFC 7517 §5).
//! - [`InvalidKeyFile`] says what is wrong with a key that somebody keeps in a file, in PEM or as a JWK.
//!
//! A `PublicKey` that exists can be trusted as a key: points off the curve and points of low order, under
//! which anyone can sign, are refused when the key is read. Verification is strict: a signature has one
//! encoding, so that nobody can make a second token of a good one.

mod key_file;
mod key_set;
mod signing_key;

pub use self::key_file::InvalidKeyFile;
pub use self::key_set::{InvalidKeySet, KeySet};
pub use self::signing_key::{InvalidPublicKey, PublicKey, SigningKey};

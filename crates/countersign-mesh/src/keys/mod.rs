//! Keys: the private half that signs, the public half that verifies, and sets of them.

mod key_file;
mod key_set;
mod signing_key;

pub use self::key_file::InvalidKeyFile;
pub use self::key_set::{InvalidKeySet, KeySet};
pub use self::signing_key::{InvalidPublicKey, PublicKey, SigningKey};

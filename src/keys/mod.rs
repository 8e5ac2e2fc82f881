//! Signing keys: the private half that signs, the public half that verifies, and their lifecycle.

mod key_file;
mod key_ring;
mod key_set;
mod rotation_gate;
mod signing_key;

pub use self::key_file::InvalidKeyFile;
pub use self::key_ring::{
    ActiveKey, ClockBehind, KeyInfo, KeyRing, KeyState, NextKey, RetiredKey, RevokeKeyError,
    RevokedKey,
};
pub use self::key_set::{InvalidKeySet, KeySet};
pub use self::rotation_gate::{
    ACK_DEADLINE, Behind, Blocked, JWKS_GONE, JWKS_MAX_AGE, Listeners, RECONNECT_WINDOW,
    RotationGate, StreamVerifier,
};
pub use self::signing_key::{InvalidPublicKey, PublicKey, SigningKey};

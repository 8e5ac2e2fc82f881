//! Signing keys: the private half that signs, the public half that verifies, and their lifecycle.

mod key_file;
mod key_ring;
mod key_set;
mod rotation_gate;
mod signing_key;

pub use self::key_file::InvalidKeyFile;
pub use self::key_ring::ActiveKey;
pub use self::key_ring::ClockBehind;
pub use self::key_ring::KeyInfo;
pub use self::key_ring::KeyRing;
pub use self::key_ring::KeyState;
pub use self::key_ring::NextKey;
pub use self::key_ring::RetiredKey;
pub use self::key_ring::RevokeKeyError;
pub use self::key_ring::RevokedKey;
pub use self::key_set::InvalidKeySet;
pub use self::key_set::KeySet;
pub use self::rotation_gate::ACK_DEADLINE;
pub use self::rotation_gate::Behind;
pub use self::rotation_gate::Blocked;
pub use self::rotation_gate::JWKS_GONE;
pub use self::rotation_gate::JWKS_MAX_AGE;
pub use self::rotation_gate::Listeners;
pub use self::rotation_gate::RECONNECT_WINDOW;
pub use self::rotation_gate::RotationGate;
pub use self::rotation_gate::StreamVerifier;
pub use self::signing_key::InvalidPublicKey;
pub use self::signing_key::PublicKey;
pub use self::signing_key::SigningKey;

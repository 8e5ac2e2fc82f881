//! The lifecycle of signing keys, and when they may rotate. Pure: nothing here reads a clock, a file or
//! the network.

mod key_ring;
mod rotation_gate;

pub use self::key_ring::{
    ActiveKey, ClockBehind, KeyInfo, KeyRing, KeyState, NextKey, RetiredKey, RevokeKeyError,
    RevokedKey,
};
pub use self::rotation_gate::{
    ACK_DEADLINE, Behind, Blocked, JWKS_GONE, JWKS_MAX_AGE, Listeners, RECONNECT_WINDOW,
    RotationGate, StreamVerifier,
};

//! The lifecycle of signing keys, and when a rotation may go ahead.
//!
//! This room answers two questions: which key signs, verifies or is rejected now, and would anyone
//! refuse the tokens of the next key if it began to sign?
//!
//! # The ring
//!
//! A [`KeyRing`] holds every key with its state. A change never edits a ring; it returns a new one.
//!
//! ```text
//!          rotate           rotate             its last token has expired
//!   next ─────────▶ active ─────────▶ retired ────────────────────────────▶ gone
//!     │               │                  │
//!     └───────────────┴──── revoke ──────┴──▶ revoked ─────────────────────▶ gone
//! ```
//!
//! - [`NextKey`]: published, so that verifiers learn it in time. It signs nothing yet.
//! - [`ActiveKey`]: the one key that signs.
//! - [`RetiredKey`]: signs no more, but its tokens are still accepted until they expire.
//! - [`RevokedKey`]: rejected everywhere at once. The ring remembers it until no token of it can be
//!   unexpired.
//!
//! # The gate
//!
//! A planned rotation must not make a valid call fail. [`RotationGate`] says whether it would:
//!
//! 1. After each commit of a ring, [`RotationGate::publish`] notes which epoch holds which key.
//! 2. Each verifier on the trust stream acknowledges the epochs that it has installed. Each JWKS that
//!    is served to a poller is noted with [`RotationGate::polled`].
//! 3. Where a rotation is decided, [`RotationGate::check`] lets it pass, or returns [`Blocked`]: who
//!    lacks the next key, and how long the rotation has to wait.
//!
//! A forced rotation and a revocation do not ask the gate.
//!
//! # Invariants
//!
//! - There is always exactly one `next` and one `active` key. Revoking either fills its place in the
//!   same step.
//! - The ring drops the private half of a key that is retired or revoked.
//! - A clock behind the newest key is refused ([`ClockBehind`]), so that no key is retired before it was
//!   activated.
//! - Everything here is pure. Callers pass `now`; nothing reads a clock, a file or the network.
//!
//! # What it does not do
//!
//! It seals and stores no key (the store does), it mints no token, and it knows no connection. The
//! gate knows verifiers by a number and by what they acknowledged.

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

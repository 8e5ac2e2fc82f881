//! The public keys that a client signs assertions with (`private_key_jwt`, RFC 7523).

use countersign_mesh::claims::{Kid, Timestamp};
use countersign_mesh::keys::PublicKey;
use serde::{Deserialize, Serialize};

use crate::client::LastUse;

/// A public key as it is kept.
#[derive(Debug)]
pub struct StoredKey {
    /// The key, under our name for it.
    pub key: PublicKey,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, for people.
    pub last_use: LastUse,
}

impl StoredKey {
    /// Whether it works no more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether the header of an assertion means this key: by our name, which is how the key's thumbprint
    /// (RFC 7638) begins, or by all of the thumbprint, as others name keys.
    pub fn is_named(&self, kid: &str) -> bool {
        kid == self.key.kid().as_str()
            || kid.len() == THUMBPRINT_LEN && kid == self.key.thumbprint()
    }

    /// What there is to tell of it.
    pub fn info(&self) -> ClientKeyInfo {
        ClientKeyInfo {
            kid: self.key.kid().clone(),
            public_key: *self.key.as_bytes(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_use.time(),
        }
    }
}

/// A SHA-256 in base64url.
const THUMBPRINT_LEN: usize = 43;

/// What there is to tell of a client's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKeyInfo {
    /// Its name among the client's keys.
    pub kid: Kid,
    /// The key (RFC 8032 §5.1.5).
    pub public_key: [u8; 32],
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

//! A client's secrets: what is kept of them, and the text that is shown once.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_mesh::claims::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// What is kept of a secret: enough to recognise it, not to use it.
#[derive(Debug)]
pub struct StoredSecret {
    /// Its name among the client's secrets.
    pub id: SecretId,
    /// What it hashes to.
    pub hash: SecretHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, for people and for `retire_when_idle`.
    pub last_use: LastUse,
    /// It is revoked once nobody has used it for this long.
    pub retire_when_idle: Option<Duration>,
}

impl StoredSecret {
    /// Whether it works no more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The same secret, to be revoked once nobody has used it for this long. A use that is noted in this
    /// one from now on is not in that one.
    pub fn retiring_when_idle(&self, span: Duration) -> Self {
        Self {
            id: self.id,
            hash: self.hash,
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_use: self.last_use.copy(),
            retire_when_idle: Some(span),
        }
    }
}

/// What there is to tell of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Its name among the client's secrets.
    pub id: SecretId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// It is revoked once nobody has used it for this long. Answers kept by an older version have none.
    #[serde(default)]
    pub retire_when_idle: Option<Duration>,
}

impl StoredSecret {
    /// What there is to tell of it.
    pub fn info(&self) -> SecretInfo {
        SecretInfo {
            id: self.id,
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_use.time(),
            retire_when_idle: self.retire_when_idle,
        }
    }
}

/// The name of a secret: eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretId(pub u32);

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Text that does not name a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSecretId;

impl fmt::Display for InvalidSecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a secret id: expected eight hexadecimal digits")
    }
}

impl std::error::Error for InvalidSecretId {}

impl FromStr for SecretId {
    type Err = InvalidSecretId;
    fn from_str(text: &str) -> Result<Self, InvalidSecretId> {
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidSecretId);
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| InvalidSecretId)
    }
}

/// When a credential was last used. Noted in memory by whoever authenticates with it, and written to
/// the store now and then by someone else.
#[derive(Debug, Default)]
pub struct LastUse {
    noted: AtomicU64,
    written: AtomicU64,
}

impl LastUse {
    /// As the store remembers it.
    pub fn from_store(at: Option<Timestamp>) -> Self {
        let at = at.map_or(0, Timestamp::as_unix);
        Self { noted: AtomicU64::new(at), written: AtomicU64::new(at) }
    }

    /// The time, if there was one.
    pub fn time(&self) -> Option<Timestamp> {
        match self.noted.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp::from_unix(at)),
        }
    }

    /// The time, if the store does not have it yet.
    pub fn unwritten(&self) -> Option<Timestamp> {
        self.time().filter(|at| at.as_unix() != self.written.load(Ordering::Relaxed))
    }

    /// The store has it now.
    pub fn set_written(&self, at: Timestamp) {
        self.written.store(at.as_unix(), Ordering::Relaxed);
    }

    fn copy(&self) -> Self {
        Self {
            noted: self.noted.load(Ordering::Relaxed).into(),
            written: self.written.load(Ordering::Relaxed).into(),
        }
    }

    /// Notes a use.
    pub(super) fn note(&self, now: Timestamp) {
        // Within a second, only the first of many users writes to the shared cache line.
        if self.noted.load(Ordering::Relaxed) < now.as_unix() {
            self.noted.store(now.as_unix(), Ordering::Relaxed);
        }
    }
}

/// The SHA-256 of a secret. No slow hash: the secrets are ours, with 256 bits of randomness each.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// What a secret hashes to.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// As it was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For keeping.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A secret itself: `csec_` and 48 characters of base64url, which are 256 random bits and the first
/// 32 bits of their SHA-256 under that prefix, so that a scanner can tell a leaked one from noise.
pub struct ClientSecret(String);

impl ClientSecret {
    /// What every secret begins with.
    pub const PREFIX: &'static str = "csec_";

    /// Makes one from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 36]);
        getrandom::fill(&mut bytes[..32])?;
        let checksum = Self::checksum(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum);
        let mut text = String::with_capacity(Self::PREFIX.len() + 48);
        text.push_str(Self::PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok(Self(text))
    }

    /// Whether text has the form and the checksum of a secret: what a scanner asks.
    pub fn looks_like_one(text: &str) -> bool {
        text.strip_prefix(Self::PREFIX)
            .and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok())
            .is_some_and(|bytes| bytes.len() == 36 && bytes[32..] == Self::checksum(&bytes[..32]))
    }

    /// The text, to be shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn checksum(random: &[u8]) -> [u8; 4] {
        let digest = Sha256::new().chain_update(Self::PREFIX).chain_update(random).finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}

impl Drop for ClientSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_form_that_scanners_can_tell() {
        let secret = ClientSecret::generate().expect("randomness");
        assert!(ClientSecret::looks_like_one(secret.expose()));
        assert_eq!(secret.expose().len(), 53);
        let typo = secret.expose().replacen(&secret.expose()[10..11], "-", 1);
        assert!(typo == secret.expose() || !ClientSecret::looks_like_one(&typo));
        assert!(!ClientSecret::looks_like_one("csec_short"));
        assert_eq!(format!("{secret:?}"), "ClientSecret([redacted])");
    }
}

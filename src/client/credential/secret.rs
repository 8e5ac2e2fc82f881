//! The first kind of credential: a secret. Its text is shown once; only its hash is stored.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use crate::client::{Client, Credential, CredentialKind};

/// The credential of a client that matches this secret.
///
/// The amount of work is always the same: one hash, and [`CredentialKind::MAX_OF_EACH`] comparisons in constant
/// time, however many secrets the client has.
pub fn matching<'a>(candidate: Option<&'a Client>, secret: &str) -> Option<&'a Arc<Credential>> {
    let presented = SecretHash::of(secret);
    let mut stored = candidate.into_iter().flat_map(secrets);
    let mut matched = None;
    // There is no `break`: the time must not tell which secret matched, nor how many there are.
    for _ in 0..CredentialKind::MAX_OF_EACH {
        let slot = stored.next();
        let hash = slot.map_or(&NO_HASH, |(_, hash)| hash.as_bytes());
        let same: Choice = presented.as_bytes().ct_eq(hash);
        if bool::from(same) {
            matched = slot.map(|(secret, _)| secret);
        }
    }
    matched
}

/// Takes the place of a secret that a client does not have. No input with this hash is known.
const NO_HASH: [u8; 32] = [0; 32];

fn secrets(client: &Client) -> impl Iterator<Item = (&Arc<Credential>, &SecretHash)> {
    client.credentials.iter().filter_map(|credential| match &credential.kind {
        CredentialKind::Secret(hash) => Some((credential, hash)),
        _ => None,
    })
}

/// The SHA-256 of a secret. A slow password hash is not needed: we make the secrets ourselves, with 256 random
/// bits each, so nobody can guess one.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Rebuilds a hash from the store.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash as bytes, for the store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// The text of a secret: `csec_` and 48 characters of base64url. They encode 256 random bits and a checksum:
/// the first 32 bits of the SHA-256 of the prefix and the random bits. By prefix and checksum a scanner
/// tells a leaked secret from noise.
pub struct ClientSecret(String);

impl ClientSecret {
    /// The prefix of every secret.
    pub const PREFIX: &'static str = "csec_";

    /// Makes a secret from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 36]);
        getrandom::fill(&mut bytes[..32])?;
        let checksum = Self::checksum(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum);
        // The full capacity at once: a growing string would leave copies that nobody zeroizes.
        let mut text = String::with_capacity(Self::PREFIX.len() + 48);
        text.push_str(Self::PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok(Self(text))
    }

    /// Whether the text has the form and the checksum of a secret. A scanner for leaked secrets makes the same
    /// check.
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
    fn a_scanner_can_tell_a_secret_from_other_text() {
        let secret = ClientSecret::generate().expect("randomness");
        assert!(ClientSecret::looks_like_one(secret.expose()));
        assert_eq!(secret.expose().len(), 53);
        let typo = secret.expose().replacen(&secret.expose()[10..11], "-", 1);
        assert!(typo == secret.expose() || !ClientSecret::looks_like_one(&typo));
        assert!(!ClientSecret::looks_like_one("csec_short"));
        assert_eq!(format!("{secret:?}"), "ClientSecret([redacted])");
    }
}

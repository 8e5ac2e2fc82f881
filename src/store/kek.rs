//! The key-encryption key (KEK). It seals the private keys in the database, and is kept outside the database.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use countersign_mesh::keys::{PublicKey, SigningKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::ring::KeyRing;

/// 256 random bits, from which all keys that protect a store are derived (HKDF-SHA-256, RFC 5869).
///
/// It also knows the directory of the high-water marks, if there is one. A restored backup must not bring back
/// an old mark, so marks are kept with the KEK and not with the store.
pub struct Kek {
    key: Zeroizing<[u8; 32]>,
    epoch_dir: Option<PathBuf>,
}

const PREFIX: &str = "ckek_";
const NONCE_LEN: usize = 24;

/// Text that is not a key-encryption key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidKek;

impl fmt::Display for InvalidKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a key-encryption key: expected `ckek_` and 43 characters of base64url")
    }
}

impl std::error::Error for InvalidKek {}

impl Kek {
    /// Generates a KEK from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self { key: bytes, epoch_dir: None })
    }

    /// Sets the directory in which the highest epoch of each of the key's stores is kept. A store that is behind
    /// its highest epoch does not open ([`StoreError::PutBack`](crate::store::StoreError::PutBack)).
    ///
    /// The directory is best on another disk than the store. Without a directory, only verifiers can notice that
    /// an old copy was put back.
    pub fn with_epoch_dir(self, directory: PathBuf) -> Self {
        Self { epoch_dir: Some(directory), ..self }
    }

    /// The path of the file with the highest epoch of a store; see [`Kek::with_epoch_dir`]. Several stores may
    /// share a KEK, so the name contains the first 8 bytes of the store's id.
    pub(super) fn epoch_file(&self, store_id: &[u8; 16]) -> Option<PathBuf> {
        let id: String = store_id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.epoch_dir.as_ref().map(|directory| directory.join(format!("countersign-{id}.epoch")))
    }

    /// The text form of the key, in which it is kept: `ckek_` and 43 characters of base64url.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 43));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(self.key.as_slice(), &mut text);
        text
    }

    /// Derives a key for one purpose. Keys for different purposes are independent.
    pub(super) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, self.key.as_slice())
            .expand(purpose.as_bytes(), key.as_mut_slice())
            .expect("HKDF-SHA-256 gives up to 8160 bytes");
        key
    }

    /// A fingerprint that tells this key from another, and reveals nothing else about it.
    pub(super) fn fingerprint(&self, store_id: &[u8]) -> [u8; 16] {
        let mac = hmac_sha256(&self.derive("countersign kek fingerprint v1"), &[store_id]);
        let mut short = [0; 16];
        short.copy_from_slice(&mac[..16]);
        short
    }

    /// Seals a private key for one store (XChaCha20-Poly1305). The result is a random nonce of 24 bytes and the
    /// ciphertext. It is bound to the store and to the public key, so that rows cannot be swapped.
    pub(super) fn seal(
        &self,
        store_id: &[u8],
        key: &SigningKey,
    ) -> Result<Vec<u8>, getrandom::Error> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)?;
        let seed = key.expose_seed();
        let sealed = self
            .sealing_cipher()
            .encrypt(
                &nonce.into(),
                Payload { msg: seed.as_slice(), aad: &associated(store_id, key.public()) },
            )
            .expect("the cipher takes messages far longer than 32 bytes");
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens a sealed private key. `None` if it was not sealed with this KEK for this store and public key, or if
    /// the private key in it does not belong to that public key.
    pub(super) fn unseal(
        &self,
        store_id: &[u8],
        public: &PublicKey,
        sealed: &[u8],
    ) -> Option<SigningKey> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let payload = Payload { msg: ciphertext, aad: &associated(store_id, public) };
        let seed = Zeroizing::new(self.sealing_cipher().decrypt(&(*nonce).into(), payload).ok()?);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().ok()?);
        let key = SigningKey::from_seed(&seed);
        (key.public() == public).then_some(key)
    }

    /// A MAC over all keys of a store with their states and times. Public keys and times are not sealed; the MAC
    /// shows whether someone without the KEK changed them.
    pub(super) fn ring_mac(&self, store_id: &[u8], ring: &KeyRing) -> [u8; 32] {
        let mut keys = ring.keys();
        // The order of the rows must not change the MAC.
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        let proven = serde_json::to_vec(&keys).expect("names, numbers and bytes are always JSON");
        hmac_sha256(&self.derive("countersign key ring v1"), &[store_id, &proven])
    }

    fn sealing_cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.derive("countersign signing key seal v1")).into())
    }
}

fn associated(store_id: &[u8], public: &PublicKey) -> Vec<u8> {
    [store_id, public.kid().as_str().as_bytes(), public.as_bytes()].concat()
}

/// HMAC-SHA-256 (RFC 2104) over the concatenation of some parts. It does not separate the parts: the caller sees
/// to it that they cannot run into each other.
pub(super) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl FromStr for Kek {
    type Err = InvalidKek;
    fn from_str(text: &str) -> Result<Self, InvalidKek> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidKek)?;
        let mut bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidKek)?;
        let key =
            <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| InvalidKek);
        bytes.zeroize();
        Ok(Self { key: key?, epoch_dir: None })
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_only_with_its_kek_store_and_public_key() {
        let (kek, other_kek) = (
            Kek::generate().expect("the system has randomness"),
            Kek::generate().expect("the system has randomness"),
        );
        let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let sealed = kek.seal(b"store", &key).expect("the system has randomness");

        assert_eq!(
            kek.unseal(b"store", key.public(), &sealed).map(|key| key.kid().clone()),
            Some(key.kid().clone())
        );
        assert!(other_kek.unseal(b"store", key.public(), &sealed).is_none());
        assert!(kek.unseal(b"other", key.public(), &sealed).is_none());
        assert!(kek.unseal(b"store", other.public(), &sealed).is_none());
        assert!(kek.unseal(b"store", key.public(), &sealed[..20]).is_none());
        let mut tampered = sealed.clone();
        tampered[30] ^= 1;
        assert!(kek.unseal(b"store", key.public(), &tampered).is_none());
        assert!(!sealed.windows(32).any(|window| window == key.expose_seed().as_slice()));
    }

    #[test]
    fn a_kek_is_parsed_from_its_own_text_and_other_text_is_refused() {
        let kek = Kek::generate().expect("the system has randomness");
        let again: Kek = kek.expose().parse().expect("a KEK parses its own text");
        assert_eq!(kek.expose(), again.expose());
        for bad in ["", "ckek_", "ckek_AAAA", &kek.expose()[5..], &format!("{}A", *kek.expose())] {
            assert_eq!(bad.parse::<Kek>().err(), Some(InvalidKek), "{bad}");
        }
        assert_eq!(format!("{kek:?}"), "Kek([redacted])");
    }
}

//! One Ed25519 key (RFC 8032): the half that signs and the half that verifies.

use std::fmt;

use ed25519_dalek::Signer;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::claims::Kid;
use crate::encoding::base64_url;

/// A private key. It is erased when dropped, and `Debug` shows only its name.
pub struct SigningKey {
    private: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// Makes a key from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed: the 32 bytes that RFC 8032 §5.1.5 calls the private key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let private = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = PublicKey::named_by_thumbprint(private.verifying_key());
        Self { private, public }
    }

    /// The seed, for sealing.
    pub fn expose_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.private.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key's name.
    pub fn kid(&self) -> &Kid {
        &self.public.kid
    }

    /// Signs a message (RFC 8032 §5.1.6).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.private.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", self.kid()).finish_non_exhaustive()
    }
}

/// A public key and its name.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kid: Kid,
    key: ed25519_dalek::VerifyingKey,
}

/// Bytes that are not a public key to trust: not a point of the curve, or one of low order, under
/// which anyone can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPublicKey;

impl fmt::Display for InvalidPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ed25519 public key")
    }
}

impl std::error::Error for InvalidPublicKey {}

impl PublicKey {
    /// A key under a name that someone else chose, as in another issuer's JWKS.
    ///
    /// # Errors
    /// When the bytes are not a point of the curve, or one of low order.
    pub fn named(kid: Kid, bytes: &[u8; 32]) -> Result<Self, InvalidPublicKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| InvalidPublicKey)?;
        if key.is_weak() {
            return Err(InvalidPublicKey);
        }
        Ok(Self { kid, key })
    }

    /// A key under our own name for it: the start of its thumbprint.
    ///
    /// # Errors
    /// As for [`PublicKey::named`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidPublicKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| InvalidPublicKey)?;
        if key.is_weak() {
            return Err(InvalidPublicKey);
        }
        Ok(Self::named_by_thumbprint(key))
    }

    fn named_by_thumbprint(key: ed25519_dalek::VerifyingKey) -> Self {
        // 96 bits of the thumbprint tell keys apart as well as 256 do, and every token carries the
        // name.
        let kid =
            Kid::new(&thumbprint(key.as_bytes())[..16]).expect("base64url is printable ASCII");
        Self { kid, key }
    }

    /// The key's name. Ours is the first 16 characters of its [thumbprint](PublicKey::thumbprint).
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The key (RFC 8032 §5.1.5).
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The JWK thumbprint (RFC 7638, RFC 8037 appendix A.3) in base64url.
    pub fn thumbprint(&self) -> String {
        thumbprint(self.as_bytes())
    }

    /// Whether this key signed the message. Strict: a signature has one encoding (no malleability),
    /// and low-order points are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

fn thumbprint(public: &[u8; 32]) -> String {
    let x = base64_url(public);
    base64_url(&Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.1 to A.3: one key, its public half and its thumbprint.
    #[test]
    fn the_key_and_thumbprint_of_rfc_8037_appendix_a_are_reproduced() {
        use base64::Engine;
        let decode = |text: &str| -> [u8; 32] {
            base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(text)
                .expect("vector")
                .try_into()
                .expect("32 bytes")
        };
        let key = SigningKey::from_seed(&decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"));
        let public = decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.public().as_bytes(), &public);
        assert_eq!(key.public().thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.kid().as_str(), "kPrK_qmxVWaYVA9w");
    }

    #[test]
    fn low_order_and_off_curve_keys_are_refused() {
        // The identity, and the point of order two (y = -1).
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut order_two = [0xff; 32];
        order_two[0] = 0xec;
        order_two[31] = 0x7f;
        // y = 2 is not on the curve.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        for bytes in [identity, order_two, off_curve] {
            assert_eq!(PublicKey::from_bytes(&bytes), Err(InvalidPublicKey));
        }
    }

    #[test]
    fn debug_shows_the_name_and_not_the_key() {
        let key = SigningKey::from_seed(&[7; 32]);
        let shown = format!("{key:?}");
        assert!(shown.contains(key.kid().as_str()) && !shown.contains("7, 7"), "{shown}");
    }
}

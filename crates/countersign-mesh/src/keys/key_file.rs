//! Keys as others write them to files: PEM (RFC 7468, RFC 8410) and JWK (RFC 8037). Read strictly: an
//! Ed25519 key in the form that `openssl genpkey` and `openssl pkey` write, and nothing around it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use crate::keys::{PublicKey, SigningKey};

/// Why text is not the key that it should be. The text is never repeated: it may be a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKeyFile {
    /// A private key, where a public one should be.
    Private,
    /// A private key that takes a password to read.
    Encrypted,
    /// Not a key in a form that is known here.
    Malformed,
    /// A key of another kind than Ed25519, or one that is not to be trusted.
    NotEd25519,
}

impl fmt::Display for InvalidKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "a private key, where the public key should be",
            Self::Encrypted => "a private key that is encrypted with a password",
            Self::Malformed => "not one key in PEM or, for a public key, as a JWK",
            Self::NotEd25519 => "not an Ed25519 key",
        })
    }
}

impl std::error::Error for InvalidKeyFile {}

impl PublicKey {
    /// Reads a public key: a SubjectPublicKeyInfo in PEM, as `openssl pkey -pubout` writes it, or one
    /// JWK. Its `kid` is our own name for the key, whatever the JWK calls it.
    ///
    /// # Errors
    /// See [`InvalidKeyFile`].
    pub fn from_file_text(text: &str) -> Result<Self, InvalidKeyFile> {
        let text = text.trim();
        if text.contains("PRIVATE KEY-----") {
            return Err(InvalidKeyFile::Private);
        }
        let bytes = if text.starts_with('{') {
            from_jwk(text)?
        } else {
            let der = pem(text, "PUBLIC KEY")?;
            let key = der.strip_prefix(PUBLIC_PREFIX).ok_or(InvalidKeyFile::NotEd25519)?;
            key.try_into().map_err(|_| InvalidKeyFile::NotEd25519)?
        };
        Self::from_bytes(&bytes).map_err(|_| InvalidKeyFile::NotEd25519)
    }
}

impl SigningKey {
    /// Reads a private key: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it. If the
    /// file also holds a public key (RFC 8410 §7), that must be the private key's own.
    ///
    /// # Errors
    /// See [`InvalidKeyFile`].
    pub fn from_file_text(text: &str) -> Result<Self, InvalidKeyFile> {
        let text = text.trim();
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err(InvalidKeyFile::Encrypted);
        }
        let der = pem(text, "PRIVATE KEY")?;
        let (seed, public) = der
            .strip_prefix(PRIVATE_PREFIX)
            .and_then(|rest| rest.split_at_checked(32).filter(|(_, rest)| rest.is_empty()))
            .or_else(|| der.strip_prefix(PRIVATE_PREFIX_V2)?.split_at_checked(32))
            .ok_or(InvalidKeyFile::NotEd25519)?;
        let seed = Zeroizing::new(seed.try_into().map_err(|_| InvalidKeyFile::NotEd25519)?);
        let key = Self::from_seed(&seed);
        let own = [PUBLIC_ATTRIBUTE, &key.public().as_bytes()[..]].concat();
        if !public.is_empty() && public != own {
            return Err(InvalidKeyFile::Malformed);
        }
        Ok(key)
    }
}

/// The DER of a SubjectPublicKeyInfo up to the key (RFC 8410 §4).
const PUBLIC_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The DER of a private key up to the seed (RFC 8410 §7).
const PRIVATE_PREFIX: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The same, when a public key follows the seed.
const PRIVATE_PREFIX_V2: &[u8] =
    b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The tag, the length and the unused bits that precede that public key.
const PUBLIC_ATTRIBUTE: &[u8] = b"\x81\x21\x00";

/// The content of text that is one PEM block with this label, and nothing else.
fn pem(text: &str, label: &str) -> Result<Zeroizing<Vec<u8>>, InvalidKeyFile> {
    let body = text
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.strip_prefix(label)?.strip_prefix("-----"))
        .and_then(|rest| rest.strip_suffix("-----")?.strip_suffix(label))
        .and_then(|rest| rest.strip_suffix("-----END "))
        .ok_or(InvalidKeyFile::Malformed)?;
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !matches!(c, '\n' | '\r')).collect());
    STANDARD.decode(body.as_bytes()).map(Zeroizing::new).map_err(|_| InvalidKeyFile::Malformed)
}

fn from_jwk(text: &str) -> Result<[u8; 32], InvalidKeyFile> {
    /// RFC 8037 §2. serde refuses a member that stands twice.
    #[derive(Deserialize)]
    struct Jwk<'a> {
        kty: &'a str,
        #[serde(default)]
        crv: &'a str,
        #[serde(default)]
        x: &'a str,
        #[serde(default, rename = "use")]
        usage: &'a str,
        #[serde(default)]
        alg: &'a str,
        d: Option<IgnoredAny>,
    }
    let jwk: Jwk<'_> = serde_json::from_str(text).map_err(|_| InvalidKeyFile::Malformed)?;
    if jwk.d.is_some() {
        return Err(InvalidKeyFile::Private);
    }
    let for_signatures =
        matches!(jwk.usage, "" | "sig") && matches!(jwk.alg, "" | "EdDSA" | "Ed25519");
    if jwk.kty != "OKP" || jwk.crv != "Ed25519" || !for_signatures {
        return Err(InvalidKeyFile::NotEd25519);
    }
    let x = URL_SAFE_NO_PAD.decode(jwk.x).map_err(|_| InvalidKeyFile::Malformed)?;
    x.try_into().map_err(|_| InvalidKeyFile::NotEd25519)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 §10.1 and §10.3: one public key, and a private key without and with its public key.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn the_keys_of_rfc_8410_section_10_are_read() {
        let public = PublicKey::from_file_text(PUBLIC).expect("a public key");
        let private = SigningKey::from_file_text(PRIVATE).expect("a private key");
        assert_eq!(private.public(), &public);
        let carriage_returns = PRIVATE.replace('\n', "\r\n");
        assert!(SigningKey::from_file_text(&carriage_returns).is_ok());
    }

    #[test]
    fn a_public_key_beside_the_private_one_must_be_its_own() {
        let key = SigningKey::from_file_text(PRIVATE).expect("a private key");
        let with = |public: &[u8]| {
            let seed = key.expose_seed();
            let der = [PRIVATE_PREFIX_V2, seed.as_slice(), PUBLIC_ATTRIBUTE, public];
            let body = STANDARD.encode(der.concat());
            format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
        };
        let own = SigningKey::from_file_text(&with(key.public().as_bytes())).expect("its own");
        assert_eq!(own.public(), key.public());
        let other = SigningKey::from_file_text(&with(&[7; 32]));
        assert_eq!(other.expect_err("another's"), InvalidKeyFile::Malformed);
    }

    #[test]
    fn a_jwk_is_read_as_a_public_key_under_our_name_for_it() {
        // RFC 8037 appendix A.2.
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"mine"}"#;
        let key = PublicKey::from_file_text(jwk).expect("a public key");
        assert_eq!(key.kid().as_str(), "kPrK_qmxVWaYVA9w", "our name for it");
        let refused = |text: &str| PublicKey::from_file_text(text).expect_err("refused");
        assert_eq!(refused(&jwk.replace('{', r#"{"d":"x","#)), InvalidKeyFile::Private);
        assert_eq!(refused(&jwk.replace('{', r#"{"use":"enc","#)), InvalidKeyFile::NotEd25519);
        assert_eq!(refused(&jwk.replace("Ed25519", "X25519")), InvalidKeyFile::NotEd25519);
        assert_eq!(refused(&jwk.replace("11qY", "")), InvalidKeyFile::NotEd25519);
        assert_eq!(refused(&jwk.replace('{', r#"{"kty":"OKP","#)), InvalidKeyFile::Malformed);
        assert_eq!(refused(&format!(r#"{{"keys":[{jwk}]}}"#)), InvalidKeyFile::Malformed);
    }

    #[test]
    fn text_that_is_not_exactly_one_key_of_the_right_kind_is_refused() {
        let public = |text: &str| PublicKey::from_file_text(text).expect_err("refused");
        assert_eq!(public(PRIVATE), InvalidKeyFile::Private);
        assert_eq!(public(&format!("{PUBLIC}{PRIVATE}")), InvalidKeyFile::Private);
        assert_eq!(public(&format!("{PUBLIC}{PUBLIC}")), InvalidKeyFile::Malformed);
        assert_eq!(public(&format!("noise\n{PUBLIC}")), InvalidKeyFile::Malformed);
        assert_eq!(public(&PUBLIC.replace("MCow", "MCo")), InvalidKeyFile::Malformed);
        assert_eq!(public(&PUBLIC.replace("K2Vw", "K2Vu")), InvalidKeyFile::NotEd25519);
        assert_eq!(public(""), InvalidKeyFile::Malformed);

        let private = |text: &str| SigningKey::from_file_text(text).expect_err("refused");
        assert_eq!(private(PUBLIC), InvalidKeyFile::Malformed);
        let encrypted = PRIVATE.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert_eq!(private(&encrypted), InvalidKeyFile::Encrypted);
        assert_eq!(private(&PRIVATE.replace("K2Vw", "K2Vu")), InvalidKeyFile::NotEd25519);
        assert_eq!(private(&PRIVATE.replace("dVhC", "")), InvalidKeyFile::NotEd25519);
    }
}

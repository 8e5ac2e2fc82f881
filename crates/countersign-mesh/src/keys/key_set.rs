//! The public snapshot of a key ring: what verifiers hold, and its form as a JWK Set (RFC 7517 §5).

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use crate::claims::Kid;
use crate::encoding::base64_url;
use crate::keys::PublicKey;

/// Public keys by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(HashMap<Kid, PublicKey>);

/// A JWK Set that cannot be trusted as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidKeySet {
    /// Not the JSON of a JWK Set.
    Malformed,
    /// A key's `kid` is missing, malformed or used twice.
    BadKid,
    /// An Ed25519 key that is not a point of the curve, or one of low order.
    BadKey(Kid),
    /// No Ed25519 key for signatures in it.
    Empty,
}

impl fmt::Display for InvalidKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a JWK Set"),
            Self::BadKid => f.write_str("a key's kid is missing, malformed or used twice"),
            Self::BadKey(kid) => write!(f, "the key {kid} is not an Ed25519 public key to trust"),
            Self::Empty => f.write_str("no Ed25519 key for signatures"),
        }
    }
}

impl std::error::Error for InvalidKeySet {}

/// An OKP key (RFC 8037 §2). There is no field for `d`: a private key cannot be written here.
#[derive(Serialize, Deserialize)]
struct Jwk<'a> {
    kty: &'a str,
    #[serde(default)]
    crv: &'a str,
    #[serde(default)]
    x: &'a str,
    #[serde(default)]
    kid: &'a str,
    #[serde(default, rename = "use")]
    usage: &'a str,
    #[serde(default)]
    alg: &'a str,
}

#[derive(Deserialize)]
struct JwkSet<'a> {
    #[serde(borrow)]
    keys: Vec<Jwk<'a>>,
}

impl KeySet {
    /// The key with this `kid`.
    pub fn key(&self, kid: &str) -> Option<&PublicKey> {
        self.0.get(kid)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys as a JWK Set, in the order of their names.
    pub fn to_jwks(&self) -> String {
        #[derive(Serialize)]
        struct JwkSet<'a> {
            keys: &'a KeySet,
        }
        serde_json::to_string(&JwkSet { keys: self }).expect("a JWK Set of strings is always JSON")
    }

    /// Reads a JWK Set. Keys of other kinds are passed over, as RFC 7517 §5 asks; what claims to be
    /// an Ed25519 signature key must be one.
    ///
    /// # Errors
    /// See [`InvalidKeySet`].
    pub fn from_jwks(json: &str) -> Result<Self, InvalidKeySet> {
        let set: JwkSet<'_> = serde_json::from_str(json).map_err(|_| InvalidKeySet::Malformed)?;
        let mut keys = HashMap::new();
        for jwk in &set.keys {
            let for_signatures =
                matches!(jwk.usage, "" | "sig") && matches!(jwk.alg, "" | "EdDSA" | "Ed25519");
            if jwk.kty != "OKP" || jwk.crv != "Ed25519" || !for_signatures {
                continue;
            }
            let kid = Kid::new(jwk.kid).map_err(|_| InvalidKeySet::BadKid)?;
            let key = URL_SAFE_NO_PAD
                .decode(jwk.x)
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .and_then(|bytes| PublicKey::named(kid.clone(), &bytes).ok())
                .ok_or_else(|| InvalidKeySet::BadKey(kid.clone()))?;
            if keys.insert(kid, key).is_some() {
                return Err(InvalidKeySet::BadKid);
            }
        }
        if keys.is_empty() { Err(InvalidKeySet::Empty) } else { Ok(Self(keys)) }
    }
}

/// Serializes the `keys` array of a JWK Set, in the order of their names.
impl Serialize for KeySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys: Vec<&PublicKey> = self.0.values().collect();
        keys.sort_unstable_by(|a, b| a.kid().cmp(b.kid()));
        let mut array = serializer.serialize_seq(Some(keys.len()))?;
        for key in keys {
            array.serialize_element(&Jwk {
                kty: "OKP",
                crv: "Ed25519",
                x: &base64_url(key.as_bytes()),
                kid: key.kid().as_str(),
                usage: "sig",
                alg: "EdDSA",
            })?;
        }
        array.end()
    }
}

impl FromIterator<PublicKey> for KeySet {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.kid().clone(), key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;

    fn set(seeds: &[u8]) -> KeySet {
        seeds.iter().map(|seed| SigningKey::from_seed(&[*seed; 32]).public().clone()).collect()
    }

    #[test]
    fn a_key_set_survives_its_jwks_form() {
        let keys = set(&[1, 2, 3]);
        let jwks = keys.to_jwks();
        assert_eq!(KeySet::from_jwks(&jwks), Ok(keys));
        assert!(!jwks.contains("\"d\""));
    }

    #[test]
    fn keys_of_other_kinds_are_ignored() {
        let foreign = r#"{"kty":"RSA","n":"x","e":"AQAB","kid":"rsa"}"#;
        let encryption = r#"{"kty":"OKP","crv":"Ed25519","x":"x","kid":"e","use":"enc"}"#;
        let ours = set(&[1]).to_jwks();
        let mixed = ours.replace("{\"keys\":[", &format!("{{\"keys\":[{foreign},{encryption},"));
        assert_eq!(KeySet::from_jwks(&mixed), Ok(set(&[1])));
        assert_eq!(
            KeySet::from_jwks(&format!("{{\"keys\":[{foreign}]}}")),
            Err(InvalidKeySet::Empty)
        );
    }

    #[test]
    fn one_bad_ed25519_key_makes_the_whole_set_refused() {
        let weak = base64_url(&{
            let mut identity = [0; 32];
            identity[0] = 1;
            identity
        });
        let jwk = |x: &str, kid: &str| {
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{kid}"}}"#)
        };
        let of = |keys: &[String]| KeySet::from_jwks(&format!("{{\"keys\":[{}]}}", keys.join(",")));
        let good = base64_url(SigningKey::from_seed(&[1; 32]).public().as_bytes());

        assert_eq!(of(&[jwk(&weak, "a")]), Err(InvalidKeySet::BadKey(Kid::new("a").expect("kid"))));
        assert_eq!(of(&[jwk("AQ", "a")]), Err(InvalidKeySet::BadKey(Kid::new("a").expect("kid"))));
        assert_eq!(of(&[jwk(&good, "")]), Err(InvalidKeySet::BadKid));
        assert_eq!(of(&[jwk(&good, "a"), jwk(&good, "a")]), Err(InvalidKeySet::BadKid));
        assert_eq!(KeySet::from_jwks("[]"), Err(InvalidKeySet::Malformed));
    }
}

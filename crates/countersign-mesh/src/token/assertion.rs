//! Client assertions (RFC 7523 §3): JWTs with which a client proves that it has a private key. This
//! module knows only their form; the service decides which client's key it believes.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::claims::{ClientId, Timestamp};
use crate::encoding::base64_url;
use crate::keys::{PublicKey, SigningKey};
use crate::token::Token;
use crate::token::format::{
    Compact, FormatError, Members, Text, UniqueMembers, encode, once, required,
};

/// An assertion, split and decoded. Nothing of it is believed before
/// [`is_signed_by`](Assertion::is_signed_by) says so.
pub struct Assertion {
    signing_input: Box<[u8]>,
    signature: [u8; 64],
    /// `kid`: the key that the assertion says it is signed with.
    pub kid: Option<Box<str>>,
    /// `iss`.
    pub issuer: Box<str>,
    /// `sub`.
    pub subject: Box<str>,
    /// `aud`: one audience, or several.
    pub audiences: Vec<Box<str>>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `jti`: 1 to [`Assertion::MAX_ID_LEN`] bytes.
    pub id: Box<str>,
}

impl Assertion {
    /// The longest life that an assertion may have.
    pub const MAX_LIFE: Duration = Duration::from_secs(60);

    /// The longest `jti`, in bytes.
    pub const MAX_ID_LEN: usize = 256;

    /// Reads an assertion, as strictly as tokens are read. `typ` is `JWT`, `client-authentication+jwt`
    /// or absent, `kid` may be absent, and every claim but `nbf` must be there.
    ///
    /// # Errors
    /// When it does not have this form.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let parts = Compact::split(text)?;
        let header = parts.jose_header()?;
        // An access token is signed, too, and is no assertion (RFC 8725 §3.11).
        if header.typ.as_deref().is_some_and(|typ| !TYPES.contains(&typ)) {
            return Err(FormatError::BadType);
        }
        let claims: AssertionClaims = parts.claims()?;
        Ok(Self {
            kid: header.kid.map(|kid| kid.as_ref().into()),
            issuer: claims.issuer,
            subject: claims.subject,
            audiences: claims.audiences.0,
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
            not_before: claims.not_before,
            id: claims.id,
            signing_input: parts.signing_input.into(),
            signature: parts.signature,
        })
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(&self.signing_input, &self.signature)
    }
}

impl fmt::Debug for Assertion {
    /// Leaves the signature out: whoever has the whole assertion can act as the client for a minute.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Signs an assertion of `client_id` for one request to `audience`, which is the issuer. It lives for
/// [`Assertion::MAX_LIFE`] from `now`; `nonce` must never have been used before.
pub fn sign_assertion(
    key: &SigningKey,
    client_id: &ClientId,
    audience: &str,
    now: Timestamp,
    nonce: [u8; 16],
) -> Token {
    #[derive(Serialize)]
    struct Header<'a> {
        alg: &'a str,
        kid: &'a str,
        typ: &'a str,
    }
    #[derive(Serialize)]
    struct Payload<'a> {
        iss: &'a str,
        sub: &'a str,
        aud: &'a str,
        iat: u64,
        exp: u64,
        jti: &'a str,
    }
    let mut text = String::with_capacity(512);
    encode(&Header { alg: "EdDSA", kid: key.kid().as_str(), typ: TYPES[1] }, &mut text);
    text.push('.');
    let payload = Payload {
        iss: client_id.as_str(),
        sub: client_id.as_str(),
        aud: audience,
        iat: now.as_unix(),
        exp: (now + Assertion::MAX_LIFE).as_unix(),
        jti: &base64_url(&nonce),
    };
    encode(&payload, &mut text);
    let signature = key.sign(text.as_bytes());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Token::issued(text)
}

/// The values of `typ`: that of RFC 7519 §5.1, and that of the revision of RFC 7523.
const TYPES: [&str; 2] = ["JWT", "client-authentication+jwt"];

struct AssertionClaims {
    issuer: Box<str>,
    subject: Box<str>,
    audiences: AudienceList,
    issued_at: Timestamp,
    expires_at: Timestamp,
    not_before: Option<Timestamp>,
    id: Box<str>,
}

impl<'de> Deserialize<'de> for AssertionClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;
        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = AssertionClaims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JWT claims set")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AssertionClaims, A::Error> {
                let (mut issuer, mut subject, mut audiences) = (None, None, None);
                let (mut issued_at, mut expires_at, mut not_before) = (None, None, None);
                let mut id = None;
                let mut others = Members::default();
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "iss" => once(&mut issuer, map.next_value::<Text<'de>>()?.0)?,
                        "sub" => once(&mut subject, map.next_value::<Text<'de>>()?.0)?,
                        "aud" => once(&mut audiences, map.next_value::<AudienceList>()?)?,
                        "iat" => once(&mut issued_at, map.next_value::<Timestamp>()?)?,
                        "exp" => once(&mut expires_at, map.next_value::<Timestamp>()?)?,
                        "nbf" => once(&mut not_before, map.next_value::<Timestamp>()?)?,
                        "jti" => once(&mut id, map.next_value::<Text<'de>>()?.0)?,
                        _ => {
                            others.add(name)?;
                            map.next_value::<UniqueMembers>()?;
                        }
                    }
                }
                let id: Cow<'de, str> = required(id, "jti")?;
                if !(1..=Assertion::MAX_ID_LEN).contains(&id.len()) {
                    return Err(serde::de::Error::custom("jti is not of 1 to 256 bytes"));
                }
                Ok(AssertionClaims {
                    issuer: required(issuer, "iss")?.into(),
                    subject: required(subject, "sub")?.into(),
                    audiences: required(audiences, "aud")?,
                    issued_at: required(issued_at, "iat")?,
                    expires_at: required(expires_at, "exp")?,
                    not_before,
                    id: id.into(),
                })
            }
        }
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

/// A string, or an array of strings (RFC 7519 §4.1.3).
struct AudienceList(Vec<Box<str>>);

impl<'de> Deserialize<'de> for AudienceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = AudienceList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E>(self, text: &str) -> Result<AudienceList, E> {
                Ok(AudienceList(vec![text.into()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AudienceList, A::Error> {
                let mut audiences = Vec::new();
                while let Some(Text(audience)) = seq.next_element()? {
                    audiences.push(audience.into());
                }
                Ok(AudienceList(audiences))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    fn signed() -> String {
        let client_id = ClientId::new("order").expect("a client id");
        sign_assertion(&key(), &client_id, "https://issuer", NOW, [7; 16]).into_exposed()
    }

    #[test]
    fn an_assertion_reads_back_as_it_was_signed() {
        let assertion = Assertion::parse(&signed()).expect("an assertion");
        assert!(assertion.is_signed_by(key().public()));
        assert!(!assertion.is_signed_by(SigningKey::from_seed(&[2; 32]).public()));
        assert_eq!(assertion.kid.as_deref(), Some(key().kid().as_str()));
        assert_eq!((&*assertion.issuer, &*assertion.subject), ("order", "order"));
        assert_eq!(assertion.audiences, ["https://issuer".into()]);
        assert_eq!((assertion.issued_at, assertion.not_before), (NOW, None));
        assert_eq!(assertion.expires_at, NOW + Assertion::MAX_LIFE);
        let id_len = assertion.id.len();
        assert!((1..=Assertion::MAX_ID_LEN).contains(&id_len), "{id_len}");
        let shown = format!("{assertion:?}");
        assert!(shown.contains("order") && !shown.contains("signature"), "{shown}");
    }

    proptest! {
        #[test]
        fn reading_an_assertion_never_panics(text in ".{0,200}") {
            let _ = Assertion::parse(&text);
        }

        #[test]
        fn an_assertion_with_any_character_changed_is_refused(at in 0_usize..400, other in "[A-Za-z0-9_.-]") {
            let text = signed();
            let at = at % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &other);
            prop_assume!(changed != text);
            let is_good = Assertion::parse(&changed)
                .is_ok_and(|assertion| assertion.is_signed_by(key().public()));
            prop_assert!(!is_good);
        }
    }
}

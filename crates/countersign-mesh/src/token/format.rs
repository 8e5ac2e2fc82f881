//! The strict codec: text to parts and back. No cryptography here.
//!
//! Strict means that nothing is a token which no issuer of ours makes: canonical base64url without padding,
//! no JSON member twice at any depth, a header of `alg`, `kid` and `typ` alone, a subject that is the client, and a
//! life within [`MAX_TOKEN_LIFE`]. Claims that we do not know are allowed: a later version may add some.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::claims::{
    Audience, Claims, ClientId, Issuer, MAX_TOKEN_LIFE, ScopeSet, Timestamp, TokenId,
};

/// The longest token that is read at all, in bytes. The longest that can be minted is shorter.
pub const MAX_LEN: usize = 8192;

/// Why text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatError {
    /// Longer than [`MAX_LEN`].
    TooLong,
    /// Not three parts with dots between.
    NotCompact,
    /// A part is not canonical base64url.
    BadBase64,
    /// The header is not one JSON object of unique, well-typed members.
    BadHeader,
    /// `alg` is neither `EdDSA` (RFC 8037) nor `Ed25519` (RFC 9864).
    BadAlgorithm,
    /// `typ` is not `at+jwt` (RFC 9068 §2.1), or of an assertion not one of its types.
    BadType,
    /// The header has another member than `alg`, `kid` and `typ`; of an assertion, one that names critical
    /// extensions, or that brings a key or points to one.
    ForbiddenHeader,
    /// The payload is not one JSON object with the claims of RFC 9068 §2.2 (of an assertion, those of
    /// RFC 7523 §3), each unique and well-typed. Or they are those of a token that no issuer of ours makes: `sub`
    /// is not `client_id`, or the token's life is none or longer than 24 hours.
    BadClaims,
    /// The signature is not 64 bytes.
    BadSignature,
}

/// A token split and decoded. Nothing of it is believed yet.
pub(super) struct Compact<'a> {
    /// What the signature is over.
    pub(super) signing_input: &'a [u8],
    header: Vec<u8>,
    payload: Vec<u8>,
    /// The signature.
    pub(super) signature: [u8; 64],
}

impl<'a> Compact<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, FormatError> {
        if token.len() > MAX_LEN {
            return Err(FormatError::TooLong);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(FormatError::NotCompact)?;
        let (header, payload) = signing_input.split_once('.').ok_or(FormatError::NotCompact)?;
        if payload.contains('.') {
            return Err(FormatError::NotCompact);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| FormatError::BadBase64);
        Ok(Self {
            signing_input: signing_input.as_bytes(),
            header: decode(header)?,
            payload: decode(payload)?,
            signature: decode(signature)?.try_into().map_err(|_| FormatError::BadSignature)?,
        })
    }

    /// The header of a token of ours.
    pub(super) fn header(&self) -> Result<TokenHeader<'_>, FormatError> {
        let header = self.jose_header()?;
        if header.others {
            return Err(FormatError::ForbiddenHeader);
        }
        if header.typ.ok_or(FormatError::BadHeader)? != "at+jwt" {
            return Err(FormatError::BadType);
        }
        Ok(TokenHeader { kid: header.kid.ok_or(FormatError::BadHeader)? })
    }

    /// The header of any JWS that we read. It must name our algorithm, and must neither bring a key nor
    /// point to one.
    pub(super) fn jose_header(&self) -> Result<Header<'_>, FormatError> {
        let header: Header<'_> =
            serde_json::from_slice(&self.header).map_err(|_| FormatError::BadHeader)?;
        if header.forbidden {
            return Err(FormatError::ForbiddenHeader);
        }
        if header.alg != "EdDSA" && header.alg != "Ed25519" {
            return Err(FormatError::BadAlgorithm);
        }
        Ok(header)
    }

    /// The payload, as the claims of one profile or another.
    pub(super) fn claims<'p, C: Deserialize<'p>>(&'p self) -> Result<C, FormatError> {
        serde_json::from_slice(&self.payload).map_err(|_| FormatError::BadClaims)
    }
}

/// The header of a token of ours, once its type is right.
pub(super) struct TokenHeader<'a> {
    /// The name of the key.
    pub(super) kid: Cow<'a, str>,
}

/// The protected header, as far as we know it.
pub(super) struct Header<'a> {
    alg: Cow<'a, str>,
    /// What is signed.
    pub(super) typ: Option<Cow<'a, str>>,
    /// The name of the key.
    pub(super) kid: Option<Cow<'a, str>>,
    forbidden: bool,
    /// Whether it has members that we do not know.
    others: bool,
}

/// The claims, and `nbf`: the one registered claim that we never write, but that bounds the token's
/// time.
pub(super) struct TimedClaims {
    /// The claims.
    pub(super) claims: Claims,
    /// When they begin to hold (`nbf`), if the token says so.
    pub(super) not_before: Option<Timestamp>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Header<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JOSE header")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut alg, mut typ, mut kid, mut forbidden) = (None, None, None, false);
                let mut others = Members::default();
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "alg" => once(&mut alg, map.next_value::<Text<'de>>()?.0)?,
                        "typ" => once(&mut typ, map.next_value::<Text<'de>>()?.0)?,
                        "kid" => once(&mut kid, map.next_value::<Text<'de>>()?.0)?,
                        _ => {
                            forbidden |= matches!(&*name, "crit" | "jku" | "jwk" | "x5u" | "x5c");
                            others.add(name)?;
                            map.next_value::<UniqueMembers>()?;
                        }
                    }
                }
                let others = !others.0.is_empty();
                Ok(Header { alg: required(alg, "alg")?, typ, kid, forbidden, others })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

impl<'de> Deserialize<'de> for TimedClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;
        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = TimedClaims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JWT claims set")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TimedClaims, A::Error> {
                let (mut issuer, mut subject, mut client_id) = (None, None, None);
                let (mut audience, mut scopes, mut token_id) = (None, None, None);
                let (mut issued_at, mut expires_at, mut not_before) = (None, None, None);
                let mut others = Members::default();
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "iss" => once(&mut issuer, map.next_value::<Issuer>()?)?,
                        "sub" => once(&mut subject, map.next_value::<Text<'de>>()?.0)?,
                        "client_id" => once(&mut client_id, map.next_value::<ClientId>()?)?,
                        "aud" => once(&mut audience, map.next_value::<Audience>()?)?,
                        "scope" => once(&mut scopes, map.next_value::<ScopeSet>()?)?,
                        "iat" => once(&mut issued_at, map.next_value::<Timestamp>()?)?,
                        "exp" => once(&mut expires_at, map.next_value::<Timestamp>()?)?,
                        "nbf" => once(&mut not_before, map.next_value::<Timestamp>()?)?,
                        "jti" => once(&mut token_id, map.next_value::<TokenId>()?)?,
                        _ => {
                            others.add(name)?;
                            map.next_value::<UniqueMembers>()?;
                        }
                    }
                }
                let subject = required(subject, "sub")?;
                let claims = Claims {
                    issuer: required(issuer, "iss")?,
                    client_id: required(client_id, "client_id")?,
                    audience: required(audience, "aud")?,
                    // RFC 9068 §2.2.3: a token without scope carries none.
                    scopes: scopes.unwrap_or_default(),
                    issued_at: required(issued_at, "iat")?,
                    expires_at: required(expires_at, "exp")?,
                    token_id: required(token_id, "jti")?,
                };
                // There is never a user, so that the subject is the client itself (RFC 9068 §2.2).
                if subject != claims.client_id.as_str() {
                    return Err(A::Error::custom("`sub` is not `client_id`"));
                }
                // A retired key is kept for as long as a token can live, and not longer.
                let life = claims.expires_at.since(claims.issued_at);
                if life.is_zero() || life > MAX_TOKEN_LIFE {
                    return Err(A::Error::custom("no token lives so long"));
                }
                Ok(TimedClaims { claims, not_before })
            }
        }
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

pub(super) fn once<T, E: Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("a member stands twice")),
    }
}

pub(super) fn required<T, E: Error>(slot: Option<T>, name: &'static str) -> Result<T, E> {
    slot.ok_or_else(|| E::missing_field(name))
}

/// A JSON string, borrowed from the input when it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The names of the members that we do not know, so that none stands twice. [`MAX_LEN`] keeps them few
/// enough for a linear search.
#[derive(Default)]
pub(super) struct Members<'a>(Vec<Cow<'a, str>>);

impl<'a> Members<'a> {
    pub(super) fn add<E: Error>(&mut self, name: Cow<'a, str>) -> Result<(), E> {
        if self.0.contains(&name) {
            return Err(E::custom("a member stands twice"));
        }
        self.0.push(name);
        Ok(())
    }
}

/// Any JSON value whose objects have no member twice, at any depth. Its content is ignored.
pub(super) struct UniqueMembers;

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueMembers)
    }
}

impl<'de> Visitor<'de> for UniqueMembers {
    type Value = UniqueMembers;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut members = Members::default();
        while let Some(Text(name)) = map.next_key()? {
            members.add(name)?;
            map.next_value::<UniqueMembers>()?;
        }
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<UniqueMembers>()?.is_some() {}
        Ok(self)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

/// The protected header of every token that a key signs, encoded.
pub(super) fn encode_header(kid: &str) -> String {
    #[derive(Serialize)]
    struct Header<'a> {
        alg: &'a str,
        kid: &'a str,
        typ: &'a str,
    }
    let mut header = String::new();
    encode(&Header { alg: "EdDSA", kid, typ: "at+jwt" }, &mut header);
    header
}

/// Adds the claims to a token, encoded. The same claims give the same bytes.
pub(super) fn encode_claims(claims: &Claims, token: &mut String) {
    #[derive(Serialize)]
    struct Payload<'a> {
        iss: &'a str,
        sub: &'a str,
        client_id: &'a str,
        aud: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        scope: &'a str,
        iat: u64,
        exp: u64,
        jti: &'a str,
    }
    let payload = Payload {
        iss: claims.issuer.as_str(),
        sub: claims.client_id.as_str(),
        client_id: claims.client_id.as_str(),
        aud: claims.audience.as_str(),
        scope: claims.scopes.as_str(),
        iat: claims.issued_at.as_unix(),
        exp: claims.expires_at.as_unix(),
        jti: claims.token_id.as_str(),
    };
    encode(&payload, token);
}

pub(super) fn encode(part: &impl Serialize, token: &mut String) {
    // Enough for all but a few, so that the buffer is not moved while it grows.
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, part).expect("a struct of strings and numbers is always JSON");
    URL_SAFE_NO_PAD.encode_string(json, token);
}

/// What a token says of itself. Nothing of it has been verified: for people who debug, never for decisions.
#[derive(Debug, Clone, PartialEq)]
pub struct UnverifiedToken {
    /// The protected header.
    pub header: serde_json::Value,
    /// The payload.
    pub claims: serde_json::Value,
    /// Whether a verifier would accept the token's form.
    pub format: Result<(), FormatError>,
}

/// Decodes a token without verifying anything, as leniently as its text allows.
///
/// # Errors
/// When header or payload are not base64url of JSON.
pub fn unverified_claims(token: &str) -> Result<UnverifiedToken, FormatError> {
    fn part<T: DeserializeOwned>(text: &str, error: FormatError) -> Result<T, FormatError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| FormatError::BadBase64)?;
        serde_json::from_slice(&bytes).map_err(|_| error)
    }
    if token.len() > MAX_LEN {
        return Err(FormatError::TooLong);
    }
    let mut parts = token.split('.');
    let header = part(parts.next().ok_or(FormatError::NotCompact)?, FormatError::BadHeader)?;
    let claims = part(parts.next().ok_or(FormatError::NotCompact)?, FormatError::BadClaims)?;
    let format = Compact::split(token).and_then(|parts| {
        parts.header()?;
        parts.claims::<TimedClaims>().map(|_| ())
    });
    Ok(UnverifiedToken { header, claims, format })
}

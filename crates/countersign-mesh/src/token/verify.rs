//! The first half of offline verification: from text that anyone could have sent to a token that its
//! issuer signed.

use std::time::Duration;

use crate::claims::{Audience, Claims, Issuer, Kid, Timestamp};
use crate::keys::PublicKey;
use crate::token::format::{Compact, FormatError, TimedClaims};

/// A token that its issuer signed. Nothing else is known of it: it may have expired, be revoked, or be
/// for someone else. Only [`signed`] makes one, and only the trust room turns one into a
/// `VerifiedToken`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedToken {
    claims: Claims,
    kid: Kid,
    not_before: Timestamp,
}

/// Which audiences are accepted.
#[derive(Debug, Clone, Copy)]
pub enum Audiences<'a> {
    /// One of these: what a callee must demand.
    OneOf(&'a [Audience]),
    /// Any: for the issuer itself, and for showing what a token is.
    Any,
}

impl Audiences<'_> {
    fn accept(self, audience: &Audience) -> bool {
        match self {
            Self::OneOf(audiences) => audiences.contains(audience),
            Self::Any => true,
        }
    }
}

/// Why a token is not accepted. The checks are made in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// It is not a token.
    Malformed(FormatError),
    /// It is from another issuer.
    IssuerMismatch,
    /// It names a key that the key set does not have.
    KeyUnknown,
    /// Its signature is not of the key that it names.
    SignatureInvalid,
    /// It has expired (`exp`).
    Expired,
    /// It is not valid yet (`iat`, `nbf`).
    NotYetValid,
    /// It is for another audience.
    AudienceMismatch,
    /// It, its client or its key has been revoked.
    Revoked,
}

/// Reads a token and checks that its issuer signed it, as strictly as RFC 8725 asks. `key_of` finds the
/// key of a `kid`, or says why there is none.
///
/// The issuer is compared before the key is looked up: a `kid` has meaning only among its issuer's
/// keys. Everything else is believed only once the signature holds.
///
/// # Errors
/// The first reason not to believe it.
pub(crate) fn signed<'k>(
    token: &str,
    issuer: &Issuer,
    key_of: impl FnOnce(&str) -> Result<&'k PublicKey, Rejection>,
) -> Result<SignedToken, Rejection> {
    let parts = Compact::split(token).map_err(Rejection::Malformed)?;
    let header = parts.header().map_err(Rejection::Malformed)?;
    let TimedClaims { claims, not_before } = parts.claims().map_err(Rejection::Malformed)?;
    if claims.issuer != *issuer {
        return Err(Rejection::IssuerMismatch);
    }
    let key = key_of(&header.kid)?;
    if !key.verifies(parts.signing_input, &parts.signature) {
        return Err(Rejection::SignatureInvalid);
    }
    // A token cannot be valid before it was issued, whatever its `nbf` says.
    let not_before = not_before.map_or(claims.issued_at, |at| at.max(claims.issued_at));
    Ok(SignedToken { claims, kid: key.kid().clone(), not_before })
}

impl SignedToken {
    /// What it says.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What it says, and the key that signed it.
    pub(crate) fn into_parts(self) -> (Claims, Kid) {
        (self.claims, self.kid)
    }

    /// The key that signed it.
    pub(crate) fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Whether it is valid at this time, for a clock that may be off by `leeway`.
    ///
    /// # Errors
    /// [`Rejection::Expired`] or [`Rejection::NotYetValid`].
    pub(crate) fn check_time(&self, now: Timestamp, leeway: Duration) -> Result<(), Rejection> {
        if self.claims.has_expired(now, leeway) {
            return Err(Rejection::Expired);
        }
        if self.not_before > now + leeway {
            return Err(Rejection::NotYetValid);
        }
        Ok(())
    }

    /// Whether it is for one of these audiences.
    ///
    /// # Errors
    /// [`Rejection::AudienceMismatch`].
    pub(crate) fn check_audience(&self, audiences: Audiences<'_>) -> Result<(), Rejection> {
        if audiences.accept(&self.claims.audience) {
            Ok(())
        } else {
            Err(Rejection::AudienceMismatch)
        }
    }
}

impl Claims {
    /// Whether the token has expired, for a clock that may be off by `leeway` (RFC 7519 §4.1.4).
    pub fn has_expired(&self, now: Timestamp, leeway: Duration) -> bool {
        now >= self.expires_at + leeway
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::claims::{ClientId, ScopeSet, TokenId};
    use crate::encoding::base64_url;
    use crate::keys::{KeySet, SigningKey};
    use crate::token::Minter;

    const NOW: u64 = 1_800_000_000;
    const HEADER: &str = r#"{"alg":"EdDSA","kid":"KID","typ":"at+jwt"}"#;
    const CLAIMS: &str = r#"{"iss":"https://issuer","sub":"order","client_id":"order","aud":"inventory","scope":"stock:read","iat":1800000000,"exp":1800000900,"jti":"one"}"#;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    fn signed(header: &str, claims: &str) -> String {
        let header = header.replace("KID", key().kid().as_str());
        let input = format!("{}.{}", base64_url(header.as_bytes()), base64_url(claims.as_bytes()));
        let signature = base64_url(&key().sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    fn check_at(token: &str, now: u64) -> Result<SignedToken, Rejection> {
        let keys = KeySet::from_iter([key().public().clone()]);
        let issuer = Issuer::new("https://issuer").expect("issuer");
        let inventory = [Audience::new("inventory").expect("audience")];
        let token =
            super::signed(token, &issuer, |kid| keys.key(kid).ok_or(Rejection::KeyUnknown))?;
        token.check_time(Timestamp::from_unix(now), Duration::from_secs(30))?;
        token.check_audience(Audiences::OneOf(&inventory))?;
        Ok(token)
    }

    fn check(token: &str) -> Result<SignedToken, Rejection> {
        check_at(token, NOW)
    }

    fn claims() -> Claims {
        Claims {
            issuer: Issuer::new("https://issuer").expect("issuer"),
            client_id: ClientId::new("order").expect("client id"),
            audience: Audience::new("inventory").expect("audience"),
            scopes: ScopeSet::parse("stock:read").expect("scope"),
            issued_at: Timestamp::from_unix(NOW),
            expires_at: Timestamp::from_unix(NOW + 900),
            token_id: TokenId::new("one").expect("token id"),
        }
    }

    #[test]
    fn a_minted_token_verifies_and_says_what_was_minted() {
        let token = Minter::new(Arc::new(key())).mint(&claims());
        assert_eq!(token.expose(), signed(HEADER, CLAIMS), "the same claims give the same bytes");
        let verified = check(token.expose()).expect("a good token");
        assert_eq!(verified.claims(), &claims());
        assert_eq!(verified.kid(), key().kid());
    }

    #[test]
    fn both_names_of_the_algorithm_are_accepted_and_no_other() {
        assert!(check(&signed(&HEADER.replace("EdDSA", "Ed25519"), CLAIMS)).is_ok());
        for alg in ["none", "HS256", "ES256", "eddsa", "Ed448", ""] {
            assert_eq!(
                check(&signed(&HEADER.replace("EdDSA", alg), CLAIMS)),
                Err(Rejection::Malformed(FormatError::BadAlgorithm)),
                "{alg}",
            );
        }
    }

    #[test]
    fn headers_that_a_verifier_must_not_accept_are_refused() {
        let cases = [
            (HEADER.replace("at+jwt", "JWT"), FormatError::BadType),
            (HEADER.replace("at+jwt", "application/at+jwt"), FormatError::BadType),
            (HEADER.replace(r#","typ":"at+jwt""#, ""), FormatError::BadHeader),
            (HEADER.replace(r#""kid":"KID","#, ""), FormatError::BadHeader),
            (HEADER.replace('{', r#"{"alg":"EdDSA","#), FormatError::BadHeader),
            (HEADER.replace('{', r#"{"x":1,"x":1,"#), FormatError::BadHeader),
            (HEADER.replace('{', r#"{"x":[{"y":1,"y":1}],"#), FormatError::BadHeader),
            (HEADER.replace('{', r#"{"\u0061lg":"EdDSA","#), FormatError::BadHeader),
            (format!("{HEADER}{{}}"), FormatError::BadHeader),
            ("[]".to_owned(), FormatError::BadHeader),
        ];
        for (header, reason) in cases {
            assert_eq!(
                check(&signed(&header, CLAIMS)),
                Err(Rejection::Malformed(reason)),
                "{header}"
            );
        }
        for name in ["crit", "jku", "jwk", "x5u", "x5c", "zip", "b64", "cty", "x5t", "x", "Alg"] {
            let header = HEADER.replace('{', &format!(r#"{{"{name}":[],"#));
            assert_eq!(
                check(&signed(&header, CLAIMS)),
                Err(Rejection::Malformed(FormatError::ForbiddenHeader)),
                "{name}",
            );
        }
        let values = ["null", "true", "[{\"y\":1,\"z\":1}]", "{}", "\"\""];
        for value in values {
            let header = HEADER.replace('{', &format!(r#"{{"x":{value},"#));
            assert_eq!(
                check(&signed(&header, CLAIMS)),
                Err(Rejection::Malformed(FormatError::ForbiddenHeader)),
                "{value}"
            );
        }
    }

    #[test]
    fn missing_duplicate_or_mistyped_claims_are_refused() {
        for claim in ["iss", "sub", "client_id", "aud", "iat", "exp", "jti"] {
            let renamed = CLAIMS.replace(&format!("\"{claim}\":"), "\"other\":");
            assert_eq!(
                check(&signed(HEADER, &renamed)),
                Err(Rejection::Malformed(FormatError::BadClaims)),
                "without {claim}",
            );
        }
        for (from, to) in [
            ("{", r#"{"exp":1800000900,"#),
            ("{", r#"{"nested":{"a":1,"a":2},"#),
            ("1800000900", "\"1800000900\""),
            ("1800000900", "-1"),
            ("1800000900", "1e99"),
            ("\"inventory\"", "[\"inventory\"]"),
            ("stock:read", "stock:read "),
            ("\"order\"", "null"),
            // A subject that is not the client, and lives that no token has.
            ("\"sub\":\"order\"", "\"sub\":\"alice\""),
            ("1800000900", "1800000000"),
            ("1800000900", "1799999999"),
            ("1800000900", "1800086401"),
            ("1800000900", "18446744073709551615"),
            ("\"iat\":1800000000", "\"iat\":0"),
        ] {
            let claims = CLAIMS.replacen(from, to, 1);
            assert_eq!(
                check(&signed(HEADER, &claims)),
                Err(Rejection::Malformed(FormatError::BadClaims)),
                "{claims}",
            );
        }
        assert!(
            check(&signed(HEADER, &CLAIMS.replace('{', r#"{"nested":{"a":1,"b":2},"#))).is_ok()
        );
    }

    #[test]
    fn only_the_canonical_spelling_is_a_token() {
        let token = signed(HEADER, CLAIMS);
        let malformed = |text: String, reason| {
            assert_eq!(check(&text), Err(Rejection::Malformed(reason)), "{text}");
        };
        malformed(String::new(), FormatError::NotCompact);
        malformed(token.replacen('.', "", 1), FormatError::NotCompact);
        malformed(format!("{token}."), FormatError::NotCompact);
        malformed(format!("{token}="), FormatError::BadBase64);
        malformed(format!(" {token}"), FormatError::BadBase64);
        malformed(format!("{token}\n"), FormatError::BadBase64);
        let (input, _) = token.rsplit_once('.').expect("three parts");
        malformed(format!("{input}.{}", base64_url(&[0; 63])), FormatError::BadSignature);
        malformed("a".repeat(super::super::MAX_LEN + 1), FormatError::TooLong);
        // The last character of 64 bytes in base64url has four unused bits; they must be zero.
        let (head, last) = token.split_at(token.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let at = alphabet.find(last).expect("base64url");
        malformed(format!("{head}{}", &alphabet[at + 1..at + 2]), FormatError::BadBase64);
    }

    #[test]
    fn a_wrong_issuer_audience_key_or_signature_has_its_own_rejection() {
        let reject = |claims: String| check(&signed(HEADER, &claims)).expect_err("must be refused");
        assert_eq!(
            reject(CLAIMS.replace("https://issuer", "https://other")),
            Rejection::IssuerMismatch
        );
        assert_eq!(reject(CLAIMS.replace("inventory", "payment")), Rejection::AudienceMismatch);

        let other_key = HEADER.replace("KID", "other");
        assert_eq!(check(&signed(&other_key, CLAIMS)), Err(Rejection::KeyUnknown));

        let token = signed(HEADER, CLAIMS);
        let forged = token.replace(
            &base64_url(CLAIMS.as_bytes()),
            &base64_url(CLAIMS.replace("stock:read", "stock:all").as_bytes()),
        );
        assert_eq!(check(&forged), Err(Rejection::SignatureInvalid));
    }

    #[test]
    fn time_is_checked_to_the_second_within_the_leeway() {
        let token = signed(HEADER, CLAIMS);
        assert!(check_at(&token, NOW + 900 + 29).is_ok());
        assert_eq!(check_at(&token, NOW + 900 + 30), Err(Rejection::Expired));
        assert!(check_at(&token, NOW - 30).is_ok());
        assert_eq!(check_at(&token, NOW - 31), Err(Rejection::NotYetValid));

        let later = signed(HEADER, &CLAIMS.replace('{', r#"{"nbf":1800000100,"#));
        assert!(check_at(&later, NOW + 70).is_ok());
        assert_eq!(check_at(&later, NOW + 69), Err(Rejection::NotYetValid));
        let longest = signed(HEADER, &CLAIMS.replace("1800000900", "1800086400"));
        assert!(check(&longest).is_ok(), "a day is the longest life");
    }

    proptest! {
        #[test]
        fn reading_a_token_never_panics(text in "\\PC*", header in "\\PC*", claims in "\\PC*") {
            let _ = check(&text);
            let _ = check(&signed(&header, &claims));
        }

        #[test]
        fn a_token_with_any_bit_flipped_is_refused(at in 0usize..300, bit in 0u8..7) {
            let token = signed(HEADER, CLAIMS);
            let mut bytes = token.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(check(&text).is_err());
            }
        }

        #[test]
        fn any_valid_claims_survive_minting_and_reading(
            client in "[A-Za-z0-9._~-]{1,64}",
            audience in "[A-Za-z0-9._~:/-]{1,255}",
            scopes in proptest::collection::vec("[!#-\\[\\]-~]{1,40}", 0..8),
            life in 1u64..86_400,
            bits in any::<[u8; 12]>(),
        ) {
            let claims = Claims {
                client_id: ClientId::new(&client).expect("by its alphabet"),
                audience: Audience::new(&audience).expect("by its alphabet"),
                scopes: ScopeSet::from_texts(scopes.iter().map(String::as_str)).expect("by their alphabet"),
                expires_at: Timestamp::from_unix(NOW + life),
                token_id: TokenId::from_random(bits),
                ..claims()
            };
            let token = Minter::new(Arc::new(key())).mint(&claims);
            let keys = KeySet::from_iter([key().public().clone()]);
            let key_of = |kid: &str| keys.key(kid).ok_or(Rejection::KeyUnknown);
            let signed = super::signed(token.expose(), &claims.issuer, key_of).expect("a good token");
            let audiences = Audiences::OneOf(std::slice::from_ref(&claims.audience));
            prop_assert_eq!(signed.check_time(Timestamp::from_unix(NOW), Duration::ZERO), Ok(()));
            prop_assert_eq!(signed.check_audience(audiences), Ok(()));
            prop_assert_eq!(signed.claims(), &claims);
        }
    }
}

//! Tokens and keys between us and an independent implementation, `jsonwebtoken`.

use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{
    Audience, Claims, ClientId, Clock, Issuer, ScopeSet, Timestamp, TokenId,
};
use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::token::{Audiences, FormatError, Minter, Rejection};
use countersign_mesh::trust::{Revocations, TrustBundle, VerifiedToken};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{
    AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
use serde_json::{Value, json};

const ISSUER: &str = "https://issuer.test";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn keys(seeds: &[u8]) -> KeySet {
    seeds.iter().map(|seed| key(*seed).public().clone()).collect()
}

/// `jsonwebtoken` reads the system's clock, so these tests do too, with margins of minutes.
fn now() -> Timestamp {
    Clock::system().now()
}

fn claims(issued_at: Timestamp) -> Claims {
    Claims {
        issuer: Issuer::new(ISSUER).expect("issuer"),
        client_id: ClientId::new("order").expect("client id"),
        audience: Audience::new("inventory").expect("audience"),
        scopes: ScopeSet::parse("stock:read stock:write").expect("scopes"),
        issued_at,
        expires_at: issued_at + Duration::from_secs(900),
        token_id: TokenId::new("one").expect("token id"),
    }
}

fn minted(issued_at: Timestamp) -> String {
    Minter::new(Arc::new(key(1))).mint(&claims(issued_at)).into_exposed()
}

/// What `jsonwebtoken` says of a token, with the key that the token names out of our JWK Set.
fn theirs(token: &str, jwks: &str, validation: &Validation) -> Result<TokenData<Value>, ErrorKind> {
    let set: JwkSet = serde_json::from_str(jwks).expect("a JWK Set");
    let kid = jsonwebtoken::decode_header(token).expect("a header").kid.expect("a kid");
    let key = DecodingKey::from_jwk(set.find(&kid).expect("the key is in the set"));
    jsonwebtoken::decode(token, &key.expect("a key that they know"), validation)
        .map_err(|error| error.into_kind())
}

fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["inventory"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.leeway = 30;
    validation
}

#[test]
fn they_verify_our_token_with_our_jwks() {
    let issued_at = now();
    let token = minted(issued_at);
    let read = theirs(&token, &keys(&[1, 2]).to_jwks(), &validation()).expect("a good token");

    assert_eq!(read.header.alg, Algorithm::EdDSA);
    assert_eq!(read.header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(read.header.kid.as_deref(), Some(key(1).kid().as_str()));
    assert_eq!(
        read.claims,
        json!({
            "iss": ISSUER,
            "sub": "order",
            "client_id": "order",
            "aud": "inventory",
            "scope": "stock:read stock:write",
            "iat": issued_at.as_unix(),
            "exp": issued_at.as_unix() + 900,
            "jti": "one",
        }),
    );
}

#[test]
fn they_refuse_what_is_not_right_of_ours() {
    let jwks = keys(&[1]).to_jwks();
    let token = minted(now());
    let refused = |token: &str, jwks: &str, validation: &Validation| {
        theirs(token, jwks, validation).expect_err("refused")
    };

    let mut other_audience = validation();
    other_audience.set_audience(&["billing"]);
    assert_eq!(refused(&token, &jwks, &other_audience), ErrorKind::InvalidAudience);
    let mut other_issuer = validation();
    other_issuer.set_issuer(&["https://other.test"]);
    assert_eq!(refused(&token, &jwks, &other_issuer), ErrorKind::InvalidIssuer);
    let expired = minted(now().before(Duration::from_secs(1000)));
    assert_eq!(refused(&expired, &jwks, &validation()), ErrorKind::ExpiredSignature);

    let another_key = keys(&[2]).to_jwks().replace(key(2).kid().as_str(), key(1).kid().as_str());
    assert_eq!(refused(&token, &another_key, &validation()), ErrorKind::InvalidSignature);
}

/// Signs with `jsonwebtoken` and the private key of `key(1)`.
fn signed_by_them(header: &Header, claims: &Value) -> String {
    // PKCS #8 (RFC 8410 §7) of a bare Ed25519 seed.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend_from_slice(key(1).expose_seed().as_slice());
    jsonwebtoken::encode(header, claims, &EncodingKey::from_ed_der(&der)).expect("it signs")
}

fn their_header() -> Header {
    Header {
        typ: Some("at+jwt".to_owned()),
        kid: Some(key(1).kid().to_string()),
        ..Header::new(Algorithm::EdDSA)
    }
}

fn their_claims(issued_at: Timestamp) -> Value {
    json!({
        "jti": "one",
        "iss": ISSUER,
        "sub": "order",
        "client_id": "order",
        "aud": "inventory",
        "scope": "stock:write stock:read",
        "iat": issued_at.as_unix(),
        "exp": issued_at.as_unix() + 900,
    })
}

fn ours(token: &str, now: Timestamp) -> Result<VerifiedToken, Rejection> {
    let bundle = TrustBundle {
        issuer: Issuer::new(ISSUER).expect("issuer"),
        epoch: 1,
        keys: keys(&[1]),
        revocations: Revocations::default(),
    };
    let inventory = [Audience::new("inventory").expect("audience")];
    bundle.verify(token, Audiences::OneOf(&inventory), now, Duration::from_secs(30))
}

#[test]
fn we_verify_their_token() {
    let now = now();
    let token = signed_by_them(&their_header(), &their_claims(now));
    let verified = ours(&token, now).expect("a good token");
    assert_eq!(verified.claims(), &claims(now));
    assert_eq!(verified.kid(), key(1).kid());
}

#[test]
fn we_refuse_what_is_not_right_of_theirs() {
    let now = now();
    let good = their_claims(now);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed_by_them(&their_header(), &claims)
    };
    assert_eq!(
        ours(&with("iss", json!("https://other.test")), now),
        Err(Rejection::IssuerMismatch)
    );
    assert_eq!(ours(&with("aud", json!("billing")), now), Err(Rejection::AudienceMismatch));
    let lists = with("aud", json!(["inventory"]));
    assert_eq!(ours(&lists, now), Err(Rejection::Malformed(FormatError::BadClaims)));
    let at_its_end = now + Duration::from_secs(930);
    assert_eq!(ours(&signed_by_them(&their_header(), &good), at_its_end), Err(Rejection::Expired));

    let jwt = Header { typ: Some("JWT".to_owned()), ..their_header() };
    assert_eq!(
        ours(&signed_by_them(&jwt, &good), now),
        Err(Rejection::Malformed(FormatError::BadType))
    );
    let nameless = Header { kid: None, ..their_header() };
    assert_eq!(
        ours(&signed_by_them(&nameless, &good), now),
        Err(Rejection::Malformed(FormatError::BadHeader)),
    );
    let unknown = Header { kid: Some("another".to_owned()), ..their_header() };
    assert_eq!(ours(&signed_by_them(&unknown, &good), now), Err(Rejection::KeyUnknown));
    let bringing = Header { jwk: Some(our_jwk(1)), ..their_header() };
    assert_eq!(
        ours(&signed_by_them(&bringing, &good), now),
        Err(Rejection::Malformed(FormatError::ForbiddenHeader)),
    );

    let mut symmetric = Header::new(Algorithm::HS256);
    symmetric.typ = their_header().typ;
    symmetric.kid = their_header().kid;
    // The old trick: our public key as the secret of an HMAC.
    let secret = EncodingKey::from_secret(key(1).public().as_bytes());
    let token = jsonwebtoken::encode(&symmetric, &good, &secret).expect("it signs");
    // An HMAC is half as long as a signature; but the length is not what saves us.
    let padded = format!("{}{}", token, "A".repeat(43));
    assert!(matches!(ours(&token, now), Err(Rejection::Malformed(_))));
    assert_eq!(ours(&padded, now), Err(Rejection::Malformed(FormatError::BadAlgorithm)));
}

fn our_jwk(seed: u8) -> Jwk {
    let mut set: JwkSet = serde_json::from_str(&keys(&[seed]).to_jwks()).expect("a JWK Set");
    set.keys.remove(0)
}

#[test]
fn they_read_our_jwks_and_name_its_keys_alike() {
    for seed in 1..=5 {
        let jwk = our_jwk(seed);
        let public = key(seed).public().clone();
        assert!(matches!(jwk.algorithm, AlgorithmParameters::OctetKeyPair(_)));
        assert_eq!(jwk.common.key_algorithm, Some(KeyAlgorithm::EdDSA));
        assert_eq!(jwk.common.public_key_use, Some(PublicKeyUse::Signature));

        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).expect("a kind that they know");
        assert_eq!(public.thumbprint(), thumbprint);
        assert_eq!(public.kid().as_str(), &thumbprint[..16]);
        assert_eq!(jwk.common.key_id.as_deref(), Some(public.kid().as_str()));
        assert_ne!(key(seed + 1).public().thumbprint(), thumbprint);
    }
}

#[test]
fn we_read_a_jwk_set_that_they_wrote() {
    let set = JwkSet { keys: vec![our_jwk(1), our_jwk(2)] };
    let written = serde_json::to_string(&set).expect("JSON");
    assert_eq!(KeySet::from_jwks(&written), Ok(keys(&[1, 2])));
}

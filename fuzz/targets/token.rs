//! Any token that is sent to a verifier: it is one that the issuer has minted, to the byte, or it is refused.

use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{Audience, Claims, ClientId, Issuer, ScopeSet, Timestamp, TokenId};
use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::token::{Audiences, Minter};
use countersign_mesh::trust::{Revocations, TrustBundle};

pub const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

pub fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

/// What a verifier trusts.
pub fn bundle() -> TrustBundle {
    TrustBundle {
        issuer: Issuer::new("https://issuer.test").expect("an issuer"),
        epoch: 1,
        keys: KeySet::from_iter([key().public().clone()]),
        revocations: Revocations::default(),
    }
}

/// What is minted, each time the same.
fn minted(number: u64) -> String {
    let claims = Claims {
        issuer: Issuer::new("https://issuer.test").expect("an issuer"),
        client_id: ClientId::new("order").expect("an id"),
        audience: Audience::new("inventory").expect("an audience"),
        scopes: ScopeSet::parse("stock:read stock:write").expect("scopes"),
        issued_at: NOW,
        expires_at: NOW + Duration::from_secs(900 + number),
        token_id: TokenId::new("one").expect("a token id"),
    };
    Minter::new(Arc::new(key())).mint(&claims).expose().to_owned()
}

/// Whether the bytes are a good token.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let audience = [Audience::new("inventory").expect("an audience")];
    let verified = bundle().verify(text, Audiences::OneOf(&audience), NOW, Duration::from_secs(30));
    assert_eq!(verified.is_ok(), (0..4).any(|number| minted(number) == text), "{text}");
    verified.is_ok()
}

/// Tokens that are good.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..4).map(|number| minted(number).into_bytes()).collect()
}

//! Any JWK Set that is fetched: the keys that are taken from it are those that it names.

use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::trust::TrustBundle;

/// Whether the bytes are a JWK Set.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let bundle = TrustBundle::from_jwks(text);
    let Ok(keys) = KeySet::from_jwks(text) else {
        assert!(bundle.is_err(), "there is no bundle without keys");
        return false;
    };
    // What was taken is written and read the same.
    let again = KeySet::from_jwks(&keys.to_jwks()).expect("we write JWK Sets");
    assert_eq!(again.len(), keys.len());
    true
}

/// Sets of one and of several keys.
pub fn seeds() -> Vec<Vec<u8>> {
    let key = |seed: u8| SigningKey::from_seed(&[seed; 32]).public().clone();
    let set = |seeds: &[u8]| KeySet::from_iter(seeds.iter().map(|seed| key(*seed))).to_jwks();
    let one = set(&[1]);
    let named = one.replacen('{', r#"{"issuer":"https://issuer.test","epoch":7,"#, 1);
    vec![
        one.into_bytes(),
        set(&[1, 2, 3]).into_bytes(),
        named.into_bytes(),
        b"{\"keys\":[]}".to_vec(),
    ]
}

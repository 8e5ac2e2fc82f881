//! Any assertion of a client.

use countersign_mesh::claims::{ClientId, Timestamp};
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::{Assertion, sign_assertion};

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

fn key() -> SigningKey {
    SigningKey::from_seed(&[3; 32])
}

fn signed(nonce: u8) -> String {
    let client_id = ClientId::new("order").expect("an id");
    sign_assertion(&key(), &client_id, "https://issuer.test", NOW, [nonce; 16]).expose().to_owned()
}

/// Whether the bytes have the form of an assertion.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(assertion) = Assertion::parse(text) else { return false };
    assert!((1..=Assertion::MAX_ID_LEN).contains(&assertion.id.len()));
    // A signature is over every byte: whatever was changed is signed by nobody.
    let signed_by_us = assertion.is_signed_by(key().public());
    assert_eq!(signed_by_us, (0..4).any(|nonce| signed(nonce) == text), "{text}");
    assert!(
        !format!("{assertion:?}").contains(&text[text.len() - 20..]),
        "Debug shows no signature"
    );
    true
}

/// Assertions that are signed.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..4).map(|nonce| signed(nonce).into_bytes()).collect()
}

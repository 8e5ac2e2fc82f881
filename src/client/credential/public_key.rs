//! The second kind: a public key, which the client signs assertions with (`private_key_jwt`, RFC 7523).

use std::sync::Arc;

use countersign_mesh::keys::PublicKey;
use countersign_mesh::token::Assertion;

use crate::client::{Client, Credential, CredentialKind};

/// The key that signed an assertion, among a client's. As many signatures are verified whether there is
/// one or not: where no key is, with the decoy, which nobody's signature is believed of.
pub fn signer<'a>(
    candidate: Option<&'a Client>,
    assertion: &Assertion,
    decoy: &PublicKey,
) -> Option<&'a Arc<Credential>> {
    let verify = |slot: Option<(&'a Arc<Credential>, &PublicKey)>| {
        let signed = assertion.is_signed_by(slot.map_or(decoy, |(_, key)| key));
        slot.filter(|_| signed).map(|(credential, _)| credential)
    };
    let mut keys = candidate.into_iter().flat_map(keys);
    match &assertion.kid {
        Some(kid) => verify(keys.find(|(_, key)| is_named(key, kid))),
        None => {
            let slots = (0..CredentialKind::MAX_OF_EACH).map(|_| verify(keys.next()));
            slots.fold(None, Option::or)
        }
    }
}

fn keys(client: &Client) -> impl Iterator<Item = (&Arc<Credential>, &PublicKey)> {
    client.credentials.iter().filter_map(|credential| match &credential.kind {
        CredentialKind::PublicKey(key) => Some((credential, &**key)),
        _ => None,
    })
}

/// Whether the header of an assertion means a key: by our name, which is how the key's thumbprint (RFC 7638)
/// begins, or by all of the thumbprint, as others name keys.
fn is_named(key: &PublicKey, kid: &str) -> bool {
    kid == key.kid().as_str() || kid.len() == THUMBPRINT_LEN && kid == key.thumbprint()
}

/// A SHA-256 in base64url.
const THUMBPRINT_LEN: usize = 43;

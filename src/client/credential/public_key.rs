//! The second kind of credential: a public key. It verifies the assertions that the client signs
//! (`private_key_jwt`, RFC 7523 §2.2).

use std::sync::Arc;

use countersign_mesh::keys::PublicKey;
use countersign_mesh::token::Assertion;

use crate::client::{Client, Credential, CredentialKind};

/// The credential of a client whose key signed the assertion.
///
/// The number of signature verifications depends only on whether the assertion names its key (`kid`): one if
/// it does, and [`CredentialKind::MAX_OF_EACH`] if it does not. Where the client has no key, the decoy takes
/// its place; a signature that verifies with the decoy counts for nothing.
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
            // `fold` visits every slot. Stopping at the first match would tell by timing which key it was.
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

/// Whether the `kid` of an assertion names this key. It may be the key's own `kid`, which is the beginning of
/// its JWK thumbprint (RFC 7638), or the whole thumbprint, which other software uses.
fn is_named(key: &PublicKey, kid: &str) -> bool {
    kid == key.kid().as_str() || kid.len() == THUMBPRINT_LEN && kid == key.thumbprint()
}

/// The length of a SHA-256 in base64url without padding. A `kid` of another length is refused without
/// computing the thumbprint.
const THUMBPRINT_LEN: usize = 43;

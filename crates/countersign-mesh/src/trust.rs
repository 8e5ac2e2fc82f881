//! What a verifier needs to know, and what it asks of that knowledge.
//!
//! A [`TrustBundle`] is all of it: one issuer's public keys and its [`Revocations`], at one epoch.
//!
//! 1. The issuer keeps the latest bundle. For a verifier at an earlier epoch it makes a [`TrustDelta`]
//!    with [`TrustBundle::since`]: only what changed, and only for the audiences that the verifier
//!    serves. A snapshot is a delta from epoch 0.
//! 2. The verifier begins with [`TrustBundle::from_snapshot`] and goes on with [`TrustBundle::apply`],
//!    which refuses a delta that leaves a gap or leads back ([`WrongEpoch`]).
//! 3. [`TrustBundle::verify`] turns the text of a token into a [`VerifiedToken`]; nothing else makes one.
//!    [`TrustBundle::recheck`] looks again at one that was verified before: its expiry, its key and
//!    revocations, but not its signature.
//! 4. [`TrustBundle::expire`] forgets revocations of tokens that have expired anyway. Both sides do that
//!    by themselves.
//!
//! Epochs never go backwards, and no step revives a token that was revoked.

mod delta;
mod revocations;
mod verified;

pub use self::delta::{TrustDelta, WrongEpoch};
pub use self::revocations::{ClientRevocation, Revocations, TokenRevocation};
pub use self::verified::VerifiedToken;

use serde::{Deserialize, Serialize};

use crate::claims::Issuer;
use crate::keys::{InvalidKeySet, KeySet};

/// Keys and revocations at one epoch: all that a verifier needs.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    /// Whose tokens these keys are for.
    pub issuer: Issuer,
    /// Grows with every change of the bundle.
    pub epoch: u64,
    /// The keys that tokens may be signed with.
    pub keys: KeySet,
    /// What is rejected although one of these keys has signed it.
    pub revocations: Revocations,
}

#[derive(Serialize)]
struct PublishedKeys<'a> {
    issuer: Issuer,
    epoch: u64,
    keys: &'a KeySet,
}

impl TrustBundle {
    /// The keys as a JWK Set (RFC 7517 §5) with two more members, which other readers ignore: `issuer`,
    /// whose keys they are, and `epoch`.
    pub fn to_jwks(&self) -> String {
        let published =
            PublishedKeys { issuer: self.issuer.clone(), epoch: self.epoch, keys: &self.keys };
        serde_json::to_string(&published).expect("names, a number and keys are always JSON")
    }

    /// Reads what [`TrustBundle::to_jwks`] wrote. A JWK Set holds no revocations, so the bundle has
    /// none.
    ///
    /// # Errors
    /// When it is no JWK Set to trust, or does not name issuer and epoch.
    pub fn from_jwks(json: &str) -> Result<Self, InvalidKeySet> {
        #[derive(Deserialize)]
        struct Origin {
            issuer: Issuer,
            epoch: u64,
        }
        let origin: Origin = serde_json::from_str(json).map_err(|_| InvalidKeySet::Malformed)?;
        Ok(Self {
            issuer: origin.issuer,
            epoch: origin.epoch,
            keys: KeySet::from_jwks(json)?,
            revocations: Revocations::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::claims::{Audience, Claims, ClientId, ScopeSet, Timestamp, TokenId};
    use crate::keys::SigningKey;
    use crate::token::{Audiences, Minter, Rejection};

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);
    const LEEWAY: Duration = Duration::from_secs(30);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn id(text: &str) -> TokenId {
        TokenId::new(text).expect("token id")
    }

    fn client(text: &str) -> ClientId {
        ClientId::new(text).expect("client id")
    }

    fn after(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn bundle(revocations: Revocations) -> TrustBundle {
        TrustBundle {
            issuer: Issuer::new("https://issuer").expect("issuer"),
            epoch: 1,
            keys: [key(1), key(2)].iter().map(|key| key.public().clone()).collect(),
            revocations,
        }
    }

    fn token_of(signer: SigningKey, client_id: &str, issued_at: Timestamp) -> String {
        let claims = Claims {
            issuer: Issuer::new("https://issuer").expect("issuer"),
            client_id: client(client_id),
            audience: Audience::new("inventory").expect("audience"),
            scopes: ScopeSet::parse("stock:read").expect("scope"),
            issued_at,
            expires_at: issued_at + Duration::from_secs(900),
            token_id: id("one"),
        };
        Minter::new(Arc::new(signer)).mint(&claims).into_exposed()
    }

    fn check(bundle: &TrustBundle, token: &str) -> Result<VerifiedToken, Rejection> {
        bundle.verify(token, Audiences::Any, NOW, LEEWAY)
    }

    /// Asserts what the bundle says of a token, both at first sight and when it was verified before.
    #[track_caller]
    fn assert_told(revocations: Revocations, token: &str, expected: Result<(), Rejection>) {
        let verified = check(&bundle(Revocations::default()), token).expect("good when unrevoked");
        let bundle = bundle(revocations);
        assert_eq!(check(&bundle, token).map(|_| ()), expected, "at first sight");
        assert_eq!(bundle.recheck(&verified, NOW, LEEWAY), expected, "when verified before");
    }

    #[test]
    fn a_revoked_token_is_rejected_and_no_other() {
        let token = token_of(key(1), "order", NOW);
        let mut revocations = Revocations::default();
        let revocation = TokenRevocation::new(after(930));
        revocations.revoke_token(id("two"), revocation.clone());
        assert_told(revocations.clone(), &token, Ok(()));
        revocations.revoke_token(id("one"), revocation.clone());
        assert_eq!(revocations.token(&id("one")), Some(&revocation));
        assert_told(revocations, &token, Err(Rejection::Revoked));
    }

    #[test]
    fn a_revoked_clients_tokens_are_rejected_when_issued_before_the_cut() {
        let cut = ClientRevocation::new(after(6), after(90_000));
        let mut revocations = Revocations::default();
        revocations.revoke_client(client("order"), cut);
        for (client, issued_at, expected) in [
            ("order", after(5), Err(Rejection::Revoked)),
            ("order", after(6), Ok(())),
            ("billing", after(5), Ok(())),
        ] {
            assert_told(revocations.clone(), &token_of(key(1), client, issued_at), expected);
        }
    }

    #[test]
    fn a_revoked_key_is_told_from_one_that_was_never_known() {
        let token = token_of(key(1), "order", NOW);
        let mut revocations = Revocations::default();
        revocations.set_keys([key(2).kid()].into_iter());
        assert_told(revocations.clone(), &token, Ok(()));
        revocations.set_keys([key(1).kid()].into_iter());
        assert!(!revocations.key(key(2).kid().as_str()), "the new keys replace the old");
        assert_told(revocations.clone(), &token, Err(Rejection::Revoked));

        let without_its_key = |revocations| TrustBundle {
            keys: [key(2).public().clone()].into_iter().collect(),
            ..bundle(revocations)
        };
        let verified = check(&bundle(Revocations::default()), &token).expect("a good token");
        for (revocations, expected) in
            [(revocations, Rejection::Revoked), (Revocations::default(), Rejection::KeyUnknown)]
        {
            let bundle = without_its_key(revocations);
            assert_eq!(check(&bundle, &token), Err(expected.clone()));
            assert_eq!(bundle.recheck(&verified, NOW, LEEWAY), Err(expected));
        }
    }

    #[test]
    fn a_token_that_was_verified_before_still_expires() {
        let bundle = bundle(Revocations::default());
        let verified = check(&bundle, &token_of(key(1), "order", NOW)).expect("a good token");
        assert_eq!(bundle.recheck(&verified, after(929), LEEWAY), Ok(()));
        assert_eq!(bundle.recheck(&verified, after(930), LEEWAY), Err(Rejection::Expired));
    }
}

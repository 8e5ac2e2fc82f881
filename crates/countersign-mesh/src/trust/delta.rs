//! What changed between epochs: how a bundle gets from the issuer to a verifier.

use std::fmt;

use crate::claims::{Audience, ClientId, Issuer, Kid, Timestamp, TokenId};
use crate::keys::KeySet;
use crate::trust::{ClientRevocation, Revocations, TokenRevocation, TrustBundle};

/// What changed in a bundle after an epoch, as far as one verifier is told. A snapshot is what changed
/// since epoch 0.
///
/// Forgetting a revocation that has expired is no change: verifiers do that themselves
/// ([`TrustBundle::expire`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDelta {
    /// The epoch that it builds on. A verifier at a later epoch may apply it all the same.
    pub from: u64,
    /// The epoch that it leads to.
    pub to: u64,
    /// All keys that verify.
    pub keys: KeySet,
    /// All keys that are revoked, in the order of their names.
    pub revoked_keys: Vec<Kid>,
    /// The tokens that were revoked, and until when each revocation is to be kept.
    pub tokens: Vec<(TokenId, Timestamp)>,
    /// The clients whose tokens were revoked. The first time is the cut: tokens issued before it are
    /// revoked. The second says until when the revocation is to be kept.
    pub clients: Vec<(ClientId, Timestamp, Timestamp)>,
}

/// A delta that does not follow on the bundle. It was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongEpoch {
    /// It builds on a later epoch than the verifier's: what happened in between would be missed.
    Missed {
        /// What the verifier has.
        held: u64,
        /// What the delta builds on.
        from: u64,
    },
    /// It leads to an earlier epoch. Epochs never go backwards.
    Backwards {
        /// What the verifier has.
        held: u64,
        /// What the delta leads to.
        to: u64,
    },
}

impl fmt::Display for WrongEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed { held, from } => {
                write!(f, "a delta from epoch {from} does not follow on epoch {held}")
            }
            Self::Backwards { held, to } => {
                write!(f, "a delta leads back from epoch {held} to {to}")
            }
        }
    }
}

impl std::error::Error for WrongEpoch {}

impl TrustBundle {
    /// For the issuer: what a verifier lacks that serves these audiences and is at `epoch`. The cost
    /// grows with what changed since then, or with all revocations if that was too long ago.
    ///
    /// The verifier must have served the same audiences at that epoch. If it has come to serve another
    /// audience since, it was never told of that one's revocations, and needs everything, from epoch 0
    /// on.
    pub fn since(&self, epoch: u64, serves: &[Audience]) -> TrustDelta {
        let mut revoked_keys: Vec<Kid> = self.revocations.keys().cloned().collect();
        revoked_keys.sort_unstable();
        TrustDelta {
            from: epoch,
            to: self.epoch,
            keys: self.keys.clone(),
            revoked_keys,
            tokens: self
                .revocations
                .tokens_since(epoch, serves)
                .map(|(id, token)| (id.clone(), token.until))
                .collect(),
            clients: self
                .revocations
                .clients_since(epoch, serves)
                .map(|(id, client)| (id.clone(), client.before, client.until))
                .collect(),
        }
    }

    /// For the verifier: makes a bundle of a snapshot, which is a delta from epoch 0.
    pub fn from_snapshot(issuer: Issuer, snapshot: TrustDelta) -> Self {
        let mut bundle = Self {
            issuer,
            epoch: snapshot.to,
            keys: KeySet::default(),
            revocations: Revocations::default(),
        };
        bundle.take_on(snapshot);
        bundle
    }

    /// For the verifier: applies what changed.
    ///
    /// # Errors
    /// When the delta builds on a later epoch than this bundle's, or leads to an earlier one. Nothing is
    /// changed then.
    pub fn apply(&mut self, delta: TrustDelta) -> Result<(), WrongEpoch> {
        let held = self.epoch;
        if delta.to < held {
            return Err(WrongEpoch::Backwards { held, to: delta.to });
        }
        if delta.from > held {
            return Err(WrongEpoch::Missed { held, from: delta.from });
        }
        self.take_on(delta);
        Ok(())
    }

    /// For the verifier: forgets revocations of tokens that have expired anyway.
    pub fn expire(&mut self, now: Timestamp) {
        if self.revocations.has_expired(now) {
            self.revocations.expire(now);
        }
    }

    fn take_on(&mut self, delta: TrustDelta) {
        let TrustDelta { from: _, to: epoch, keys, revoked_keys, tokens, clients } = delta;
        self.epoch = epoch;
        self.keys = keys;
        self.revocations.set_keys(revoked_keys.iter());
        for (id, until) in tokens {
            self.revocations.revoke_token(id, TokenRevocation { until, audience: None, epoch });
        }
        for (id, before, until) in clients {
            let cut = ClientRevocation { before, until, audiences: None, epoch };
            self.revocations.revoke_client(id, cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;

    fn bundle(epoch: u64) -> TrustBundle {
        TrustBundle {
            issuer: Issuer::new("https://issuer").expect("issuer"),
            epoch,
            keys: [SigningKey::from_seed(&[1; 32]).public().clone()].into_iter().collect(),
            revocations: Revocations::default(),
        }
    }

    #[test]
    fn a_delta_that_does_not_follow_on_the_bundle_changes_nothing() {
        let mut held = bundle(5);
        let delta =
            |from, to| TrustDelta { from, keys: KeySet::default(), ..bundle(to).since(from, &[]) };
        assert_eq!(held.apply(delta(6, 7)), Err(WrongEpoch::Missed { held: 5, from: 6 }));
        assert_eq!(held.apply(delta(3, 4)), Err(WrongEpoch::Backwards { held: 5, to: 4 }));
        assert_eq!((held.epoch, held.keys.len()), (5, 1));

        assert_eq!(held.apply(delta(3, 5)), Ok(()), "what it has already does no harm");
        assert_eq!(held.apply(delta(5, 6)), Ok(()));
        assert_eq!((held.epoch, held.keys.len()), (6, 0));
    }
}

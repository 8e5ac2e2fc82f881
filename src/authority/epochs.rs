//! That epochs never go backwards: what verifiers prove, and what follows from it.

use std::sync::atomic::Ordering;

use countersign_mesh::claims::{Audience, Timestamp};
use subtle::ConstantTimeEq;

use crate::authority::Authority;
use crate::store::AuditEvent;

impl Authority {
    /// Proves to ourselves that a verifier was told an epoch; for the verifier it is opaque. It comes
    /// with the epoch and goes with it.
    pub fn epoch_proof(&self, epoch: u64) -> [u8; 16] {
        self.store.epoch_proof(epoch)
    }

    /// Whether a verifier has an epoch that this store does not have, and proves it. Then an old copy of
    /// the store was put back: from now on nothing is signed, over restarts too, until `countersign
    /// restore` has begun a new generation. The verifier's epoch is never adopted.
    ///
    /// A claim without proof means nothing: a mere client must not be able to stop us.
    pub fn verifier_is_ahead(&self, epoch: u64, proof: &[u8]) -> bool {
        let ours = self.published.bundle().epoch;
        let proven: bool = self.epoch_proof(epoch).ct_eq(proof).into();
        if epoch <= ours || !proven {
            return false;
        }
        if !self.put_back.swap(true, Ordering::Relaxed) {
            metrics::gauge!("countersign_store_put_back").set(1);
            tracing::error!(
                epoch = ours,
                published = epoch,
                "a verifier proves an epoch that this store does not have: an old copy of the store was put back; \
                 nothing is signed any more; stop the server and run `countersign restore`"
            );
            self.store.note_published(
                epoch,
                AuditEvent {
                    // Set where it is written down.
                    at: Timestamp::from_unix(0),
                    actor: "verifier".to_owned(),
                    action: "store.found_put_back".to_owned(),
                    target: self.issuer().to_string(),
                    outcome: "STORE_PUT_BACK".to_owned(),
                    peer: String::new(),
                    count: 1,
                    detail: format!("epoch {ours}, published {epoch}"),
                },
            );
        }
        true
    }

    /// Whether it is known that an old copy of the store was put back.
    pub fn was_put_back(&self) -> bool {
        self.put_back.load(Ordering::Relaxed)
    }

    /// Stands for the audiences that a verifier serves, to be sent along with the proof of its epoch. A
    /// verifier that comes back with another one was not told what it is to be told now: it needs a
    /// snapshot, not a delta.
    pub fn audiences_proof(&self, serves: &[Audience]) -> [u8; 16] {
        self.store.audiences_proof(serves)
    }
}

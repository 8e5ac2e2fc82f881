//! The detection of a store that was put back, which would use epochs a second time.
//!
//! With each epoch a verifier gets a proof that we told it. If it comes back with a proven epoch that the store
//! does not have, an old copy of the store must have been put in place.

use std::sync::atomic::Ordering;

use countersign_mesh::claims::{Audience, Timestamp};
use subtle::ConstantTimeEq;

use crate::authority::Authority;
use crate::store::AuditEvent;

impl Authority {
    /// A proof for ourselves that we told a verifier this epoch. The verifier keeps it with the epoch, cannot
    /// read it, and sends both when it reconnects.
    pub fn epoch_proof(&self, epoch: u64) -> [u8; 16] {
        self.store.epoch_proof(epoch)
    }

    /// Whether a verifier proves an epoch that this store does not have. Then an old copy of the store was put
    /// back. From now on nothing is signed, not even after a restart, until `countersign restore` has begun a
    /// new generation of epochs. The verifier's epoch is never adopted.
    ///
    /// A claim without a valid proof is ignored: otherwise any client could stop the service.
    pub fn verifier_is_ahead(&self, epoch: u64, proof: &[u8]) -> bool {
        let ours = self.published.bundle().epoch;
        let proven: bool = self.epoch_proof(epoch).ct_eq(proof).into();
        if epoch <= ours || !proven {
            return false;
        }
        // The first such verifier raises the alarm; the others would only repeat it.
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
                    // The store sets the time when it writes the event.
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

    /// A proof of the audiences that a verifier serves, sent along with the proof of its epoch. A verifier that
    /// comes back with a proof of other audiences lacks revocations of the new ones. It needs a snapshot
    /// rather than a delta.
    pub fn audiences_proof(&self, serves: &[Audience]) -> [u8; 16] {
        self.store.audiences_proof(serves)
    }
}

//! For how long tokens are signed without a word from the store.

use std::sync::atomic::Ordering;

use crate::authority::Authority;
use crate::authority::IssueError;
use crate::authority::SIGNING_LEASE;
use crate::claims::Timestamp;

impl Authority {
    /// Renews the signing lease, if the store is there: for a process that slept for longer. Says
    /// whether it was renewed. One try at a time: who comes meanwhile is told no.
    pub async fn renew_lease(&self, now: Timestamp) -> bool {
        let Ok(_one) = self.renewing.try_lock() else { return false };
        let reached = self.store.reach().await.is_ok();
        if reached {
            self.store_reached_at.store(now.as_unix(), Ordering::Relaxed);
        }
        reached
    }

    /// Refuses to sign once the store has been out of reach for too long, or is known to be an old copy.
    pub(super) fn may_sign(&self, now: Timestamp) -> Result<(), IssueError> {
        if self.put_back.load(Ordering::Relaxed) {
            return Err(IssueError::PutBack);
        }
        let reached_at = Timestamp::from_unix(self.store_reached_at.load(Ordering::Relaxed));
        if now.since(reached_at) > SIGNING_LEASE { Err(IssueError::LeaseOver) } else { Ok(()) }
    }
}

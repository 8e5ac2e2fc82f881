//! When the store was last reached, and for how long tokens are signed without a word from it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::{Clock, SteadyClock, Timestamp};

use crate::authority::{Authority, IssueError, SIGNING_LEASE};

/// When the store was last reached, by the clock, and by one that nobody sets.
pub(super) struct Reached {
    at: AtomicU64,
    steady_at: AtomicU64,
    steady: SteadyClock,
}

/// A moment from which on the store is to be reached.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    at: Timestamp,
    steady_at: Timestamp,
}

impl Reached {
    /// Just now.
    pub(super) fn new(clock: &Clock) -> Self {
        let steady = clock.steady();
        let (at, steady_at) = (clock.now().as_unix(), steady.now().as_unix());
        Self { at: AtomicU64::new(at), steady_at: AtomicU64::new(steady_at), steady }
    }

    /// To be taken before the store is asked: what it then confirms is as of this moment at least.
    pub(super) fn moment(&self, now: Timestamp) -> Moment {
        Moment { at: now, steady_at: self.steady.now() }
    }

    /// The store has answered what was asked after this moment.
    pub(super) fn note(&self, moment: Moment) {
        self.at.store(moment.at.as_unix(), Ordering::Relaxed);
        self.steady_at.fetch_max(moment.steady_at.as_unix(), Ordering::Relaxed);
    }

    /// When that was, by the clock.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_unix(self.at.load(Ordering::Relaxed))
    }

    /// How long ago that was, whoever has set the clock since.
    pub(super) fn age(&self) -> Duration {
        let at = Timestamp::from_unix(self.steady_at.load(Ordering::Relaxed));
        self.steady.now().since(at)
    }
}

impl Authority {
    /// Renews the signing lease, if the store is there: for a process that slept for longer. Says
    /// whether it was renewed. One try at a time: who comes meanwhile is told no.
    pub async fn renew_lease(&self, now: Timestamp) -> bool {
        let Ok(_one) = self.renewing.try_lock() else { return false };
        let moment = self.reached.moment(now);
        let reached = self.store.reach().await.is_ok();
        if reached {
            self.reached.note(moment);
        }
        reached
    }

    /// Refuses to sign once the store has been out of reach for too long, and still is, or is known to
    /// be an old copy.
    pub(super) async fn may_sign(&self, now: Timestamp) -> Result<(), IssueError> {
        if self.put_back.load(Ordering::Relaxed) {
            return Err(IssueError::PutBack);
        }
        if self.has_lease(now) || self.renew_lease(now).await {
            return Ok(());
        }
        Err(IssueError::LeaseOver)
    }

    /// By both clocks: one may have been set back, the other stands still while the machine sleeps.
    pub(super) fn has_lease(&self, now: Timestamp) -> bool {
        now.since(self.reached.at()).max(self.reached.age()) <= SIGNING_LEASE
    }
}

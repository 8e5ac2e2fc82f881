//! The signing lease: how long tokens are still signed while the store cannot be reached.
//!
//! A process that is cut off from its store can neither record nor learn of revocations. So it stops signing
//! [`SIGNING_LEASE`] after it last reached the store. Each change that is published renews the lease, and so
//! does each maintenance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::{Clock, SteadyClock, Timestamp};

use crate::authority::{Authority, IssueError, SIGNING_LEASE};

/// When the store was last reached, by two clocks: the system clock, which may be set, and a steady clock,
/// which nobody sets but which may stand still while the machine sleeps. Times are in seconds.
pub(super) struct Reached {
    at: AtomicU64,
    steady_at: AtomicU64,
    steady: SteadyClock,
}

/// The time just before the store is asked, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    at: Timestamp,
    steady_at: Timestamp,
}

impl Reached {
    /// The store is reached now: it was just opened.
    pub(super) fn new(clock: &Clock) -> Self {
        let steady = clock.steady();
        let (at, steady_at) = (clock.now().as_unix(), steady.now().as_unix());
        Self { at: AtomicU64::new(at), steady_at: AtomicU64::new(steady_at), steady }
    }

    /// Take this before asking the store: what the store then confirms is at least as recent.
    pub(super) fn moment(&self, now: Timestamp) -> Moment {
        Moment { at: now, steady_at: self.steady.now() }
    }

    /// Notes that the store has answered a question that was asked after this moment.
    pub(super) fn note(&self, moment: Moment) {
        // The system clock may have been set back, so its time is replaced, not only raised. The steady time
        // is only raised: a slow answer may be noted after a later one.
        self.at.store(moment.at.as_unix(), Ordering::Relaxed);
        self.steady_at.fetch_max(moment.steady_at.as_unix(), Ordering::Relaxed);
    }

    /// When the store was last reached, by the system clock.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_unix(self.at.load(Ordering::Relaxed))
    }

    /// How long ago the store was last reached, by the steady clock.
    pub(super) fn age(&self) -> Duration {
        let at = Timestamp::from_unix(self.steady_at.load(Ordering::Relaxed));
        self.steady.now().since(at)
    }
}

impl Authority {
    /// Tries to renew the signing lease by asking the store, and says whether that worked. It is for a process
    /// that slept past its lease. Only one caller tries at a time; for the others the answer is no.
    pub async fn renew_lease(&self, now: Timestamp) -> bool {
        // `try_lock`, so that requests do not queue up while the store cannot be reached.
        let Ok(_one) = self.renewing.try_lock() else { return false };
        let moment = self.reached.moment(now);
        let reached = self.store.reach().await.is_ok();
        if reached {
            self.reached.note(moment);
        }
        reached
    }

    /// Allows signing while the lease lasts. When it is over, tries to renew it first.
    ///
    /// # Errors
    /// When the lease is over and the store still cannot be reached, or the store is known to be an old copy.
    pub(super) async fn may_sign(&self, now: Timestamp) -> Result<(), IssueError> {
        if self.put_back.load(Ordering::Relaxed) {
            return Err(IssueError::PutBack);
        }
        if self.has_lease(now) || self.renew_lease(now).await {
            return Ok(());
        }
        Err(IssueError::LeaseOver)
    }

    /// Whether the lease lasts by both clocks. The system clock may have been set back; the steady clock stands
    /// still while the machine sleeps. So the longer of the two ages counts.
    pub(super) fn has_lease(&self, now: Timestamp) -> bool {
        now.since(self.reached.at()).max(self.reached.age()) <= SIGNING_LEASE
    }
}

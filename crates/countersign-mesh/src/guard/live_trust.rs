//! Where a guard's trust comes from: the latest bundle, how fresh it is, and whom to tell that a key
//! is missing.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::trust::TrustBundle;

/// A live trust bundle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
    /// `None` when the bundle always counts as fresh.
    freshness: Option<watch::Receiver<Freshness>>,
    when_stale: WhenStale,
    key_missing: Arc<Notify>,
}

/// Whether what is known is recent enough to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The issuer has confirmed it recently enough: within the maximum staleness.
    Fresh,
    /// It has not.
    Stale,
}

/// What a guard does while its trust is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenStale {
    /// It goes on with what it knows. A revocation that it has not heard of has no effect until the
    /// token expires, but an issuer that is down brings nobody else down.
    #[default]
    ServeStale,
    /// It refuses calls with UNAVAILABLE `TRUST_STALE` and ends streams, until its trust is fresh
    /// again. No token is accepted on older information.
    FailClosed,
}

impl Trust {
    /// Trust that is kept fresh by whoever holds the other half of the channel. The channel may begin
    /// without a bundle: until one comes, every token is refused with UNAVAILABLE. `key_missing` is
    /// notified when a token names a key that the bundle does not have; ignoring it is fine.
    pub fn live(
        bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
        key_missing: Arc<Notify>,
    ) -> Self {
        Self { bundle, freshness: None, when_stale: WhenStale::default(), key_missing }
    }

    /// The same trust, with a channel that says whether it is fresh, and what to do while it is not.
    /// Once nobody holds the other half of that channel any more, its last value counts; whoever leaves
    /// should send `Stale`.
    pub fn with_freshness(
        self,
        freshness: watch::Receiver<Freshness>,
        when_stale: WhenStale,
    ) -> Self {
        Self { freshness: Some(freshness), when_stale, ..self }
    }

    /// Trust that never changes.
    pub fn fixed(bundle: TrustBundle) -> Self {
        let (_, bundle) = watch::channel(Some(Arc::new(bundle)));
        Self::live(bundle, Arc::default())
    }

    /// The latest bundle, once there is one.
    pub fn bundle(&self) -> Option<Arc<TrustBundle>> {
        self.bundle.borrow().clone()
    }

    /// Whether there is a bundle, and the issuer has confirmed it recently enough.
    pub fn is_fresh(&self) -> bool {
        self.bundle.borrow().is_some() && !self.is_stale()
    }

    /// What becomes of calls while it is stale.
    pub fn when_stale(&self) -> WhenStale {
        self.when_stale
    }

    /// Waits for the next bundle, or until the one at hand turns stale or fresh. Waits forever when
    /// nothing can change any more.
    pub async fn changed(&mut self) {
        let Self { bundle, freshness, .. } = self;
        let freshness = async {
            match freshness {
                Some(freshness) => next(freshness).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = next(bundle) => {}
            () = freshness => {}
        }
    }

    /// Whether no token may be accepted now. Reads no clock: whoever feeds the freshness does.
    pub(super) fn fails_closed(&self) -> bool {
        match self.when_stale {
            WhenStale::ServeStale => false,
            WhenStale::FailClosed => self.is_stale(),
        }
    }

    pub(super) fn treated(self, when_stale: WhenStale) -> Self {
        Self { when_stale, ..self }
    }

    fn is_stale(&self) -> bool {
        self.freshness.as_ref().is_some_and(|freshness| *freshness.borrow() == Freshness::Stale)
    }

    pub(super) fn report_missing_key(&self) {
        self.key_missing.notify_one();
    }
}

async fn next<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        // The other half is gone, and nothing will change: returning would make waiters spin.
        std::future::pending::<()>().await;
    }
}

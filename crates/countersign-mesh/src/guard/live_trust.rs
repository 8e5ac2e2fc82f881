//! Where a guard's trust comes from: the latest bundle, how fresh it is, and whom to tell that a key
//! is missing.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::trust::TrustBundle;

/// A live trust bundle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
    /// None when it is always as fresh as can be.
    freshness: Option<watch::Receiver<Freshness>>,
    when_stale: WhenStale,
    key_missing: Arc<Notify>,
}

/// Whether what is known is recent enough to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The issuer has confirmed it within the longest time that it may be without.
    Fresh,
    /// It has not.
    Stale,
}

/// What a guard does while its trust is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenStale {
    /// It goes on with what it knows: a revocation that it has not heard of counts for nothing until
    /// the token expires. An issuer that is down brings nobody down.
    #[default]
    ServeStale,
    /// It refuses calls with UNAVAILABLE `TRUST_STALE` and ends streams, until its trust is fresh
    /// again: no token is accepted on older word than that.
    FailClosed,
}

impl Trust {
    /// Trust that is kept fresh by whoever holds the other half of the channel. It may begin with
    /// none: then every token is refused as one that cannot be verified yet. `key_missing` is notified
    /// of a token whose key the bundle does not have; ignoring it is fine.
    pub fn live(
        bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
        key_missing: Arc<Notify>,
    ) -> Self {
        Self { bundle, freshness: None, when_stale: WhenStale::default(), key_missing }
    }

    /// The same, watched over by someone who says whether it is fresh, and with what to do while it is
    /// not. When nobody holds the other half of this channel any more, the last word counts: who leaves
    /// should say `Stale`.
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

    /// Waits for the next bundle, or until the one at hand turns stale or fresh. Forever, when nothing
    /// will change.
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

    /// Whether nothing may be accepted by it. Reads no clock: whoever watches over it does.
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
        std::future::pending::<()>().await;
    }
}

//! Where a guard's trust comes from: the latest bundle, and whom to tell that a key is missing.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::watch;

use crate::trust::TrustBundle;

/// A live trust bundle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
    key_missing: Arc<Notify>,
}

impl Trust {
    /// Trust that is kept fresh by whoever holds the other half of the channel. It may begin with
    /// none: then every token is refused as one that cannot be verified yet. `key_missing` is notified
    /// of a token whose key the bundle does not have; ignoring it is fine.
    pub fn live(
        bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
        key_missing: Arc<Notify>,
    ) -> Self {
        Self { bundle, key_missing }
    }

    /// Trust that never changes.
    pub fn fixed(bundle: TrustBundle) -> Self {
        let (_, bundle) = watch::channel(Some(Arc::new(bundle)));
        Self { bundle, key_missing: Arc::default() }
    }

    /// The latest bundle, once there is one.
    pub fn bundle(&self) -> Option<Arc<TrustBundle>> {
        self.bundle.borrow().clone()
    }

    /// Waits for the next bundle. Forever, when there will be none.
    pub async fn changed(&mut self) {
        if self.bundle.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn report_missing_key(&self) {
        self.key_missing.notify_one();
    }
}

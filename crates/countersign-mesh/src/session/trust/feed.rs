//! Feeds a guard with one bundle, whoever brings it: the stream, a poll or the file. This module
//! decides whether a new bundle may replace the one before.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::claims::{Clock, Issuer};
use crate::guard::WhenStale;
use crate::session::trust::file::{self, Complete, Disbelief, Kept};
use crate::session::trust::freshness::Watch;
use crate::trust::{TrustBundle, TrustDelta};

/// How often the trust file is written at most, while a stream brings revocations one by one.
const WRITE_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// How often expired revocations are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Who feeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FedBy {
    /// Nobody at the moment: Countersign's stream is being opened, or opened again. Keys are polled
    /// only if the stream has never been up, and does not come up within a few seconds.
    Nobody,
    /// Countersign's stream, with keys and revocations as they happen.
    Stream,
    /// The JWK Set, now and then: Countersign has no stream for this client. Revocations do not come
    /// this way.
    Polling,
}

/// Why a bundle is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is another issuer's.
    OtherIssuer,
    /// It is older than the one at hand: the server's store was replaced by an old copy, or a cache
    /// answered.
    Older { held: u64, got: u64 },
    /// It builds on an epoch that is not at hand.
    Unfounded,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherIssuer => f.write_str("it is another issuer's"),
            Self::Older { held, got } => {
                write!(f, "epoch {got} is older than epoch {held}, which is at hand")
            }
            Self::Unfounded => f.write_str("it builds on what is not at hand"),
        }
    }
}

/// Feeds a guard.
pub(crate) struct Feed {
    bundles: watch::Sender<Option<Arc<TrustBundle>>>,
    complete: Mutex<Option<Complete>>,
    fed_by: watch::Sender<FedBy>,
    /// Whether a stream was ever up.
    had_stream: AtomicBool,
    /// The issuer whose bundles are accepted; `None` for the first that comes.
    issuer: Option<Issuer>,
    pub(crate) watch: Watch,
    clock: Clock,
    file: Option<PathBuf>,
    /// The epoch that was written last. The lock lets one writer at a time at the file.
    written: tokio::sync::Mutex<u64>,
    unwritten: Notify,
}

impl Feed {
    /// Begins with what is in the file.
    pub(crate) fn new(
        issuer: Option<Issuer>,
        file: Option<PathBuf>,
        watch: Watch,
        clock: Clock,
    ) -> Self {
        let (bundle, complete) = match kept(issuer.as_ref(), file.as_ref()) {
            Some(Kept { mut bundle, complete }) => {
                bundle.expire(clock.now());
                (Some(Arc::new(bundle)), complete)
            }
            None => (None, None),
        };
        Self {
            bundles: watch::Sender::new(bundle),
            complete: Mutex::new(complete),
            fed_by: watch::Sender::new(FedBy::Nobody),
            had_stream: AtomicBool::new(false),
            issuer,
            watch,
            clock,
            file,
            written: tokio::sync::Mutex::default(),
            unwritten: Notify::new(),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<TrustBundle>>> {
        self.bundles.subscribe()
    }

    /// Waits until nobody holds the trust any more.
    pub(crate) async fn closed(&self) {
        self.bundles.closed().await;
    }

    pub(crate) fn fed_by(&self) -> watch::Receiver<FedBy> {
        self.fed_by.subscribe()
    }

    pub(crate) fn had_stream(&self) -> bool {
        self.had_stream.load(Ordering::Acquire)
    }

    pub(crate) fn is_fed_by(&self, feeder: FedBy) {
        // Set before the change of `fed_by` can be seen: a poller that looks only when the stream is
        // lost again must know that there was one.
        if feeder == FedBy::Stream {
            self.had_stream.store(true, Ordering::Release);
        }
        self.fed_by.send_if_modified(|fed_by| std::mem::replace(fed_by, feeder) != feeder);
    }

    /// Logs that keys are polled from now on. For a guard that fails closed this is a warning: its
    /// owner would rather refuse calls than miss revocations.
    pub(crate) fn tell_polling(&self, why: &dyn fmt::Display) {
        match self.watch.when_stale() {
            WhenStale::ServeStale => {
                tracing::info!(%why, "no trust stream: keys are polled, and revocations not known");
            }
            WhenStale::FailClosed => tracing::warn!(
                %why,
                "no trust stream: keys are polled, and revocations not known, although the guard is to fail closed",
            ),
        }
    }

    /// The epoch, with its proof, from which the next stream goes on.
    pub(crate) fn complete(&self) -> Option<Complete> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the next stream begin with a snapshot. Until then, what is at hand stays in use.
    pub(crate) fn begin_anew(&self) {
        *self.complete.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether something of this issuer may be accepted.
    pub(crate) fn check_issuer(&self, issuer: &str) -> Result<(), NotTaken> {
        let known = self.bundles.borrow();
        let expected = self.issuer.as_ref().or(known.as_ref().map(|known| &known.issuer));
        match expected {
            Some(expected) if expected.as_str() != issuer => Err(NotTaken::OtherIssuer),
            _ => Ok(()),
        }
    }

    /// Accepts a snapshot from a stream.
    pub(crate) fn replace(
        &self,
        issuer: Issuer,
        snapshot: TrustDelta,
        proof: Vec<u8>,
    ) -> Result<(), NotTaken> {
        self.check_issuer(issuer.as_str())?;
        self.publish(TrustBundle::from_snapshot(issuer, snapshot), proof)
    }

    /// Applies a delta from a stream.
    pub(crate) fn change(&self, delta: TrustDelta, proof: Vec<u8>) -> Result<(), NotTaken> {
        let known = self.bundles.borrow().clone();
        let (Some(known), Some(complete)) = (known, self.complete()) else {
            return Err(NotTaken::Unfounded);
        };
        // A poll may have raised the epoch without bringing revocations, so the delta is applied at the
        // stream's own epoch. It brings all keys.
        let mut bundle = TrustBundle { epoch: complete.epoch, ..TrustBundle::clone(&known) };
        let (held, got) = (complete.epoch, delta.to);
        if got < held {
            return Err(NotTaken::Older { held, got });
        }
        bundle.apply(delta).map_err(|_| NotTaken::Unfounded)?;
        self.publish(bundle, proof)
    }

    /// Publishes a bundle. Guards see it when this returns, so that an acknowledgement sent afterwards
    /// holds.
    fn publish(&self, mut bundle: TrustBundle, proof: Vec<u8>) -> Result<(), NotTaken> {
        bundle.expire(self.clock.now());
        let got = bundle.epoch;
        let mut older = None;
        self.bundles.send_if_modified(|known| {
            older = known.as_ref().map(|known| known.epoch).filter(|held| got < *held);
            if older.is_none() {
                *known = Some(Arc::new(bundle));
            }
            older.is_none()
        });
        if let Some(held) = older {
            return Err(NotTaken::Older { held, got });
        }
        *self.complete.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Complete { epoch: got, proof });
        self.unwritten.notify_one();
        Ok(())
    }

    /// Accepts keys that were polled. What is known to be revoked stays revoked, since polls bring no
    /// revocations. The file is written before guards see the keys: after a restart, nothing older is
    /// accepted than what was trusted once.
    pub(crate) async fn take_keys(&self, polled: TrustBundle) -> Result<(), NotTaken> {
        self.check_issuer(polled.issuer.as_str())?;
        let known = self.bundles.borrow().clone();
        match merged(known.as_deref(), &polled)? {
            Some(bundle) => self.write(bundle).await,
            None => return Ok(()),
        }
        // A stream may have brought more while the file was written, so the keys are merged again.
        self.bundles.send_if_modified(|known| {
            let Ok(Some(bundle)) = merged(known.as_deref(), &polled) else { return false };
            let has_other_keys = known.as_ref().is_none_or(|known| known.keys != bundle.keys);
            *known = Some(Arc::new(bundle));
            has_other_keys
        });
        Ok(())
    }

    /// Writes the file after changes, and forgets what has expired. Never ends.
    pub(crate) async fn keep_house(&self) {
        let write = async {
            loop {
                self.unwritten.notified().await;
                let bundle = self.bundles.borrow().clone();
                if let Some(bundle) = bundle {
                    self.write(TrustBundle::clone(&bundle)).await;
                }
                sleep(WRITE_AT_MOST_EVERY).await;
            }
        };
        let expire = async {
            loop {
                sleep(EXPIRE_EVERY).await;
                self.expire();
            }
        };
        tokio::join!(write, expire);
    }

    fn expire(&self) {
        let now = self.clock.now();
        self.bundles.send_if_modified(|known| {
            if let Some(known) = known.as_mut().filter(|known| known.revocations.has_expired(now)) {
                Arc::make_mut(known).expire(now);
            }
            // Guards are not woken: no call would notice the difference.
            false
        });
    }

    async fn write(&self, bundle: TrustBundle) {
        let Some(path) = self.file.clone() else { return };
        let mut written = self.written.lock().await;
        // Another write has put a later epoch there meanwhile.
        if bundle.epoch < *written {
            return;
        }
        *written = bundle.epoch;
        let shown = path.display().to_string();
        let kept = Kept { bundle, complete: self.complete() };
        let done = tokio::task::spawn_blocking(move || file::write(&path, &kept)).await;
        match done.map_err(std::io::Error::other) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(path = shown, %error, "the trust file is not written");
            }
        }
    }
}

/// Merges polled keys with what is known; `None` when they bring nothing new.
fn merged(
    known: Option<&TrustBundle>,
    polled: &TrustBundle,
) -> Result<Option<TrustBundle>, NotTaken> {
    let Some(known) = known else { return Ok(Some(polled.clone())) };
    if polled.epoch < known.epoch {
        return Err(NotTaken::Older { held: known.epoch, got: polled.epoch });
    }
    let is_new = known.epoch < polled.epoch || known.keys != polled.keys;
    let revocations = known.revocations.clone();
    Ok(is_new.then(|| TrustBundle { revocations, ..polled.clone() }))
}

/// What the file holds from an earlier run.
fn kept(issuer: Option<&Issuer>, file: Option<&PathBuf>) -> Option<Kept> {
    let (Some(path), Some(issuer)) = (file, issuer) else { return None };
    match file::read(path, issuer) {
        Ok(kept) => {
            let epoch = kept.bundle.epoch;
            tracing::info!(path = %path.display(), epoch, "keys from the trust file");
            Some(kept)
        }
        Err(Disbelief::Absent) => None,
        Err(disbelief) => {
            tracing::warn!(path = %path.display(), %disbelief, "the trust file is ignored");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Timestamp, TokenId};
    use crate::guard::WhenStale;
    use crate::keys::{KeySet, SigningKey};

    #[test]
    fn expired_revocations_are_forgotten_without_waking_guards() {
        let clock = Clock::fixed(Timestamp::from_unix(1_000));
        let watch = Watch::new("here", None, WhenStale::ServeStale);
        let feed = Feed::new(None, None, watch, clock.clone());
        let mut bundles = feed.subscribe();
        let id = |text| TokenId::new(text).expect("a token id");
        let until = Timestamp::from_unix;
        let snapshot = TrustDelta {
            from: 0,
            to: 1,
            keys: KeySet::from_iter([SigningKey::from_seed(&[1; 32]).public().clone()]),
            revoked_keys: Vec::new(),
            tokens: vec![(id("one"), until(1_010)), (id("two"), until(1_020))],
            clients: Vec::new(),
        };
        let issuer = Issuer::new("https://issuer.test").expect("an issuer");
        feed.replace(issuer, snapshot, Vec::new()).expect("there is none yet");
        let knows = |name| {
            let bundle = feed.subscribe().borrow().clone().expect("there is a bundle");
            bundle.revocations.token(&id(name)).is_some()
        };
        bundles.mark_unchanged();
        feed.expire();
        assert!(knows("one") && knows("two"));
        clock.set(until(1_010));
        feed.expire();
        assert!(!knows("one") && knows("two"));
        assert!(!bundles.has_changed().expect("the feed is there"));
    }
}

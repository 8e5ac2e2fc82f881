//! How old what a guard knows is, and what operators see of that.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::claims::MAX_TOKEN_LIFE;
use crate::guard::Freshness;
use crate::guard::WhenStale;

/// How old keys and revocations may become where nobody says: neither the server nor the program.
pub(super) const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(5 * 60);

/// How often the age is shown.
const SHOW_EVERY: Duration = Duration::from_secs(5);

/// Watches over the age of what is known. Ages are counted by a clock that nobody sets, from when the
/// issuer's store confirmed it and not from when we were told: a server that is cut off from its store
/// and still sends cannot make us believe that we are up to date.
pub(super) struct Watch {
    confirmed: Mutex<Option<Confirmed>>,
    state: watch::Sender<Freshness>,
    renewed: Notify,
    /// What the program demands.
    longest: Option<Duration>,
    when_stale: WhenStale,
}

/// The last word on what is known.
#[derive(Clone, Copy)]
struct Confirmed {
    heard_at: Instant,
    /// How old the word was when it was heard.
    age: Duration,
    max_staleness: Duration,
}

impl Confirmed {
    fn age(&self) -> Duration {
        self.age.saturating_add(self.heard_at.elapsed())
    }

    fn deadline(&self) -> Instant {
        self.heard_at + self.max_staleness.saturating_sub(self.age)
    }

    /// Whether this was confirmed after, or with, an earlier one.
    fn follows(&self, earlier: &Self) -> bool {
        let since = self.heard_at.saturating_duration_since(earlier.heard_at);
        self.age <= earlier.age.saturating_add(since)
    }
}

impl Watch {
    pub(super) fn new(longest: Option<Duration>, when_stale: WhenStale) -> Self {
        Self {
            confirmed: Mutex::default(),
            // What is kept in a file is not fresh: nobody knows what was revoked meanwhile.
            state: watch::Sender::new(Freshness::Stale),
            renewed: Notify::new(),
            longest,
            when_stale,
        }
    }

    pub(super) fn when_stale(&self) -> WhenStale {
        self.when_stale
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Freshness> {
        self.state.subscribe()
    }

    /// Takes note of a word that was so old when it was heard. `max_staleness` is what the server
    /// said, if it did; the program's own limit counts where it is stricter.
    pub(super) fn confirm(
        &self,
        heard_at: Instant,
        age: Duration,
        max_staleness: Option<Duration>,
    ) {
        let max_staleness = max_staleness
            .unwrap_or(DEFAULT_MAX_STALENESS)
            .min(self.longest.unwrap_or(MAX_TOKEN_LIFE))
            .min(MAX_TOKEN_LIFE);
        let word = Confirmed { heard_at, age, max_staleness };
        {
            let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            if confirmed.is_some_and(|confirmed| !word.follows(&confirmed)) {
                return;
            }
            *confirmed = Some(word);
        }
        self.look();
        self.renewed.notify_one();
    }

    /// How old what is known is, once something was confirmed.
    pub(super) fn age(&self) -> Option<Duration> {
        self.confirmed().map(|confirmed| confirmed.age())
    }

    /// Sees that it turns stale in time. Never ends.
    pub(super) async fn keep_looking(&self) {
        loop {
            self.look();
            let show_at = Instant::now() + SHOW_EVERY;
            let deadline = self.confirmed().map(|confirmed| confirmed.deadline());
            let wake_at = deadline
                .filter(|deadline| *deadline > Instant::now())
                .map_or(show_at, |deadline| deadline.min(show_at));
            tokio::select! {
                () = sleep_until(wake_at) => {}
                () = self.renewed.notified() => {}
            }
        }
    }

    fn confirmed(&self) -> Option<Confirmed> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let confirmed = self.confirmed();
        let is_fresh = confirmed.is_some_and(|confirmed| Instant::now() < confirmed.deadline());
        let now = if is_fresh { Freshness::Fresh } else { Freshness::Stale };
        let before = *self.state.borrow();
        self.state.send_if_modified(|state| std::mem::replace(state, now) != now);
        let age = confirmed.map(|confirmed| confirmed.age());
        let seconds = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        gauge!("countersign_trust_age_seconds").set(seconds);
        gauge!("countersign_trust_stale").set(if is_fresh { 0.0 } else { 1.0 });
        let age_seconds = age.unwrap_or_default().as_secs();
        match (before, now, self.when_stale) {
            (Freshness::Fresh, Freshness::Stale, WhenStale::ServeStale) => tracing::warn!(
                age_seconds,
                "keys and revocations are stale; they are used on, as was chosen"
            ),
            (Freshness::Fresh, Freshness::Stale, WhenStale::FailClosed) => tracing::error!(
                age_seconds,
                "keys and revocations are stale; calls are refused until they are fresh again"
            ),
            (Freshness::Stale, Freshness::Fresh, _) => {
                tracing::info!(age_seconds, "keys and revocations are fresh");
            }
            (Freshness::Fresh, Freshness::Fresh, _) | (Freshness::Stale, Freshness::Stale, _) => {}
        }
    }
}

/// Whoever still holds the other half has nobody to watch over it any more.
impl Drop for Watch {
    fn drop(&mut self) {
        self.state.send_replace(Freshness::Stale);
    }
}

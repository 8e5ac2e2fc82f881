//! How old what a guard knows is, and what operators see of that.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, counter, gauge};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::claims::MAX_TOKEN_LIFE;
use crate::guard::{Freshness, WhenStale};

/// How old keys and revocations may become when neither the server nor the program says.
pub(crate) const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(5 * 60);

/// How often the metric of the age is updated.
const SHOW_EVERY: Duration = Duration::from_secs(5);

/// Watches the age of what is known. Ages are counted by the monotonic clock, from when the issuer's
/// store confirmed it, not from when we were told. So a server that is cut off from its store, but
/// still sends, cannot make us believe that we are up to date.
pub(crate) struct Watch {
    /// Where it comes from, in metrics: a process may trust several issuers.
    source: Label,
    confirmed: Mutex<Option<Confirmed>>,
    state: watch::Sender<Freshness>,
    renewed: Notify,
    /// The program's own limit, if it has one.
    longest: Option<Duration>,
    when_stale: WhenStale,
}

/// The last confirmation of what is known.
#[derive(Clone, Copy)]
struct Confirmed {
    heard_at: Instant,
    /// How old the confirmation was when it was heard.
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

    /// Whether the store confirmed this after, or together with, an earlier one.
    fn follows(&self, earlier: &Self) -> bool {
        let since = self.heard_at.saturating_duration_since(earlier.heard_at);
        self.age <= earlier.age.saturating_add(since)
    }
}

impl Watch {
    pub(crate) fn new(source: &str, longest: Option<Duration>, when_stale: WhenStale) -> Self {
        Self {
            source: Label::new("source", source.to_owned()),
            confirmed: Mutex::default(),
            // What is kept in a file is not fresh: nobody knows what was revoked meanwhile.
            state: watch::Sender::new(Freshness::Stale),
            renewed: Notify::new(),
            longest,
            when_stale,
        }
    }

    pub(crate) fn when_stale(&self) -> WhenStale {
        self.when_stale
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Freshness> {
        self.state.subscribe()
    }

    /// Takes note of a confirmation that was `age` old when it was heard. One that is older than the
    /// last is ignored. `max_staleness` is what the server said, if it did; the program's own limit
    /// counts where it is stricter.
    pub(crate) fn confirm(
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
            // Released before `look` takes the lock itself.
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
    pub(crate) fn age(&self) -> Option<Duration> {
        self.confirmed().map(|confirmed| confirmed.age())
    }

    /// Turns the state stale as soon as it is. Never ends.
    pub(crate) async fn keep_looking(&self) {
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

    /// Counts a stream that was up and was lost.
    pub(crate) fn lost_stream(&self) {
        counter!("countersign_trust_reconnects_total", self.labels()).increment(1);
    }

    fn labels(&self) -> std::slice::Iter<'_, Label> {
        std::slice::from_ref(&self.source).iter()
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
        gauge!("countersign_trust_age_seconds", self.labels()).set(seconds);
        gauge!("countersign_trust_stale", self.labels()).set(if is_fresh { 0.0 } else { 1.0 });
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

/// Whoever still holds the other half of the channel is told `Stale`: nobody watches the age any more.
impl Drop for Watch {
    fn drop(&mut self) {
        self.state.send_replace(Freshness::Stale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_confirmation_changes_nothing() {
        let watch = Watch::new("here", None, WhenStale::FailClosed);
        watch.confirm(Instant::now(), seconds(10), Some(MINUTE));
        tokio::time::advance(seconds(5)).await;
        watch.confirm(Instant::now(), seconds(16), Some(MINUTE));
        assert_eq!(watch.age(), Some(seconds(15)));
        watch.confirm(Instant::now(), seconds(14), Some(MINUTE));
        assert_eq!(watch.age(), Some(seconds(14)));
        watch.confirm(Instant::now(), Duration::MAX, Some(MINUTE));
        assert_eq!(watch.age(), Some(seconds(14)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_at_most_the_longest_life_of_a_token() {
        let watch = Watch::new("here", None, WhenStale::FailClosed);
        watch.confirm(Instant::now(), Duration::ZERO, Some(Duration::MAX));
        tokio::time::advance(MAX_TOKEN_LIFE - seconds(1)).await;
        watch.look();
        assert_eq!(*watch.subscribe().borrow(), Freshness::Fresh);
        tokio::time::advance(seconds(1)).await;
        watch.look();
        assert_eq!(*watch.subscribe().borrow(), Freshness::Stale);
    }

    #[tokio::test]
    async fn trust_is_stale_once_nobody_watches_its_age() {
        let watch = Watch::new("here", None, WhenStale::FailClosed);
        let state = watch.subscribe();
        watch.confirm(Instant::now(), Duration::ZERO, None);
        assert_eq!(*state.borrow(), Freshness::Fresh);
        drop(watch);
        assert_eq!(*state.borrow(), Freshness::Stale);
    }
}

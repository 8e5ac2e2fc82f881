//! Clocks: one that says what time it is, and one that says how much time has passed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::claims::Timestamp;

/// The clock that the edges read. Everything within takes `now` as an argument.
#[derive(Debug, Clone)]
pub struct Clock(Option<Arc<Fixed>>);

/// Measures how long something takes, even if someone sets the clock meanwhile. It starts at that
/// clock's time, and from then on moves only as time passes.
#[derive(Debug, Clone)]
pub struct SteadyClock {
    clock: Clock,
    began: Instant,
    began_at: Timestamp,
}

#[derive(Debug)]
struct Fixed {
    now: AtomicU64,
    /// By how much the clock was set without time passing: the sum of all steps, in seconds.
    stepped: AtomicI64,
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is set; its clones are the same clock.
    pub fn fixed(now: Timestamp) -> Self {
        Self(Some(Arc::new(Fixed { now: AtomicU64::new(now.0), stepped: AtomicI64::new(0) })))
    }

    /// Moves a fixed clock to this time, as if the time between had passed. The system's clock stays as
    /// it is.
    pub fn set(&self, now: Timestamp) {
        if let Some(fixed) = &self.0 {
            fixed.now.store(now.0, Ordering::SeqCst);
        }
    }

    /// Corrects a fixed clock to this time, as one corrects a clock that is wrong: no time passes, and
    /// steady clocks do not move.
    pub fn step(&self, now: Timestamp) {
        if let Some(fixed) = &self.0 {
            let before = fixed.now.swap(now.0, Ordering::SeqCst);
            fixed.stepped.fetch_add(now.0.wrapping_sub(before).cast_signed(), Ordering::SeqCst);
        }
    }

    /// A [`SteadyClock`] that starts now, at this clock's time.
    pub fn steady(&self) -> SteadyClock {
        SteadyClock { clock: self.clone(), began: Instant::now(), began_at: self.now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(fixed) => Timestamp(fixed.now.load(Ordering::SeqCst)),
            // A system clock that shows a time before 1970 reads as 1970. The server refuses to start
            // with such a clock, see `KeyRing`.
            None => Timestamp(
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs()),
            ),
        }
    }
}

impl SteadyClock {
    /// The time at which it started, plus the time that has passed. Not for dates: the other clock may
    /// have been set since.
    pub fn now(&self) -> Timestamp {
        match &self.clock.0 {
            Some(fixed) => {
                let stepped = fixed.stepped.load(Ordering::SeqCst);
                Timestamp(self.clock.now().0.saturating_add_signed(stepped.wrapping_neg()))
            }
            None => self.began_at + self.began.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_clock_goes_on_when_the_other_is_set() {
        let clock = Clock::fixed(Timestamp(1_000));
        let steady = clock.steady();
        clock.set(Timestamp(1_010));
        assert_eq!(steady.now(), Timestamp(1_010));
        clock.step(Timestamp(5_000));
        clock.set(Timestamp(5_001));
        assert_eq!((clock.now(), steady.now()), (Timestamp(5_001), Timestamp(1_011)));
        clock.step(Timestamp(1));
        assert_eq!((clock.now(), steady.now()), (Timestamp(1), Timestamp(1_011)));

        let (clock, earliest) = (Clock::system(), Clock::system().now());
        let steady = clock.steady().now();
        assert!(earliest <= steady && steady <= clock.now());
    }
}

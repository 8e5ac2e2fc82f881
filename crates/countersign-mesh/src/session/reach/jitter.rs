//! Randomness in waits, so that a fleet that was cut off together does not come back together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The source of randomness for a session's waits. Cheap to clone; all clones draw from one sequence.
#[derive(Debug, Clone, Default)]
pub struct Jitter(Option<Arc<AtomicU64>>);

impl Jitter {
    /// The system's randomness.
    pub const fn system() -> Self {
        Self(None)
    }

    /// The same sequence for the same seed, so that a simulation can be repeated. In a fleet each
    /// session needs a seed of its own.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// A random number from zero to one.
    pub(crate) fn fraction(&self) -> f64 {
        let drawn = match &self.0 {
            Some(state) => split_mix(state),
            // Nothing secret: without randomness the middle will do.
            None => getrandom::u32().unwrap_or(u32::MAX / 2),
        };
        f64::from(drawn) / f64::from(u32::MAX)
    }

    /// A random wait in the upper half of `longest`, so that a fleet that started together drifts
    /// apart.
    pub(crate) fn spread(&self, longest: Duration) -> Duration {
        longest.mul_f64(0.5 + self.fraction() / 2.0)
    }
}

/// SplitMix64. One addition advances its state, so that an atomic is enough.
fn split_mix(state: &AtomicU64) -> u32 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits are left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_sequence_again_and_another_seed_another() {
        let draw = |seed| {
            let jitter = Jitter::seeded(seed);
            let other_handle = jitter.clone();
            [jitter.fraction(), other_handle.fraction(), jitter.fraction()].map(f64::to_bits)
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let [first, second, third] = draw(7);
        assert!(first != second && second != third, "clones draw from one sequence");
    }

    #[test]
    fn a_spread_wait_is_in_its_upper_half() {
        let longest = Duration::from_secs(10);
        for jitter in [Jitter::system(), Jitter::seeded(1)] {
            for _ in 0..100 {
                let wait = jitter.spread(longest);
                assert!(wait >= longest / 2 && wait <= longest, "{wait:?}");
            }
        }
    }
}

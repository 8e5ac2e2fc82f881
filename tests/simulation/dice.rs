//! Random numbers from a seed: SplitMix64.

use std::time::Duration;

pub struct Dice(u64);

impl Dice {
    /// A sequence for one user of the seed, independent of the others'.
    pub fn new(seed: u64, whose: u64) -> Self {
        let mut dice = Self(seed ^ whose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from zero to below `many`.
    pub fn below(&mut self, many: u64) -> u64 {
        self.next() % many
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = self.below(of.len().try_into().expect("few"));
        of[usize::try_from(index).expect("few")]
    }

    /// A duration between two numbers of milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

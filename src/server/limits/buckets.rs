//! Token buckets in a table of a fixed size, which no attacker can make grow.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::Timestamp;

use crate::server::limits::throttled::Throttled;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// The time between two: a microsecond or more.
    pub(super) every: Duration,
    /// How many may be taken at once.
    pub(super) burst: u32,
}

/// Buckets by hashed key. All are full at first.
///
/// A bucket is one number. Its upper bits are part of the key's hash, the tag. Its lower bits are the time at which it
/// will be full again, from which its content follows (the generic cell rate algorithm). A hash chooses a few
/// neighbouring slots. When other keys have all of them, the one that is full soonest is forgotten. So a flood of
/// made-up keys makes the table forget. It takes one key for another with a chance of one in millions, which nobody
/// can steer because the hash is keyed.
pub(super) struct Buckets {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
    /// All times are in microseconds since [`EPOCH`].
    every: u64,
    /// How far ahead the time may lie at which a bucket is full again, for it to still hold one.
    reach: u64,
    /// The latest time at which some bucket becomes full again: from then on all are.
    all_full_at: AtomicU64,
}

/// Times are counted from here: 2024-01-01. Their bits are enough for 35 years.
const EPOCH: Timestamp = Timestamp::from_unix(1_704_067_200);

const TIME_BITS: u32 = 50;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// The longest time that a bucket takes to fill: more than a year.
const LONGEST: u64 = 1 << 45;

/// How many slots one hash chooses among.
const NEIGHBOURS: usize = 4;

/// How often a change is tried again while others change the same slot. Not counting one does no harm.
const TRIES: usize = 4;

impl Buckets {
    /// `slots` is a power of two.
    pub(super) fn new(slots: usize, rate: Rate) -> Self {
        let every = u64::try_from(rate.every.as_micros()).unwrap_or(LONGEST).clamp(1, LONGEST);
        let reach = every.saturating_mul(u64::from(rate.burst.max(1) - 1)).min(LONGEST);
        Self {
            slots: (0..slots.next_power_of_two().max(NEIGHBOURS))
                .map(|_| AtomicU64::new(0))
                .collect(),
            hasher: RandomState::new(),
            every,
            reach,
            all_full_at: AtomicU64::new(0),
        }
    }

    /// Whether there is one in the bucket.
    pub(super) fn check<K: Hash>(&self, key: &K, now: Timestamp) -> Result<(), Throttled> {
        let now = micros(now);
        if self.all_full_at.load(Ordering::Relaxed) <= now {
            return Ok(());
        }
        let (set, tag) = self.place(key);
        let slots = set.iter().map(|slot| slot.load(Ordering::Relaxed));
        let full_at = slots.filter_map(|slot| self.full_at(slot, tag, now)).max();
        match full_at.unwrap_or(now).saturating_sub(now + self.reach) {
            0 => Ok(()),
            // The time is known in whole seconds only.
            wait => Err(Throttled { retry_after: Duration::from_secs(wait.div_ceil(1_000_000)) }),
        }
    }

    /// Takes one from the bucket, if one is there.
    pub(super) fn take<K: Hash>(&self, key: &K, now: Timestamp) {
        let now = micros(now);
        let (set, tag) = self.place(key);
        for _ in 0..TRIES {
            let seen: [u64; NEIGHBOURS] = std::array::from_fn(|at| set[at].load(Ordering::Relaxed));
            let own = seen.iter().position(|slot| self.full_at(*slot, tag, now).is_some());
            let at = own.unwrap_or_else(|| {
                let soonest = (0..NEIGHBOURS).min_by_key(|at| seen[*at] & TIME);
                soonest.unwrap_or_default()
            });
            let full_at = if own.is_some() { seen[at] & TIME } else { now };
            // Bounded, so that many who take at once never empty it for longer than one would.
            let full_at = (full_at + self.every).min(now + self.reach + self.every) & TIME;
            let changed = set[at].compare_exchange(
                seen[at],
                tag | full_at,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if changed.is_ok() {
                self.all_full_at.fetch_max(full_at, Ordering::Relaxed);
                return;
            }
        }
    }

    /// When the bucket with this tag will be full again, if this slot holds it. A time too far ahead was written before
    /// the clock was set back, and counts for nothing.
    fn full_at(&self, slot: u64, tag: u64, now: u64) -> Option<u64> {
        let full_at = slot & TIME;
        let possible = now..=now + self.reach + self.every;
        (slot & !TIME == tag && possible.contains(&full_at)).then_some(full_at)
    }

    /// The slots that a key may be in, and the bits that tell it from others there.
    fn place<K: Hash>(&self, key: &K) -> (&[AtomicU64], u64) {
        let hash = self.hasher.hash_one(key);
        let sets = self.slots.len() / NEIGHBOURS;
        // The lower bits: the tag has the upper ones.
        let set = usize::try_from(hash & TIME).unwrap_or_default() % sets * NEIGHBOURS;
        (&self.slots[set..set + NEIGHBOURS], hash & !TIME)
    }
}

fn micros(now: Timestamp) -> u64 {
    now.since(EPOCH).as_micros().try_into().unwrap_or(TIME).min(TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn buckets(slots: usize) -> Buckets {
        Buckets::new(slots, Rate { every: Duration::from_secs(10), burst: 3 })
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let buckets = buckets(64);
        for taken in 0..3 {
            assert_eq!(buckets.check(&"key", NOW), Ok(()), "{taken}");
            buckets.take(&"key", NOW);
        }
        let wait = |now| buckets.check(&"key", now).expect_err("it is empty").retry_after.as_secs();
        assert_eq!(wait(NOW), 10);
        assert_eq!(wait(NOW + Duration::from_secs(9)), 1);
        assert_eq!(buckets.check(&"other", NOW), Ok(()));

        // Taking from an empty bucket makes nobody wait longer.
        (0..1000).for_each(|_| buckets.take(&"key", NOW));
        assert_eq!(wait(NOW), 10);
        assert_eq!(buckets.check(&"key", NOW + Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let buckets = buckets(64);
        (0..3).for_each(|_| buckets.take(&"key", NOW));
        assert!(buckets.check(&"key", NOW).is_err());
        let before = Timestamp::from_unix(NOW.as_unix() - 100);
        for now in [before, Timestamp::from_unix(0)] {
            assert_eq!(buckets.check(&"key", now), Ok(()));
            (0..3).for_each(|_| buckets.take(&"key", now));
            assert!(buckets.check(&"key", now).is_err(), "it counts from there");
        }
    }

    #[test]
    fn a_flood_of_keys_makes_it_forget_and_blames_nobody_else() {
        let buckets = buckets(64);
        (0..100_000).for_each(|key| buckets.take(&key, NOW));
        let blamed = (200_000..300_000).filter(|key| buckets.check(key, NOW).is_err()).count();
        assert!(blamed < 100, "{blamed} of a hundred thousand");
        assert_eq!(buckets.slots.len(), 64);
    }
}

//! When the night's work begins.

/// From a time, in seconds since 1970, to the next 02:00 UTC: one second at least, a day at most.
pub fn seconds_until_two(now: u64) -> u64 {
    const DAY: u64 = 24 * 60 * 60;
    const TWO: u64 = 2 * 60 * 60;
    DAY - (now + DAY - TWO) % DAY
}

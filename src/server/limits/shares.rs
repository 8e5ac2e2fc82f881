//! The share of something that one address may have at a time, which is never all of it.
//!
//! Shares are counted in a table of a fixed size, by a keyed hash. Two addresses that fall into one slot have one share
//! between them. Nobody can steer which.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::limits::Origin;

/// How many addresses are told apart.
const SLOTS: usize = 4096;

/// The shares of all addresses in something that is limited.
#[derive(Clone)]
pub(in crate::server) struct Shares(Arc<Table>);

struct Table {
    taken: Box<[AtomicUsize]>,
    hasher: RandomState,
    most: usize,
}

impl Shares {
    /// Three quarters of `most` for one address: enough for a proxy that hides all clients, and little enough that an
    /// attacker leaves something to the others.
    pub(in crate::server) fn of(all: usize) -> Self {
        let taken = (0..SLOTS).map(|_| AtomicUsize::new(0)).collect();
        Self(Arc::new(Table { taken, hasher: RandomState::new(), most: all - all / 4 }))
    }

    /// Takes one, if this address has not had its share.
    pub(in crate::server) fn take(&self, peer: Option<IpAddr>) -> Option<Taken> {
        let hash = self.0.hasher.hash_one(Origin::of(peer));
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        let before = self.0.taken[slot].fetch_add(1, Ordering::Relaxed);
        // Given back right here if it is one too many.
        let taken = Taken { table: Arc::clone(&self.0), slot };
        (before < self.0.most).then_some(taken)
    }
}

/// One that an address has until this is dropped.
pub(in crate::server) struct Taken {
    table: Arc<Table>,
    slot: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.table.taken[self.slot].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().expect("an address"))
    }

    #[test]
    fn one_address_gets_three_quarters_and_has_them_again_when_they_are_given_back() {
        let shares = Shares::of(8);
        let mut taken: Vec<Taken> = (0..6).filter_map(|_| shares.take(at("192.0.2.1"))).collect();
        assert_eq!(taken.len(), 6);
        assert!(shares.take(at("192.0.2.1")).is_none());
        assert!(shares.take(at("::ffff:192.0.2.1")).is_none(), "the same address");
        taken.pop();
        assert!(shares.take(at("192.0.2.1")).is_some());
        assert_eq!(Shares::of(1).0.most, 1);
        assert_eq!(Shares::of(2).0.most, 2);
    }

    #[test]
    fn a_network_is_one_and_others_have_theirs() {
        let shares = Shares::of(4);
        let taken: Vec<Option<Taken>> =
            (1..4).map(|n| shares.take(at(&format!("2001:db8::{n}")))).collect();
        assert!(taken.iter().all(Option::is_some));
        assert!(shares.take(at("2001:db8::9")).is_none());
        // One of them may share its place in the table; all of them do not.
        let others = (1..5).filter(|n| shares.take(at(&format!("198.51.100.{n}"))).is_some());
        assert!(others.count() >= 2);
    }
}

//! Which assertions have been used: each is good once (RFC 7523 §3, item 7).
//!
//! The memory is of this process alone. What another may have accepted before it started is refused by
//! when it was signed, and replicas need clients to sign for one of them at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use countersign_mesh::claims::{ClientId, Timestamp};
use sha2::{Digest, Sha256};

/// How many are remembered at a time, of all clients: some twenty megabytes.
const MAX_REMEMBERED: usize = 1 << 18;

/// How many of one client: sixty a second, all the time. Who asks for more is refused before others are.
const MAX_OF_A_CLIENT: usize = 1 << 12;

/// Why an assertion cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It has been used, or may have been.
    Used,
    /// There is no room to remember it in.
    NoRoom,
}

/// The assertions that have been used and whose time is not over.
#[derive(Default)]
pub(super) struct UsedAssertions(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    used: HashSet<Fingerprint>,
    of_client: HashMap<ClientId, usize>,
    ending: BTreeMap<Timestamp, Vec<(Fingerprint, ClientId)>>,
    forgotten_until: Option<Timestamp>,
}

/// 128 bits of a hash: a collision, which takes 2^64 tries, has its maker refused.
type Fingerprint = [u8; 16];

impl UsedAssertions {
    /// Uses an assertion whose signature was right. Nobody can use it again before `end`, and by then
    /// it has expired.
    pub(super) fn use_up(
        &self,
        client: &ClientId,
        id: &str,
        end: Timestamp,
        now: Timestamp,
    ) -> Result<(), Unusable> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget(now);
        // The clock was set back: what has been forgotten could come again.
        if memory.forgotten_until.is_some_and(|until| end <= until) {
            return Err(Unusable::Used);
        }
        let fingerprint = fingerprint(client, id);
        if memory.used.contains(&fingerprint) {
            return Err(Unusable::Used);
        }
        let of_client = memory.of_client.get(client).copied().unwrap_or_default();
        if of_client >= MAX_OF_A_CLIENT || memory.used.len() >= MAX_REMEMBERED {
            return Err(Unusable::NoRoom);
        }
        memory.used.insert(fingerprint);
        memory.of_client.insert(client.clone(), of_client + 1);
        memory.ending.entry(end).or_default().push((fingerprint, client.clone()));
        Ok(())
    }
}

impl Memory {
    fn forget(&mut self, now: Timestamp) {
        while let Some(first) = self.ending.first_entry().filter(|first| *first.key() <= now) {
            self.forgotten_until = self.forgotten_until.max(Some(*first.key()));
            for (fingerprint, client) in first.remove() {
                self.used.remove(&fingerprint);
                if let Some(count) = self.of_client.get_mut(&client) {
                    *count -= 1;
                    if *count == 0 {
                        self.of_client.remove(&client);
                    }
                }
            }
        }
    }
}

fn fingerprint(client: &ClientId, id: &str) -> Fingerprint {
    // No client id has a zero byte in it, so that no two pairs are the same text.
    let digest =
        Sha256::new().chain_update(client.as_str()).chain_update([0]).chain_update(id).finalize();
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&digest[..16]);
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(NOW.as_unix() + seconds)
    }

    fn client(name: &str) -> ClientId {
        ClientId::new(name).expect("a client id")
    }

    #[test]
    fn an_id_is_good_once_for_each_client_until_its_time_is_over() {
        let used = UsedAssertions::default();
        let (order, cron) = (client("order"), client("cron"));
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "1", at(70), at(64)), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "2", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&cron, "1", at(65), NOW), Ok(()));
        // By now it has expired, so that its id may come again.
        assert_eq!(used.use_up(&order, "1", at(130), at(65)), Ok(()));
        let memory = used.0.lock().expect("nobody panicked");
        assert_eq!((memory.used.len(), memory.of_client.len(), memory.ending.len()), (1, 1, 1));
    }

    #[test]
    fn what_was_forgotten_is_not_good_again_when_the_clock_is_set_back() {
        let used = UsedAssertions::default();
        let order = client("order");
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&order, "2", at(130), at(65)), Ok(()));
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "3", at(66), NOW), Ok(()));
    }

    #[test]
    fn a_client_that_asks_for_too_much_is_refused_and_no_other() {
        let used = UsedAssertions::default();
        let (greedy, order) = (client("greedy"), client("order"));
        for id in 0..MAX_OF_A_CLIENT {
            assert_eq!(used.use_up(&greedy, &id.to_string(), at(65), NOW), Ok(()));
        }
        assert_eq!(used.use_up(&greedy, "more", at(65), NOW), Err(Unusable::NoRoom));
        assert_eq!(used.use_up(&greedy, "0", at(65), NOW), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "more", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&greedy, "more", at(130), at(65)), Ok(()));
    }

    #[test]
    fn the_memory_has_an_end() {
        let used = UsedAssertions::default();
        for n in 0..MAX_REMEMBERED {
            let client = client(&format!("c{}", n / MAX_OF_A_CLIENT));
            assert_eq!(used.use_up(&client, &n.to_string(), at(65), NOW), Ok(()));
        }
        assert_eq!(used.use_up(&client("order"), "1", at(65), NOW), Err(Unusable::NoRoom));
        assert_eq!(used.use_up(&client("order"), "1", at(130), at(65)), Ok(()));
    }
}

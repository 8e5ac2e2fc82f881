//! The memory of used assertions: each can be used once (RFC 7523 §3, item 7).
//!
//! Only this process has the memory. An assertion that an earlier process may have accepted is recognised by
//! its `iat` and refused. Replicas do not share the memory, so each would accept an assertion once; a client
//! has to sign for one of them at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use countersign_mesh::claims::{ClientId, Timestamp};
use sha2::{Digest, Sha256};

/// How many assertions of all clients are remembered at a time. They take some twenty megabytes.
const MAX_REMEMBERED: usize = 1 << 18;

/// How many assertions of one client are remembered at a time: enough for sixty a second without a pause. A
/// client that sends more is refused long before it takes the room of the others.
const MAX_OF_A_CLIENT: usize = 1 << 12;

/// Why an assertion cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It was used before, or may have been.
    Used,
    /// There is no room to remember it.
    NoRoom,
}

/// The assertions that have been used and have not expired.
#[derive(Default)]
pub(super) struct UsedAssertions(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    used: HashSet<Fingerprint>,
    /// How many of `used` each client has.
    of_client: HashMap<ClientId, usize>,
    /// The same assertions by the time at which they may be forgotten.
    ending: BTreeMap<Timestamp, Vec<(Fingerprint, ClientId)>>,
    /// The latest of those times that has passed.
    forgotten_until: Option<Timestamp>,
}

/// The first 128 bits of a SHA-256. To find a collision takes about 2^64 tries, and all it achieves is that
/// its maker is refused.
type Fingerprint = [u8; 16];

impl UsedAssertions {
    /// Marks an assertion as used, after its signature was verified. It cannot be used again before `end`,
    /// and by then it has expired.
    pub(super) fn use_up(
        &self,
        client: &ClientId,
        id: &str,
        end: Timestamp,
        now: Timestamp,
    ) -> Result<(), Unusable> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget(now);
        // Only after the clock was set back can this hold. The assertion may be one that was forgotten.
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
    /// Forgets the assertions that have expired.
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
    // No client id contains a zero byte, so no two pairs of client and id give the same input.
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
    fn each_client_can_use_an_assertion_id_once_until_it_expires() {
        let used = UsedAssertions::default();
        let (order, cron) = (client("order"), client("cron"));
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "1", at(70), at(64)), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "2", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&cron, "1", at(65), NOW), Ok(()));
        // The first one has expired, so its id may be used again.
        assert_eq!(used.use_up(&order, "1", at(130), at(65)), Ok(()));
        let memory = used.0.lock().expect("nobody panicked");
        assert_eq!((memory.used.len(), memory.of_client.len(), memory.ending.len()), (1, 1, 1));
    }

    #[test]
    fn a_forgotten_assertion_stays_used_when_the_clock_is_set_back() {
        let used = UsedAssertions::default();
        let order = client("order");
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Ok(()));
        assert_eq!(used.use_up(&order, "2", at(130), at(65)), Ok(()));
        assert_eq!(used.use_up(&order, "1", at(65), NOW), Err(Unusable::Used));
        assert_eq!(used.use_up(&order, "3", at(66), NOW), Ok(()));
    }

    #[test]
    fn a_client_over_its_limit_is_refused_and_no_other_client_is() {
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
    fn a_full_memory_refuses_new_assertions_until_some_expire() {
        let used = UsedAssertions::default();
        for n in 0..MAX_REMEMBERED {
            let client = client(&format!("c{}", n / MAX_OF_A_CLIENT));
            assert_eq!(used.use_up(&client, &n.to_string(), at(65), NOW), Ok(()));
        }
        assert_eq!(used.use_up(&client("order"), "1", at(65), NOW), Err(Unusable::NoRoom));
        assert_eq!(used.use_up(&client("order"), "1", at(130), at(65)), Ok(()));
    }
}

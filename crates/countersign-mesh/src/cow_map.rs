//! A hash map whose clones are cheap and share what they have in common.
//!
//! Readers hold a snapshot for as long as they like; a writer clones it, changes a few entries and
//! publishes the result. A clone copies one pointer. The first change after it copies the list of
//! shards, and each change the shard that it falls in, unless that is not shared.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// With a hundred thousand entries a shard holds about four hundred, which take microseconds to copy.
const SHARDS: usize = 256;

/// A hash map with copy-on-write shards.
#[derive(Debug, Clone)]
pub struct CowMap<K, V> {
    hasher: RandomState,
    shards: Arc<[Arc<HashMap<K, V, RandomState>>]>,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        let hasher = RandomState::new();
        let empty = Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { hasher, shards: vec![empty; SHARDS].into() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    /// The value of a key.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards[self.shard(key)].get(key)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: V) {
        let shard = self.shard(&key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]).insert(key, value);
    }

    /// Forgets a key.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = self.shard(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]).remove(key);
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // Bits 48 to 55. The map within the shard uses the low bits of the same hash and the top seven,
        // so these are still independent of both.
        (self.hasher.hash_one(key) >> 48) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::CowMap;

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut map = CowMap::default();
        for n in 0..10_000 {
            map.insert(n, n);
        }
        let before = map.clone();
        map.remove(&7);
        map.insert(8, 80);
        map.insert(10_000, 1);

        assert_eq!((before.get(&7), before.get(&8)), (Some(&7), Some(&8)));
        assert_eq!((map.get(&7), map.get(&8)), (None, Some(&80)));
        assert_eq!((before.iter().count(), map.iter().count()), (10_000, 10_000));
    }
}

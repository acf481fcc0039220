//! A map in shards, each behind a lock of its own, so that sessions rarely wait for each other.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of shards.
const SHARDS: usize = 64;

/// A map in shards, each behind a lock of its own.
#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    shards: Vec<Mutex<HashMap<K, V>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq, V> Sharded<K, V> {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Locks the shard that a key belongs to.
    pub(super) fn of<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, HashMap<K, V>>
    where
        K: Borrow<Q>,
    {
        let shard = self.hasher.hash_one(key) % SHARDS as u64;
        self.shards[shard as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the shards, one after the other.
    pub(super) fn all(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<K, V>>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns whether a panic left a shard half changed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.shards.iter().any(Mutex::is_poisoned)
    }

    pub(super) fn len(&self) -> usize {
        self.all().map(|shard| shard.len()).sum()
    }
}

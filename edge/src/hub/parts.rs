//! A map in parts, each behind a lock of its own, so that sessions rarely wait for each other.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many parts.
const PARTS: usize = 64;

/// A map in parts, each behind a lock of its own.
#[derive(Debug)]
pub(super) struct Parts<K, V> {
    parts: Vec<Mutex<HashMap<K, V>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq, V> Parts<K, V> {
    pub(super) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// The part that a key belongs to.
    pub(super) fn of<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, HashMap<K, V>>
    where
        K: Borrow<Q>,
    {
        let part = self.hasher.hash_one(key) % PARTS as u64;
        self.parts[part as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<K, V>>> {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a panic left one of them half changed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.parts.iter().any(Mutex::is_poisoned)
    }

    pub(super) fn len(&self) -> usize {
        self.all().map(|part| part.len()).sum()
    }
}

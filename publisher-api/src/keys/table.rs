//! The keys that are valid now, found by the hash of a secret.
//!
//! A table never changes; another replaces it. Limiters go along, so that a reload fills no bucket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shared::ids::Channel;

use super::pattern::Pattern;
use super::rate::{Limiter, Rate};
use super::secret::SecretHash;
use crate::scope::Scope;

/// A key, ready to be used.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    name: Arc<str>,
    pub(super) hash: SecretHash,
    scopes: Vec<Scope>,
    channels: Vec<Pattern>,
    pub(super) rate: Option<Rate>,
    limiter: Option<Arc<Limiter>>,
}

impl Key {
    pub(super) fn new(
        name: Arc<str>,
        hash: SecretHash,
        scopes: Vec<Scope>,
        channels: Vec<Pattern>,
        rate: Option<Rate>,
    ) -> Self {
        Self { name, hash, scopes, channels, rate, limiter: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn permits(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.covers(needed))
    }

    pub(crate) fn may(&self, channel: &Channel) -> bool {
        self.channels.iter().any(|pattern| pattern.matches(channel.as_str()))
    }

    pub(crate) fn limiter(&self) -> Option<&Limiter> {
        self.limiter.as_deref()
    }
}

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By the beginning of their hashes.
    keys: HashMap<[u8; 8], Vec<Arc<Key>>>,
    limiters: HashMap<Arc<str>, Arc<Limiter>>,
    names: HashSet<Arc<str>>,
    count: usize,
}

impl Table {
    /// A table of these keys, which have been checked together.
    pub(super) fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let mut table = Self::default();
        for mut key in keys {
            if let Some(rate) = key.rate {
                let limiter =
                    table.limiters.entry(key.shared_name()).or_insert_with(|| Arc::new(Limiter::new(rate)));
                key.limiter = Some(Arc::clone(limiter));
            }
            table.names.insert(key.shared_name());
            table.count += 1;
            table.keys.entry(key.hash.bucket()).or_default().push(Arc::new(key));
        }
        table
    }

    /// Takes over the limiters of names whose rate stays the same.
    pub(super) fn inherit(mut self, old: &Self) -> Self {
        for (name, limiter) in &mut self.limiters {
            if let Some(known) = old.limiters.get(name).filter(|known| known.rate == limiter.rate) {
                *limiter = Arc::clone(known);
            }
        }
        for key in self.keys.values_mut().flatten() {
            let limiter = self.limiters.get(&key.name).cloned();
            Arc::make_mut(key).limiter = limiter;
        }
        self
    }

    /// Finds the key whose secret has this hash.
    pub(crate) fn find(&self, hash: &SecretHash) -> Option<&Arc<Key>> {
        self.keys.get(&hash.bucket())?.iter().find(|key| key.hash == *hash)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there are keys of several names, which share the slots of this part.
    pub(crate) fn is_shared(&self) -> bool {
        self.names.len() > 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

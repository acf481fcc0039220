//! The slots of waves, which are waited for in order.
//!
//! Of several keys each has half of these slots at most, and its other calls wait apart. So calls of another
//! key wait for no more than a wave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shares::Owner;

/// The slots of all waves.
#[derive(Debug)]
pub(super) struct WaveSlots {
    most: usize,
    all: Arc<Semaphore>,
    /// The share of one owner, so that no owner holds slots and waits for more before others. The lock is
    /// held only to look an owner up.
    of_owner: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// The slots of one wave, until this guard is dropped.
#[derive(Debug)]
pub(super) struct WavePermit {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl WaveSlots {
    pub(super) fn new(most: usize) -> Self {
        Self { most, all: Arc::new(Semaphore::new(most)), of_owner: Mutex::default() }
    }

    /// How many slots this owner may have.
    pub(super) fn most(&self, owner: &Owner) -> usize {
        if owner.is_some() { (self.most / 2).max(1) } else { self.most }
    }

    /// Waits for `slots` slots, which are at most [`Self::most`].
    pub(super) async fn take(&self, owner: &Owner, slots: usize) -> WavePermit {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let of_owner = owner.as_ref().map(|name| {
            let mut known = self.of_owner.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for the others, so that their names may be forgotten.
            known.retain(|own, slots| own == name || Arc::strong_count(slots) > 1);
            let new = || Arc::new(Semaphore::new(self.most(owner)));
            Arc::clone(known.entry(Arc::clone(name)).or_insert_with(new))
        });
        let own = match of_owner {
            Some(semaphore) => semaphore.acquire_many_owned(slots).await.ok(),
            None => None,
        };
        WavePermit { _own: own, _all: Arc::clone(&self.all).acquire_many_owned(slots).await.ok() }
    }
}

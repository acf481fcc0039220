//! Slots that keys share: a bounded number, of which no key can take so many that others find none.
//!
//! A key gets another slot only while it has fewer than are free. So one key alone has at most half of all
//! slots, two keys that want all have a third each, and a key that has few always finds a slot. The number of
//! keys need not be known. Where there is only one name of a key, or no key is needed, there is nobody to
//! share with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose share a slot is taken from: the name of a key. `None`: there is nobody to share with.
pub(crate) type Owner = Option<Arc<str>>;

/// The slots of one kind of work.
#[derive(Debug)]
pub(crate) struct Shares {
    most: usize,
    /// The lock is held only to change the books.
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    taken: usize,
    owners: HashMap<Arc<str>, usize>,
}

/// A slot, given back when this guard is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    owner: Owner,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoShare {
    /// All slots are taken.
    Full,
    /// The free slots are for others.
    Others,
}

impl Shares {
    /// Makes `most` slots.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, books: Mutex::default() })
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// There is no slot for this owner.
    pub(crate) fn take(self: &Arc<Self>, owner: &Owner) -> Result<Share, NoShare> {
        let mut books = self.books();
        books.check(self.most, owner)?;
        books.taken += 1;
        if let Some(owner) = owner {
            *books.owners.entry(Arc::clone(owner)).or_default() += 1;
        }
        Ok(Share { shares: Arc::clone(self), owner: owner.clone() })
    }

    /// Says whether there is a slot, without taking it.
    ///
    /// # Errors
    /// There is no slot for this owner.
    pub(crate) fn check(&self, owner: &Owner) -> Result<(), NoShare> {
        self.books().check(self.most, owner)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn check(&self, most: usize, owner: &Owner) -> Result<(), NoShare> {
        let free = most.saturating_sub(self.taken);
        let has = owner.as_ref().and_then(|owner| self.owners.get(owner)).copied().unwrap_or(0);
        match free {
            0 => Err(NoShare::Full),
            _ if has >= free => Err(NoShare::Others),
            _ => Ok(()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut books = self.shares.books();
        books.taken -= 1;
        if let Some(owner) = &self.owner
            && let Some(has) = books.owners.get_mut(owner)
        {
            *has -= 1;
            if *has == 0 {
                books.owners.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(number: usize) -> Owner {
        Some(number.to_string().into())
    }

    /// Takes slots for these owners, who take turns until nobody gets another.
    fn taken_by(shares: &Arc<Shares>, owners: usize) -> Vec<Vec<Share>> {
        let mut taken: Vec<Vec<Share>> = (0..owners).map(|_| Vec::new()).collect();
        loop {
            let before: usize = taken.iter().map(Vec::len).sum();
            for (number, taken) in taken.iter_mut().enumerate() {
                taken.extend(shares.take(&owner(number)).ok());
            }
            if taken.iter().map(Vec::len).sum::<usize>() == before {
                return taken;
            }
        }
    }

    #[test]
    fn who_has_nobody_to_share_with_has_all() {
        let shares = Shares::new(3);
        let all: Vec<_> = (0..3).map(|_| shares.take(&None).unwrap()).collect();
        assert_eq!(shares.take(&None).unwrap_err(), NoShare::Full);
        assert_eq!(shares.check(&owner(1)), Err(NoShare::Full));
        drop(all);
        assert_eq!(shares.books().taken, 0);
    }

    #[test]
    fn greedy_keys_have_equal_parts_and_leave_one_more() {
        for (owners, each) in [(1, 2_048), (2, 1_365), (3, 1_024), (7, 512)] {
            let shares = Shares::new(4_096);
            let taken = taken_by(&shares, owners);
            assert!(taken.iter().all(|taken| taken.len().abs_diff(each) <= 1), "{owners} keys");
            assert_eq!(shares.check(&owner(0)), Err(NoShare::Others));
            assert_eq!(shares.check(&owner(99)), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn a_newcomer_finds_a_slot_whatever_keys_took_before(
            most in 1_usize..100, wants in prop::collection::vec(0_usize..6, 0..300),
        ) {
            let shares = Shares::new(most);
            let mut taken = Vec::new();
            for number in wants {
                taken.extend(shares.take(&owner(number)).ok());
                // Each key leaves half of what it finds, at least.
                let keys = shares.books().owners.len();
                prop_assert!(shares.check(&owner(99)).is_ok() || most < 1 << keys);
            }
            taken.clear();
            prop_assert!(shares.books().taken == 0 && shares.books().owners.is_empty());
        }
    }
}

//! State for each source of connections: bounded, and forgotten when idle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sockets::Source;
use tokio::time::Instant;

use super::rate::Rate;

/// Sources whose rate is tracked at a time; some 3 MB. Beyond, only the rate of the whole edge holds.
const MAX_SOURCES: usize = 65_536;
/// How often idle sources are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

/// The decision of a source's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Granted,
    /// The source is not tracked: there are too many sources.
    Untracked,
    /// The connection comes too early by this much.
    Refused(Duration),
}

/// The rate of each source.
#[derive(Debug)]
pub(crate) struct Rates {
    rate: Rate,
    capacity: usize,
    busy_until: HashMap<Source, Instant>,
    sweep_at: Instant,
}

impl Rates {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self::with_capacity(rate, MAX_SOURCES, now)
    }

    fn with_capacity(rate: Rate, capacity: usize, now: Instant) -> Self {
        Self { rate, capacity, busy_until: HashMap::new(), sweep_at: now + SWEEP }
    }

    /// Takes one more connection of a source.
    pub(crate) fn take(&mut self, source: Source, now: Instant) -> Turn {
        if self.sweep_at <= now {
            // A source that has paid for everything would begin anew as well.
            self.busy_until.retain(|_, busy_until| *busy_until > now);
            self.busy_until.shrink_to(self.busy_until.len() * 2);
            self.sweep_at = now + SWEEP;
        }
        let known = self.busy_until.len();
        let busy_until = match self.busy_until.get_mut(&source) {
            Some(busy_until) => busy_until,
            None if known >= self.capacity => return Turn::Untracked,
            None => self.busy_until.entry(source).or_insert(now),
        };
        match self.rate.take(busy_until, now, Duration::ZERO) {
            Ok(_) => Turn::Granted,
            Err(early) => Turn::Refused(early),
        }
    }

    /// Returns how many sources are tracked.
    pub(crate) fn len(&self) -> usize {
        self.busy_until.len()
    }
}

/// Counts the sessions of each source. Holds nothing for a source without a session.
#[derive(Debug)]
pub(crate) struct AddressSlots {
    most: usize,
    /// Locked only to count.
    taken: Mutex<HashMap<Source, usize>>,
}

impl AddressSlots {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// Takes a slot for one more session, until the slot is dropped. None: the address has as many sessions
    /// as allowed.
    pub(crate) fn take(self: &Arc<Self>, source: Source) -> Option<AddressSlot> {
        let mut slots = self.lock();
        let taken = slots.get(&source).copied().unwrap_or(0);
        (taken < self.most).then(|| slots.insert(source, taken + 1))?;
        Some(AddressSlot { slots: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's slot among those of its address.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    slots: Arc<AddressSlots>,
    source: Source,
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut slots = self.slots.lock();
        if let Some(taken) = slots.get_mut(&self.source) {
            *taken -= 1;
            if *taken == 0 {
                slots.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn source(address: &str) -> Source {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn each_source_has_a_rate_of_its_own() {
        let now = Instant::now();
        let mut rates = Rates::new(Rate::new(2, 2), now);
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!([rates.take(one, now), rates.take(one, now)], [Turn::Granted; 2]);
        assert_eq!(rates.take(one, now), Turn::Refused(Duration::from_millis(500)));
        assert_eq!(rates.take(two, now), Turn::Granted);
        assert_eq!(rates.take(one, now + Duration::from_millis(500)), Turn::Granted);
    }

    #[test]
    fn the_idle_are_forgotten_and_the_others_stay_bounded() {
        let now = Instant::now();
        let mut rates = Rates::with_capacity(Rate::new(1, 10), 3, now);
        let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(source);
        assert_eq!(all.map(|source| rates.take(source, now)), [Turn::Granted; 3]);
        let stranger = source("192.0.2.4");
        assert_eq!(rates.take(stranger, now), Turn::Untracked);
        for _ in 0..9 {
            assert_eq!(rates.take(all[0], now), Turn::Granted);
        }
        assert!(matches!(rates.take(all[0], now), Turn::Refused(_)), "those that are known stay limited");
        let later = now + SWEEP;
        assert_eq!(rates.take(stranger, later), Turn::Granted);
        assert_eq!(rates.len(), 2, "the one that still owes, and the new one");
    }

    #[test]
    fn a_slot_is_free_again_when_its_session_ends_and_nothing_is_left() {
        let slots = Arc::new(AddressSlots::new(2));
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        let taken = [slots.take(one).unwrap(), slots.take(one).unwrap(), slots.take(two).unwrap()];
        assert!(slots.take(one).is_none());
        drop(taken);
        assert!(slots.lock().is_empty());
        assert!(slots.take(one).is_some());
    }
}

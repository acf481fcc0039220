//! Connection slots: bounded in all and per source, and shared fairly once all are taken.
//!
//! If no slot is free, a newcomer takes one from the source with the most slots, provided that this source
//! still has as many as the newcomer's source afterwards. So an attacker who takes slots to keep others out
//! gives them up again, one to each of the others. Where every source has only one slot, a newcomer without
//! any takes the oldest slot that was held for [`LONG`]: a connection with a good reason for its slot is done
//! by then. The holder of a slot that is taken away is told, and ends the connection.
//!
//! A source can be a proxy, or a network with many clients behind it, so sources alone are not enough: a
//! silent connection yields its slot to a newcomer of its own source as well. A connection's [`Claim`] says
//! what the connection has done for its slot.
//!
//! ```
//! use std::net::IpAddr;
//! use std::sync::Arc;
//!
//! use sockets::{Claim, NoSlot, Slots, Source};
//!
//! let (slots, source) = (Arc::new(Slots::new(10, 1)), Source::from(IpAddr::from([192, 0, 2, 7])));
//! let slot = slots.take(source, true, Claim::Firm).expect("one is free");
//! assert_eq!(slots.take(source, true, Claim::Firm).unwrap_err(), NoSlot::Source);
//! drop(slot);
//! assert!(slots.take(source, true, Claim::Firm).is_ok());
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::source::Source;

/// How long a slot is safe from a newcomer that would then have as many slots.
pub const LONG: Duration = Duration::from_secs(1);
/// How long a connection may be silent before its slot goes to a newcomer: its first byte may be on its way.
pub const SILENCE: Duration = Duration::from_millis(100);

/// The claim of a connection to its slot. The slot with the weakest claim is taken away first, and of equal
/// claims the oldest slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The client has sent nothing yet. After [`SILENCE`] the slot goes to a newcomer, also of the same
    /// source.
    Silent,
    /// The client has sent something, but no whole request. After [`LONG`] the slot goes to a newcomer, also
    /// of the same source.
    Begun,
    /// The connection was of use and rests, or waits for its turn. Once all slots are taken, its slot goes to
    /// a newcomer of another source.
    Idle,
    /// The connection is being served. Its slot goes to nobody.
    Firm,
}

/// Why a newcomer gets no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// All slots are taken, and no source has so many more that it should yield one.
    Full,
    /// The source has as many slots as it may.
    Source,
}

/// The slots of one port.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    per_source: usize,
    /// Locked only to change the books.
    books: Mutex<Books>,
    /// Rung when a slot becomes free, for [`Slots::wait`].
    freed: Notify,
}

#[derive(Debug, Default)]
struct Books {
    next: u64,
    taken: HashMap<u64, Taken>,
    sources: HashMap<Source, Share>,
    /// Slots of all sources that may be taken away, the oldest first, with the time since when they are held.
    yielding: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Taken {
    source: Source,
    claim: Claim,
    since: Instant,
    lost: Arc<Notify>,
}

/// The slots of one source.
#[derive(Debug, Default)]
struct Share {
    slots: usize,
    /// Slots that may be taken away, the weakest claim first, and of equal claims the oldest.
    yielding: BTreeSet<(Claim, u64)>,
}

/// The slot of a connection, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    id: u64,
    lost: Arc<Notify>,
}

impl Slots {
    /// Makes `most` slots, of which each source may have `per_source`; 0: all.
    pub fn new(most: usize, per_source: usize) -> Self {
        let per_source = if per_source == 0 { usize::MAX } else { per_source };
        Self { most, per_source, books: Mutex::default(), freed: Notify::new() }
    }

    /// Takes a slot for a connection from this source. `limited`: whether the bound per source holds for it.
    ///
    /// # Errors
    /// No slot is free, and none yields.
    pub fn take(self: &Arc<Self>, source: Source, limited: bool, claim: Claim) -> Result<Slot, NoSlot> {
        self.take_for(source, limited, claim, Claim::Begun)
    }

    /// Takes a slot. `own`: the best claim of the same source over which the newcomer takes precedence once
    /// all slots are taken.
    fn take_for(
        self: &Arc<Self>,
        source: Source,
        limited: bool,
        claim: Claim,
        own: Claim,
    ) -> Result<Slot, NoSlot> {
        let mut books = self.books();
        let now = Instant::now();
        let has = books.sources.get(&source).map_or(0, |share| share.slots);
        let yields = if limited && has >= self.per_source {
            Some(books.idler(source, Claim::Begun, now).ok_or(NoSlot::Source)?)
        } else if books.taken.len() >= self.most {
            Some(books.to_yield(source, has, own, now).ok_or(NoSlot::Full)?)
        } else {
            None
        };
        if let Some(taken) = yields.and_then(|id| books.strike(id)) {
            taken.lost.notify_one();
        }
        let (id, lost) = (books.next, Arc::new(Notify::new()));
        books.next += 1;
        books.taken.insert(id, Taken { source, claim: Claim::Firm, since: now, lost: Arc::clone(&lost) });
        books.sources.entry(source).or_default().slots += 1;
        books.set_claim(id, claim);
        Ok(Slot { slots: Arc::clone(self), id, lost })
    }

    /// Takes a slot for a silent connection, and waits while all slots are taken. The connections behind it
    /// in the backlog wait too, so it also takes the slot of an idle connection of its own source.
    ///
    /// # Errors
    /// The source has as many slots as it may.
    pub async fn wait(self: &Arc<Self>, source: Source) -> Result<Slot, NoSlot> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Enabled before the look, so that no slot becomes free unnoticed between the two.
            freed.as_mut().enable();
            match self.take_for(source, true, Claim::Silent, Claim::Idle) {
                // Even if no slot becomes free, one may have been held for long by then.
                Err(NoSlot::Full) => drop(timeout(SILENCE, freed).await),
                taken => return taken,
            }
        }
    }

    /// Returns the number of taken slots.
    pub fn taken(&self) -> usize {
        self.books().taken.len()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Returns the slot that a newcomer may take, whose source has `has` slots.
    fn to_yield(&self, source: Source, has: usize, own: Claim, now: Instant) -> Option<u64> {
        let fullest = self.sources.values().max_by_key(|share| share.yielding.len())?;
        // The loser still has at least as many as the winner.
        if fullest.yielding.len() >= has + 2 {
            return fullest.yielding.first().map(|(_, id)| *id);
        }
        if has > 0 {
            return self.idler(source, own, now);
        }
        let (oldest, since) = self.yielding.first_key_value()?;
        (now.saturating_duration_since(*since) >= LONG).then_some(*oldest)
    }

    /// Returns the slot of this source that a newcomer of the same source may take: its claim is at most
    /// `best`.
    fn idler(&self, source: Source, best: Claim, now: Instant) -> Option<u64> {
        let yielding = &self.sources.get(&source)?.yielding;
        let kinds = [(Claim::Silent, SILENCE), (Claim::Begun, LONG), (Claim::Idle, LONG)];
        kinds.into_iter().filter(|(claim, _)| *claim <= best).find_map(|(claim, patience)| {
            let (_, id) = yielding.range((claim, 0)..=(claim, u64::MAX)).next()?;
            (now.saturating_duration_since(*self.yielding.get(id)?) >= patience).then_some(*id)
        })
    }

    fn set_claim(&mut self, id: u64, claim: Claim) {
        let Some(taken) = self.taken.get_mut(&id) else { return };
        let before = std::mem::replace(&mut taken.claim, claim);
        let Some(share) = self.sources.get_mut(&taken.source) else { return };
        share.yielding.remove(&(before, id));
        if claim == Claim::Firm {
            self.yielding.remove(&id);
        } else {
            share.yielding.insert((claim, id));
            self.yielding.insert(id, taken.since);
        }
    }

    fn strike(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        self.leave(taken.source, taken.claim, id);
        Some(taken)
    }

    fn leave(&mut self, source: Source, claim: Claim, id: u64) {
        self.yielding.remove(&id);
        if let Some(share) = self.sources.get_mut(&source) {
            share.slots -= 1;
            share.yielding.remove(&(claim, id));
            if share.slots == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Slot {
    /// Waits until the slot is taken away.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Moves the slot to the real source of the connection, for example the one that a proxy names.
    ///
    /// # Errors
    /// The source has as many slots as it may; the slot stays with the old source.
    pub fn belongs_to(&self, source: Source, limited: bool) -> Result<(), NoSlot> {
        let mut books = self.slots.books();
        let has = books.sources.get(&source).map_or(0, |share| share.slots);
        let Some((before, claim)) = books.taken.get(&self.id).map(|taken| (taken.source, taken.claim)) else {
            return Ok(());
        };
        if limited && before != source && has >= self.slots.per_source {
            return Err(NoSlot::Source);
        }
        books.leave(before, claim, self.id);
        books.sources.entry(source).or_default().slots += 1;
        if let Some(taken) = books.taken.get_mut(&self.id) {
            taken.source = source;
        }
        books.set_claim(self.id, Claim::Idle);
        Ok(())
    }

    /// Sets the claim of the connection.
    pub fn claim(&self, claim: Claim) {
        self.slots.books().set_claim(self.id, claim);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.slots.books().strike(self.id).is_some() {
            self.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;

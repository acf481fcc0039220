//! Slots of connections: so many in all, so many for each source, and shared fairly once all are taken.
//!
//! A newcomer for whom there is no slot left takes that of the source which has the most, if that source
//! still has as many as the newcomer's afterwards. So whoever takes slots to keep others out gives them up
//! again, one for each of the others. Where every source has one slot only, a newcomer without any takes the
//! oldest that was held for [`LONG`]: a connection that needs its slot for good reasons is done by then. A
//! slot that is taken away tells its holder, who ends the connection.
//!
//! A source can be a proxy or a network with many behind it, so sources alone are not enough: a connection
//! that says nothing yields its slot to the next one of its own source as well. What a connection has done
//! for its slot is its [`Claim`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::source::Source;

/// For so long nobody loses a slot to a newcomer that would then have as many.
pub const LONG: Duration = Duration::from_secs(1);
/// For so long a connection may say nothing before its slot goes to the next: its first byte may be under
/// way.
pub const SILENCE: Duration = Duration::from_millis(100);

/// What a connection has done for its slot. The weakest is taken away first, and of equal ones the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Nothing was said yet. After [`SILENCE`] the slot goes to a newcomer, of the same source as well.
    Silent,
    /// Something was said, but nothing of use. After [`LONG`] the slot goes to a newcomer, of the same
    /// source as well.
    Begun,
    /// The connection was of use and rests, or waits for its turn. Once all slots are taken, this one goes
    /// to a newcomer of another source.
    Idle,
    /// The connection is being served. The slot goes to nobody.
    Firm,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// All are taken, and no source has so many more that it should yield one.
    Full,
    /// This source has as many as it may.
    Source,
}

/// The slots of one port.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    per_source: usize,
    /// Held only to change the books.
    books: Mutex<Books>,
    /// Rung when a slot is free again, for [`Slots::wait`].
    freed: Notify,
}

#[derive(Debug, Default)]
struct Books {
    next: u64,
    taken: HashMap<u64, Taken>,
    sources: HashMap<Source, Share>,
    /// Those that may be taken away, of all sources, the oldest first, and since when they are held.
    yielding: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Taken {
    source: Source,
    claim: Claim,
    since: Instant,
    lost: Arc<Notify>,
}

/// What one source has.
#[derive(Debug, Default)]
struct Share {
    slots: usize,
    /// Those that may be taken away, the weakest first, and of equal ones the oldest.
    yielding: BTreeSet<(Claim, u64)>,
}

/// A connection's slot, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    id: u64,
    lost: Arc<Notify>,
}

impl Slots {
    /// `most` in all, and `per_source` for each source; 0: as many as there are.
    pub fn new(most: usize, per_source: usize) -> Self {
        let per_source = if per_source == 0 { usize::MAX } else { per_source };
        Self { most, per_source, books: Mutex::default(), freed: Notify::new() }
    }

    /// A slot for a connection from there. `limited`: whether the bound of one source holds for this one.
    ///
    /// # Errors
    /// There is none.
    pub fn take(self: &Arc<Self>, source: Source, limited: bool, claim: Claim) -> Result<Slot, NoSlot> {
        self.take_for(source, limited, claim, Claim::Begun)
    }

    /// The same; `own`: the best claim that the newcomer stands over, of its own source and once all are
    /// taken.
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

    /// The same for a connection that has said nothing yet, but waits while all are taken. So that those
    /// behind it do not wait for its sake, it takes the slot of an idle one of its own source.
    ///
    /// # Errors
    /// This source has as many as it may.
    pub async fn wait(self: &Arc<Self>, source: Source) -> Result<Slot, NoSlot> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Listening begins before looking, so that no slot becomes free between the two.
            freed.as_mut().enable();
            match self.take_for(source, true, Claim::Silent, Claim::Idle) {
                // Without any slot becoming free, one may have been held for long by then.
                Err(NoSlot::Full) => drop(timeout(SILENCE, freed).await),
                taken => return taken,
            }
        }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.books().taken.len()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Whose slot a newcomer from there may take, where its source has `has`.
    fn to_yield(&self, source: Source, has: usize, own: Claim, now: Instant) -> Option<u64> {
        let fullest = self.sources.values().max_by_key(|share| share.yielding.len())?;
        // The loser keeps at least what the winner has then.
        if fullest.yielding.len() >= has + 2 {
            return fullest.yielding.first().map(|(_, id)| *id);
        }
        if has > 0 {
            return self.idler(source, own, now);
        }
        let (oldest, since) = self.yielding.first_key_value()?;
        (now.saturating_duration_since(*since) >= LONG).then_some(*oldest)
    }

    /// The slot of this source that a newcomer of its own may take, if its claim is no better than `best`.
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
    /// Resolves when the slot was taken away.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// The connection turns out to be from somewhere else, for example because its proxy says so.
    ///
    /// # Errors
    /// That source has as many as it may; the slot stays where it was.
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

    /// What the connection has done for its slot by now.
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

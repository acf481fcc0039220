//! Places of connections: so many in all, so many for each source, and shared fairly once all are taken.
//!
//! A newcomer for whom there is no place left takes that of the source which has the most, if that source still has as
//! many as the newcomer's afterwards. So whoever takes places to keep others out gives them up again, one for each of
//! the others. Where every source has one place only, a newcomer without any takes the oldest that was held for
//! [`LONG`]: a connection that needs its place for good reasons is done by then. A place that is taken away tells its
//! holder, who ends the connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::source::Source;

/// For so long nobody loses a place to a newcomer that would then have as many.
pub const LONG: Duration = Duration::from_secs(1);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken, and no source has so many more that it should yield one.
    Full,
    /// This source has as many as it may.
    Source,
}

/// The places of one port.
#[derive(Debug)]
pub struct Places {
    most: usize,
    per_source: usize,
    /// Held only to change the books.
    books: Mutex<Books>,
    /// Rung when a place is free again, for [`Places::wait`].
    freed: Notify,
}

#[derive(Debug, Default)]
struct Books {
    next: u64,
    taken: HashMap<u64, Taken>,
    sources: HashMap<Source, Held>,
    /// Those that may be taken away, of all sources, the oldest first, and since when they are held.
    yielding: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Taken {
    source: Source,
    since: Instant,
    lost: Arc<Notify>,
}

/// What one source has.
#[derive(Debug, Default)]
struct Held {
    places: usize,
    /// Those that may be taken away, the oldest first.
    yielding: BTreeSet<u64>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: u64,
    lost: Arc<Notify>,
}

impl Places {
    /// `most` in all, and `per_source` for each source; 0: as many as there are.
    pub fn new(most: usize, per_source: usize) -> Self {
        let per_source = if per_source == 0 { usize::MAX } else { per_source };
        Self { most, per_source, books: Mutex::default(), freed: Notify::new() }
    }

    /// A place for a connection from there. `limited`: whether the bound of one source holds for this one. `yields`:
    /// whether the place may be taken away while all are taken.
    ///
    /// # Errors
    /// There is none.
    pub fn take(self: &Arc<Self>, source: Source, limited: bool, yields: bool) -> Result<Place, NoPlace> {
        let mut books = self.books();
        let now = Instant::now();
        let has = books.sources.get(&source).map_or(0, |held| held.places);
        if limited && has >= self.per_source {
            return Err(NoPlace::Source);
        }
        if books.taken.len() >= self.most {
            let oldest = books.to_yield(has, now).ok_or(NoPlace::Full)?;
            if let Some(taken) = books.strike(oldest) {
                taken.lost.notify_one();
            }
        }
        let (id, lost) = (books.next, Arc::new(Notify::new()));
        books.next += 1;
        books.taken.insert(id, Taken { source, since: now, lost: Arc::clone(&lost) });
        books.sources.entry(source).or_default().places += 1;
        books.set_yielding(id, yields);
        Ok(Place { places: Arc::clone(self), id, lost })
    }

    /// The same, but waits while all are taken.
    ///
    /// # Errors
    /// This source has as many as it may.
    pub async fn wait(self: &Arc<Self>, source: Source) -> Result<Place, NoPlace> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Listening begins before looking, so that no place becomes free between the two.
            freed.as_mut().enable();
            match self.take(source, true, true) {
                // Without any place becoming free, one may have been held for long by then.
                Err(NoPlace::Full) => drop(timeout(LONG, freed).await),
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
    /// Whose place a source that has `has` may take.
    fn to_yield(&self, has: usize, now: Instant) -> Option<u64> {
        let fullest = self.sources.values().max_by_key(|held| held.yielding.len())?;
        // The loser keeps at least what the winner has then.
        if fullest.yielding.len() >= has + 2 {
            return fullest.yielding.first().copied();
        }
        let (oldest, since) = self.yielding.first_key_value()?;
        (has == 0 && now.saturating_duration_since(*since) >= LONG).then_some(*oldest)
    }

    fn set_yielding(&mut self, id: u64, yields: bool) {
        let Some(Taken { source, since, .. }) = self.taken.get(&id) else { return };
        let Some(held) = self.sources.get_mut(source) else { return };
        if yields {
            held.yielding.insert(id);
            self.yielding.insert(id, *since);
        } else {
            held.yielding.remove(&id);
            self.yielding.remove(&id);
        }
    }

    fn strike(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        self.leave(taken.source, id);
        Some(taken)
    }

    fn leave(&mut self, source: Source, id: u64) {
        self.yielding.remove(&id);
        if let Some(held) = self.sources.get_mut(&source) {
            held.places -= 1;
            held.yielding.remove(&id);
            if held.places == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Place {
    /// Resolves when the place was taken away.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// The connection turns out to be from somewhere else, for example because its proxy says so.
    ///
    /// # Errors
    /// That source has as many as it may; the place stays where it was.
    pub fn belongs_to(&self, source: Source, limited: bool) -> Result<(), NoPlace> {
        let mut books = self.places.books();
        let has = books.sources.get(&source).map_or(0, |held| held.places);
        let Some(before) = books.taken.get(&self.id).map(|taken| taken.source) else { return Ok(()) };
        if limited && before != source && has >= self.places.per_source {
            return Err(NoPlace::Source);
        }
        books.leave(before, self.id);
        books.sources.entry(source).or_default().places += 1;
        if let Some(taken) = books.taken.get_mut(&self.id) {
            taken.source = source;
        }
        books.set_yielding(self.id, true);
        Ok(())
    }

    /// Whether the place may be taken away from now on.
    pub fn yields(&self, yields: bool) {
        self.places.books().set_yielding(self.id, yields);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.places.books().strike(self.id).is_some() {
            self.places.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;

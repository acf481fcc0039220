//! Places of connections: so many in all, so many for each source, and shared fairly once all are taken.
//!
//! A newcomer for whom there is no place left takes that of the source which has the most, if that source still has as
//! many as the newcomer's afterwards. So whoever takes places to keep others out gives them up again, one for each of
//! the others, however many addresses it has. A place that is taken away tells its holder, who ends the connection.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::source::Source;

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
}

#[derive(Debug)]
struct Taken {
    source: Source,
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
        let has = books.sources.get(&source).map_or(0, |held| held.places);
        if limited && has >= self.per_source {
            return Err(NoPlace::Source);
        }
        if books.taken.len() >= self.most {
            let oldest = books.to_yield(has).ok_or(NoPlace::Full)?;
            if let Some(taken) = books.strike(oldest) {
                taken.lost.notify_one();
            }
        }
        let (id, lost) = (books.next, Arc::new(Notify::new()));
        books.next += 1;
        books.taken.insert(id, Taken { source, lost: Arc::clone(&lost) });
        books.sources.entry(source).or_default().add(id, yields);
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
                Err(NoPlace::Full) => freed.await,
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
    fn to_yield(&self, has: usize) -> Option<u64> {
        let fullest = self.sources.values().max_by_key(|held| held.yielding.len())?;
        // The loser keeps at least what the winner has then.
        (fullest.yielding.len() >= has + 2).then(|| fullest.yielding.first().copied())?
    }

    fn strike(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        self.leave(taken.source, id);
        Some(taken)
    }

    fn leave(&mut self, source: Source, id: u64) {
        if let Some(held) = self.sources.get_mut(&source) {
            held.places -= 1;
            held.yielding.remove(&id);
            if held.places == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Held {
    fn add(&mut self, id: u64, yields: bool) {
        self.places += 1;
        if yields {
            self.yielding.insert(id);
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
        books.sources.entry(source).or_default().add(self.id, true);
        if let Some(taken) = books.taken.get_mut(&self.id) {
            taken.source = source;
        }
        Ok(())
    }

    /// Whether the place may be taken away from now on.
    pub fn yields(&self, yields: bool) {
        let mut books = self.places.books();
        let Some(source) = books.taken.get(&self.id).map(|taken| taken.source) else { return };
        if let Some(held) = books.sources.get_mut(&source) {
            if yields {
                held.yielding.insert(self.id);
            } else {
                held.yielding.remove(&self.id);
            }
        }
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

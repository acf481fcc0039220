//! The handle by which the hub and its callers know a session: its number, its age, and its outbox.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::outbox::Outbox;

/// A session, for all who have something for it.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    id: u64,
    /// When the session began, in seconds since the hub did.
    since: u32,
    /// Whether the session receives messages with ids, and so loses nothing when it moves.
    follows: AtomicBool,
    /// Whether the session was asked to move.
    moves: AtomicBool,
    pub(crate) outbox: Outbox,
}

impl SessionHandle {
    /// Returns the handle of a session that follows nothing yet. `since`: seconds since the hub began.
    pub(crate) fn new(id: u64, since: u32, outbox: Outbox) -> Self {
        Self { id, since, follows: AtomicBool::new(false), moves: AtomicBool::new(false), outbox }
    }

    /// Returns the session's number, unlike that of every other session of this edge.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns whether the session receives messages with ids.
    pub(crate) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed)
    }

    /// Notes whether the session receives messages with ids.
    pub(crate) fn set_follows(&self, follows: bool) {
        self.follows.store(follows, Ordering::Relaxed);
    }

    /// Returns whether the session was asked to move.
    pub(crate) fn moves(&self) -> bool {
        self.moves.load(Ordering::Relaxed)
    }

    /// Notes that the session is asked to move. False: it was asked already.
    pub(crate) fn begin_move(&self) -> bool {
        !self.moves.swap(true, Ordering::Relaxed)
    }

    /// Returns whether the session has reached its share of `age`: from 80 to 100 %, depending on the
    /// session's number. `now`: the age of the hub.
    pub(crate) fn has_reached(&self, age: Duration, now: Duration) -> bool {
        now.saturating_sub(Duration::from_secs(self.since.into())) >= age.mul_f64(self.spread())
    }

    /// Returns a factor from 0.8 to 1, the same at every call, and spread evenly over sessions that began
    /// together.
    fn spread(&self) -> f64 {
        // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
        let hash = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        0.8 + 0.2 * hash as f64 / f64::from(u32::MAX)
    }
}

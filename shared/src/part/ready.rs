//! The sentences of all parts on `/readyz`, and the grace for which they overlook an absence.
//!
//! From which inputs a part is ready differs from part to part, and stays with the part.

use std::time::Duration;

use tokio::time::Instant;

/// The part has not started yet.
pub const STARTING: &str = "starting";
/// No connection to the bus has stood yet.
pub const UNREACHED: &str = "the bus can't be reached yet; trying";
/// The connection to the bus is gone for longer than the grace.
pub const GONE: &str = "the bus is gone; trying to reach it again";
/// The part leaves.
pub const LEAVING: &str = "leaving";

/// For how long something that a part needs may be away before the part is unready: open sessions stay, and
/// new ones can wait.
#[derive(Debug)]
pub struct Grace {
    length: Duration,
    away_since: Option<Instant>,
}

impl Grace {
    /// A grace of this length, while nothing is away.
    pub fn new(length: Duration) -> Self {
        Self { length, away_since: None }
    }

    /// Notes that all is there.
    pub fn end(&mut self) {
        self.away_since = None;
    }

    /// Notes that something is away, and returns the end of the grace; `None`: the grace is over.
    ///
    /// ```
    /// # use shared::part::ready::Grace;
    /// # use std::time::Duration;
    /// # use tokio::time::Instant;
    /// let (mut grace, now) = (Grace::new(Duration::from_secs(5)), Instant::now());
    /// let end = now + Duration::from_secs(5);
    /// assert_eq!(grace.until(now), Some(end));
    /// assert_eq!(grace.until(now + Duration::from_secs(1)), Some(end));
    /// assert_eq!(grace.until(end), None);
    /// grace.end();
    /// assert!(grace.until(end).is_some());
    /// ```
    pub fn until(&mut self, now: Instant) -> Option<Instant> {
        let end = *self.away_since.get_or_insert(now) + self.length;
        (end > now).then_some(end)
    }
}

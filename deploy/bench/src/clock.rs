//! The clock of a run: nanoseconds of the system's monotonic clock.
//!
//! All processes of one machine read the same clock, so a time that the publisher wrote into a message can be compared
//! where the message arrives. Clients on another machine could not do that; the tool does not start any.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Now, in nanoseconds since some moment that is the same for all processes.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * SECOND + rest.unwrap_or_default()
}

/// A duration in nanoseconds, at most what fits.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, for the reader of a report.
pub(crate) fn date() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default()
}

//! The clock of a run: nanoseconds of the system's monotonic clock.
//!
//! All processes of one machine read the same clock. So a receiver can compare the time that the publisher
//! wrote into a message with its own. On another machine this would not hold; the tool starts its clients on
//! its own machine only.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Returns the time in nanoseconds since a moment that is the same for all processes.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * SECOND + rest.unwrap_or_default()
}

/// Returns a duration in nanoseconds, or `u64::MAX` if it does not fit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the date in seconds since 1970, for the report.
pub(crate) fn date() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default()
}

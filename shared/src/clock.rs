//! The time of day, as envelopes and lists carry it. Deadlines use [`crate::awake`] instead: the time of day
//! may jump.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time of day in milliseconds since 1970 (UTC).
pub fn unix_ms() -> u64 {
    unix_ms_of(SystemTime::now())
}

/// Converts a time into milliseconds since 1970 (UTC); 0 for a time before.
pub fn unix_ms_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! The end of a login.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Mapping;
use super::decide::Moment;
use crate::business::Failure;
use crate::pointer::Pointer;

/// The longest lifetime of a login that makes a difference: a hundred years, in seconds.
pub(super) const FOREVER: f64 = 3_153_600_000.0;

/// The end of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Never,
    At(Instant),
    Over,
}

/// Returns the end of the login that this answer describes: the earlier of the two that it may name.
pub(super) fn end(mapping: &Mapping, answer: &Value, now: Moment) -> Result<End, Failure> {
    let given = |place: &Option<Pointer>| {
        let found = place.as_ref().and_then(|place| place.of(answer));
        found.filter(|value| !value.is_null()).map(Value::as_f64)
    };
    let left = match given(&mapping.expires_in) {
        None => None,
        Some(None) => return Err(Failure::BadExpiry("expires_in")),
        Some(Some(seconds)) => Some(seconds.min(FOREVER)),
    };
    let left_until = match given(&mapping.expires_at) {
        None => None,
        Some(None) => return Err(Failure::BadExpiry("expires_at")),
        Some(Some(seconds)) => Some(seconds - now.unix.as_secs_f64()),
    };
    if left_until.is_some_and(|left| left > FOREVER) {
        return Err(Failure::FarExpiry);
    }
    let earlier = left.into_iter().chain(left_until).reduce(f64::min);
    Ok(earlier.map_or(End::Never, |left| after(left, now.instant)))
}

fn after(seconds: f64, now: Instant) -> End {
    let left = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    match now.checked_add(left) {
        _ if left.is_zero() => End::Over,
        Some(at) => End::At(at),
        None => End::Never,
    }
}

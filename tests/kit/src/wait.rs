//! Waiting for a condition, never for a fixed time.
//!
//! Every wait has a deadline, and on expiry names the condition it waited for.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// The deadline of every wait. Far above what any condition needs, so that an overloaded machine fails no
/// test.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Interval between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// `condition` does not hold within [`DEADLINE`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until(what, async || condition().await.then_some(())).await;
}

/// As [`eventually`], for a condition that needs no waiting of its own.
///
/// # Panics
/// `condition` does not hold within [`DEADLINE`].
pub async fn becomes_true(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, async || condition()).await;
}

/// Waits until `probe` returns a value, and returns that value.
///
/// # Panics
/// `probe` returns none within [`DEADLINE`].
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(found) = probe().await {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
    }
}

/// Waits for `future` until [`DEADLINE`].
///
/// # Panics
/// The deadline has passed.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

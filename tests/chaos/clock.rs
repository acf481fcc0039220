//! The time of a case: milliseconds since its start, and outages of a fixed length.
//!
//! Nothing here waits for a condition; `harness::wait` does.

use std::time::Duration;

use tokio::time::{Instant, interval_at};

/// The clock of one case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Waits for the length of an outage or a back-off.
pub(crate) async fn pass(time: Duration) {
    if !time.is_zero() {
        interval_at(Instant::now() + time, time).tick().await;
    }
}

/// Full jitter over a back-off that doubles from 20 ms up to `most`.
pub(crate) fn back_off(random: &mut fastrand::Rng, attempt: u32, most: Duration) -> Duration {
    let step = Duration::from_millis(20 << attempt.min(10)).min(most);
    step.mul_f64(0.5 + random.f64() / 2.0)
}

//! Time of a case: milliseconds since it began, and outages that last a while.
//!
//! Nothing here waits for a condition in the hope that it holds later; that is `harness::wait`.

use std::time::Duration;

use tokio::time::{Instant, interval_at};

/// The clock of one case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since it began.
    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Lets time pass: an outage lasts, a caller backs off.
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

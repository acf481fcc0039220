//! One line in the log for one outage: complaints of one kind are logged once in a while, with their number.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two lines, unless another is given.
const PAUSE: Duration = Duration::from_secs(10);

/// Decides when a complaint of one kind is logged. Counters count all of them.
#[derive(Debug)]
pub struct LogThrottle {
    state: Mutex<State>,
    pause: Duration,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::every(PAUSE)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Complaints since the latest line.
    count: u64,
    last: Option<Instant>,
}

impl LogThrottle {
    /// Makes a throttle with at least `pause` between two lines.
    pub fn every(pause: Duration) -> Self {
        Self { state: Mutex::default(), pause }
    }

    /// Notes a complaint. `Some`: write a line now, for this number of complaints.
    pub fn due(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        if state.last.is_some_and(|last| last.elapsed() < self.pause) {
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_rest_together() {
        let throttle = LogThrottle::default();
        assert_eq!([(); 3].map(|()| throttle.due()), [Some(1), None, None]);
        tokio::time::advance(PAUSE).await;
        assert_eq!([(); 2].map(|()| throttle.due()), [Some(3), None]);
    }
}

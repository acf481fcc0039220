//! A rate stored as one instant (the generic cell rate algorithm): pure, time is told.
//!
//! In any span of time at most `burst` plus `per_second` times the length of the span are granted, whatever
//! the order of calls.

use std::time::Duration;

use tokio::time::Instant;

/// A number a second, and a number at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    one: Duration,
    burst: Duration,
}

impl Rate {
    /// Returns the rate; both numbers count as at least 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let one = Duration::from_secs(1) / per_second.max(1);
        Self { one, burst: one.saturating_mul(burst.max(1)) }
    }

    /// Grants one more if its turn comes within `patience`, and returns how long to wait for the turn.
    /// `busy_until` is the whole state: the time at which everything granted is paid for.
    ///
    /// # Errors
    /// The wait would be longer; by how much too long. Nothing was taken.
    pub(crate) fn take(
        self,
        busy_until: &mut Instant,
        now: Instant,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let busy = busy_until.saturating_duration_since(now);
        let wait = (busy + self.one).saturating_sub(self.burst);
        if wait > patience {
            return Err(wait - patience);
        }
        *busy_until = now + busy + self.one;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_in_turn_until_patience_ends() {
        let now = Instant::now();
        let rate = Rate::new(10, 3);
        let mut busy_until = now;
        let mut take = |now| rate.take(&mut busy_until, now, Duration::from_millis(250));
        assert_eq!([take(now), take(now), take(now)], [Ok(Duration::ZERO); 3]);
        assert_eq!(take(now), Ok(Duration::from_millis(100)));
        assert_eq!(take(now), Ok(Duration::from_millis(200)));
        assert_eq!(take(now), Err(Duration::from_millis(50)), "it would wait 300 ms");
        let later = now + Duration::from_millis(50);
        assert_eq!(take(later), Ok(Duration::from_millis(250)), "to wait as told helps");
    }

    #[test]
    fn a_long_rest_saves_up_no_more_than_a_burst() {
        let start = Instant::now();
        let (rate, mut busy_until) = (Rate::new(1_000, 5), start);
        let rested = start + Duration::from_secs(3_600);
        let granted = (0..20).filter(|_| rate.take(&mut busy_until, rested, Duration::ZERO).is_ok());
        assert_eq!(granted.count(), 5);
    }

    proptest! {
        #[test]
        fn no_span_has_more_turns_than_its_length_and_a_burst_allow(
            per_second in 1_u32..2_000,
            burst in 1_u32..50,
            patience in 0_u64..500,
            gaps in prop::collection::vec(0_u64..100, 1..200),
        ) {
            let (start, rate) = (Instant::now(), Rate::new(per_second, burst));
            let (mut now, mut busy_until, mut turns) = (start, start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Ok(wait) = rate.take(&mut busy_until, now, Duration::from_millis(patience)) {
                    prop_assert!(wait <= Duration::from_millis(patience));
                    turns.push(now + wait);
                }
            }
            prop_assert!(turns.is_sorted(), "the turns come in the order of asking");
            for (first, from) in turns.iter().enumerate() {
                for (last, to) in turns.iter().enumerate().skip(first) {
                    let span = to.duration_since(*from).as_secs_f64();
                    let most = f64::from(burst) + span * f64::from(per_second) * 1.000_001 + 1e-6;
                    prop_assert!((last - first + 1) as f64 <= most + 1.0, "{} in {span} s", last - first + 1);
                }
            }
        }
    }
}

//! How many messages a key may publish a second: a bucket of tokens, one for each message.
//!
//! A call that finds a token may take more than there are; later calls wait until the debt is paid. So
//! the rate holds on average, and a call to 10,000 users needs no bucket of 10,000. (Ready-made limiters
//! refuse such a call for ever.) [`Bucket`] is pure; the time is told.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The highest rate, in messages a second. A key that needs more needs no limit.
pub(crate) const MAX_RATE: u32 = 1_000_000;

/// Rate and burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Messages a second, 1 to [`MAX_RATE`].
    pub(crate) per_second: u32,
    /// Messages that may come at once after a pause, at least 1.
    pub(crate) burst: u32,
}

impl Rate {
    fn per_token(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / u64::from(self.per_second.max(1)))
    }
}

/// The tokens of one key.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// When the bucket will be full again. In the past: the bucket is full.
    full_at: Instant,
}

impl Bucket {
    /// Makes a full bucket.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes `count` tokens.
    ///
    /// # Errors
    /// There is no token now. Says after which time there will be one.
    pub(crate) fn take(&mut self, count: u32, now: Instant) -> Result<(), Duration> {
        let per_token = self.rate.per_token();
        let missing = self.full_at.saturating_duration_since(now);
        let wait = (missing + per_token).saturating_sub(per_token * self.rate.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at = now + missing + per_token * count;
        Ok(())
    }
}

/// A bucket that the connections of a key share.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(crate) rate: Rate,
    /// The lock is held only for a few additions.
    bucket: Mutex<Bucket>,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, bucket: Mutex::new(Bucket::new(rate, Instant::now())) }
    }

    /// See [`Bucket::take`].
    pub(crate) fn take(&self, count: u32) -> Result<(), Duration> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(count, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEN: Rate = Rate { per_second: 10, burst: 3 };

    #[test]
    fn a_burst_passes_at_once_and_then_one_each_tenth_of_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(TEN, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(1, start), Ok(()));
        }
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(60);
        assert_eq!(bucket.take(1, later), Err(Duration::from_millis(40)));
        let later = start + Duration::from_millis(100);
        assert_eq!(bucket.take(1, later), Ok(()));
        assert_eq!(bucket.take(1, later), Err(Duration::from_millis(100)));
    }

    #[test]
    fn a_long_pause_saves_up_no_more_than_a_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(TEN, start);
        let later = start + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| bucket.take(1, later).is_ok()).count(), 3);
    }

    #[test]
    fn a_large_call_passes_and_is_paid_off_afterwards() {
        let start = Instant::now();
        let mut bucket = Bucket::new(TEN, start);
        assert_eq!(bucket.take(1_003, start), Ok(()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100_100)));
        assert_eq!(bucket.take(1, start + Duration::from_millis(100_100)), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow_and_waiting_as_told_helps(
            per_second in 1..=MAX_RATE,
            burst in 1_u32..50,
            pauses in prop::collection::vec(0_u64..300_000_000, 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(Rate { per_second, burst }, start);
            let (mut now, mut taken, longest) = (start, 0_u32, Rate { per_second, burst }.per_token());
            for pause in pauses {
                now += Duration::from_nanos(pause);
                match bucket.take(1, now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        prop_assert!(wait <= longest);
                        now += wait;
                        prop_assert_eq!(bucket.take(1, now), Ok(()));
                        taken += 1;
                    }
                }
                let seconds = now.duration_since(start).as_secs_f64();
                let most = f64::from(burst) + seconds * f64::from(per_second) * 1.001 + 1.0;
                prop_assert!(f64::from(taken) <= most, "{taken} in {seconds} s");
            }
        }
    }
}

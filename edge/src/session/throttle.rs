//! Limits the ops of a session: so many a second, as many at once, and no stubbornness.
//!
//! A leaky bucket stored as one instant (the generic cell rate algorithm), so that a session pays 48 bytes
//! for it. The first ops of a connection may come at once: a client that logs in subscribes to all it has.
//! Refusals are counted in windows, which tells a stubborn client, who goes on in spite of refusals,
//! from a client that had a burst.

use std::time::Duration;

use tokio::time::Instant;

/// The length of a window in which refusals are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// A client is stubborn when this many times its limit was refused in one window.
const STUBBORN: u32 = 10;

/// The decision about an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Carry it out.
    Granted,
    /// Answer that it was one too many.
    Refused,
    /// Answer that it was one too many, and close.
    Stubborn,
}

#[derive(Debug)]
pub(super) struct Throttle {
    per_second: u32,
    /// Ops that are granted whatever the rate.
    first: u32,
    /// When the bucket will be empty if no op is added.
    empty_at: Instant,
    window: Instant,
    refused: u32,
}

impl Throttle {
    /// Returns a bucket with space for a second's worth of ops. The `first` ops are granted whatever the rate.
    pub(super) fn new(per_second: u32, first: u32, now: Instant) -> Self {
        Self { per_second: per_second.max(1), first, empty_at: now, window: now, refused: 0 }
    }

    /// Decides about one more op.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        let one = Duration::from_secs(1) / self.per_second;
        let full = Duration::from_secs(1).saturating_sub(one);
        let empty_at = self.empty_at.max(now);
        if self.first > 0 {
            self.first -= 1;
            // Never more than full, so that the rate holds from the next op on.
            self.empty_at = (empty_at + one).min(now + full + one);
            return Admission::Granted;
        }
        if empty_at.duration_since(now) <= full {
            self.empty_at = empty_at + one;
            return Admission::Granted;
        }
        if now.duration_since(self.window) > WINDOW {
            (self.window, self.refused) = (now, 0);
        }
        self.refused += 1;
        if self.refused >= self.per_second.saturating_mul(STUBBORN) {
            Admission::Stubborn
        } else {
            Admission::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_one_at_a_time() {
        let now = Instant::now();
        let mut throttle = Throttle::new(4, 0, now);
        let burst: Vec<_> = (0..6).map(|_| throttle.admit(now)).collect();
        assert_eq!(burst[..4], [Admission::Granted; 4]);
        assert_eq!(burst[4..], [Admission::Refused; 2]);
        let quarter = now + Duration::from_millis(250);
        assert_eq!(throttle.admit(quarter), Admission::Granted);
        assert_eq!(throttle.admit(quarter), Admission::Refused);
        let rested = now + Duration::from_secs(60);
        assert!((0..4).all(|_| throttle.admit(rested) == Admission::Granted));
    }

    #[test]
    fn the_first_ops_may_come_at_once_and_the_rate_holds_after_them() {
        let now = Instant::now();
        let mut throttle = Throttle::new(20, 100, now);
        assert!((0..100).all(|_| throttle.admit(now) == Admission::Granted));
        assert_eq!(throttle.admit(now), Admission::Refused);
        let later = now + Duration::from_millis(50);
        assert_eq!([throttle.admit(later), throttle.admit(later)], [Admission::Granted, Admission::Refused]);
        let rested = now + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| throttle.admit(rested) == Admission::Granted).count(), 20);

        let mut slow = Throttle::new(20, 100, now);
        assert!((0..99).all(|second| slow.admit(now + Duration::from_secs(second)) == Admission::Granted));
        let end = now + Duration::from_secs(200);
        let at_once = (0..100).filter(|_| slow.admit(end) == Admission::Granted).count();
        assert_eq!(at_once, 20, "the first were sent one by one");
    }

    #[test]
    fn who_goes_on_in_spite_of_refusals_is_stubborn_and_who_rests_is_not() {
        let now = Instant::now();
        let mut throttle = Throttle::new(1, 0, now);
        assert_eq!(throttle.admit(now), Admission::Granted);
        assert!((0..9).all(|_| throttle.admit(now) == Admission::Refused));
        assert_eq!(throttle.admit(now), Admission::Stubborn);

        let mut throttle = Throttle::new(1, 0, now);
        for round in 0..5 {
            let later = now + Duration::from_secs(11) * round;
            assert_eq!(throttle.admit(later), Admission::Granted);
            assert!((0..9).all(|_| throttle.admit(later) == Admission::Refused));
        }
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_twice_the_limit(per_second in 1_u32..50, gaps in prop::collection::vec(0_u64..300, 1..300)) {
            let start = Instant::now();
            let mut throttle = Throttle::new(per_second, 0, start);
            let (mut at, mut granted) = (start, Vec::new());
            for gap in gaps {
                at += Duration::from_millis(gap);
                if throttle.admit(at) == Admission::Granted {
                    granted.push(at);
                }
            }
            for first in &granted {
                let within = granted.iter().filter(|at| *at >= first && **at < *first + Duration::from_secs(1));
                prop_assert!(within.count() <= 2 * per_second as usize);
            }
        }
    }
}

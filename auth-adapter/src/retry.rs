//! The budget and the pauses of retries. Pure.
//!
//! Only calls that the business system surely did not see are tried again, a bounded number of times, after
//! pauses that differ between callers. A budget bounds the sum: retries are at most a share of first tries,
//! so that a system that refuses every connection is not hit much harder than a working one.

use std::time::Duration;

/// The pause before the first retry; doubled for each further retry.
const PAUSE: Duration = Duration::from_millis(50);
/// The cost of a retry.
const PRICE: u32 = 100;
/// The income from a first try: a tenth of a retry.
const INCOME: u32 = 10;
/// The most that can be saved, and the balance at the start: ten retries.
const SAVINGS: u32 = 10 * PRICE;

/// The budget for retries, shared by all checks of one adapter.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: u32,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self { saved: SAVINGS }
    }

    /// Counts the first try of a check.
    pub(crate) fn first_try(&mut self) {
        self.saved = (self.saved + INCOME).min(SAVINGS);
    }

    /// Pays for a retry. Returns false if the balance is too low.
    pub(crate) fn pay(&mut self) -> bool {
        let left = self.saved.checked_sub(PRICE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

/// Returns the pause before retry number `retry` (from 0). `jitter` is random, from 0 to 1, and takes away up
/// to half.
pub(crate) fn pause(retry: u32, jitter: f64) -> Duration {
    PAUSE.saturating_mul(1 << retry.min(10)).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_and_differ() {
        let of = |retry, jitter| pause(retry, jitter).as_millis();
        assert_eq!([of(0, 0.0), of(1, 0.0), of(2, 0.0)], [50, 100, 200]);
        assert_eq!([of(0, 1.0), of(1, 0.5)], [25, 75]);
    }

    proptest! {
        #[test]
        fn retries_are_a_tenth_of_first_tries_beyond_the_savings(tries: Vec<bool>) {
            let (mut budget, mut firsts, mut retries) = (Budget::new(), 0, 0);
            for first in tries {
                if first {
                    budget.first_try();
                    firsts += 1;
                } else {
                    retries += u32::from(budget.pay());
                }
                prop_assert!(retries <= 10 + firsts / 10);
            }
        }
    }
}

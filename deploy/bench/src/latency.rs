//! Durations as a histogram: recorded in microseconds with three digits, merged over processes, summed up.
//!
//! Merging loses nothing: the merged histogram of several processes has the percentiles of a single histogram
//! that recorded every duration.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest duration, in microseconds; longer durations count as this one.
const LONGEST: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// Recorded durations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latency(Histogram<u64>);

/// A histogram on its way to another process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded(Vec<Bucket>);

/// The durations that a histogram counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    /// The duration, in microseconds.
    us: u64,
    /// How many were recorded.
    count: u64,
}

/// The summary of a histogram for a report, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// How many were recorded.
    pub(crate) count: u64,
    /// The arithmetic mean.
    pub(crate) mean_us: u64,
    /// Half were at most this.
    pub(crate) p50_us: u64,
    /// Nine of ten were at most this.
    pub(crate) p90_us: u64,
    /// 99 of 100 were at most this.
    pub(crate) p99_us: u64,
    /// 999 of 1,000 were at most this.
    pub(crate) p99_9_us: u64,
    /// The longest.
    pub(crate) max_us: u64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are good"))
    }

    /// Records a duration in nanoseconds.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds.div_ceil(1_000).max(1));
    }

    pub(crate) fn recorded(&self) -> Recorded {
        Recorded(
            self.0
                .iter_recorded()
                .map(|step| Bucket { us: step.value_iterated_to(), count: step.count_at_value() })
                .collect(),
        )
    }

    /// Adds the histogram of another process.
    pub(crate) fn merge(&mut self, other: &Recorded) {
        for &Bucket { us, count } in &other.0 {
            self.0.saturating_record_n(us, count);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        if self.0.is_empty() {
            return Summary::default();
        }
        let at = |quantile| self.0.value_at_quantile(quantile);
        Summary {
            count: self.0.len(),
            // Rounded: the mean of microseconds needs no more.
            mean_us: self.0.mean().round() as u64,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_recorded_is_all_zeros() {
        assert_eq!(Latency::new().summary(), Summary::default());
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latency = Latency::new();
        (1..=1_000).for_each(|ms| latency.record(ms * 1_000_000));
        let summary = latency.summary();
        let near = |value: u64, ms: u64| value.abs_diff(ms * 1_000) <= ms;
        assert!(near(summary.p50_us, 500) && near(summary.p90_us, 900), "{summary:?}");
        assert!(near(summary.p99_us, 990) && near(summary.p99_9_us, 999), "{summary:?}");
        assert!(near(summary.max_us, 1_000) && summary.count == 1_000, "{summary:?}");
    }

    #[test]
    fn a_duration_beyond_the_bounds_counts_as_the_longest() {
        let mut latency = Latency::new();
        latency.record(u64::MAX);
        assert!(latency.summary().max_us >= LONGEST);
    }

    proptest! {
        #[test]
        fn merged_histograms_are_those_of_one_that_saw_everything(
            parts in prop::collection::vec(prop::collection::vec(0..10_000_000_000_u64, 0..50), 1..5),
        ) {
            let (mut merged, mut whole) = (Latency::new(), Latency::new());
            for part in &parts {
                let mut latency = Latency::new();
                for &value in part {
                    latency.record(value);
                    whole.record(value);
                }
                let sent = serde_json::to_string(&latency.recorded()).unwrap();
                merged.merge(&serde_json::from_str(&sent).unwrap());
            }
            prop_assert_eq!(merged.recorded(), whole.recorded());
            let (merged, whole) = (merged.summary(), whole.summary());
            prop_assert_eq!(
                (merged.count, merged.p50_us, merged.p99_us), (whole.count, whole.p50_us, whole.p99_us)
            );
        }
    }
}

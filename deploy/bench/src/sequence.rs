//! Checks that one session received every message of one publishing connection, once and in order.
//!
//! Pure. Numbers count from 1. Memory is bounded: a tracker remembers up to 1,024 gaps, and counts the
//! messages of further gaps as lost at once.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The most gaps that a tracker remembers, in case the missing messages arrive late.
const MOST_GAPS: usize = 1_024;

/// The messages that one publishing connection has sent to one channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The publishing connection.
    pub(crate) lane: u16,
    /// The number of the last message.
    pub(crate) last: u64,
    /// The numbers of messages that may or may not have been delivered: refused, or never answered.
    /// Ascending.
    pub(crate) uncertain: Vec<u64>,
}

/// The numbers that a session has received from one publishing connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tracker {
    highest: u64,
    gaps: Vec<RangeInclusive<u64>>,
    /// Messages in gaps that were not remembered.
    forgotten: u64,
    /// Messages that arrived again.
    pub(crate) duplicates: u64,
    /// Messages that arrived after a later one.
    pub(crate) reordered: u64,
}

impl Tracker {
    /// Records that a message arrived.
    pub(crate) fn received(&mut self, number: u64) {
        if number == self.highest + 1 {
            self.highest = number;
        } else if number > self.highest {
            let gap = self.highest + 1..=number - 1;
            if self.gaps.len() < MOST_GAPS {
                self.gaps.push(gap);
            } else {
                self.forgotten += gap.end() - gap.start() + 1;
            }
            self.highest = number;
        } else if self.fill(number) {
            self.reordered += 1;
        } else {
            self.duplicates += 1;
        }
    }

    /// Removes `number` from its gap. Returns false if no gap contains it.
    fn fill(&mut self, number: u64) -> bool {
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&number)) else { return false };
        let gap = self.gaps.swap_remove(at);
        let halves = [*gap.start()..=number - 1, number + 1..=*gap.end()];
        self.gaps.extend(halves.into_iter().filter(|half| !half.is_empty()));
        true
    }

    /// Returns how many of the messages that were certainly sent are missing.
    pub(crate) fn lost(&self, sent: &Sent) -> u64 {
        let behind = self.highest + 1..=sent.last;
        let missing = |gap: &RangeInclusive<u64>| {
            let uncertain = sent.uncertain.iter().filter(|number| gap.contains(number)).count() as u64;
            (gap.end() - gap.start() + 1).saturating_sub(uncertain)
        };
        let behind = if behind.is_empty() { 0 } else { missing(&behind) };
        self.forgotten + behind + self.gaps.iter().map(missing).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn after(numbers: &[u64]) -> Tracker {
        let mut tracker = Tracker::default();
        numbers.iter().for_each(|number| tracker.received(*number));
        tracker
    }

    fn sent(last: u64, uncertain: &[u64]) -> Sent {
        Sent { lane: 0, last, uncertain: uncertain.to_vec() }
    }

    #[test]
    fn messages_in_order_are_all_there() {
        let tracker = after(&[1, 2, 3]);
        assert_eq!((tracker.lost(&sent(3, &[])), tracker.duplicates, tracker.reordered), (0, 0, 0));
        assert_eq!(tracker.lost(&sent(5, &[])), 2, "the last two are missing");
        assert_eq!(tracker.lost(&sent(5, &[4])), 1, "a refused one is not");
    }

    #[test]
    fn late_twice_and_never_are_told_apart() {
        let tracker = after(&[1, 4, 3, 4, 6]);
        assert_eq!((tracker.reordered, tracker.duplicates), (1, 1));
        assert_eq!(tracker.lost(&sent(6, &[])), 2, "2 and 5");
        assert_eq!(tracker.lost(&sent(6, &[2, 5])), 0);
    }

    #[test]
    fn gaps_beyond_memory_count_as_lost() {
        let evens: Vec<u64> = (1..=2 * MOST_GAPS as u64).map(|n| 2 * n).collect();
        let tracker = after(&evens);
        assert_eq!(tracker.gaps.len(), MOST_GAPS);
        assert_eq!(tracker.lost(&sent(4 * MOST_GAPS as u64, &[])), 2 * MOST_GAPS as u64);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(
            numbers in prop::collection::vec(1..40_u64, 0..80),
            uncertain in prop::collection::btree_set(1..40_u64, 0..5),
        ) {
            let tracker = after(&numbers);
            let (mut seen, mut duplicates, mut reordered, mut highest) = (BTreeSet::new(), 0, 0, 0);
            for &number in &numbers {
                if !seen.insert(number) {
                    duplicates += 1;
                } else if number < highest {
                    reordered += 1;
                }
                highest = highest.max(number);
            }
            let lost = (1..=40).filter(|n| !seen.contains(n) && !uncertain.contains(n)).count() as u64;
            let sent = sent(40, &uncertain.into_iter().collect::<Vec<_>>());
            prop_assert_eq!((tracker.duplicates, tracker.reordered, tracker.lost(&sent)), (duplicates, reordered, lost));
        }
    }
}

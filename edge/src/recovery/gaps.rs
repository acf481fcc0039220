//! The gaps in what this edge heard of one partition's stream: pure.
//!
//! An edge hears every live copy, so as long as their sequences follow each other without a gap nothing is
//! missing, and the tails of the channels here need not be compared. The tracker is also the source of fresh
//! positions for channels in which nothing happens.

/// The sequences that were heard of one partition, and how often messages may have been missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GapTracker {
    /// The highest sequence that was heard of.
    newest: u64,
    /// Everything up to here was handled, or is being fetched.
    covered: u64,
    /// Grows with each gap, so that a gap which comes while tails are compared is not forgotten.
    count: u64,
}

impl GapTracker {
    /// Notes that a live copy was handled.
    pub(crate) fn on_live(&mut self, seq: u64) {
        if seq == self.covered + 1 && self.newest == self.covered {
            self.covered = seq;
        } else if seq > self.newest + 1 {
            self.count += 1;
        }
        self.newest = self.newest.max(seq);
    }

    /// Notes that copies may have been missed.
    pub(crate) fn on_interruption(&mut self) {
        self.count += 1;
    }

    /// Notes that something behind this sequence was heard, but not handled after all.
    pub(crate) fn on_missed(&mut self, behind: u64) {
        self.covered = self.covered.min(behind);
        self.count += 1;
    }

    /// Returns the sequence up to which everything was handled, or is being fetched.
    pub(crate) fn covered(&self) -> u64 {
        self.covered
    }

    /// Returns how many gaps there were. To be read before the leader is asked where the stream ends, for
    /// [`GapTracker::on_compared`].
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether messages of a stream that ends with this sequence may have been missed, so that tails
    /// must be compared.
    pub(crate) fn may_miss(&self, last: u64) -> bool {
        self.covered < last
    }

    /// Notes that the tails of all channels here were compared with a stream that ended with `last`. `count`:
    /// the gaps before that.
    pub(crate) fn on_compared(&mut self, last: u64, count: u64) {
        self.covered = self.covered.max(last);
        self.newest = self.newest.max(last);
        if self.count == count {
            // No gap came meanwhile, so everything heard since follows without a gap.
            self.covered = self.newest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copies_in_order_need_no_comparing() {
        let mut gaps = GapTracker::default();
        gaps.on_compared(10, gaps.count());
        (11..=20).for_each(|seq| gaps.on_live(seq));
        assert_eq!((gaps.covered(), gaps.may_miss(20)), (20, false));
        assert!(gaps.may_miss(21), "its copy may be on its way, or lost");
        gaps.on_live(22);
        assert_eq!(gaps.covered(), 20);
        gaps.on_live(21);
        gaps.on_compared(22, gaps.count());
        assert_eq!(gaps.covered(), 22);
    }

    proptest! {
        /// Copies of 1, 2, 3, … come, some are lost: every covered sequence was heard, or compared.
        #[test]
        fn what_is_covered_was_heard_or_compared(
            events in prop::collection::vec(prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(2)], 0..100),
        ) {
            let (mut gaps, mut last, mut missed) = (GapTracker::default(), 0, Vec::new());
            for event in events {
                match event {
                    0 => {
                        last += 1;
                        gaps.on_live(last);
                    }
                    1 => {
                        last += 1;
                        missed.push(last);
                    }
                    _ => {
                        if gaps.may_miss(last) {
                            gaps.on_compared(last, gaps.count());
                        }
                        missed.clear();
                    }
                }
                prop_assert!(missed.iter().all(|missed| *missed > gaps.covered()));
                prop_assert!(gaps.covered() <= last);
            }
        }
    }
}

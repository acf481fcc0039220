//! How much of one partition's stream this edge surely heard: pure.
//!
//! An edge hears every live copy, so as long as their sequences follow each other without a hole nothing is
//! missing, and the tails of the channels here need not be compared. Also the source of fresh positions for
//! channels in which nothing happens.

/// One partition's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The highest sequence that was heard of.
    newest: u64,
    /// Everything up to here was handled, or is being fetched.
    covered: u64,
    /// Grows with each hole, so that one that comes while tails are compared is not forgotten.
    holes: u64,
}

impl Heard {
    /// A live copy was handled.
    pub(crate) fn on_live(&mut self, seq: u64) {
        if seq == self.covered + 1 && self.newest == self.covered {
            self.covered = seq;
        } else if seq > self.newest + 1 {
            self.holes += 1;
        }
        self.newest = self.newest.max(seq);
    }

    /// Copies may have been missed.
    pub(crate) fn on_interruption(&mut self) {
        self.holes += 1;
    }

    /// Something behind this sequence was heard, but not handled after all.
    pub(crate) fn on_missed(&mut self, behind: u64) {
        self.covered = self.covered.min(behind);
        self.holes += 1;
    }

    /// Everything up to here was handled, or is being fetched.
    pub(crate) fn covered(&self) -> u64 {
        self.covered
    }

    /// To be asked for before the leader is asked where the stream ends, and given back to
    /// [`Heard::on_compared`].
    pub(crate) fn holes(&self) -> u64 {
        self.holes
    }

    /// Whether a stream that ends with this sequence may have something that was missed: compare tails.
    pub(crate) fn may_miss(&self, last: u64) -> bool {
        self.covered < last
    }

    /// The tails of all channels here were compared with a stream that ended with `last`.
    pub(crate) fn on_compared(&mut self, last: u64, holes: u64) {
        self.covered = self.covered.max(last);
        self.newest = self.newest.max(last);
        if self.holes == holes {
            // No hole came meanwhile: what was heard since follows.
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
        let mut heard = Heard::default();
        heard.on_compared(10, heard.holes());
        (11..=20).for_each(|seq| heard.on_live(seq));
        assert_eq!((heard.covered(), heard.may_miss(20)), (20, false));
        assert!(heard.may_miss(21), "its copy may be on its way, or lost");
        heard.on_live(22);
        assert_eq!(heard.covered(), 20);
        heard.on_live(21);
        heard.on_compared(22, heard.holes());
        assert_eq!(heard.covered(), 22);
    }

    proptest! {
        /// Copies of 1, 2, 3, … of which some are lost: what counts as covered was heard, or compared.
        #[test]
        fn what_is_covered_was_heard_or_compared(
            events in prop::collection::vec(prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(2)], 0..100),
        ) {
            let (mut heard, mut last, mut missed) = (Heard::default(), 0, Vec::new());
            for event in events {
                match event {
                    0 => {
                        last += 1;
                        heard.on_live(last);
                    }
                    1 => {
                        last += 1;
                        missed.push(last);
                    }
                    _ => {
                        if heard.may_miss(last) {
                            heard.on_compared(last, heard.holes());
                        }
                        missed.clear();
                    }
                }
                prop_assert!(missed.iter().all(|missed| *missed > heard.covered()));
                prop_assert!(heard.covered() <= last);
            }
        }
    }
}

//! Adds up what the edges answer to one ask. Pure: no sockets, no clock.
//!
//! A count is called complete only if every edge that could hold a subscriber has answered and has seen the
//! message, and no unknown edge is possible. Each edge counts once. An ask names live messages first, then
//! stored messages.

use std::sync::Arc;

use shared::ids::NodeId;
use shared::wire::{Answer, Counts};

use crate::edges::awaited::Awaited;
use crate::edges::roster::Expected;

/// The counts of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Sums over the edges that answered.
    pub(crate) counts: Counts,
    /// Whether these sums are all there is.
    pub(crate) complete: bool,
    /// How many edges were asked, or answered unasked.
    pub(crate) expected: usize,
    /// The edges whose answer is missing.
    pub(crate) missing: Arc<[NodeId]>,
}

impl Receipt {
    /// The receipt where surely no edge is.
    pub(crate) fn nobody() -> Self {
        Self { counts: Counts::default(), complete: true, expected: 0, missing: Arc::default() }
    }

    /// The receipt where nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { complete: false, ..Self::nobody() }
    }
}

/// The use of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The counts were added.
    Added,
    /// The edge had answered before.
    Repeated,
    /// The answer has another number of counts than the ask has messages. They count as not seen.
    Malformed,
}

/// The answers to one ask, as they come in.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// The number of live messages, which come first.
    live: usize,
    counts: Vec<Counts>,
    /// Whether every edge that answered had seen the message.
    seen: Vec<bool>,
    awaited: Awaited,
}

impl Gathering {
    /// Begins for an ask about so many live and so many stored messages.
    pub(crate) fn new(live: usize, stored: usize, expected: Expected) -> Self {
        let messages = live + stored;
        Self {
            live,
            counts: vec![Counts::default(); messages],
            seen: vec![true; messages],
            awaited: Awaited::new(expected),
        }
    }

    /// Whether nothing more is worth waiting for.
    pub(crate) fn is_done(&self) -> bool {
        self.awaited.is_done()
    }

    /// Adds an edge's answer, known edge or not.
    pub(crate) fn on_answer(&mut self, answer: &Answer) -> Taken {
        if !self.awaited.on_answer(&answer.edge) {
            return Taken::Repeated;
        }
        let (live, stored) = (self.live, self.counts.len() - self.live);
        let mut taken = Taken::Added;
        if answer.counts.len() == live {
            self.add(0, &answer.counts);
        } else {
            self.seen[..live].fill(false);
            taken = Taken::Malformed;
        }
        match answer.stored.len() {
            known if known == stored => self.add(live, &answer.stored),
            // An edge of a version without history counts no stored messages.
            0 => self.seen[live..].fill(false),
            _ => {
                self.seen[live..].fill(false);
                taken = Taken::Malformed;
            }
        }
        taken
    }

    fn add(&mut self, from: usize, counts: &[Option<Counts>]) {
        for (index, counts) in (from..).zip(counts) {
            match counts {
                Some(counts) => self.counts[index] += *counts,
                None => self.seen[index] = false,
            }
        }
    }

    /// Takes the word of the bus that nobody listens to asks: nobody will answer.
    pub(crate) fn on_nobody(&mut self) {
        self.awaited.on_nobody();
    }

    /// Returns the counts known now, one receipt a message.
    pub(crate) fn receipts(&self) -> impl Iterator<Item = Receipt> {
        let (expected, whole) = (self.awaited.expected(), self.awaited.is_whole());
        let missing: Arc<[NodeId]> = self.awaited.missing().into();
        self.counts.iter().zip(&self.seen).map(move |(counts, seen)| Receipt {
            counts: *counts,
            complete: whole && *seen,
            expected,
            missing: Arc::clone(&missing),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edges(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| NodeId::from(*name)).collect()
    }

    fn expected(live: &[&str], silent: &[&str]) -> Expected {
        Expected { live: edges(live), silent: edges(silent), certain: true }
    }

    fn answer(edge: &str, counts: &[Option<(u64, u64)>]) -> Answer {
        let counts = counts.iter().map(|c| c.map(|(sessions, failed)| Counts { sessions, failed })).collect();
        Answer { v: 1, edge: edge.into(), counts, stored: vec![] }
    }

    fn receipts(gathering: &Gathering) -> Vec<(u64, u64, bool)> {
        gathering.receipts().map(|r| (r.counts.sessions, r.counts.failed, r.complete)).collect()
    }

    #[test]
    fn it_is_done_and_complete_when_every_live_edge_answered() {
        let mut gathering = Gathering::new(2, 0, expected(&["a", "b"], &[]));
        assert!(!gathering.is_done());
        assert_eq!(gathering.on_answer(&answer("a", &[Some((1, 0)), Some((0, 0))])), Taken::Added);
        assert_eq!(gathering.on_answer(&answer("a", &[Some((1, 0)), Some((0, 0))])), Taken::Repeated);
        assert!(!gathering.is_done());
        assert_eq!(receipts(&gathering), [(1, 0, false), (0, 0, false)]);
        gathering.on_answer(&answer("b", &[Some((2, 3)), Some((0, 1))]));
        assert!(gathering.is_done());
        assert_eq!(receipts(&gathering), [(3, 3, true), (0, 1, true)]);
    }

    #[test]
    fn a_message_that_an_edge_has_not_seen_is_incomplete_and_the_others_are_not() {
        let mut gathering = Gathering::new(2, 0, expected(&["a"], &[]));
        gathering.on_answer(&answer("a", &[None, Some((1, 0))]));
        assert_eq!(receipts(&gathering), [(0, 0, false), (1, 0, true)]);
    }

    #[test]
    fn an_answer_of_the_wrong_length_is_an_answer_that_tells_nothing() {
        let mut gathering = Gathering::new(2, 0, expected(&["a"], &[]));
        assert_eq!(gathering.on_answer(&answer("a", &[Some((9, 9))])), Taken::Malformed);
        assert!(gathering.is_done());
        assert_eq!(receipts(&gathering), [(0, 0, false), (0, 0, false)]);
    }

    #[test]
    fn live_and_stored_messages_are_told_apart_and_an_edge_of_before_history_makes_only_the_stored_incomplete()
     {
        let mut gathering = Gathering::new(1, 1, expected(&["a", "b"], &[]));
        let stored = vec![Some(Counts { sessions: 5, failed: 1 })];
        let both = Answer { stored, ..answer("a", &[Some((2, 0))]) };
        assert_eq!(gathering.on_answer(&both), Taken::Added);
        assert_eq!(gathering.on_answer(&answer("b", &[Some((1, 0))])), Taken::Added);
        assert_eq!(receipts(&gathering), [(3, 0, true), (5, 1, false)]);

        let mut gathering = Gathering::new(1, 1, expected(&["a"], &[]));
        let long = Answer { stored: vec![None, None], ..answer("a", &[Some((2, 0))]) };
        assert_eq!(gathering.on_answer(&long), Taken::Malformed);
        assert_eq!(receipts(&gathering), [(2, 0, true), (0, 0, false)]);
    }

    #[test]
    fn a_silent_edge_is_named_and_not_waited_for_but_counts_if_it_answers() {
        let mut gathering = Gathering::new(1, 0, expected(&["a"], &["s"]));
        gathering.on_answer(&answer("a", &[Some((1, 0))]));
        assert!(gathering.is_done());
        let receipt = gathering.receipts().next().unwrap();
        assert_eq!((receipt.complete, receipt.missing.to_vec()), (false, edges(&["s"])));
        gathering.on_answer(&answer("s", &[Some((1, 0))]));
        assert_eq!(receipts(&gathering), [(2, 0, true)]);
    }

    #[test]
    fn an_unknown_edge_counts() {
        let mut gathering = Gathering::new(1, 0, expected(&["a"], &[]));
        gathering.on_answer(&answer("new", &[Some((5, 0))]));
        gathering.on_answer(&answer("a", &[Some((1, 0))]));
        assert_eq!(receipts(&gathering), [(6, 0, true)]);
    }

    #[test]
    fn without_a_known_edge_the_whole_time_is_waited_unless_the_bus_says_that_nobody_listens() {
        let uncertain = Expected { certain: false, ..Expected::default() };
        assert!(!uncertain.nobody());
        let mut gathering = Gathering::new(1, 0, uncertain);
        gathering.on_answer(&answer("new", &[Some((5, 0))]));
        assert!(!gathering.is_done());
        gathering.on_nobody();
        assert!(gathering.is_done());
        assert_eq!(receipts(&gathering), [(5, 0, false)]);
    }

    #[test]
    fn when_nobody_listens_the_edges_that_should_are_named() {
        let mut gathering = Gathering::new(1, 0, expected(&["a"], &[]));
        gathering.on_nobody();
        assert!(gathering.is_done());
        let receipt = gathering.receipts().next().unwrap();
        assert_eq!((receipt.complete, receipt.missing.to_vec()), (false, edges(&["a"])));
    }

    #[test]
    fn nobody_is_sure_only_if_certain_and_no_edge_is_known() {
        assert!(expected(&[], &[]).nobody());
        assert!(!expected(&["a"], &[]).nobody());
        assert!(!expected(&[], &["a"]).nobody());
    }

    fn any_answers() -> impl Strategy<Value = Vec<Answer>> {
        let counts = prop::option::of((0..5_u64, 0..5_u64));
        let one = (0..6_u8, prop::collection::vec(counts, 2));
        prop::collection::vec(one.prop_map(|(edge, counts)| answer(&format!("e{edge}"), &counts)), 0..12)
    }

    proptest! {
        /// Against the definition: the first answer of each edge counts, in whatever order they come.
        #[test]
        fn sums_and_completeness_are_those_of_the_first_answers(
            answers in any_answers(), live in 0..4_u8, silent in 4..6_u8, certain: bool,
        ) {
            let names = |range: std::ops::Range<u8>| range.map(|n| NodeId::from(&*format!("e{n}"))).collect();
            let expected = Expected { live: names(0..live), silent: names(4..silent), certain };
            let mut gathering = Gathering::new(2, 0, expected.clone());
            let mut first: Vec<&Answer> = Vec::new();
            for answer in &answers {
                gathering.on_answer(answer);
                if first.iter().all(|known| known.edge != answer.edge) {
                    first.push(answer);
                }
            }
            let has_answered = |edge: &NodeId| first.iter().any(|answer| answer.edge == *edge);
            let known: Vec<&NodeId> = expected.live.iter().chain(&expected.silent).collect();
            let someone = certain || !expected.live.is_empty();
            prop_assert_eq!(gathering.is_done(), someone && expected.live.iter().all(has_answered));
            for (index, receipt) in gathering.receipts().enumerate() {
                let of_message = || first.iter().map(|answer| answer.counts[index]);
                let sessions: u64 = of_message().flatten().map(|c| c.sessions).sum();
                let failed: u64 = of_message().flatten().map(|c| c.failed).sum();
                let complete =
                    certain && known.iter().all(|e| has_answered(e)) && of_message().all(|c| c.is_some());
                prop_assert_eq!(receipt.counts, Counts { sessions, failed });
                prop_assert_eq!(receipt.complete, complete);
                prop_assert_eq!(
                    receipt.missing.to_vec(),
                    known.iter().filter(|e| !has_answered(e)).map(|e| (*e).clone()).collect::<Vec<_>>()
                );
            }
        }
    }
}

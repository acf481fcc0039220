//! How far one channel's messages have come on this edge: pure, no sockets and no clocks.
//!
//! Everything of the channel up to `last` was handled: delivered to whoever was subscribed then, or older than the first
//! subscription. A live copy that shows that something is missing before it is not delivered; what is missing is fetched
//! first, together with it. While a fetch runs, live copies only say how far it must go. So whatever is lost, repeated or
//! out of order on the way, messages are handled once each, in the order of the stream.

use shared::history::Epoch;

/// What to do with a live copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is the next one.
    Deliver,
    /// It was handled already, or will be by what is under way.
    Ignore,
    /// Something is missing before it: begin to fetch.
    Fetch,
}

/// One channel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// In which life of the stream; none until the beginning is known.
    epoch: Option<Epoch>,
    /// Where it began here. Nobody here is to be given what is not beyond.
    opened: u64,
    /// The last message that was handled, or was there before the beginning.
    last: u64,
    /// The highest sequence that is known to exist.
    wanted: u64,
    fetching: bool,
}

impl Line {
    /// The life of the stream, once the beginning is known.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The last message that was handled.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Nobody here is to be given what is not beyond.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether something is known to be missing.
    pub(crate) fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// The beginning is known: `tail` is the channel's last message in the store. True: begin to fetch what came since.
    pub(crate) fn open(&mut self, epoch: Epoch, tail: u64) -> bool {
        if self.epoch == Some(epoch) {
            return self.want(tail);
        }
        let newest = if self.epoch.is_none() { self.wanted } else { 0 };
        *self =
            Self { epoch: Some(epoch), opened: tail, last: tail, wanted: newest.max(tail), fetching: false };
        self.fetching = self.wanted > self.last;
        self.fetching
    }

    /// The stream is another one now: nothing is known until it is opened again.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A live copy came; `before` is the sequence of the channel's message before it; `sure`: it is of this
    /// life of the stream. `heals`: not only in a test that
    /// shows what happens otherwise.
    pub(crate) fn on_live(&mut self, before: u64, seq: u64, sure: bool, heals: bool) -> Step {
        if self.epoch.is_some() && seq <= self.last {
            return Step::Ignore;
        }
        self.wanted = self.wanted.max(seq);
        if self.fetching || self.epoch.is_none() {
            return Step::Ignore;
        }
        if (before > self.last || !sure) && heals {
            self.fetching = true;
            return Step::Fetch;
        }
        self.last = seq;
        Step::Deliver
    }

    /// This sequence is known to exist. True: begin to fetch.
    pub(crate) fn want(&mut self, seq: u64) -> bool {
        self.wanted = self.wanted.max(seq);
        let begins = self.epoch.is_some() && !self.fetching && self.wanted > self.last;
        self.fetching |= begins;
        begins
    }

    /// A message was fetched, behind all others that were. True: it is the next one.
    pub(crate) fn on_fetched(&mut self, epoch: Epoch, seq: u64) -> bool {
        let next = self.fetching && self.epoch == Some(epoch) && seq > self.last;
        if next {
            self.last = seq;
            self.wanted = self.wanted.max(seq);
        }
        next
    }

    /// What is missing: after which sequence, and up to which at least.
    pub(crate) fn missing(&self) -> Option<(Epoch, u64, u64)> {
        self.epoch.filter(|_| self.fetching).map(|epoch| (epoch, self.last, self.wanted))
    }

    /// The store's leader said that there is nothing of the channel beyond `tail`. True: nothing is missing any more.
    pub(crate) fn on_tail(&mut self, epoch: Epoch, asked_up_to: u64, tail: u64) -> bool {
        if self.epoch != Some(epoch) {
            return true;
        }
        if tail <= self.last {
            // What was wanted up to the question does not exist any more.
            self.last = self.last.max(asked_up_to);
        }
        self.settle()
    }

    /// Ends the fetch if nothing is missing any more, and tells whether.
    pub(crate) fn settle(&mut self) -> bool {
        self.fetching = self.fetching && self.wanted > self.last;
        !self.fetching
    }

    /// What is missing can't be had any more: goes on after `tail`.
    pub(crate) fn skip(&mut self, tail: u64) {
        self.last = self.last.max(tail);
        self.opened = self.last;
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch(1);

    /// What may happen to the copies of the messages 1, 2, 3, … of a channel.
    #[derive(Debug, Clone)]
    enum Event {
        /// The next message is stored, and its live copy is on its way.
        Publish,
        /// One of the copies that are on their way arrives.
        Arrive(prop::sample::Index),
        /// One of them is lost.
        Lose(prop::sample::Index),
        /// One arrives that stays on its way, so it will come again.
        Repeat(prop::sample::Index),
        /// A fetch that runs reads so many messages.
        Fetch(usize),
        /// The tails are compared.
        Sweep,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Publish),
            4 => any::<prop::sample::Index>().prop_map(Event::Arrive),
            1 => any::<prop::sample::Index>().prop_map(Event::Lose),
            1 => any::<prop::sample::Index>().prop_map(Event::Repeat),
            2 => (0_usize..4).prop_map(Event::Fetch),
            1 => Just(Event::Sweep),
        ]
    }

    #[derive(Default)]
    struct Model {
        line: Line,
        stored: u64,
        coming: Vec<u64>,
        handled: Vec<u64>,
    }

    impl Model {
        fn arrive(&mut self, seq: u64) {
            if self.line.on_live(seq - 1, seq, true, true) == Step::Deliver {
                self.handled.push(seq);
            }
        }

        fn fetch(&mut self, most: usize) {
            if let Some((epoch, after, _)) = self.line.missing() {
                for seq in (after + 1..=self.stored).take(most) {
                    if self.line.on_fetched(epoch, seq) {
                        self.handled.push(seq);
                    }
                }
                self.line.settle();
            }
        }

        fn on(&mut self, event: &Event) {
            match event {
                Event::Publish => {
                    self.stored += 1;
                    self.coming.push(self.stored);
                }
                Event::Arrive(which) | Event::Lose(which) | Event::Repeat(which)
                    if !self.coming.is_empty() =>
                {
                    let which = which.index(self.coming.len());
                    let seq = self.coming[which];
                    if !matches!(event, Event::Repeat(_)) {
                        self.coming.remove(which);
                    }
                    if !matches!(event, Event::Lose(_)) {
                        self.arrive(seq);
                    }
                }
                Event::Arrive(_) | Event::Lose(_) | Event::Repeat(_) => {}
                Event::Fetch(most) => self.fetch(*most),
                Event::Sweep => {
                    self.line.want(self.stored);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn everything_is_handled_once_and_in_order_after_a_sweep(
            before in 0_u64..5,
            early in 0_u64..3,
            events in prop::collection::vec(event(), 0..200),
        ) {
            let mut model = Model { stored: before + early, ..Model::default() };
            // Copies that come before the beginning is known.
            for seq in 1..=model.stored {
                prop_assert_eq!(model.line.on_live(seq - 1, seq, true, true), Step::Ignore);
            }
            model.line.open(EPOCH, before);
            for event in &events {
                model.on(event);
                let line = &model.line;
                prop_assert!(line.last >= line.opened && line.wanted >= line.last);
                prop_assert_eq!(model.handled.clone(),
                    (before + 1..=line.last).collect::<Vec<_>>());
            }
            model.on(&Event::Sweep);
            model.fetch(usize::MAX);
            prop_assert_eq!(model.line.last, model.stored);
            prop_assert!(!model.line.fetching);
        }
    }

    #[test]
    fn without_healing_a_gap_is_passed_over() {
        let mut line = Line::default();
        line.open(EPOCH, 1);
        assert_eq!(line.on_live(2, 3, true, false), Step::Deliver);
        assert_eq!(line.last(), 3);
    }

    #[test]
    fn what_was_erased_is_not_waited_for() {
        let mut line = Line::default();
        line.open(EPOCH, 5);
        assert!(line.want(9));
        assert!(line.on_tail(EPOCH, 9, 5), "the leader has nothing beyond 5");
        assert_eq!((line.last(), line.is_fetching()), (9, false));
        assert!(line.want(10));
        line.want(12);
        assert!(!line.on_tail(EPOCH, 10, 7), "12 became known after the question");
    }

    #[test]
    fn another_life_of_the_stream_begins_anew() {
        let mut line = Line::default();
        line.open(EPOCH, 500);
        line.forget();
        assert_eq!(line.on_live(0, 1, true, true), Step::Ignore);
        assert_eq!(line.on_live(1, 2, true, true), Step::Ignore);
        assert!(line.open(Epoch(2), 1), "2 came meanwhile");
        assert_eq!(line.missing(), Some((Epoch(2), 1, 2)));
        assert!(!line.on_fetched(EPOCH, 2), "it is of another life");
        assert!(line.on_fetched(Epoch(2), 2));
        assert!(line.settle());
    }
}

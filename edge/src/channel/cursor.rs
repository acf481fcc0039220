//! How far one channel's messages were handled on this edge: pure, no sockets and no clocks.
//!
//! Everything of the channel up to `last` was handled: delivered to the subscribers of that time, or older
//! than the first subscription. If a live copy shows that something is missing before it, the copy is not
//! delivered; the missing messages are fetched first, together with that copy. While a fetch runs, live
//! copies only say how far the fetch must go. So whatever is lost, repeated or out of order on the way,
//! messages are handled once each, in the order of the stream.

use shared::history::Epoch;

/// The step to take with a live copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The copy is the next one.
    Deliver,
    /// The copy was handled already, or the fetch under way will bring it.
    Ignore,
    /// Something is missing before the copy: begin to fetch.
    Fetch,
}

/// The messages that a fetch looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) epoch: Epoch,
    /// The last sequence that was handled.
    pub(crate) after: u64,
    /// The highest sequence that is said to exist.
    pub(crate) up_to: u64,
}

/// How far one channel was handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The epoch of the stream; none until the cursor is opened.
    epoch: Option<Epoch>,
    /// Where the cursor was opened: no session here may be given an earlier message.
    opened: u64,
    /// The last message that was handled, or was there before the cursor was opened.
    last: u64,
    /// The highest sequence that is said to exist.
    wanted: u64,
    fetching: bool,
    /// The number of the newest fetch, so that a fetch that ends late does not speak for another.
    fetches: u64,
}

impl Cursor {
    /// Returns the epoch of the stream, once the cursor is open.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Returns the last sequence that was handled.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Returns where the cursor was opened: no session here may be given an earlier message.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Returns whether something is said to be missing, fetched or not.
    pub(crate) fn lacks(&self) -> bool {
        self.epoch.is_some() && self.wanted > self.last
    }

    /// Returns whether something is missing while no fetch runs.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lacks() && !self.fetching
    }

    /// Returns the number of the fetch that has just begun.
    pub(crate) fn fetch(&self) -> u64 {
        self.fetches
    }

    fn begin(&mut self) {
        self.fetching = true;
        self.fetches += 1;
    }

    /// Opens the cursor at `tail`, the channel's last message in the store. True: messages came since, and a
    /// fetch must begin.
    pub(crate) fn open(&mut self, epoch: Epoch, tail: u64) -> bool {
        if self.epoch == Some(epoch) {
            return self.want(tail);
        }
        let newest = if self.epoch.is_none() { self.wanted } else { 0 };
        self.forget();
        *self = Self { epoch: Some(epoch), opened: tail, last: tail, wanted: newest.max(tail), ..*self };
        self.want(tail)
    }

    /// Forgets everything, since the stream has another epoch now.
    pub(crate) fn forget(&mut self) {
        *self = Self { fetches: self.fetches, ..Self::default() };
    }

    /// Takes a live copy. `before`: the sequence of the channel's message before it. `sure`: the copy belongs
    /// to this epoch.
    pub(crate) fn on_live(&mut self, before: u64, seq: u64, sure: bool) -> Step {
        if self.epoch.is_some() && seq <= self.last {
            return Step::Ignore;
        }
        self.wanted = self.wanted.max(seq);
        if self.fetching || self.epoch.is_none() {
            return Step::Ignore;
        }
        if before > self.last || !sure {
            self.begin();
            return Step::Fetch;
        }
        self.last = seq;
        Step::Deliver
    }

    /// Notes that a sequence is said to exist. True: begin to fetch.
    pub(crate) fn want(&mut self, seq: u64) -> bool {
        self.wanted = self.wanted.max(seq);
        let begins = self.is_abandoned();
        if begins {
            self.begin();
        }
        begins
    }

    /// Ends a fetch before everything was there: the next event begins another.
    pub(crate) fn abandon(&mut self, fetch: u64) {
        self.fetching &= self.fetches != fetch;
    }

    /// Ends a fetch of something that the stream does not have. Live copies that came meanwhile are
    /// forgotten with it, so tails must be compared.
    pub(crate) fn give_back(&mut self, fetch: u64) {
        if self.fetching && self.fetches == fetch {
            self.wanted = self.last;
            self.fetching = false;
        }
    }

    /// Takes a fetched message; the caller gives them in order. True: the message is the next one.
    pub(crate) fn on_fetched(&mut self, epoch: Epoch, seq: u64) -> bool {
        let next = self.fetching && self.epoch == Some(epoch) && seq > self.last;
        if next {
            self.last = seq;
            self.wanted = self.wanted.max(seq);
        }
        next
    }

    /// Returns what a fetch looks for. None: the fetch is over, or another one runs.
    pub(crate) fn missing(&self, fetch: u64) -> Option<Missing> {
        let runs = self.fetching && self.fetches == fetch;
        let epoch = self.epoch.filter(|_| runs)?;
        Some(Missing { epoch, after: self.last, up_to: self.wanted })
    }

    /// Takes the store's answer that the channel has nothing beyond `tail`, as far as the store has come:
    /// `come`. True: nothing is missing any more.
    pub(crate) fn on_tail(&mut self, epoch: Epoch, asked_up_to: u64, tail: u64, come: u64) -> bool {
        if self.epoch != Some(epoch) {
            return true;
        }
        // A store that has not come as far as what is wanted does not know whether it exists.
        if tail <= self.last && come >= asked_up_to {
            // Messages that were wanted up to the question do not exist any more.
            self.last = self.last.max(asked_up_to);
        }
        self.settle()
    }

    /// Ends the fetch if nothing is missing any more, and tells whether.
    pub(crate) fn settle(&mut self) -> bool {
        self.fetching = self.fetching && self.wanted > self.last;
        !self.fetching
    }

    /// Gives up what is missing: goes on after `tail`.
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

    /// An event for the copies of a channel's messages, in a stream that has others in between.
    #[derive(Debug, Clone)]
    enum Event {
        /// The next message is stored: one of the channel, whose live copy is on its way, or of another.
        Publish(bool),
        /// One of the copies that are on their way arrives.
        Arrive(prop::sample::Index),
        /// One of them is lost.
        Lose(prop::sample::Index),
        /// One of them arrives and also stays on its way, so it will come again.
        Repeat(prop::sample::Index),
        /// A running fetch reads so many messages from a store that is so far behind.
        Fetch(usize, u64),
        /// The tails are compared.
        Sweep,
        /// A message is said to exist so far beyond the last, or near the end of all numbers.
        Say(u64, bool),
        /// A running fetch ends without having found everything, or is lost without notice.
        End(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => prop::bool::weighted(0.7).prop_map(Event::Publish),
            4 => any::<prop::sample::Index>().prop_map(Event::Arrive),
            1 => any::<prop::sample::Index>().prop_map(Event::Lose),
            1 => any::<prop::sample::Index>().prop_map(Event::Repeat),
            2 => (0_usize..4, prop_oneof![3 => Just(0), 1 => 0_u64..4]).prop_map(|(most, lag)| Event::Fetch(most, lag)),
            1 => Just(Event::Sweep),
            1 => (0_u64..5, prop::bool::weighted(0.2)).prop_map(|(beyond, far)| Event::Say(beyond, far)),
            1 => any::<bool>().prop_map(Event::End),
        ]
    }

    #[derive(Default)]
    struct Model {
        cursor: Cursor,
        /// The last sequence of the stream, and those of the channel.
        last: u64,
        stored: Vec<u64>,
        coming: Vec<u64>,
        handled: Vec<u64>,
    }

    impl Model {
        fn before(&self, seq: u64) -> u64 {
            self.stored.iter().copied().filter(|it| *it < seq).max().unwrap_or(0)
        }

        fn arrive(&mut self, seq: u64) {
            if self.cursor.on_live(self.before(seq), seq, true) == Step::Deliver {
                self.handled.push(seq);
            }
        }

        /// As `Recovery::catch_up` does, one page.
        fn fetch(&mut self, most: usize, lag: u64) {
            let fetch = self.cursor.fetch();
            let Some(Missing { epoch, after, up_to }) = self.cursor.missing(fetch) else { return };
            let come = self.last.saturating_sub(lag);
            let there = self.stored.iter().copied().filter(|seq| *seq <= come);
            let page: Vec<_> = there.clone().filter(|seq| *seq > after).take(most).collect();
            for seq in &page {
                if self.cursor.on_fetched(epoch, *seq) {
                    self.handled.push(*seq);
                }
            }
            if !self.cursor.settle() && page.len() < most {
                self.cursor.on_tail(epoch, up_to, there.max().unwrap_or(0), come);
            }
        }

        fn sweep(&mut self) {
            self.cursor.want(self.before(u64::MAX));
        }

        fn on(&mut self, event: &Event) {
            match event {
                Event::Publish(ours) => {
                    self.last += 1;
                    if *ours {
                        self.stored.push(self.last);
                        self.coming.push(self.last);
                    }
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
                Event::Fetch(most, lag) => self.fetch(*most, *lag),
                Event::Sweep => self.sweep(),
                Event::Say(beyond, far) => {
                    self.cursor.want(if *far { u64::MAX - beyond } else { self.last + beyond });
                }
                Event::End(true) => self.cursor.give_back(self.cursor.fetch()),
                Event::End(false) => self.cursor.abandon(self.cursor.fetch()),
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
            let last = before + early;
            let mut model = Model { last, stored: (1..=last).collect(), ..Model::default() };
            // Copies that come before the cursor is open.
            for seq in 1..=last {
                prop_assert_eq!(model.cursor.on_live(seq - 1, seq, true), Step::Ignore);
            }
            model.cursor.open(EPOCH, before);
            for event in &events {
                model.on(event);
                let cursor = &model.cursor;
                prop_assert!(cursor.last >= cursor.opened && cursor.wanted >= cursor.last);
                prop_assert!(cursor.last <= model.last, "behind the end of the stream is nothing to be believed");
                let due = |seq: &&u64| **seq > before && **seq <= cursor.last;
                prop_assert_eq!(model.handled.clone(), model.stored.iter().filter(due).copied().collect::<Vec<_>>());
            }
            // A sequence that never existed is given back, and the tails are compared.
            model.sweep();
            model.fetch(usize::MAX, 0);
            model.on(&Event::End(true));
            model.sweep();
            model.fetch(usize::MAX, 0);
            prop_assert!(model.cursor.last >= model.before(u64::MAX));
            prop_assert!(!model.cursor.fetching && !model.cursor.lacks());
        }
    }

    #[test]
    fn a_copy_that_names_nothing_before_it_passes_over_a_gap() {
        let mut cursor = Cursor::default();
        cursor.open(EPOCH, 1);
        assert_eq!(cursor.on_live(0, 3, true), Step::Deliver);
        assert_eq!(cursor.last(), 3);
    }

    #[test]
    fn what_was_erased_is_not_waited_for() {
        let mut cursor = Cursor::default();
        cursor.open(EPOCH, 5);
        assert!(cursor.want(9));
        assert!(cursor.on_tail(EPOCH, 9, 5, 9), "the leader has nothing beyond 5");
        assert_eq!((cursor.last(), cursor.lacks()), (9, false));
        assert!(cursor.want(10));
        cursor.want(12);
        assert!(!cursor.on_tail(EPOCH, 10, 7, 12), "12 became known after the question");
    }

    #[test]
    fn an_end_is_believed_only_from_a_store_that_has_come_so_far() {
        for far in [9, u64::MAX] {
            let mut cursor = Cursor::default();
            cursor.open(EPOCH, 5);
            assert!(cursor.want(far));
            assert!(!cursor.on_tail(EPOCH, far, 5, 8), "it has come to 8");
            assert_eq!((cursor.last(), cursor.lacks()), (5, true));
            cursor.give_back(cursor.fetch());
            assert!(!cursor.lacks());
            assert_eq!(cursor.on_live(5, 7, true), Step::Deliver, "the channel is not deaf");
        }
    }

    #[test]
    fn a_fetch_that_ends_halfway_leaves_the_cursor_to_the_next_one() {
        let mut cursor = Cursor::default();
        cursor.open(EPOCH, 5);
        assert!(cursor.want(9));
        let first = cursor.fetch();
        cursor.abandon(first);
        assert!(cursor.is_abandoned());
        assert_eq!(cursor.missing(first), None);
        assert!(cursor.want(0), "it is known what is missing");
        cursor.abandon(first);
        assert_eq!(
            cursor.missing(cursor.fetch()),
            Some(Missing { epoch: EPOCH, after: 5, up_to: 9 }),
            "the first speaks for itself alone"
        );
        assert_eq!(cursor.on_live(9, 10, true), Step::Ignore);
        cursor.abandon(cursor.fetch());
        assert_eq!(cursor.on_live(10, 11, true), Step::Fetch);
    }

    #[test]
    fn another_epoch_begins_anew() {
        let mut cursor = Cursor::default();
        cursor.open(EPOCH, 500);
        cursor.forget();
        assert_eq!(cursor.on_live(0, 1, true), Step::Ignore);
        assert_eq!(cursor.on_live(1, 2, true), Step::Ignore);
        assert!(cursor.open(Epoch(2), 1), "2 came meanwhile");
        assert_eq!(cursor.missing(cursor.fetch()), Some(Missing { epoch: Epoch(2), after: 1, up_to: 2 }));
        assert!(!cursor.on_fetched(EPOCH, 2), "it is of another epoch");
        assert!(cursor.on_fetched(Epoch(2), 2));
        assert!(cursor.settle());
    }
}

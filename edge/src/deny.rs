//! Who may not log in for a while, because the back end said so. Pure: time is told.
//!
//! Orders come by two ways: in the order of the list that keeps them ([`DenyList::read`]), and ahead of that
//! from the publisher ([`DenyList::order`]). Whichever comes first, the one with the highest sequence holds.
//! What has run out counts as gone, whether it was forgotten or not. There is a bound, and whoever finds no
//! place is told so, never let in silently.
//!
//! The clock may be ahead for a while. So what has run out is remembered for [`SLACK`], unless its place is
//! needed, and a clock that then says an earlier time has the list read again ([`DenyList::resume`]).
//!
//! An order closes sessions as well. The publisher counts those that its own order closes, so an order that
//! was only read is remembered for a moment ([`DenyList::owe`]), and whatever the publisher's order did not
//! close by then is closed.

use std::collections::HashMap;
use std::sync::Arc;

use shared::bans;
use shared::ids::Uid;

/// How long an order is remembered after its end, in milliseconds.
const SLACK: u64 = bans::SLACK.as_secs() * 1_000;

/// What a close frame says in place of its code's own reason.
pub(crate) type Words = Option<Arc<str>>;

/// The users that an edge refuses. Times are milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct DenyList {
    capacity: usize,
    users: HashMap<Uid, Denial>,
    /// Every order of the list up to here was read.
    read: u64,
    /// The latest end of what was forgotten.
    forgotten: u64,
    /// Orders that were read and that no publisher told here, the last of each user.
    owed: HashMap<Uid, Owed>,
}

/// An order whose sessions are still to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Where the list keeps it.
    pub(crate) seq: u64,
    /// When it was stored: sessions that began before are closed, whether the ban has ended since or not.
    pub(crate) stored: u64,
    pub(crate) words: Words,
}

#[derive(Debug)]
struct Denial {
    /// Where the list keeps it.
    seq: u64,
    /// It may be past: that a user may log in again is remembered until the list was read that far.
    until: u64,
    words: Words,
}

impl Denial {
    /// Whether it had run out by then, and nothing before it is still to be read.
    fn is_over(&self, read: u64, then: u64) -> bool {
        self.until <= then && self.seq <= read
    }
}

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl DenyList {
    /// Refuses nobody yet, and never more than `capacity` users.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, users: HashMap::new(), read: 0, forgotten: 0, owed: HashMap::new() }
    }

    /// Up to where the list was read.
    pub(crate) fn cursor(&self) -> u64 {
        self.read
    }

    /// How many users are refused.
    pub(crate) fn refused(&self, now: u64) -> usize {
        self.users.values().filter(|denial| denial.until > now).count()
    }

    /// Takes an order from a publisher.
    ///
    /// # Errors
    /// There is no place for it.
    pub(crate) fn order(
        &mut self,
        uid: &Uid,
        seq: u64,
        until: u64,
        words: Words,
        now: u64,
    ) -> Result<(), Full> {
        // Whoever carries the order out closes the sessions.
        if self.owed.get(uid).is_some_and(|owed| owed.seq <= seq) {
            self.owed.remove(uid);
        }
        // What was read already is known, or something later is.
        if seq <= self.read { Ok(()) } else { self.take(uid, Denial { seq, until, words }, now) }
    }

    /// Takes an order from a publisher that keeps no list: it holds until the list says otherwise.
    ///
    /// # Errors
    /// There is no place for it.
    pub(crate) fn order_unkept(&mut self, uid: &Uid, until: u64, words: Words, now: u64) -> Result<(), Full> {
        let seq = self.users.get(uid).map_or(self.read, |denial| denial.seq);
        self.take(uid, Denial { seq, until, words }, now)
    }

    /// Takes the next order of the list.
    ///
    /// # Errors
    /// There is no place for it; it counts as read all the same.
    pub(crate) fn read(
        &mut self,
        uid: &Uid,
        seq: u64,
        until: u64,
        words: Words,
        now: u64,
    ) -> Result<(), Full> {
        self.read_up_to(seq);
        self.take(uid, Denial { seq, until, words }, now)
    }

    /// Whether a publisher told this order, or a later one about the user, before it was read.
    pub(crate) fn was_told(&self, uid: &Uid, seq: u64) -> bool {
        self.users.get(uid).is_some_and(|known| known.seq >= seq)
    }

    /// An order was read that no publisher told here, about a user who has sessions. So there are no more of
    /// these than users on this edge.
    pub(crate) fn owe(&mut self, uid: &Uid, owed: Owed) {
        self.owed.insert(uid.clone(), owed);
    }

    /// Whether sessions are still to be closed.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// The orders up to this sequence whose sessions are still to be closed.
    pub(crate) fn take_owed(&mut self, up_to: u64) -> Vec<(Uid, Owed)> {
        self.owed.extract_if(|_, owed| owed.seq <= up_to).collect()
    }

    /// There is nothing else up to here.
    pub(crate) fn read_up_to(&mut self, seq: u64) {
        self.read = self.read.max(seq);
    }

    /// Up to where the list needs no reading; `last` is its last sequence. Everything is read again if it is
    /// another list or went back, or if something was forgotten that has not run out: the clock was ahead.
    pub(crate) fn resume(&mut self, is_other: bool, last: u64, now: u64) -> u64 {
        if is_other || last < self.read || self.forgotten > now {
            self.begin_again();
        }
        self.read
    }

    /// What is refused stays refused until the list says otherwise.
    fn begin_again(&mut self) {
        (self.read, self.forgotten) = (0, 0);
        self.users.values_mut().for_each(|denial| denial.seq = 0);
        self.owed.values_mut().for_each(|owed| owed.seq = 0);
    }

    /// Forgets what ran out [`SLACK`] ago.
    pub(crate) fn sweep(&mut self, now: u64) {
        self.forget(now.saturating_sub(SLACK));
    }

    /// What to tell this user, if it is refused.
    pub(crate) fn denies(&self, uid: &Uid, now: u64) -> Option<Words> {
        self.users.get(uid).filter(|denial| denial.until > now).map(|denial| denial.words.clone())
    }

    fn take(&mut self, uid: &Uid, denial: Denial, now: u64) -> Result<(), Full> {
        let known = self.users.get(uid).map(|known| known.seq);
        if known.is_some_and(|known| known > denial.seq) {
            return Ok(());
        }
        let long_ago = now.saturating_sub(SLACK);
        let has_place = known.is_some() || denial.is_over(self.read, long_ago) || self.makes_room(now);
        if denial.is_over(self.read, if has_place { long_ago } else { now }) {
            self.forgotten = self.forgotten.max(denial.until);
            self.users.remove(uid);
            return Ok(());
        }
        if !has_place {
            return Err(Full);
        }
        self.users.insert(uid.clone(), denial);
        Ok(())
    }

    /// Says whether there is room for one more. What has run out gives its place, first what did long ago.
    fn makes_room(&mut self, now: u64) -> bool {
        for then in [now.saturating_sub(SLACK), now] {
            if self.users.len() < self.capacity {
                break;
            }
            self.forget(then);
        }
        self.users.len() < self.capacity
    }

    /// Forgets what had run out by then.
    fn forget(&mut self, then: u64) {
        let (read, forgotten) = (self.read, &mut self.forgotten);
        self.users.retain(|_, denial| {
            let over = denial.is_over(read, then);
            if over {
                *forgotten = (*forgotten).max(denial.until);
            }
            !over
        });
        self.users.shrink_to(self.users.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(number: usize) -> Uid {
        Uid::parse(&format!("u{number}")).unwrap()
    }

    #[test]
    fn a_full_list_takes_nobody_until_someone_is_through() {
        let mut list = DenyList::new(2);
        assert_eq!(list.read(&uid(1), 1, 1_000, Some("later".into()), 0), Ok(()));
        assert_eq!(list.order(&uid(2), 2, 9_000, None, 0), Ok(()));
        assert_eq!(list.order(&uid(3), 3, 9_000, None, 0), Err(Full));
        assert_eq!(list.order(&uid(2), 4, 5_000, None, 0), Ok(()), "who is on it can stay longer or shorter");
        assert_eq!(list.denies(&uid(1), 0), Some(Some("later".into())));
        assert_eq!(list.order(&uid(3), 5, 9_000, None, 1_000), Ok(()), "the first one's time is over");
        assert_eq!(list.denies(&uid(1), 1_000), None);
    }

    #[test]
    fn an_order_that_was_overtaken_does_not_come_back() {
        let mut list = DenyList::new(9);
        list.order(&uid(1), 2, 0, None, 5).unwrap();
        list.sweep(5);
        list.read(&uid(1), 1, 100, None, 5).unwrap();
        assert_eq!(list.denies(&uid(1), 5), None, "it was let in again since");
        list.read(&uid(1), 2, 0, None, 5).unwrap();
        assert_eq!(list.users.len(), 0);
        list.order(&uid(1), 1, 100, None, 5).unwrap();
        assert_eq!(list.denies(&uid(1), 5), None, "a publisher was slow");
    }

    #[test]
    fn a_list_that_begins_again_keeps_out_until_it_says_otherwise() {
        let mut list = DenyList::new(9);
        list.read(&uid(1), 7, 100, None, 0).unwrap();
        assert_eq!(list.resume(false, 8, 5), 7, "the rest is enough");
        assert_eq!(list.resume(true, 8, 5), 0);
        list.read(&uid(1), 7, 100, None, 0).unwrap();
        assert_eq!(list.resume(false, 6, 5), 0, "it went back");
        assert!(list.denies(&uid(1), 5).is_some());
        list.read(&uid(1), 1, 0, None, 5).unwrap();
        assert_eq!(list.denies(&uid(1), 5), None);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_while_lifts_no_ban_for_good() {
        const RIGHT: u64 = 1_000;
        for ahead in [SLACK / 2, 1_000 * SLACK] {
            let (mut list, until) = (DenyList::new(9), RIGHT + 60);
            let ended = RIGHT + ahead;
            list.read(&uid(1), 1, until, None, RIGHT).unwrap();
            // Read, told, and replaced while the clock is ahead.
            list.read(&uid(2), 2, until, None, ended).unwrap();
            list.order(&uid(3), 3, until, None, ended).unwrap();
            list.read(&uid(3), 3, until, None, ended).unwrap();
            list.read(&uid(4), 4, until, None, RIGHT).unwrap();
            list.read(&uid(4), 5, until, None, ended).unwrap();
            list.sweep(ended);
            assert_eq!(
                (list.refused(ended), list.resume(false, 5, ended)),
                (0, 5),
                "all have ended, it seems"
            );
            let again = list.resume(false, 5, RIGHT) == 0;
            assert_eq!(again, ahead > SLACK, "nothing is forgotten within a day, nor for good later");
            if again {
                (1..=3).for_each(|user| list.read(&uid(user), user as u64, until, None, RIGHT).unwrap());
                list.read(&uid(4), 5, until, None, RIGHT).unwrap();
            }
            assert_eq!(list.refused(RIGHT), 4, "the clock was ahead by {ahead}");
            assert_eq!(list.resume(false, 5, RIGHT), 5, "it is read again once");
            list.sweep(until + SLACK);
            assert_eq!(list.users.len(), 0, "in the end all are forgotten");
        }
    }

    #[test]
    fn what_a_full_list_forgot_early_is_read_again() {
        let (mut list, now) = (DenyList::new(1), SLACK);
        list.read(&uid(1), 1, now, None, 0).unwrap();
        list.read(&uid(2), 2, now + 1, None, now).unwrap();
        assert_eq!((list.users.len(), list.refused(now)), (1, 1), "what has ended gives its place");
        list.read(&uid(3), 3, now, None, now).unwrap();
        assert_eq!((list.users.len(), list.refused(now)), (1, 1), "nor does it take one");
        assert_eq!(list.resume(false, 3, now), 3);
        assert_eq!(list.resume(false, 3, now - 1), 0, "it has not ended after all");
    }

    #[test]
    fn sessions_are_owed_until_the_publisher_tells_its_order() {
        let owed = |seq| Owed { seq, stored: 3, words: None };
        let mut list = DenyList::new(9);
        list.read(&uid(1), 1, 100, None, 5).unwrap();
        list.owe(&uid(1), owed(1));
        list.read(&uid(2), 2, 100, None, 5).unwrap();
        list.owe(&uid(2), owed(2));
        assert_eq!(list.take_owed(0), []);
        list.order(&uid(1), 1, 100, None, 5).unwrap();
        assert!(!list.was_told(&uid(2), 3), "a later order about the user is news");
        list.read(&uid(2), 3, 0, None, 5).unwrap();
        list.owe(&uid(2), owed(3));
        list.order(&uid(2), 2, 100, None, 5).unwrap();
        assert_eq!(list.take_owed(2), [], "an earlier order settles no later one");
        assert_eq!(list.take_owed(3), [(uid(2), owed(3))]);
        assert!(!list.owes(), "each once");

        list.order(&uid(3), 4, 100, None, 5).unwrap();
        assert!(list.was_told(&uid(3), 4), "its own copy brings no news");
        list.owe(&uid(4), owed(9));
        list.begin_again();
        list.order(&uid(4), 1, 100, None, 5).unwrap();
        assert!(!list.owes(), "the sequences of another list have nothing to do with these");
    }

    #[test]
    fn a_publisher_of_the_version_before_is_obeyed() {
        let mut list = DenyList::new(9);
        list.read_up_to(4);
        list.order_unkept(&uid(1), 100, None, 0).unwrap();
        assert!(list.denies(&uid(1), 5).is_some());
        list.order_unkept(&uid(1), 0, None, 5).unwrap();
        assert_eq!((list.denies(&uid(1), 5), list.users.len()), (None, 0));
    }

    proptest! {
        /// Against the definition: of all orders that came by any way, the last about a user decides.
        #[test]
        fn the_last_order_about_a_user_that_is_known_decides(
            orders in prop::collection::vec((0_usize..4, prop::option::of(1_u64..20)), 1..40),
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0_u64..3), 1..80),
        ) {
            let (mut list, mut now) = (DenyList::new(4), 100_u64);
            let until = |order: &(usize, Option<u64>)| order.1.map_or(0, |time| 100 + time);
            // The highest sequence that was told about each user.
            let mut told = [0_usize; 4];
            for (index, reads, passes) in steps {
                if reads && (list.cursor() as usize) < orders.len() {
                    let place = list.cursor() as usize;
                    let order = &orders[place];
                    list.read(&uid(order.0), place as u64 + 1, until(order), None, now).unwrap();
                    told[order.0] = told[order.0].max(place + 1);
                } else {
                    let place = index.index(orders.len());
                    let order = &orders[place];
                    list.order(&uid(order.0), place as u64 + 1, until(order), None, now).unwrap();
                    told[order.0] = told[order.0].max(place + 1);
                }
                now += passes;
                if passes == 2 {
                    list.sweep(now);
                }
                for (user, seq) in told.iter().enumerate() {
                    let denied = seq.checked_sub(1).is_some_and(|place| until(&orders[place]) > now);
                    prop_assert_eq!(list.denies(&uid(user), now).is_some(), denied);
                }
            }
        }
    }
}

//! The users who may not log in for a while, because the back end banned them. Pure: time is told.
//!
//! Bans arrive in two ways: in the order of the stream that stores them ([`BanList::read`]), and ahead of
//! that as a publisher's command ([`BanList::command`]). Of the bans about a user, the one with the highest
//! sequence holds, whichever way it came first. A ban that has run out counts as gone, whether it was
//! forgotten or not. The list has a bound: if there is no free slot, the caller is told so, and no user is
//! silently let in.
//!
//! The clock may be ahead for a while. So a ban that has run out is remembered for [`SLACK`], unless its slot
//! is needed. If the clock then says an earlier time, the stream is read again ([`BanList::resume`]).
//!
//! A ban closes sessions as well. A publisher counts the sessions that its own command closes, so the command
//! goes first: a ban that was only read is remembered for a moment ([`BanList::owe`]), and then the sessions
//! that no command has closed are closed.

use std::collections::HashMap;

use shared::bans;
use shared::ids::Uid;

use crate::code::CloseReason;

/// How long a ban is remembered after its end, in milliseconds.
const SLACK: u64 = bans::SLACK.as_secs() * 1_000;

/// The banned users. Times are milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct BanList {
    capacity: usize,
    users: HashMap<Uid, Ban>,
    /// Every ban of the stream up to this sequence was read.
    read: u64,
    /// The latest end of a ban that was forgotten.
    forgotten: u64,
    /// Bans that were read before any publisher's command told them here; the last of each user.
    owed: HashMap<Uid, Owed>,
}

/// A ban whose sessions are still to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    /// The sequence of the ban in its stream.
    pub(crate) seq: u64,
    /// When the ban was stored. Sessions that began earlier are closed, even if the ban has ended since.
    pub(crate) stored: u64,
    pub(crate) reason: CloseReason,
}

#[derive(Debug)]
struct Ban {
    /// The sequence of the ban in its stream.
    seq: u64,
    /// The end of the ban, which may be past: that a user may log in again is remembered until the stream was
    /// read that far.
    until: u64,
    reason: CloseReason,
}

impl Ban {
    /// Returns whether the ban had run out by then, and no earlier sequence is still to be read.
    fn is_over(&self, read: u64, then: u64) -> bool {
        self.until <= then && self.seq <= read
    }
}

/// The list has no free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl BanList {
    /// Returns an empty list, for at most `capacity` users.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, users: HashMap::new(), read: 0, forgotten: 0, owed: HashMap::new() }
    }

    /// Returns the sequence up to which the stream was read.
    pub(crate) fn cursor(&self) -> u64 {
        self.read
    }

    /// Returns how many users are banned.
    pub(crate) fn count(&self, now: u64) -> usize {
        self.users.values().filter(|ban| ban.until > now).count()
    }

    /// Takes a ban from a publisher's command.
    ///
    /// # Errors
    /// The list has no free slot.
    pub(crate) fn command(
        &mut self,
        uid: &Uid,
        seq: u64,
        until: u64,
        reason: CloseReason,
        now: u64,
    ) -> Result<(), Full> {
        // The sessions are closed when the command is carried out.
        if self.owed.get(uid).is_some_and(|owed| owed.seq <= seq) {
            self.owed.remove(uid);
        }
        // This ban was read already, or a later one was.
        if seq <= self.read { Ok(()) } else { self.take(uid, Ban { seq, until, reason }, now) }
    }

    /// Takes a ban from the command of a publisher that stores none: the ban holds until the stream says
    /// otherwise.
    ///
    /// # Errors
    /// The list has no free slot.
    pub(crate) fn command_unlisted(
        &mut self,
        uid: &Uid,
        until: u64,
        reason: CloseReason,
        now: u64,
    ) -> Result<(), Full> {
        let seq = self.users.get(uid).map_or(self.read, |ban| ban.seq);
        self.take(uid, Ban { seq, until, reason }, now)
    }

    /// Takes the next ban of the stream.
    ///
    /// # Errors
    /// The list has no free slot; the ban counts as read all the same.
    pub(crate) fn read(
        &mut self,
        uid: &Uid,
        seq: u64,
        until: u64,
        reason: CloseReason,
        now: u64,
    ) -> Result<(), Full> {
        self.read_up_to(seq);
        self.take(uid, Ban { seq, until, reason }, now)
    }

    /// Returns whether a publisher's command told this ban, or a later one about the user, before it was
    /// read.
    pub(crate) fn was_commanded(&self, uid: &Uid, seq: u64) -> bool {
        self.users.get(uid).is_some_and(|known| known.seq >= seq)
    }

    /// Remembers a ban that was read before any publisher's command told it here, for a user who has
    /// sessions. So the list has no more of these than there are users on this edge.
    pub(crate) fn owe(&mut self, uid: &Uid, owed: Owed) {
        self.owed.insert(uid.clone(), owed);
    }

    /// Returns whether sessions are still to be closed.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Takes out the bans up to this sequence whose sessions are still to be closed.
    pub(crate) fn take_owed(&mut self, up_to: u64) -> Vec<(Uid, Owed)> {
        self.owed.extract_if(|_, owed| owed.seq <= up_to).collect()
    }

    /// Notes that the stream has no further ban up to this sequence.
    pub(crate) fn read_up_to(&mut self, seq: u64) {
        self.read = self.read.max(seq);
    }

    /// Returns the sequence up to which the stream needs no reading; `last` is its last sequence. Everything
    /// is read again in two cases: the stream is another one or went back; or a ban was forgotten that has
    /// not run out, since the clock was ahead.
    pub(crate) fn resume(&mut self, is_other: bool, last: u64, now: u64) -> u64 {
        if is_other || last < self.read || self.forgotten > now {
            self.begin_again();
        }
        self.read
    }

    /// Begins to read from the start. Banned users stay banned until the stream says otherwise.
    fn begin_again(&mut self) {
        (self.read, self.forgotten) = (0, 0);
        self.users.values_mut().for_each(|ban| ban.seq = 0);
        self.owed.values_mut().for_each(|owed| owed.seq = 0);
    }

    /// Forgets bans that ran out [`SLACK`] ago.
    pub(crate) fn sweep(&mut self, now: u64) {
        self.forget(now.saturating_sub(SLACK));
    }

    /// Returns the close reason for this user, if it is banned.
    pub(crate) fn banned(&self, uid: &Uid, now: u64) -> Option<CloseReason> {
        self.users.get(uid).filter(|ban| ban.until > now).map(|ban| ban.reason.clone())
    }

    fn take(&mut self, uid: &Uid, ban: Ban, now: u64) -> Result<(), Full> {
        let known = self.users.get(uid).map(|known| known.seq);
        if known.is_some_and(|known| known > ban.seq) {
            return Ok(());
        }
        let long_ago = now.saturating_sub(SLACK);
        let has_slot = known.is_some() || ban.is_over(self.read, long_ago) || self.frees_slot(now);
        if ban.is_over(self.read, if has_slot { long_ago } else { now }) {
            self.forgotten = self.forgotten.max(ban.until);
            self.users.remove(uid);
            return Ok(());
        }
        if !has_slot {
            return Err(Full);
        }
        self.users.insert(uid.clone(), ban);
        Ok(())
    }

    /// Returns whether there is a free slot. Bans that have run out give up their slots: first those that ran
    /// out [`SLACK`] ago, then, if that is not enough, all.
    fn frees_slot(&mut self, now: u64) -> bool {
        for then in [now.saturating_sub(SLACK), now] {
            if self.users.len() < self.capacity {
                break;
            }
            self.forget(then);
        }
        self.users.len() < self.capacity
    }

    /// Forgets bans that had run out by then.
    fn forget(&mut self, then: u64) {
        let (read, forgotten) = (self.read, &mut self.forgotten);
        self.users.retain(|_, ban| {
            let over = ban.is_over(read, then);
            if over {
                *forgotten = (*forgotten).max(ban.until);
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
        let mut list = BanList::new(2);
        assert_eq!(list.read(&uid(1), 1, 1_000, Some("later".into()), 0), Ok(()));
        assert_eq!(list.command(&uid(2), 2, 9_000, None, 0), Ok(()));
        assert_eq!(list.command(&uid(3), 3, 9_000, None, 0), Err(Full));
        assert_eq!(
            list.command(&uid(2), 4, 5_000, None, 0),
            Ok(()),
            "who is on it can stay longer or shorter"
        );
        assert_eq!(list.banned(&uid(1), 0), Some(Some("later".into())));
        assert_eq!(list.command(&uid(3), 5, 9_000, None, 1_000), Ok(()), "the first one's time is over");
        assert_eq!(list.banned(&uid(1), 1_000), None);
    }

    #[test]
    fn an_order_that_was_overtaken_does_not_come_back() {
        let mut list = BanList::new(9);
        list.command(&uid(1), 2, 0, None, 5).unwrap();
        list.sweep(5);
        list.read(&uid(1), 1, 100, None, 5).unwrap();
        assert_eq!(list.banned(&uid(1), 5), None, "it was let in again since");
        list.read(&uid(1), 2, 0, None, 5).unwrap();
        assert_eq!(list.users.len(), 0);
        list.command(&uid(1), 1, 100, None, 5).unwrap();
        assert_eq!(list.banned(&uid(1), 5), None, "a publisher was slow");
    }

    #[test]
    fn a_list_that_begins_again_keeps_out_until_it_says_otherwise() {
        let mut list = BanList::new(9);
        list.read(&uid(1), 7, 100, None, 0).unwrap();
        assert_eq!(list.resume(false, 8, 5), 7, "the rest is enough");
        assert_eq!(list.resume(true, 8, 5), 0);
        list.read(&uid(1), 7, 100, None, 0).unwrap();
        assert_eq!(list.resume(false, 6, 5), 0, "it went back");
        assert!(list.banned(&uid(1), 5).is_some());
        list.read(&uid(1), 1, 0, None, 5).unwrap();
        assert_eq!(list.banned(&uid(1), 5), None);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_while_lifts_no_ban_for_good() {
        const RIGHT: u64 = 1_000;
        for ahead in [SLACK / 2, 1_000 * SLACK] {
            let (mut list, until) = (BanList::new(9), RIGHT + 60);
            let ended = RIGHT + ahead;
            list.read(&uid(1), 1, until, None, RIGHT).unwrap();
            // The ban was read, told by a command, and replaced while the clock is ahead.
            list.read(&uid(2), 2, until, None, ended).unwrap();
            list.command(&uid(3), 3, until, None, ended).unwrap();
            list.read(&uid(3), 3, until, None, ended).unwrap();
            list.read(&uid(4), 4, until, None, RIGHT).unwrap();
            list.read(&uid(4), 5, until, None, ended).unwrap();
            list.sweep(ended);
            assert_eq!((list.count(ended), list.resume(false, 5, ended)), (0, 5), "all have ended, it seems");
            let again = list.resume(false, 5, RIGHT) == 0;
            assert_eq!(again, ahead > SLACK, "nothing is forgotten within a day, nor for good later");
            if again {
                (1..=3).for_each(|user| list.read(&uid(user), user as u64, until, None, RIGHT).unwrap());
                list.read(&uid(4), 5, until, None, RIGHT).unwrap();
            }
            assert_eq!(list.count(RIGHT), 4, "the clock was ahead by {ahead}");
            assert_eq!(list.resume(false, 5, RIGHT), 5, "it is read again once");
            list.sweep(until + SLACK);
            assert_eq!(list.users.len(), 0, "in the end all are forgotten");
        }
    }

    #[test]
    fn what_a_full_list_forgot_early_is_read_again() {
        let (mut list, now) = (BanList::new(1), SLACK);
        list.read(&uid(1), 1, now, None, 0).unwrap();
        list.read(&uid(2), 2, now + 1, None, now).unwrap();
        assert_eq!((list.users.len(), list.count(now)), (1, 1), "what has ended gives its slot");
        list.read(&uid(3), 3, now, None, now).unwrap();
        assert_eq!((list.users.len(), list.count(now)), (1, 1), "nor does it take one");
        assert_eq!(list.resume(false, 3, now), 3);
        assert_eq!(list.resume(false, 3, now - 1), 0, "it has not ended after all");
    }

    #[test]
    fn sessions_are_owed_until_the_publisher_tells_its_order() {
        let owed = |seq| Owed { seq, stored: 3, reason: None };
        let mut list = BanList::new(9);
        list.read(&uid(1), 1, 100, None, 5).unwrap();
        list.owe(&uid(1), owed(1));
        list.read(&uid(2), 2, 100, None, 5).unwrap();
        list.owe(&uid(2), owed(2));
        assert_eq!(list.take_owed(0), []);
        list.command(&uid(1), 1, 100, None, 5).unwrap();
        assert!(!list.was_commanded(&uid(2), 3), "a later order about the user is news");
        list.read(&uid(2), 3, 0, None, 5).unwrap();
        list.owe(&uid(2), owed(3));
        list.command(&uid(2), 2, 100, None, 5).unwrap();
        assert_eq!(list.take_owed(2), [], "an earlier order settles no later one");
        assert_eq!(list.take_owed(3), [(uid(2), owed(3))]);
        assert!(!list.owes(), "each once");

        list.command(&uid(3), 4, 100, None, 5).unwrap();
        assert!(list.was_commanded(&uid(3), 4), "its own copy brings no news");
        list.owe(&uid(4), owed(9));
        list.begin_again();
        list.command(&uid(4), 1, 100, None, 5).unwrap();
        assert!(!list.owes(), "the sequences of another list have nothing to do with these");
    }

    #[test]
    fn a_publisher_of_the_version_before_is_obeyed() {
        let mut list = BanList::new(9);
        list.read_up_to(4);
        list.command_unlisted(&uid(1), 100, None, 0).unwrap();
        assert!(list.banned(&uid(1), 5).is_some());
        list.command_unlisted(&uid(1), 0, None, 5).unwrap();
        assert_eq!((list.banned(&uid(1), 5), list.users.len()), (None, 0));
    }

    proptest! {
        /// Compares with the definition: of all commands about a user, whichever way they came, the last
        /// decides.
        #[test]
        fn the_last_order_about_a_user_that_is_known_decides(
            orders in prop::collection::vec((0_usize..4, prop::option::of(1_u64..20)), 1..40),
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0_u64..3), 1..80),
        ) {
            let (mut list, mut now) = (BanList::new(4), 100_u64);
            let until = |order: &(usize, Option<u64>)| order.1.map_or(0, |time| 100 + time);
            // The highest sequence that was told about each user.
            let mut told = [0_usize; 4];
            for (index, reads, passes) in steps {
                if reads && (list.cursor() as usize) < orders.len() {
                    let at = list.cursor() as usize;
                    let order = &orders[at];
                    list.read(&uid(order.0), at as u64 + 1, until(order), None, now).unwrap();
                    told[order.0] = told[order.0].max(at + 1);
                } else {
                    let at = index.index(orders.len());
                    let order = &orders[at];
                    list.command(&uid(order.0), at as u64 + 1, until(order), None, now).unwrap();
                    told[order.0] = told[order.0].max(at + 1);
                }
                now += passes;
                if passes == 2 {
                    list.sweep(now);
                }
                for (user, seq) in told.iter().enumerate() {
                    let denied = seq.checked_sub(1).is_some_and(|at| until(&orders[at]) > now);
                    prop_assert_eq!(list.banned(&uid(user), now).is_some(), denied);
                }
            }
        }
    }
}

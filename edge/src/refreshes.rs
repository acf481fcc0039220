//! The list of refreshes that this edge has heard of: pure.
//!
//! A refresh says that no earlier answer about a user counts. The sessions of the user are told. A login
//! whose token check began before, and a device that connects anew while an auth-adapter still remembers an
//! earlier answer, would bring the old groups back: so each login looks here once it is entered in the hub.

use std::collections::HashMap;
use std::time::Duration;

use shared::ids::Uid;
use tokio::time::Instant;

/// How long a refresh is on the list: longer than a token check takes, and than an auth-adapter may remember
/// an answer, which is an hour at most.
const LISTED: Duration = Duration::from_secs(2 * 3_600);
/// The length from which on ended refreshes are looked for.
const FIRST_LOOK: usize = 1_024;

/// The latest refresh of each user.
#[derive(Debug)]
pub(crate) struct Refreshes {
    by_user: HashMap<Uid, Refresh>,
    most: usize,
    next_look: usize,
}

#[derive(Debug)]
struct Refresh {
    newer_than: u64,
    heard: Instant,
}

impl Refreshes {
    /// Returns an empty list for so many users.
    pub(crate) fn new(most: usize) -> Self {
        Self { by_user: HashMap::new(), most, next_look: FIRST_LOOK }
    }

    /// Returns whether these users find a place. A user who is listed has one.
    pub(crate) fn has_space(&mut self, users: &[Uid], now: Instant) -> bool {
        if self.len_with(users) > self.next_look.min(self.most) {
            self.by_user.retain(|_, refresh| now.duration_since(refresh.heard) < LISTED);
            self.next_look = FIRST_LOOK.max(2 * self.len_with(users));
        }
        self.len_with(users) <= self.most
    }

    fn len_with(&self, users: &[Uid]) -> usize {
        self.by_user.len() + users.iter().filter(|uid| !self.by_user.contains_key(*uid)).count()
    }

    /// Notes a refresh at the Unix time `newer_than`. Returns the number of the refresh: above that of every
    /// earlier refresh of the user, even if the clock of another publisher is behind.
    pub(crate) fn note(&mut self, uid: &Uid, newer_than: u64, now: Instant) -> u64 {
        let before = self.by_user.get(uid).map_or(0, |refresh| refresh.newer_than.saturating_add(1));
        let newer_than = newer_than.max(before);
        self.by_user.insert(uid.clone(), Refresh { newer_than, heard: now });
        newer_than
    }

    /// Returns the latest refresh of a user. None: every answer counts.
    pub(crate) fn of(&self, uid: &Uid) -> Option<u64> {
        self.by_user.get(uid).map(|refresh| refresh.newer_than)
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
    fn a_later_refresh_has_a_higher_number_whatever_the_clock_says() {
        let (mut list, now) = (Refreshes::new(10), Instant::now());
        assert_eq!(list.of(&uid(1)), None);
        assert_eq!([7, 7, 3, 50].map(|at| list.note(&uid(1), at, now)), [7, 8, 9, 50]);
        assert_eq!((list.of(&uid(1)), list.of(&uid(2))), (Some(50), None));
    }

    #[test]
    fn a_full_list_takes_more_once_the_first_have_ended() {
        let (mut list, now) = (Refreshes::new(3), Instant::now());
        for number in 0..3 {
            assert!(list.has_space(&[uid(number)], now));
            list.note(&uid(number), 1, now);
        }
        assert!(!list.has_space(&[uid(3)], now));
        assert!(list.has_space(&[uid(0), uid(2)], now), "they are listed");
        assert_eq!(list.of(&uid(0)), Some(1), "nothing makes way that still counts");
        let users: Vec<Uid> = (10..14).map(uid).collect();
        assert!(list.has_space(&users[..3], now + LISTED) && !list.has_space(&users, now + LISTED));
        assert_eq!(list.of(&uid(0)), None);
    }

    proptest! {
        #[test]
        fn a_refresh_stays_its_time_and_the_bound_holds(
            steps in prop::collection::vec((0_usize..3_000, 1_u64..100), 1..3_000),
        ) {
            let (mut list, mut now) = (Refreshes::new(1_500), Instant::now());
            let mut heard = HashMap::new();
            for (number, seconds) in steps {
                now += Duration::from_secs(seconds);
                if list.has_space(&[uid(number)], now) {
                    list.note(&uid(number), 1, now);
                    heard.insert(number, now);
                }
                prop_assert!(list.by_user.len() <= 1_500);
            }
            for (number, at) in heard {
                prop_assert!(now.duration_since(at) >= LISTED || list.of(&uid(number)).is_some());
            }
        }
    }
}

//! Who may not log in for a while, because the back end said so. Pure: time is told.
//!
//! It lives as long as the edge: an edge that starts later does not know it. What has run out counts as gone, whether
//! it was swept or not. There is a bound, and whoever finds no place is told so, never let in silently.

use std::collections::HashMap;
use std::sync::Arc;

use shared::ids::Uid;
use tokio::time::Instant;

/// What a close frame says in place of its code's own reason.
pub(crate) type Words = Option<Arc<str>>;

/// The users that an edge refuses.
#[derive(Debug)]
pub(crate) struct DenyList {
    capacity: usize,
    users: HashMap<Uid, Denial>,
}

#[derive(Debug)]
struct Denial {
    until: Instant,
    words: Words,
}

impl DenyList {
    /// Refuses nobody yet, and never more than `capacity` users.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, users: HashMap::new() }
    }

    /// Refuses this user until then; what was said before about it is replaced. False: there is no place.
    pub(crate) fn deny(&mut self, uid: &Uid, until: Instant, words: Words, now: Instant) -> bool {
        if self.users.len() >= self.capacity && !self.users.contains_key(uid) {
            self.users.retain(|_, denial| denial.until > now);
            self.users.shrink_to(self.capacity / 2);
            if self.users.len() >= self.capacity {
                return false;
            }
        }
        self.users.insert(uid.clone(), Denial { until, words });
        true
    }

    /// Refuses this user no longer.
    pub(crate) fn lift(&mut self, uid: &Uid) {
        self.users.remove(uid);
    }

    /// What to tell this user, if it is refused.
    pub(crate) fn denies(&mut self, uid: &Uid, now: Instant) -> Option<Words> {
        let denial = self.users.get(uid)?;
        if denial.until > now {
            return Some(denial.words.clone());
        }
        self.users.remove(uid);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn uid(number: u8) -> Uid {
        Uid::parse(&format!("u{number}")).unwrap()
    }

    #[test]
    fn a_full_list_takes_nobody_until_someone_is_through() {
        let (mut list, start) = (DenyList::new(2), Instant::now());
        let second = Duration::from_secs(1);
        assert!(list.deny(&uid(1), start + second, Some("later".into()), start));
        assert!(list.deny(&uid(2), start + second * 9, None, start));
        assert!(!list.deny(&uid(3), start + second * 9, None, start));
        assert!(
            list.deny(&uid(2), start + second * 5, None, start),
            "who is on it can stay longer or shorter"
        );
        assert_eq!(list.denies(&uid(1), start), Some(Some("later".into())));
        assert!(list.deny(&uid(3), start + second * 9, None, start + second), "the first one's time is over");
        assert_eq!(list.denies(&uid(1), start + second), None);
        list.lift(&uid(3));
        assert_eq!(list.denies(&uid(3), start + second), None);
    }

    proptest! {
        /// Against the definition: the last order about a user decides.
        #[test]
        fn a_user_is_refused_exactly_while_the_last_order_about_it_holds(
            steps in prop::collection::vec((0_u8..5, prop::option::of(0_u64..20), 0_u64..5), 0..60),
        ) {
            let (mut list, mut now) = (DenyList::new(5), Instant::now());
            let mut until = [now; 5];
            for (who, order, passes) in steps {
                match order {
                    Some(seconds) => {
                        until[usize::from(who)] = now + Duration::from_secs(seconds);
                        prop_assert!(list.deny(&uid(who), until[usize::from(who)], None, now));
                    }
                    None => {
                        until[usize::from(who)] = now;
                        list.lift(&uid(who));
                    }
                }
                now += Duration::from_secs(passes);
                for other in 0..5 {
                    prop_assert_eq!(list.denies(&uid(other), now).is_some(), until[usize::from(other)] > now);
                }
            }
        }
    }
}

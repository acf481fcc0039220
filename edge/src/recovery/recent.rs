//! Remembers to how many sessions the latest messages went, for the questions that follow.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use shared::history::Position;
use shared::ids::MessageId;
use shared::wire::Counts;

/// The key by which a message is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A message that is stored nowhere.
    Id(MessageId),
    /// A stored message, by its position.
    Stored(Position),
}

/// The latest counts, shared by all that deliver. The lock is held for a map operation.
#[derive(Debug)]
pub(crate) struct Recent(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    capacity: usize,
    counts: HashMap<Key, Counts>,
    /// The keys, the oldest first.
    order: VecDeque<Key>,
}

impl Recent {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Mutex::new(Inner { capacity, counts: HashMap::new(), order: VecDeque::new() }))
    }

    /// Adds the counts of a message; a message that came twice was delivered twice.
    pub(crate) fn remember(&self, key: Key, counts: Counts) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.counts.get_mut(&key) {
            *known += counts;
            return;
        }
        if inner.order.len() == inner.capacity
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.counts.remove(&oldest);
        }
        inner.order.push_back(key);
        inner.counts.insert(key, counts);
    }

    /// Returns the counts of a message. None: the message has not come, or was too long ago.
    pub(crate) fn counts(&self, key: Key) -> Option<Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts.get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use shared::history::Epoch;

    use super::*;

    fn key(id: u128) -> Key {
        Key::Id(MessageId(id))
    }

    #[test]
    fn the_latest_messages_are_remembered_and_no_more() {
        let recent = Recent::new(3);
        for id in 0..5 {
            recent.remember(key(id), Counts { sessions: id as u64, failed: 0 });
        }
        let known: Vec<_> = (0..6).map(|id| recent.counts(key(id)).map(|counts| counts.sessions)).collect();
        assert_eq!(known, [None, None, Some(2), Some(3), Some(4), None]);
        let inner = recent.0.lock().unwrap();
        assert_eq!((inner.counts.len(), inner.order.len()), (3, 3));
    }

    #[test]
    fn a_message_that_came_twice_is_counted_twice_and_remembered_once() {
        let recent = Recent::new(2);
        let one = Counts { sessions: 1, failed: 2 };
        recent.remember(key(1), one);
        recent.remember(key(1), one);
        let stored = Key::Stored(Position { epoch: Epoch(0), seq: 1 });
        recent.remember(stored, Counts::default());
        assert_eq!(recent.counts(key(1)), Some(Counts { sessions: 2, failed: 4 }));
        assert_eq!(recent.counts(stored), Some(Counts::default()), "nobody is not unknown");
    }
}

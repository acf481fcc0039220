//! Routing: subscriptions by subject, and by connection.
//!
//! Literal subjects are in one hash map, patterns with wildcards in a tree of tokens. Invariant: a
//! subscription is in the index by subject if and only if it is in the set of its connection. Removing a
//! subscription costs the length of its subject; removing a connection costs the number of its own
//! subscriptions. The router has no socket and no lock. `T` is the receiver of messages, so a component
//! inside the process can stand beside connections.

mod members;
#[cfg(test)]
mod tests;
mod tree;

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::subject;
use members::Members;
use tree::Tree;

/// One subscription of one connection.
#[derive(Debug)]
pub(crate) struct Subscription<T> {
    /// The id of the connection.
    pub(crate) connection: u64,
    /// The receiver of its messages.
    pub(crate) target: T,
    /// The client's name for it.
    pub(crate) sid: Box<[u8]>,
    subject: Arc<[u8]>,
    queue: Option<Arc<[u8]>>,
    /// Messages counted for it. Beyond `max` the count goes on, and no message is delivered.
    delivered: AtomicU64,
    /// Messages after which the subscription ends; `u64::MAX`: never.
    max: AtomicU64,
    /// Position in the list that holds it. Written only while the router is borrowed mutably.
    position: AtomicUsize,
}

/// Connection and receiver of a new subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber<T> {
    /// The id of the connection.
    pub(crate) connection: u64,
    pub(crate) target: T,
}

/// Whether a subscription takes one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// The subscription takes the message.
    Granted,
    /// The subscription takes the message, and has to be removed: it was the last one.
    Last,
    /// The subscription had its maximum.
    Exhausted,
}

impl<T> Subscription<T> {
    /// Counts one more message, exactly once however many publishers do so at the same time.
    pub(crate) fn count_one(&self) -> Allowance {
        let before = self.delivered.fetch_add(1, Relaxed);
        let max = self.max.load(Relaxed);
        if before >= max {
            Allowance::Exhausted
        } else if before + 1 == max {
            Allowance::Last
        } else {
            Allowance::Granted
        }
    }
}

/// A subscription in the set of its connection, found by its sid without a second copy of the sid.
#[derive(Debug)]
struct BySid<T>(Arc<Subscription<T>>);

impl<T> Borrow<[u8]> for BySid<T> {
    fn borrow(&self) -> &[u8] {
        &self.0.sid
    }
}

impl<T> PartialEq for BySid<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.sid == other.0.sid
    }
}

impl<T> Eq for BySid<T> {}

impl<T> Hash for BySid<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.sid.hash(state);
    }
}

/// Name and members of one queue group under one pattern. A group may have several such parts.
pub(crate) type GroupPart<'a, T> = (&'a [u8], &'a [Arc<Subscription<T>>]);

/// All subscriptions of a bus.
#[derive(Debug)]
pub(crate) struct Router<T> {
    literal: HashMap<Arc<[u8]>, Members<T>>,
    wildcard: Tree<T>,
    connections: HashMap<u64, HashSet<BySid<T>>>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { literal: HashMap::new(), wildcard: Tree::default(), connections: HashMap::new() }
    }
}

#[expect(clippy::mutable_key_type, reason = "a subscription is hashed by its sid, which never changes")]
impl<T> Router<T> {
    /// Returns the number of subscriptions of a connection.
    pub(crate) fn count(&self, connection: u64) -> usize {
        self.connections.get(&connection).map_or(0, HashSet::len)
    }

    /// Whether the connection uses this sid.
    pub(crate) fn has(&self, connection: u64, sid: &[u8]) -> bool {
        self.connections.get(&connection).is_some_and(|own| own.contains(sid))
    }

    /// Adds a subscription to a valid pattern. If the connection uses this sid already, nothing changes and
    /// `false` is returned.
    pub(crate) fn subscribe(
        &mut self,
        Subscriber { connection, target }: Subscriber<T>,
        pattern: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) -> bool {
        let own = self.connections.entry(connection).or_default();
        if own.contains(sid) {
            return false;
        }
        let literal = !subject::has_wildcard(pattern);
        // A known subject is shared, not stored twice.
        let shared =
            literal.then(|| self.literal.get_key_value(pattern)).flatten().map(|(key, _)| Arc::clone(key));
        let subscription = Arc::new(Subscription {
            connection,
            target,
            sid: sid.into(),
            subject: shared.unwrap_or_else(|| pattern.into()),
            queue: queue.map(Into::into),
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(u64::MAX),
            position: AtomicUsize::new(0),
        });
        own.insert(BySid(Arc::clone(&subscription)));
        if literal {
            self.literal.entry(Arc::clone(&subscription.subject)).or_default().insert(subscription);
        } else {
            self.wildcard.insert(subscription);
        }
        true
    }

    /// Ends a subscription, at once or after `max` messages in total. Returns whether it is gone now.
    pub(crate) fn unsubscribe(&mut self, connection: u64, sid: &[u8], max: Option<u64>) -> bool {
        let Some(own) = self.connections.get_mut(&connection) else { return false };
        if let (Some(max), Some(BySid(subscription))) = (max, own.get(sid)) {
            subscription.max.store(max, Relaxed);
            if subscription.delivered.load(Relaxed) < max {
                return false;
            }
        }
        let Some(BySid(subscription)) = own.take(sid) else { return false };
        if own.is_empty() {
            self.connections.remove(&connection);
        } else if own.len() < own.capacity() / 8 {
            own.shrink_to_fit();
        }
        self.unindex(&subscription);
        true
    }

    /// Removes a subscription that had its last message, unless it is gone already.
    pub(crate) fn expire(&mut self, subscription: &Arc<Subscription<T>>) -> bool {
        let own = self.connections.get(&subscription.connection);
        let stands = own
            .and_then(|own| own.get(&*subscription.sid))
            .is_some_and(|BySid(it)| Arc::ptr_eq(it, subscription));
        stands && self.unsubscribe(subscription.connection, &subscription.sid, None)
    }

    /// Removes all subscriptions of a connection and returns how many there were.
    pub(crate) fn disconnect(&mut self, connection: u64) -> usize {
        let own = self.connections.remove(&connection).unwrap_or_default();
        let count = own.len();
        for BySid(subscription) in own {
            self.unindex(&subscription);
        }
        // Shrinking costs no more than the removals that it follows, and gives back the memory of a peak.
        if self.literal.len() < self.literal.capacity() / 8 {
            self.literal.shrink_to_fit();
        }
        count
    }

    /// Visits all plain subscriptions that match, literal ones first, and collects the matching queue groups.
    /// A subject with an empty token matches nothing.
    pub(crate) fn matching<'a>(
        &'a self,
        subject: &[u8],
        queues: &mut Vec<GroupPart<'a, T>>,
        plain: &mut impl FnMut(&'a Arc<Subscription<T>>),
    ) {
        if let Some(members) = self.literal.get(subject) {
            members.visit(queues, plain);
        }
        if !self.wildcard.is_empty() && subject::is_well_formed(subject) {
            self.wildcard.matching(subject, queues, plain);
        }
        if queues.len() > 1 {
            // Brings the parts of one group side by side.
            queues.sort_unstable_by_key(|(name, _)| *name);
        }
    }

    /// Removes a subscription from the index by subject.
    fn unindex(&mut self, subscription: &Arc<Subscription<T>>) {
        if subject::has_wildcard(&subscription.subject) {
            self.wildcard.remove(subscription);
        } else if let Entry::Occupied(mut members) = self.literal.entry(Arc::clone(&subscription.subject)) {
            members.get_mut().remove(subscription);
            if members.get().is_empty() {
                members.remove();
            }
        }
    }
}

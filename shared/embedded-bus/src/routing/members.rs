//! The subscriptions to one pattern.
//!
//! Nearly always there is exactly one, which needs no allocation. Inserting and removing take constant time:
//! each subscription knows its position in the list that holds it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{GroupPart, Subscription};

type List<T> = Vec<Arc<Subscription<T>>>;

#[derive(Debug, Default)]
pub(super) enum Members<T> {
    #[default]
    Nobody,
    /// One plain subscription.
    One(Arc<Subscription<T>>),
    Many(Box<Groups<T>>),
}

#[derive(Debug)]
pub(super) struct Groups<T> {
    plain: List<T>,
    /// No list is empty.
    queues: HashMap<Arc<[u8]>, List<T>>,
}

impl<T> Members<T> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::One(_) => false,
            Self::Many(groups) => groups.plain.is_empty() && groups.queues.is_empty(),
        }
    }

    pub(super) fn insert(&mut self, subscription: Arc<Subscription<T>>) {
        let mut groups = match std::mem::take(self) {
            Self::Nobody if subscription.queue.is_none() => {
                *self = Self::One(subscription);
                return;
            }
            Self::Nobody => Box::new(Groups { plain: Vec::new(), queues: HashMap::new() }),
            Self::One(first) => Box::new(Groups { plain: vec![first], queues: HashMap::new() }),
            Self::Many(groups) => groups,
        };
        let list = match &subscription.queue {
            None => &mut groups.plain,
            Some(queue) => groups.queues.entry(Arc::clone(queue)).or_default(),
        };
        subscription.position.store(list.len(), Relaxed);
        list.push(subscription);
        *self = Self::Many(groups);
    }

    pub(super) fn remove(&mut self, subscription: &Arc<Subscription<T>>) {
        match self {
            Self::Nobody => {}
            Self::One(_) => *self = Self::Nobody,
            Self::Many(groups) => groups.remove(subscription),
        }
    }

    pub(super) fn visit<'a>(
        &'a self,
        queues: &mut Vec<GroupPart<'a, T>>,
        plain: &mut impl FnMut(&'a Arc<Subscription<T>>),
    ) {
        match self {
            Self::Nobody => {}
            Self::One(subscription) => plain(subscription),
            Self::Many(groups) => {
                groups.plain.iter().for_each(plain);
                queues.extend(groups.queues.iter().map(|(name, list)| (&**name, list.as_slice())));
            }
        }
    }
}

impl<T> Groups<T> {
    fn remove(&mut self, subscription: &Arc<Subscription<T>>) {
        match &subscription.queue {
            None => take_out(&mut self.plain, subscription),
            Some(queue) => {
                let Some(list) = self.queues.get_mut(queue) else { return };
                take_out(list, subscription);
                if list.is_empty() {
                    self.queues.remove(queue);
                }
            }
        }
    }
}

/// Removes a subscription by its position. The last one moves there.
fn take_out<T>(list: &mut List<T>, subscription: &Arc<Subscription<T>>) {
    let position = subscription.position.load(Relaxed);
    debug_assert!(
        list.get(position).is_some_and(|it| Arc::ptr_eq(it, subscription)),
        "a position went wrong"
    );
    if position >= list.len() {
        return;
    }
    list.swap_remove(position);
    if let Some(moved) = list.get(position) {
        moved.position.store(position, Relaxed);
    }
    if list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

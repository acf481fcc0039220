//! What waits for the thread of the streams: bounded by number and by bytes.
//!
//! Pushing never waits, so that it can be done under the router's lock; a publisher that is told the queue is full waits
//! for room before it reads on, so that each connection goes over the bounds by one message at most. What one connection
//! pushes leaves in that order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::request::Item;
use crate::config::StreamsConfig;

/// What became of something pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// Taken, but no more before there is room.
    Full,
    /// The streams have ended.
    Refused,
}

/// What was taken out.
#[derive(Debug)]
pub(crate) enum Taken {
    Items(VecDeque<Item>),
    /// Nothing came in time.
    Nothing,
    /// Nothing is left and nothing will come.
    Ended,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
    /// A test makes whoever takes something out panic.
    panics: bool,
}

#[derive(Debug)]
pub(crate) struct Inlet {
    max_items: usize,
    max_bytes: usize,
    /// Innermost lock: nothing else is locked while it is held.
    queue: Mutex<Queue>,
    /// Wakes the thread.
    filled: Condvar,
    /// Wakes publishers.
    room: Notify,
}

impl Inlet {
    pub(crate) fn new(config: &StreamsConfig) -> Self {
        Self {
            max_items: config.max_queued,
            max_bytes: config.max_queued_bytes,
            queue: Mutex::default(),
            filled: Condvar::new(),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is whole before anything could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, queue: &Queue) -> bool {
        queue.items.len() >= self.max_items || queue.bytes >= self.max_bytes
    }

    pub(crate) fn push(&self, item: Item) -> Pushed {
        self.push_into(self.lock(), item)
    }

    /// For the one publisher that can't wait, because it is the one who makes room.
    pub(crate) fn push_if_room(&self, item: Item) -> Pushed {
        let queue = self.lock();
        if self.is_full(&queue) {
            return Pushed::Refused;
        }
        match self.push_into(queue, item) {
            Pushed::Full => Pushed::Taken,
            other @ (Pushed::Taken | Pushed::Refused) => other,
        }
    }

    fn push_into(&self, mut queue: MutexGuard<'_, Queue>, item: Item) -> Pushed {
        if queue.closed {
            return Pushed::Refused;
        }
        queue.bytes += item.size();
        queue.items.push_back(item);
        let full = self.is_full(&queue);
        let first = queue.items.len() == 1;
        drop(queue);
        if first {
            self.filled.notify_one();
        }
        if full { Pushed::Full } else { Pushed::Taken }
    }

    /// Waits until there is room or the streams have ended. Whoever waits is to give up when its own reason is gone.
    pub(crate) async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before looking, so that no wake-up falls in between.
            room.as_mut().enable();
            {
                let queue = self.lock();
                if queue.closed || !self.is_full(&queue) {
                    return;
                }
            }
            room.await;
        }
    }

    /// Takes all that waits; waits for something for `patience` at most.
    pub(crate) fn take(&self, patience: Duration) -> Taken {
        let queue = self.lock();
        let waited =
            self.filled.wait_timeout_while(queue, patience, |queue| queue.items.is_empty() && !queue.closed);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if cfg!(debug_assertions) && queue.panics {
            drop(queue);
            panic!("a test made the thread of the streams panic");
        }
        if queue.items.is_empty() {
            return if queue.closed { Taken::Ended } else { Taken::Nothing };
        }
        queue.bytes = 0;
        let items = std::mem::take(&mut queue.items);
        drop(queue);
        self.room.notify_waiters();
        Taken::Items(items)
    }

    /// Makes the thread panic at the next take, in a debug build.
    pub(crate) fn panic(&self) {
        self.lock().panics = true;
        self.filled.notify_one();
    }

    /// Nothing more is taken; what waits still can be taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.room.notify_waiters();
    }

    /// Messages that wait, and their bytes.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.items.len(), queue.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::Publish;

    fn item(payload: &[u8]) -> Item {
        let publish = Publish { subject: b"s.a", reply: None, headers: &[], payload, with_headers: false };
        Item::copy(b"p S 0", &publish)
    }

    fn inlet(max_queued: usize, max_queued_bytes: usize) -> Inlet {
        Inlet::new(&StreamsConfig { max_queued, max_queued_bytes, ..StreamsConfig::default() })
    }

    #[tokio::test]
    async fn whoever_fills_it_waits_until_it_was_emptied() {
        for inlet in [inlet(2, usize::MAX), inlet(usize::MAX, 2 * item(b"x").size())] {
            let inlet = Arc::new(inlet);
            assert_eq!(inlet.push(item(b"1")), Pushed::Taken);
            assert_eq!(inlet.push(item(b"2")), Pushed::Full);
            let waiting = inlet.wait_for_room();
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            let Taken::Items(items) = inlet.take(Duration::ZERO) else { panic!("nothing there") };
            let payloads: Vec<&[u8]> = items.iter().map(|item| &item.message.payload[..]).collect();
            assert_eq!(payloads, [b"1", b"2"]);
            waiting.await;
            assert_eq!(inlet.depth(), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_still_there_and_nothing_comes_after() {
        let inlet = inlet(1, usize::MAX);
        assert_eq!(inlet.push(item(b"1")), Pushed::Full);
        inlet.close();
        inlet.wait_for_room().await;
        assert_eq!(inlet.push(item(b"2")), Pushed::Refused);
        assert!(matches!(inlet.take(Duration::ZERO), Taken::Items(items) if items.len() == 1));
        assert!(matches!(inlet.take(Duration::MAX), Taken::Ended));
    }
}

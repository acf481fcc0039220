//! The queue in front of the stream worker, bounded by number and by bytes.
//!
//! Pushing never waits, so that it can happen under the router's lock. A publisher that learns that the queue
//! is full waits for free space before it reads on, so each connection exceeds the bounds by one message at
//! most. Items of one connection leave in the order of pushing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::request::Item;
use crate::config::StreamsConfig;

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// The item is in the queue, and the publisher has to wait before the next one.
    Full,
    /// The streams have ended.
    Refused,
}

/// The result of taking.
#[derive(Debug)]
pub(crate) enum Taken {
    Items(VecDeque<Item>),
    /// No item came in time.
    Nothing,
    /// The queue is empty and closed.
    Ended,
}

/// Number and bytes of the waiting items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
    /// Whether the next take has to panic, for a test.
    panics: bool,
}

#[derive(Debug)]
pub(crate) struct StreamQueue {
    max_items: usize,
    max_bytes: usize,
    /// Innermost lock: nothing else is locked while it is held.
    waiting: Mutex<Waiting>,
    /// Wakes the stream worker.
    filled: Condvar,
    /// Wakes publishers.
    space: Notify,
}

impl StreamQueue {
    pub(crate) fn new(config: &StreamsConfig) -> Self {
        Self {
            max_items: config.max_queued,
            max_bytes: config.max_queued_bytes,
            waiting: Mutex::default(),
            filled: Condvar::new(),
            space: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change of the queue is complete before anything could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, waiting: &Waiting) -> bool {
        waiting.items.len() >= self.max_items || waiting.bytes >= self.max_bytes
    }

    pub(crate) fn push(&self, item: Item) -> Pushed {
        self.push_into(self.lock(), item)
    }

    /// Pushes an item of the stream worker, which can't wait because only it makes free space.
    pub(crate) fn push_if_space(&self, item: Item) -> Pushed {
        let waiting = self.lock();
        if self.is_full(&waiting) {
            return Pushed::Refused;
        }
        match self.push_into(waiting, item) {
            Pushed::Full => Pushed::Taken,
            other @ (Pushed::Taken | Pushed::Refused) => other,
        }
    }

    fn push_into(&self, mut waiting: MutexGuard<'_, Waiting>, item: Item) -> Pushed {
        if waiting.closed {
            return Pushed::Refused;
        }
        waiting.bytes += item.size();
        waiting.items.push_back(item);
        let full = self.is_full(&waiting);
        let first = waiting.items.len() == 1;
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
        if full { Pushed::Full } else { Pushed::Taken }
    }

    /// Waits until there is free space or the streams have ended. The caller stops waiting when its
    /// connection ends.
    pub(crate) async fn wait_for_space(&self) {
        loop {
            let space = self.space.notified();
            tokio::pin!(space);
            // Registered before the check, so that no wake-up is lost in between.
            space.as_mut().enable();
            {
                let waiting = self.lock();
                if waiting.closed || !self.is_full(&waiting) {
                    return;
                }
            }
            space.await;
        }
    }

    /// Takes all items. Waits for the first one for `patience` at most.
    pub(crate) fn take(&self, patience: Duration) -> Taken {
        let waiting = self.lock();
        let waited = self
            .filled
            .wait_timeout_while(waiting, patience, |waiting| waiting.items.is_empty() && !waiting.closed);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if cfg!(debug_assertions) && waiting.panics {
            drop(waiting);
            panic!("a test made the thread of the streams panic");
        }
        if waiting.items.is_empty() {
            return if waiting.closed { Taken::Ended } else { Taken::Nothing };
        }
        waiting.bytes = 0;
        let items = std::mem::take(&mut waiting.items);
        drop(waiting);
        self.space.notify_waiters();
        Taken::Items(items)
    }

    /// Makes the stream worker panic at its next take, in a debug build.
    pub(crate) fn panic(&self) {
        self.lock().panics = true;
        self.filled.notify_one();
    }

    /// Closes the queue: further items are refused, and waiting ones can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.space.notify_waiters();
    }

    /// Returns the number and the bytes of the waiting items.
    pub(crate) fn depth(&self) -> Depth {
        let waiting = self.lock();
        Depth { items: waiting.items.len(), bytes: waiting.bytes }
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

    fn queue(max_queued: usize, max_queued_bytes: usize) -> StreamQueue {
        StreamQueue::new(&StreamsConfig { max_queued, max_queued_bytes, ..StreamsConfig::default() })
    }

    #[tokio::test]
    async fn whoever_fills_it_waits_until_it_was_emptied() {
        for queue in [queue(2, usize::MAX), queue(usize::MAX, 2 * item(b"x").size())] {
            let queue = Arc::new(queue);
            assert_eq!(queue.push(item(b"1")), Pushed::Taken);
            assert_eq!(queue.push(item(b"2")), Pushed::Full);
            let waiting = queue.wait_for_space();
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            let Taken::Items(items) = queue.take(Duration::ZERO) else { panic!("nothing there") };
            let payloads: Vec<&[u8]> = items.iter().map(|item| &item.message.payload[..]).collect();
            assert_eq!(payloads, [b"1", b"2"]);
            waiting.await;
            assert_eq!(queue.depth(), Depth { items: 0, bytes: 0 });
        }
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_still_there_and_nothing_comes_after() {
        let queue = queue(1, usize::MAX);
        assert_eq!(queue.push(item(b"1")), Pushed::Full);
        queue.close();
        queue.wait_for_space().await;
        assert_eq!(queue.push(item(b"2")), Pushed::Refused);
        assert!(matches!(queue.take(Duration::ZERO), Taken::Items(items) if items.len() == 1));
        assert!(matches!(queue.take(Duration::MAX), Taken::Ended));
    }
}

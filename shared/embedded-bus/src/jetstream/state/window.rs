//! The duplicate window: the message ids that were stored lately, with their sequences.
//!
//! An id counts until the window has passed since its message was stored, whatever became of the message.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A message id, and when its message was stored.
#[derive(Debug)]
struct StoredId {
    time: u64,
    id: Arc<[u8]>,
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    span: u64,
    ids: HashMap<Arc<[u8]>, u64>,
    /// The ids, oldest first.
    order: VecDeque<StoredId>,
    /// Bytes of the ids.
    id_bytes: usize,
}

impl Window {
    /// Returns an empty window of `span` nanoseconds.
    pub(crate) fn new(span: u64) -> Self {
        Self { span, ..Self::default() }
    }

    pub(crate) fn set_span(&mut self, span: u64) {
        self.span = span;
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns the sequence of the oldest id.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.ids.get(&self.order.front()?.id).copied()
    }

    /// Returns the bytes of all ids.
    pub(crate) fn id_bytes(&self) -> usize {
        self.id_bytes
    }

    /// Returns the sequence that was stored with this id.
    pub(crate) fn get(&mut self, id: &[u8], now: u64) -> Option<u64> {
        self.expire(now);
        self.ids.get(id).copied()
    }

    /// Notes an id, in the order of times. A known id counts anew: it comes twice from a log whose clock was
    /// set back between the two messages.
    pub(crate) fn insert(&mut self, id: &[u8], seq: u64, time: u64) {
        let id: Arc<[u8]> = id.into();
        if self.ids.insert(Arc::clone(&id), seq).is_some() {
            self.order.retain(|own| own.id != id);
            self.id_bytes -= id.len();
        }
        self.id_bytes += id.len();
        self.order.push_back(StoredId { time, id });
    }

    /// Caps times: an id with a later time counts as stored at `time`.
    pub(crate) fn cap(&mut self, time: u64) {
        for own in self.order.iter_mut().rev().take_while(|own| own.time > time) {
            own.time = time;
        }
    }

    /// Forgets ids whose window has passed.
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some(StoredId { time, id }) = self.order.front()
            && time.saturating_add(self.span) <= now
        {
            self.ids.remove(id);
            self.id_bytes -= id.len();
            self.order.pop_front();
        }
        if self.order.len() < self.order.capacity() / 8 {
            self.order.shrink_to_fit();
            self.ids.shrink_to_fit();
        }
    }
}

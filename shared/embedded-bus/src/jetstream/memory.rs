//! The memory of streams, and its bound.
//!
//! The memory is estimated from the numbers of messages, subjects and message ids: an operator can plan with
//! these, and the bound then refuses the same whatever an allocator does. `tests/memory.rs` compares the
//! estimate with the real memory.

use crate::stats::MemorySnapshot;
use crate::storage::Priority;

/// Bytes of each message: its entries by sequence and by subject, and its location on the disk.
const MESSAGE: u64 = 52;
/// Bytes of each subject besides its name.
const SUBJECT: u64 = 144;
/// Bytes of each message id in the duplicate window besides the id.
const ID: u64 = 128;
/// Further bytes of each message and subject if messages are stored in memory, besides their own bytes and
/// the subject's name.
const MESSAGE_IN_MEMORY: u64 = 112;
const SUBJECT_IN_MEMORY: u64 = 64;
/// This fraction of the bound is added for reserved messages.
const RESERVE: u64 = 16;

/// Numbers from which the memory of a stream is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryCounts {
    pub(crate) messages: u64,
    pub(crate) subjects: u64,
    /// Bytes of the subjects' names.
    pub(crate) names: u64,
    pub(crate) ids: u64,
    /// Bytes of the ids.
    pub(crate) id_bytes: u64,
}

impl MemoryCounts {
    fn index(self) -> u64 {
        self.messages * MESSAGE + self.subjects * SUBJECT + self.names + self.ids * ID + self.id_bytes
    }

    fn messages_in_memory(self, bytes: u64) -> u64 {
        self.messages * MESSAGE_IN_MEMORY + self.subjects * SUBJECT_IN_MEMORY + self.names + bytes
    }
}

/// The limit of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryBound {
    /// Bytes.
    pub(crate) max: u64,
    /// Whether the messages themselves are in memory, too.
    pub(crate) holds_messages: bool,
}

/// The memory of all streams, and its bound.
#[derive(Debug)]
pub(crate) struct Memory {
    bound: MemoryBound,
    used: u64,
    /// Whether the log said already that the bound is near, or reached.
    warned_near: bool,
    reported_full: bool,
}

impl Memory {
    pub(crate) fn new(bound: MemoryBound) -> Self {
        Self { bound, used: 0, warned_near: false, reported_full: false }
    }

    /// Returns the memory of a stream whose log has `log_bytes`.
    pub(crate) fn of(&self, counts: MemoryCounts, log_bytes: u64) -> u64 {
        counts.index() + if self.bound.holds_messages { counts.messages_in_memory(log_bytes) } else { 0 }
    }

    /// Notes that a stream became larger or smaller.
    pub(crate) fn changed(&mut self, before: u64, after: u64) {
        self.used = (self.used + after).saturating_sub(before);
    }

    /// Whether there is no memory for one more message. Reserved messages may use a sixteenth more than
    /// others.
    pub(crate) fn refuses(&self, priority: Priority) -> bool {
        let kept_back = if priority == Priority::Reserved { self.bound.max / RESERVE } else { 0 };
        self.used >= self.bound.max.saturating_add(kept_back)
    }

    /// Sets the memory in use, and logs once each that the bound is near or reached.
    pub(crate) fn recount(&mut self, used: u64) {
        self.used = used;
        let (limit, eighth) = (self.bound.max, self.bound.max / 8);
        if used >= limit && !std::mem::replace(&mut self.reported_full, true) {
            tracing::error!(
                used,
                limit,
                "what is stored takes all of bus.store.max_memory: nothing new is stored until some has gone; raise it \
                 if the machine has the memory, or keep less history"
            );
        } else if used < limit - eighth && std::mem::take(&mut self.reported_full) {
            tracing::info!(used, limit, "there is memory for new messages again");
        }
        if used < limit / 10 * 7 {
            self.warned_near = false;
        } else if used >= limit / 10 * 8 && !std::mem::replace(&mut self.warned_near, true) {
            tracing::warn!(
                used,
                limit,
                "what is stored takes 80 % of bus.store.max_memory; at the limit messages are refused: raise it, or keep \
                 less history"
            );
        }
    }

    pub(crate) fn snapshot(&self) -> MemorySnapshot {
        let Self { bound, used, .. } = self;
        MemorySnapshot { bytes: *used, max_bytes: bound.max, full: *used >= bound.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixteenth_is_kept_for_what_an_operator_relies_on() {
        let mut memory = Memory::new(MemoryBound { max: 1600, holds_messages: false });
        for (used, is_refused, is_reserved_refused) in
            [(1599, false, false), (1600, true, false), (1699, true, false), (1700, true, true)]
        {
            memory.recount(used);
            assert_eq!(memory.refuses(Priority::Common), is_refused, "{used}");
            assert_eq!(memory.refuses(Priority::Reserved), is_reserved_refused, "{used}");
            assert_eq!(memory.snapshot().full, is_refused);
        }
        memory.changed(200, 99);
        assert!(!memory.refuses(Priority::Common), "less is there than was");
    }
}

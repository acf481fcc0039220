//! How much memory streams take, and the bound on it.
//!
//! An estimate by what there is: messages, subjects and message ids are what an operator can plan with, and a bound that
//! goes by them refuses the same whatever an allocator does. `tests/memory.rs` compares it with the real memory.

use crate::stats::MemorySnapshot;
use crate::storage::Priority;

/// Bytes for each message: its place in the stream and in its subject, and where it lies on the disk.
const MESSAGE: u64 = 52;
/// Bytes for each subject beside its name.
const SUBJECT: u64 = 144;
/// Bytes for each message id in the duplicate window beside the id.
const ID: u64 = 128;
/// The same again where messages are in memory, beside their own bytes and the subject's name.
const KEPT_MESSAGE: u64 = 112;
const KEPT_SUBJECT: u64 = 64;
/// The part of the bound that is kept for what an operator relies on.
const RESERVE: u64 = 16;

/// What takes memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryCounts {
    pub(crate) messages: u64,
    pub(crate) subjects: u64,
    /// Bytes of their names.
    pub(crate) names: u64,
    pub(crate) ids: u64,
    /// Bytes of the ids.
    pub(crate) id_bytes: u64,
}

impl MemoryCounts {
    fn index(self) -> u64 {
        self.messages * MESSAGE + self.subjects * SUBJECT + self.names + self.ids * ID + self.id_bytes
    }

    fn kept(self, bytes: u64) -> u64 {
        self.messages * KEPT_MESSAGE + self.subjects * KEPT_SUBJECT + self.names + bytes
    }
}

/// What memory is limited to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryBound {
    /// Bytes.
    pub(crate) max: u64,
    /// Whether the messages themselves are in memory, too.
    pub(crate) keeps_messages: bool,
}

/// The memory of all streams against its bound.
#[derive(Debug)]
pub(crate) struct Memory {
    bound: MemoryBound,
    used: u64,
    /// Whether it was told that the bound is near, and that it is reached.
    told_near: bool,
    told_full: bool,
}

impl Memory {
    pub(crate) fn new(bound: MemoryBound) -> Self {
        Self { bound, used: 0, told_near: false, told_full: false }
    }

    /// What a stream takes whose log has so many bytes.
    pub(crate) fn of(&self, counts: MemoryCounts, log_bytes: u64) -> u64 {
        counts.index() + if self.bound.keeps_messages { counts.kept(log_bytes) } else { 0 }
    }

    /// A stream has become larger or smaller.
    pub(crate) fn changed(&mut self, before: u64, after: u64) {
        self.used = (self.used + after).saturating_sub(before);
    }

    /// Whether there is none for one more message. Some may take a sixteenth more than others.
    pub(crate) fn refuses(&self, priority: Priority) -> bool {
        let kept_back = if priority == Priority::Reserved { self.bound.max / RESERVE } else { 0 };
        self.used >= self.bound.max.saturating_add(kept_back)
    }

    /// MemoryCounts anew, and says once each what an operator should know.
    pub(crate) fn recount(&mut self, used: u64) {
        self.used = used;
        let (limit, eighth) = (self.bound.max, self.bound.max / 8);
        if used >= limit && !std::mem::replace(&mut self.told_full, true) {
            tracing::error!(
                used,
                limit,
                "what is stored takes all of bus.store.max_memory: nothing new is stored until some has gone; raise it \
                 if the machine has the memory, or keep less history"
            );
        } else if used < limit - eighth && std::mem::take(&mut self.told_full) {
            tracing::info!(used, limit, "there is memory for new messages again");
        }
        if used < limit / 10 * 7 {
            self.told_near = false;
        } else if used >= limit / 10 * 8 && !std::mem::replace(&mut self.told_near, true) {
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
        let mut memory = Memory::new(MemoryBound { max: 1600, keeps_messages: false });
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

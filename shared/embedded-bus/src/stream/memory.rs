//! How much memory streams take, and the bound on it.
//!
//! An estimate by what there is: messages, subjects and message ids are what an operator can plan with, and a bound that
//! goes by them refuses the same whatever an allocator does. `tests/memory.rs` compares it with the real memory.

use super::headers;
use super::one::Message;
use crate::stats::MemorySnapshot;

/// Bytes for each message: its place in the stream and in its subject, and where it lies on the disk.
const MESSAGE: u64 = 48;
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
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) subjects: u64,
    /// Bytes of their names.
    pub(crate) names: u64,
    pub(crate) ids: u64,
    /// Bytes of the ids.
    pub(crate) id_bytes: u64,
}

impl Counts {
    fn index(self) -> u64 {
        self.messages * MESSAGE + self.subjects * SUBJECT + self.names + self.ids * ID + self.id_bytes
    }

    fn kept(self, bytes: u64) -> u64 {
        self.messages * KEPT_MESSAGE + self.subjects * KEPT_SUBJECT + self.names + bytes
    }
}

/// What memory is limited to.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// Bytes.
    pub(crate) max: u64,
    /// Whether the messages themselves are in memory, too.
    pub(crate) keeps_messages: bool,
    /// Streams that may take a sixteenth more.
    pub(crate) reserved_streams: Vec<String>,
    /// A header whose messages may, too; empty: none.
    pub(crate) reserved_header: String,
}

/// The memory of all streams against its bound.
#[derive(Debug)]
pub(crate) struct Memory {
    bound: Bound,
    used: u64,
    /// Whether it was told that the bound is near, and that it is reached.
    told_near: bool,
    told_full: bool,
}

impl Memory {
    pub(crate) fn new(bound: Bound) -> Self {
        Self { bound, used: 0, told_near: false, told_full: false }
    }

    /// What a stream takes whose log has so many bytes.
    pub(crate) fn of(&self, counts: Counts, log_bytes: u64) -> u64 {
        counts.index() + if self.bound.keeps_messages { counts.kept(log_bytes) } else { 0 }
    }

    /// A stream has become larger or smaller.
    pub(crate) fn changed(&mut self, before: u64, after: u64) {
        self.used = (self.used + after).saturating_sub(before);
    }

    /// Whether this message finds no room in a stream of this name.
    pub(crate) fn refuses(&self, stream: &str, message: &Message) -> bool {
        if self.used < self.bound.max {
            return false;
        }
        let Bound { max, reserved_streams, reserved_header, .. } = &self.bound;
        let marked = || headers::lines(&message.headers).any(|(name, _)| name == reserved_header.as_bytes());
        let reserved = reserved_streams.iter().any(|own| own == stream) || marked();
        !reserved || self.used >= max + max / RESERVE
    }

    /// Counts anew, and says once each what an operator should know.
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

    fn message(headers: &'static str) -> Message {
        Message { subject: "s.a".into(), headers: headers.into(), payload: "x".into() }
    }

    #[test]
    fn a_sixteenth_is_kept_for_what_an_operator_relies_on() {
        let (reserved_streams, reserved_header) = (vec!["BANS".to_owned()], "Erased".to_owned());
        let bound = Bound { max: 1600, keeps_messages: false, reserved_streams, reserved_header };
        let mut memory = Memory::new(bound);
        let (plain, marked) = (message(""), message("NATS/1.0\r\nErased: 1\r\n\r\n"));
        for (used, is_refused, is_reserved_refused) in
            [(1599, false, false), (1600, true, false), (1699, true, false), (1700, true, true)]
        {
            memory.recount(used);
            assert_eq!(memory.refuses("S", &plain), is_refused, "{used}");
            assert_eq!(memory.refuses("BANS", &plain), is_reserved_refused, "{used}");
            assert_eq!(memory.refuses("S", &marked), is_reserved_refused, "{used}");
            assert_eq!(memory.snapshot().full, is_refused);
        }
        memory.changed(200, 99);
        assert!(!memory.refuses("S", &plain), "less is there than was");
    }
}

//! The interface between a stream and the store of its messages.
//!
//! One thread writes a log. An appended message can be read at once, and is durable when `commit` has
//! returned: before that the stream says nothing to anybody about it. Sequences only grow, and a log never
//! forgets the highest sequence that it may have seen, whatever happens to the machine.

mod disk;
#[cfg(test)]
pub(crate) use disk::Simulated;
mod memory;

use std::fmt;

use bytes::Bytes;

use crate::config::Storage;
pub(crate) use crate::error::StoreError;
use crate::stats::StoreSnapshot;

/// One stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The sequence, from 1.
    pub(crate) seq: u64,
    /// Time of storing, by the time of day, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// The subject.
    pub(crate) subject: Bytes,
    /// The header block as it came, `NATS/1.0` and the last empty line included; empty: there is none.
    pub(crate) headers: Bytes,
    /// The payload.
    pub(crate) payload: Bytes,
}

/// Why messages leave a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemovalReason {
    /// A limit of messages or bytes: newer messages came.
    Limit,
    /// The messages expired.
    Age,
    /// A client asked for the removal.
    Request,
}

/// Whether a message may use reserved space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// The message may not.
    Common,
    /// The message may: it is a ban, or replaces erased messages.
    Reserved,
}

/// The gain of rewriting one file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reclaimable {
    /// Bytes that it would give back.
    pub(crate) waste: u64,
    /// Bytes of the file.
    pub(crate) of: u64,
}

impl Reclaimable {
    /// Whether this rewrite copies fewer bytes for each byte given back than the other.
    pub(crate) fn is_better_than(self, other: Self) -> bool {
        u128::from(self.waste) * u128::from(other.of) > u128::from(other.waste) * u128::from(self.of)
    }
}

/// A message in a log that is being opened. First come all stored messages, then those that are still there.
#[derive(Debug)]
pub(crate) enum Replayed<'a> {
    /// A message that was stored. It may be gone, or follow again as present. Reported in the order of
    /// sequences, for as long as its record or its id is in a file. The duplicate window needs it: an id
    /// counts whatever became of its message.
    Stored(&'a Record),
    /// A message that is present, in the order of sequences.
    Present(Record),
}

/// The facts about a log that was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// No sequence up to and including this one may be given to a new message.
    pub(crate) last_seq: u64,
    /// Whether acknowledged messages may be missing at the end: the machine crashed while acknowledgements
    /// did not wait for the disk.
    pub(crate) may_miss_some: bool,
}

/// The messages of one stream, on a disk or in memory.
pub(crate) trait Log: Send + fmt::Debug {
    /// Adds a message behind all others. Its sequence is higher than every one before.
    fn append(&mut self, record: Record) -> Result<(), StoreError>;

    /// Returns the message with this sequence; `None` if it was never there or is gone.
    fn read(&mut self, seq: u64) -> Result<Option<Record>, StoreError>;

    /// Removes expired messages. The removal need not be durable, because a replay makes it again. Their
    /// space may be used again.
    fn forget(&mut self, seqs: &[u64]) -> Result<(), StoreError>;

    /// Removes messages for good. They stay gone once `commit` has returned, in whatever order space is
    /// reclaimed: a message that returned would make a stream look as if nothing before the message were
    /// missing, and would undo an erasure. A stream at its limits calls this for each new message, so it has
    /// to be as cheap as appending a few bytes. No sequence is used again because of it. Messages removed by
    /// request or age are out of all files in a bounded time.
    fn remove(&mut self, seqs: &[u64], reason: RemovalReason) -> Result<(), StoreError>;

    /// Retains the ids of messages from this sequence on, also of messages that are removed, and reports
    /// them at the next opening. The duplicate window is made of them. `u64::MAX`: none.
    fn retain_ids_from(&mut self, _seq: u64) {}

    /// Checks whether one more message of so many bytes may be appended, as far as that is known. Called
    /// before a stream changes its state, so that a full disk costs a refusal and not a new read of the whole
    /// log.
    fn check_space(&self, _bytes: u64, _priority: Priority) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns what [`Log::reclaim`] would give back; `None` if nothing is worth it.
    fn reclaimable(&self) -> Option<Reclaimable> {
        None
    }

    /// Gives space back at once, from the file where that costs least. Returns how many bytes. A lack of
    /// space for this is no error.
    fn reclaim(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Notes durably that the stream knows of missing messages, so that the next opening does not report them
    /// again.
    fn note_shortness(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes everything since the last commit durable, as far as the log's setting promises.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Returns the bytes of the log, including those that can be given back.
    fn size(&self) -> u64;

    /// Notes a step of the system's clock: every message stored so far counts as stored `by` nanoseconds
    /// later. The next opening reports corrected times; [`Log::read`] returns them as they were. Durable once
    /// `commit` has returned.
    fn on_step(&mut self, _by: i64) -> Result<(), StoreError> {
        Ok(())
    }

    /// Does work between two commits that is due by the clock (a delayed fsync) or worth doing (giving space
    /// back). `now` is in nanoseconds and never goes back.
    fn on_tick(&mut self, now: u64) -> Result<(), StoreError>;
}

/// Everything stored of a stream besides its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredStream {
    /// The stream's name.
    pub(crate) name: String,
    /// The configuration as the stream wrote it (JSON).
    pub(crate) config: Bytes,
    /// Time of creation, in nanoseconds since 1970.
    pub(crate) created: u64,
}

/// The store of all streams of one bus: memory, or a folder.
pub(crate) trait Store: Send + fmt::Debug {
    /// Returns the stored streams, in any order.
    fn streams(&mut self) -> Result<Vec<StoredStream>, StoreError>;

    /// Opens the log of a stored stream, and calls `replay` for its messages.
    fn open(
        &mut self,
        name: &str,
        replay: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(Box<dyn Log>, Opened), StoreError>;

    /// Stores a new stream. Durable when it returns.
    fn create(&mut self, stream: &StoredStream) -> Result<Box<dyn Log>, StoreError>;

    /// Stores another configuration or time of creation of a stream. Durable when it returns.
    fn save(&mut self, stream: &StoredStream) -> Result<(), StoreError>;

    /// Deletes a stream, whose log was dropped before. Durable when it returns.
    fn delete(&mut self, name: &str) -> Result<(), StoreError>;

    /// Returns the state of the data folder; all zero for memory.
    fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot::default()
    }
}

/// Opens the configured store. Called once per bus, on the thread that then owns it.
pub(crate) fn open(storage: &Storage) -> Result<Box<dyn Store>, StoreError> {
    match storage {
        Storage::Memory => Ok(Box::new(memory::MemoryStore)),
        Storage::Disk(config) => Ok(Box::new(disk::DiskStore::open(config)?)),
    }
}

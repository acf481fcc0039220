//! What a stream needs of the place where its messages are kept.
//!
//! A log is written by one thread. What is appended can be read at once, and is kept for good when `commit` has returned:
//! the stream says nothing to anybody about a message before that. Sequences only grow; a log never forgets the highest
//! one that it may have been told, whatever happened to the machine.

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
    /// Its place in the stream, from 1.
    pub(crate) seq: u64,
    /// When it was stored, by the time of day, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// The subject that it was published to.
    pub(crate) subject: Bytes,
    /// The header block as it came, `NATS/1.0` and the last empty line included; empty: it has none.
    pub(crate) headers: Bytes,
    /// What was published.
    pub(crate) payload: Bytes,
}

/// Why messages leave a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemovalReason {
    /// A limit of messages or bytes: others came.
    Limit,
    /// They are too old.
    Age,
    /// Somebody ordered it.
    Request,
}

/// Which messages may use room that is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Not this one.
    Common,
    /// This one: it keeps somebody out, or takes the place of what it erases.
    Reserved,
}

/// What a log could give back by rewriting one of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reclaimable {
    /// Bytes that it would give back.
    pub(crate) waste: u64,
    /// Bytes of the file.
    pub(crate) of: u64,
}

impl Reclaimable {
    /// Whether less has to be copied for a byte that is given back than with the other.
    pub(crate) fn is_better_than(self, other: Self) -> bool {
        u128::from(self.waste) * u128::from(other.of) > u128::from(other.waste) * u128::from(self.of)
    }
}

/// What a log tells while it is opened: first all of what was stored, then what of it is there.
#[derive(Debug)]
pub(crate) enum Replayed<'a> {
    /// This was stored, and is gone or follows again. It is told of as long as its room was not used again, in the order
    /// of sequences. The duplicate window needs it: an id counts whatever became of its message.
    Stored(&'a Record),
    /// This is there. In the order of sequences.
    Present(Record),
}

/// What a log found when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// No sequence up to and including this one may be given to a new message.
    pub(crate) last_seq: u64,
    /// Messages that were acknowledged may be missing at the end: the machine stopped without a clean end while
    /// acknowledgements did not wait for the disk.
    pub(crate) may_miss_some: bool,
}

/// Where the messages of one stream are kept.
pub(crate) trait Log: Send + fmt::Debug {
    /// Adds a message behind all others. Its sequence is higher than every one before.
    fn append(&mut self, record: Record) -> Result<(), StoreError>;

    /// The message with this sequence; `None` if it was never there or is gone.
    fn read(&mut self, seq: u64) -> Result<Option<Record>, StoreError>;

    /// These messages have left the stream because of their age. Whoever replays the log lets them go again, so this
    /// needs not be durable; their room may be used again.
    fn forget(&mut self, seqs: &[u64]) -> Result<(), StoreError>;

    /// These messages have left the stream for good. They stay gone once `commit` has returned, in whatever order room is
    /// reclaimed: a message that came back would make a stream look as if nothing before it were missing, and would undo
    /// an erasure. A stream at its limits calls this for each new message, so it has to be as cheap as appending a few
    /// bytes. No sequence is used again because of it. What is gone by order or age is out of all files in a bounded time.
    fn remove(&mut self, seqs: &[u64], why: RemovalReason) -> Result<(), StoreError>;

    /// Ids of messages from this sequence on are still in the duplicate window: they are kept whatever becomes of the
    /// messages, and told at the next opening. `u64::MAX`: none.
    fn keep_ids_from(&mut self, _seq: u64) {}

    /// Whether one more message of so many bytes may be appended, as far as that is known. Asked before a stream changes
    /// its state, so that a full disk costs a refusal and not reading everything anew.
    fn check_space(&self, _bytes: u64, _claim: Priority) -> Result<(), StoreError> {
        Ok(())
    }

    /// What [`Log::reclaim`] would give back; nothing that is worth it: `None`.
    fn reclaimable(&self) -> Option<Reclaimable> {
        None
    }

    /// Gives room back at once, from the file where that costs least. Says how many bytes. That there is no room to do so
    /// is no error.
    fn reclaim(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Whoever was told that messages may be missing has taken note of it for good: the next opening does not say so again.
    fn note_shortness(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes everything since the last commit durable, as far as the log's setting promises.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Bytes that the log takes where it is kept, with everything that is not reclaimed yet.
    fn size(&self) -> u64;

    /// The system's clock was set: every message stored so far counts as stored `by` nanoseconds later from now on. Times
    /// that are told at the next opening are corrected by that; those that [`Log::read`] gives are as they were. Kept once
    /// `commit` has returned.
    fn on_step(&mut self, _by: i64) -> Result<(), StoreError> {
        Ok(())
    }

    /// Called now and then, between two commits: what is due by the clock (a delayed fsync) or is worth doing when
    /// there is time (giving room back). `now` is in nanoseconds and never goes back.
    fn on_tick(&mut self, now: u64) -> Result<(), StoreError>;
}

/// What is kept of a stream besides its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredStream {
    /// The stream's name.
    pub(crate) name: String,
    /// Its configuration, as the stream part wrote it (JSON).
    pub(crate) config: Bytes,
    /// When it was created, in nanoseconds since 1970.
    pub(crate) created: u64,
}

/// Where all streams of one bus are kept: nowhere but in memory, or in a folder.
pub(crate) trait Store: Send + fmt::Debug {
    /// The streams that are kept, in any order.
    fn streams(&mut self) -> Result<Vec<StoredStream>, StoreError>;

    /// Opens the log of a stream that is kept, and tells what is in it.
    fn open(
        &mut self,
        name: &str,
        tell: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(Box<dyn Log>, Opened), StoreError>;

    /// Begins to keep a new stream. Durable when it returns.
    fn create(&mut self, stream: &StoredStream) -> Result<Box<dyn Log>, StoreError>;

    /// Keeps another configuration or time of creation for a stream. Durable when it returns.
    fn save(&mut self, stream: &StoredStream) -> Result<(), StoreError>;

    /// Forgets a stream, whose log was dropped before. Durable when it returns.
    fn delete(&mut self, name: &str) -> Result<(), StoreError>;

    /// How the place stands where everything is kept; all zero if that is memory.
    fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot::default()
    }
}

/// The store that is configured. Called once per bus, on the thread that then owns it.
pub(crate) fn open(storage: &Storage) -> Result<Box<dyn Store>, StoreError> {
    match storage {
        Storage::Memory => Ok(Box::new(memory::MemoryStore)),
        Storage::Disk(config) => Ok(Box::new(disk::DiskStore::open(config)?)),
    }
}

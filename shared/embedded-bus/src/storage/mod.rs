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
use std::path::PathBuf;

use bytes::Bytes;

use crate::config::Storage;
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

/// Why a log can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// There is no room on the disk. Nothing of what was appended since the last commit is kept.
    #[error("no room for {}: the disk is full or bus.store.max_bytes is reached; free some room, or raise it", .0.display())]
    Full(PathBuf),
    /// The file can't be trusted. The text names it, says what is wrong and what to do.
    #[error("{0}")]
    Damaged(String),
    /// The system refused. Nothing of what was appended since the last commit may be called kept.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a log tells while it is opened: first all of what was stored, then what of it is there.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// This was stored, and is gone or follows again. It is told of as long as its room was not used again, in the order
    /// of sequences. The duplicate window needs it: an id counts whatever became of its message.
    Stored(&'a Record),
    /// This is there. In the order of sequences.
    There(Record),
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
    fn append(&mut self, record: Record) -> Result<(), LogError>;

    /// The message with this sequence; `None` if it was never there or is gone.
    fn read(&mut self, seq: u64) -> Result<Option<Record>, LogError>;

    /// These messages have left the stream because of their age. Whoever replays the log lets them go again, so this
    /// needs not be durable; their room may be used again.
    fn forget(&mut self, seqs: &[u64]) -> Result<(), LogError>;

    /// These messages have left the stream for good: somebody ordered it, or a limit of messages or bytes. They stay gone
    /// once `commit` has returned, in whatever order room is reclaimed: a message that came back would make a stream look
    /// as if nothing before it were missing, and would undo an erasure. A stream at its limits calls this for each new
    /// message, so it has to be as cheap as appending a few bytes. No sequence is used again because of it.
    fn remove(&mut self, seqs: &[u64]) -> Result<(), LogError>;

    /// Whether one more message may be appended, as far as that is known. Asked before a stream changes its state, so
    /// that a full disk costs a refusal and not reading everything anew.
    fn room(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Makes everything since the last commit durable, as far as the log's setting promises.
    fn commit(&mut self) -> Result<(), LogError>;

    /// Bytes that the log takes where it is kept, with everything that is not reclaimed yet.
    fn size(&self) -> u64;

    /// The system's clock was set: every message stored so far counts as stored this many nanoseconds later, and is told
    /// so when the log is opened again. Kept for good once `commit` has returned.
    fn on_step(&mut self, _by: i64) -> Result<(), LogError> {
        Ok(())
    }

    /// Called now and then, between two commits: what is due by the clock (a delayed fsync) or is worth doing when
    /// there is time (giving room back). `now` is in nanoseconds, by a clock that no step of the system's moves.
    fn on_tick(&mut self, now: u64) -> Result<(), LogError>;
}

/// What is kept of a stream besides its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
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
    fn streams(&mut self) -> Result<Vec<Saved>, LogError>;

    /// Opens the log of a stream that is kept, and tells what is in it.
    fn open(
        &mut self,
        name: &str,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<(Box<dyn Log>, Opened), LogError>;

    /// Begins to keep a new stream. Durable when it returns.
    fn create(&mut self, stream: &Saved) -> Result<Box<dyn Log>, LogError>;

    /// Keeps another configuration or time of creation for a stream. Durable when it returns.
    fn save(&mut self, stream: &Saved) -> Result<(), LogError>;

    /// Forgets a stream, whose log was dropped before. Durable when it returns.
    fn delete(&mut self, name: &str) -> Result<(), LogError>;

    /// How the place stands where everything is kept; all zero if that is memory.
    fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot::default()
    }
}

/// The store that is configured. Called once per bus, on the thread that then owns it.
pub(crate) fn open(storage: &Storage) -> Result<Box<dyn Store>, LogError> {
    match storage {
        Storage::Memory => Ok(Box::new(memory::MemoryStore)),
        Storage::Disk(config) => Ok(Box::new(disk::DiskStore::open(config)?)),
    }
}

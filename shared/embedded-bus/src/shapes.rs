//! The log of one stream on a disk, by itself and in plain types: what `tests/store-shapes` in the workspace compares with
//! other shapes of a store.

use std::fmt::Display;
use std::path::Path;

use bytes::Bytes;

use crate::config::{DiskConfig, Storage, SyncMode};
use crate::storage::{self, Log, Record, RemovalReason, Replayed, Store, StoreError, StoredStream};

const STREAM: &str = "S";
/// More than any comparison stores.
const MAX_BYTES: u64 = 1 << 40;

/// A message in plain parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its place in the stream, from 1.
    pub seq: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub time: u64,
    /// The subject.
    pub subject: &'a [u8],
    /// The header block.
    pub headers: &'a [u8],
    /// What was published.
    pub payload: &'a [u8],
}

/// The log of one stream in a folder of its own.
#[derive(Debug)]
pub struct DiskLog {
    log: Box<dyn Log>,
    /// Dropped after the log, which it counts.
    _store: Box<dyn Store>,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl DiskLog {
    /// Opens what is in a folder, or begins there. Each message that is there is told of, in the order of sequences. Also
    /// gives the highest sequence that may be in use.
    ///
    /// # Errors
    /// What the store says, for people.
    pub fn open(
        folder: &Path,
        strict: bool,
        tell: &mut dyn FnMut(Message<'_>),
    ) -> Result<(Self, u64), String> {
        let sync = if strict { SyncMode::Strict } else { SyncMode::Relaxed };
        let config = DiskConfig { path: folder.to_owned(), sync, max_bytes: MAX_BYTES };
        let mut store = storage::open(&Storage::Disk(config)).map_err(text)?;
        if store.streams().map_err(text)?.is_empty() {
            let stream =
                StoredStream { name: STREAM.to_owned(), config: Bytes::from_static(b"{}"), created: 1 };
            let log = store.create(&stream).map_err(text)?;
            return Ok((Self { log, _store: store }, 0));
        }
        let opened = store.open(STREAM, &mut |told| match told {
            Replayed::Present(record) => tell(plain(&record)),
            // The duplicate window would look at the id here.
            Replayed::Stored(_) => {}
        });
        let (log, opened) = opened.map_err(text)?;
        Ok((Self { log, _store: store }, opened.last_seq))
    }

    /// Adds a message behind all others.
    ///
    /// # Errors
    /// What the store says, for people.
    pub fn append(&mut self, message: Message<'_>) -> Result<(), String> {
        let Message { seq, time, subject, headers, payload } = message;
        let [subject, headers, payload] = [subject, headers, payload].map(Bytes::copy_from_slice);
        self.log.append(Record { seq, time, subject, headers, payload }).map_err(text)
    }

    /// Removes messages for good.
    ///
    /// # Errors
    /// What the store says, for people.
    pub fn remove(&mut self, seqs: &[u64]) -> Result<(), String> {
        self.log.remove(seqs, RemovalReason::Limit).map_err(text)
    }

    /// Keeps the ids of messages from this sequence on, whatever becomes of the messages.
    pub fn keep_ids_from(&mut self, seq: u64) {
        self.log.keep_ids_from(seq);
    }

    /// Makes everything since the last time durable, as far as the setting promises.
    ///
    /// # Errors
    /// What the store says, for people.
    pub fn commit(&mut self) -> Result<(), String> {
        self.log.commit().map_err(text)
    }

    /// Bytes of the message with this sequence, all parts; `None` if it is not there.
    ///
    /// # Errors
    /// What the store says, for people.
    pub fn read(&mut self, seq: u64) -> Result<Option<usize>, String> {
        let size = |record: Record| record.subject.len() + record.headers.len() + record.payload.len();
        self.log.read(seq).map(|record| record.map(size)).map_err(|error: StoreError| text(error))
    }

    /// What is due by the clock. `now` is in nanoseconds since 1970.
    ///
    /// # Errors
    /// What the store says, for people.
    pub fn tick(&mut self, now: u64) -> Result<(), String> {
        self.log.on_tick(now).map_err(text)
    }
}

fn plain(record: &Record) -> Message<'_> {
    let Record { seq, time, subject, headers, payload } = record;
    Message { seq: *seq, time: *time, subject, headers, payload }
}

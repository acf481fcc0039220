//! The log of one stream on a disk, without a bus and in plain types. `tests/store-shapes` in the workspace
//! compares it with other shapes of a store.

use std::path::Path;

use bytes::Bytes;

use crate::config::{DiskConfig, Storage, SyncMode};
use crate::storage::{self, Log, Record, RemovalReason, Replayed, Store, StoreError, StoredStream};

const STREAM: &str = "S";
/// A limit that no comparison reaches.
const MAX_BYTES: u64 = 1 << 40;

/// A message as plain fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The sequence, from 1.
    pub seq: u64,
    /// Time of storing, in nanoseconds since 1970.
    pub time: u64,
    /// The subject.
    pub subject: &'a [u8],
    /// The header block.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// The log of one stream in a folder of its own.
#[derive(Debug)]
pub struct DiskLog {
    log: Box<dyn Log>,
    last_seq: u64,
    /// Dropped after the log, because it counts the log.
    _store: Box<dyn Store>,
}

impl DiskLog {
    /// Opens the log in a folder, or begins one there. Calls `replay` for each message, in the order of
    /// sequences.
    ///
    /// # Errors
    /// Fails with the error of the store.
    pub fn open(
        folder: &Path,
        strict: bool,
        replay: &mut dyn FnMut(Message<'_>),
    ) -> Result<Self, StoreError> {
        let sync = if strict { SyncMode::Strict } else { SyncMode::Relaxed };
        let config = DiskConfig { path: folder.to_owned(), sync, max_bytes: MAX_BYTES };
        let mut store = storage::open(&Storage::Disk(config))?;
        if store.streams()?.is_empty() {
            let stream =
                StoredStream { name: STREAM.to_owned(), config: Bytes::from_static(b"{}"), created: 1 };
            let log = store.create(&stream)?;
            return Ok(Self { log, last_seq: 0, _store: store });
        }
        let opened = store.open(STREAM, &mut |replayed| match replayed {
            Replayed::Present(record) => replay(plain(&record)),
            // The duplicate window of a stream would remember the id.
            Replayed::Stored(_) => {}
        });
        let (log, opened) = opened?;
        Ok(Self { log, last_seq: opened.last_seq, _store: store })
    }

    /// Returns the highest sequence that may have been in use when the log was opened.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Adds a message behind all others.
    ///
    /// # Errors
    /// Fails with the error of the store.
    pub fn append(&mut self, message: Message<'_>) -> Result<(), StoreError> {
        let Message { seq, time, subject, headers, payload } = message;
        let [subject, headers, payload] = [subject, headers, payload].map(Bytes::copy_from_slice);
        self.log.append(Record { seq, time, subject, headers, payload })
    }

    /// Removes messages for good.
    ///
    /// # Errors
    /// Fails with the error of the store.
    pub fn remove(&mut self, seqs: &[u64]) -> Result<(), StoreError> {
        self.log.remove(seqs, RemovalReason::Limit)
    }

    /// Retains the ids of messages from this sequence on, even after the messages are removed.
    pub fn retain_ids_from(&mut self, seq: u64) {
        self.log.retain_ids_from(seq);
    }

    /// Makes everything since the last commit durable, as far as the setting promises.
    ///
    /// # Errors
    /// Fails with the error of the store.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.log.commit()
    }

    /// Returns the bytes of the message with this sequence, all fields together; `None` if it is not there.
    ///
    /// # Errors
    /// Fails with the error of the store.
    pub fn read(&mut self, seq: u64) -> Result<Option<usize>, StoreError> {
        let size = |record: Record| record.subject.len() + record.headers.len() + record.payload.len();
        self.log.read(seq).map(|record| record.map(size))
    }

    /// Does the work that is due by the clock. `now` is in nanoseconds since 1970.
    ///
    /// # Errors
    /// Fails with the error of the store.
    pub fn tick(&mut self, now: u64) -> Result<(), StoreError> {
        self.log.on_tick(now)
    }
}

fn plain(record: &Record) -> Message<'_> {
    let Record { seq, time, subject, headers, payload } = record;
    Message { seq: *seq, time: *time, subject, headers, payload }
}

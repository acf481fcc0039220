//! The log of one stream: segment files, of which the newest is written.
//!
//! Appended records wait in memory until `commit` writes them with one call. After an error of a write or a
//! sync nothing works until the log was opened again. Opening cuts off the bytes behind the last good commit,
//! because a file whose sync failed may have lost its newest bytes and still show them.
//!
//! This file holds [`DiskLog`] and how it writes. `operations` implements [`crate::storage::Log`] for it,
//! `open` opens it, `compact` gives disk space back.

mod compact;
mod open;
mod operations;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::clock_steps::ClockSteps;
use super::files::{OpenFile, replace};
use super::frame::{Header, Salt};
use super::mark::Mark;
use super::scan::file_name;
use super::segment::{Segment, Span};
use super::segments::Segments;
use super::shared::{Shared, Trusted};
use crate::storage::StoreError;

/// Bytes after which a segment is ended and another begun, at least and at most.
const SMALLEST_SEGMENT: u64 = 64 << 10;
const LARGEST_SEGMENT: u64 = 32 << 20;
/// Segments that a full data folder has at least, so that rewriting one at once concerns a small part of it.
const SEGMENTS: u64 = 64;
/// Bytes that wait in memory at most, besides one message.
const WRITE_AT: usize = 4 << 20;
/// Open files of older segments at most.
const MOST_READERS: usize = 64;

/// Returns the bytes after which a segment is ended, for a data folder of `max_bytes`.
pub(super) fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / SEGMENTS).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT)
}

/// The log of one stream.
pub(super) struct DiskLog {
    shared: Arc<Shared>,
    name: String,
    folder: PathBuf,
    segments: Segments,
    /// Number of the segment that is written.
    active: u32,
    file: Box<dyn OpenFile>,
    /// Open files of older segments, [`MOST_READERS`] at most.
    readers: BTreeMap<u32, Box<dyn OpenFile>>,
    /// Bytes appended and not yet written. They begin at the offset `written` of the active file.
    pending: Vec<u8>,
    /// Bytes of the active file.
    written: u64,
    /// Bytes of the active file at the last commit.
    committed: u64,
    /// Bytes of the active file that are known to be on the disk.
    synced: u64,
    /// When the next sync is due, by the clock of `on_tick`.
    sync_due: Option<u64>,
    /// The highest sequence of a message, or the sequence after which the log goes on.
    last_seq: u64,
    /// Sequences up to and including this one are durably noted as in use.
    reserved: u64,
    /// Whether a write or a sync failed: the log must be opened again.
    broken: bool,
    /// Work of the first write before anything else; `None` once it is done.
    preparation: Option<Preparation>,
    steps: ClockSteps,
    /// Whether `steps` is not on the disk yet.
    steps_changed: bool,
    /// Whether the list of segments names all of them.
    is_listed: bool,
    /// Numbers of segments that left the list, and may be gone.
    leaving: Vec<u32>,
    /// Bytes of all segments, pending ones included.
    size: u64,
    /// Wasted bytes as last reported to [`super::shared::StoreCounters::wasted`].
    wasted: u64,
    segment_bytes: u64,
    compaction: Option<Compaction>,
    retry: Retry,
    /// Ids of messages from this sequence on have to stay.
    ids_from: u64,
    /// The clock at the last tick.
    now: u64,
    /// Bytes appended since the last tick: compaction has to keep up with them.
    since_tick: u64,
}

/// Work of the first write before anything else. Opening alone changes nothing on the disk.
#[derive(Debug)]
struct Preparation {
    /// Where the active file has to be cut off.
    cut: Option<u64>,
    /// The mark of a log that is in use.
    mark: Mark,
    /// Whether a new segment is needed: its header keeps the sequence, and has a salt.
    roll: bool,
}

/// A segment that is being rewritten.
#[derive(Debug)]
struct Compaction {
    number: u32,
    from: Box<dyn OpenFile>,
    to: Box<dyn OpenFile>,
    /// Bytes of the old file that were read.
    at: u64,
    /// The index of the new file.
    segment: Segment,
}

/// When compaction is tried again after it failed.
#[derive(Debug, Default)]
struct Retry {
    /// By the clock of `on_tick`, in nanoseconds.
    at: u64,
    /// Length of the last pause, in nanoseconds; 0: the last attempt succeeded.
    pause: u64,
}

impl std::fmt::Debug for DiskLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DiskLog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DiskLog {
    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(file_name(number))
    }

    fn check(&self) -> Result<(), StoreError> {
        self.shared.check()?;
        if self.broken {
            return Err(StoreError::Damaged(format!(
                "{} can't be used after an error before it was opened again",
                self.folder.display()
            )));
        }
        Ok(())
    }

    /// Ends the use of this log after an error; `len` bytes of the active file are certain. Opening the log
    /// again believes only those.
    fn fail(&mut self, path: &Path, error: std::io::Error, len: u64) -> StoreError {
        self.broken = true;
        self.pending = Vec::new();
        let trusted = Trusted { segment: self.active, len, lost: len < self.committed };
        self.shared.distrust(&self.name, trusted);
        if trusted.lost {
            let (boot, sync) = (self.shared.files.boot_id(), self.shared.sync);
            let mark = Mark::Running { boot, sync, short: true };
            // Should this write fail too, `distrust` has told the process already.
            let _ = mark.write(&*self.shared.files, &self.folder);
        }
        // Cut off at once, in case this process ends before the log is opened again. Opening it repeats the
        // cut, and reports a failure.
        let _ = self.file.set_len(len);
        self.shared.error(path, error)
    }

    /// Offset behind the last appended byte of the active segment.
    fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Counts the bytes appended since the active segment ended at `before`.
    fn grow(&mut self, before: u64) {
        let added = self.end() - before;
        self.size += added;
        self.since_tick += added;
        self.shared.resized(0, added);
        if let Some(segment) = self.segments.get_mut(self.active) {
            segment.len += added;
        }
    }

    /// Writes the pending bytes, without a sync.
    fn write(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (file, pending, written) = (&mut self.file, &self.pending, self.written);
        if let Err(error) = self.shared.write(|| file.write_at(pending, written)) {
            let path = self.path(self.active);
            return Err(self.fail(&path, error, self.committed));
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        if self.pending.capacity() > WRITE_AT {
            self.pending = Vec::new();
        }
        Ok(())
    }

    /// Writes the pending bytes and syncs the active file.
    fn sync(&mut self) -> Result<(), StoreError> {
        self.write()?;
        if self.synced < self.written {
            let begun = Instant::now();
            if let Err(error) = self.file.sync() {
                let path = self.path(self.active);
                return Err(self.fail(&path, error, self.synced.min(self.committed)));
            }
            self.shared.counts.synced(begun.elapsed());
            self.synced = self.written;
        }
        self.sync_due = None;
        Ok(())
    }

    /// Syncs and ends the active segment, and begins another.
    fn roll(&mut self) -> Result<(), StoreError> {
        self.sync_all()?;
        let number = self.active + 1;
        let salt = Salt::random();
        let header = Header { number, last_seq: self.last_seq, reserved: self.reserved, salt }.encode();
        let (path, shared) = (self.path(number), Arc::clone(&self.shared));
        let made = shared.write(|| replace(&*shared.files, &self.folder, &file_name(number), &header));
        let file = match made.and_then(|()| shared.files.open(&path)) {
            Ok(file) => file,
            Err(error) => {
                // A half-made file that has its name already would be taken for the newest segment.
                return match shared.files.remove(&path) {
                    Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {
                        Err(self.shared.error(&path, error))
                    }
                    Ok(()) | Err(_) => Err(self.fail(&path, error, self.synced)),
                };
            }
        };
        if let Some(segment) = self.segments.get_mut(self.active) {
            segment.shrink();
        }
        self.file = file;
        self.readers.clear();
        let len = Header::LEN as u64;
        self.segments.insert(Segment::new(number, salt, len));
        (self.active, self.written, self.committed, self.synced) = (number, len, len, len);
        self.size += len;
        self.shared.resized(0, len);
        self.shared.counts.segments(0, 1);
        self.list_new();
        Ok(())
    }

    /// Returns the salt of the active segment.
    fn salt(&self) -> Salt {
        self.segments.get(self.active).map_or(Salt::NONE, |segment| segment.salt)
    }

    /// Returns the synced offset for a new record. A segment is below 4 GiB.
    fn witness(&self) -> u32 {
        u32::try_from(self.synced).unwrap_or(0)
    }

    /// Reads the bytes of one record, from memory if they are still pending.
    fn bytes_at(&mut self, number: u32, Span { at, len }: Span) -> std::io::Result<Bytes> {
        let (at, len) = (u64::from(at), len as usize);
        if number == self.active && at >= self.written {
            let from = usize::try_from(at - self.written).unwrap_or(usize::MAX);
            let record = from.checked_add(len).and_then(|to| self.pending.get(from..to));
            return Ok(Bytes::copy_from_slice(record.unwrap_or_default()));
        }
        let file = if number == self.active {
            &self.file
        } else {
            if self.readers.len() >= MOST_READERS {
                self.readers.clear();
            }
            if !self.readers.contains_key(&number) {
                let file = self.shared.files.open(&self.folder.join(file_name(number)))?;
                self.readers.insert(number, file);
            }
            &self.readers[&number]
        };
        let mut data = vec![0; len];
        file.read_at(&mut data, at)?;
        Ok(data.into())
    }

    /// Forgets the open file of a segment that was replaced or removed.
    fn close_reader(&mut self, number: u32) {
        self.readers.remove(&number);
    }

    /// Whether everything that was appended is on the disk.
    fn all_synced(&self) -> bool {
        self.synced == self.end()
    }

    /// Syncs, so that removals are durable before the space of the removed messages is used again.
    fn sync_all(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        self.committed = self.written;
        Ok(())
    }

    /// Syncs everything and leaves the mark of a clean end.
    fn close(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if self.preparation.is_some() {
            // Nothing was written, so the last mark still holds.
            return Ok(());
        }
        self.sync_all()?;
        // Missing messages must stay reported until the stream has taken note of them.
        if let Mark::Running { short: true, .. } = Mark::read(&*self.shared.files, &self.folder) {
            return Ok(());
        }
        let mark = Mark::Clean { segment: self.active, len: self.written };
        mark.write(&*self.shared.files, &self.folder)
            .map_err(|error| self.shared.error(&self.folder, error))?;
        self.broken = true;
        Ok(())
    }
}

/// Ends a log well when it is dropped, unless it was in the middle of something.
impl Drop for DiskLog {
    fn drop(&mut self) {
        self.shared.resized(self.size, 0);
        self.shared.counts.wasted(self.wasted, 0);
        self.shared.counts.segments(self.segments.len(), 0);
        if self.broken || self.end() > self.committed || std::thread::panicking() {
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a log could not be ended well: it is checked when it is opened again");
        }
    }
}

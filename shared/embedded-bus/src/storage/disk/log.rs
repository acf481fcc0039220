//! The log of one stream: segment files, of which the newest is written.
//!
//! What is appended waits in memory until `commit` writes it with one call. After an error of a write or a sync nothing
//! works until the log was opened again: the bytes behind the last good commit are cut off then, because a file whose sync
//! failed may have lost what it was given and still show it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::compact::{Compaction, Retry, WORTH_IF_WANTED};
use super::files::{OneFile, replace};
use super::frame::{self, Entry, Header, Salt};
use super::mark::Mark;
use super::open::Opening;
use super::scan::file_name;
use super::segment::{Segment, Span};
use super::segments::Segments;
use super::shared::{Shared, Trusted};
use super::steps::Steps;
use crate::config::Sync;
use crate::storage::{Claim, Log, LogError, Reclaimable, Record, Why};

/// Bytes after which a segment is ended and another begun, at least and at most.
const SMALLEST_SEGMENT: u64 = 64 << 10;
const LARGEST_SEGMENT: u64 = 32 << 20;
/// Segments that a full data folder has at least: what is reclaimed at once is a small part of it.
const SEGMENTS: u64 = 64;
/// Bytes that wait in memory at most, besides one message.
const WRITE_AT: usize = 4 << 20;
/// How far ahead sequences are made durable as in use.
const BLOCK: u64 = 65_536;
/// How long acknowledged messages may be unsynced in the relaxed setting, in nanoseconds. Ticks come on top.
const SYNC_AFTER: u64 = 500_000_000;
/// How long what was erased, or grew too old, may stay in a file, in nanoseconds, before the file is rewritten.
const ERASED_WITHIN: u64 = 60_000_000_000;
const EXPIRED_WITHIN: u64 = 3_600_000_000_000;

/// Bytes after which a segment is ended, for a data folder of so many bytes.
pub(super) fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / SEGMENTS).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT)
}

pub(super) struct DiskLog {
    pub(super) shared: Arc<Shared>,
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) segments: Segments,
    pub(super) active: u32,
    pub(super) file: Box<dyn OneFile>,
    /// Open files of older segments, few.
    pub(super) readers: BTreeMap<u32, Box<dyn OneFile>>,
    /// Appended and not yet written; it begins at the offset `written` of the active file.
    pub(super) pending: Vec<u8>,
    /// Bytes of the active file.
    pub(super) written: u64,
    pub(super) committed: u64,
    pub(super) synced: u64,
    /// When the sync is due, by the clock of `on_tick`.
    pub(super) sync_due: Option<u64>,
    pub(super) last_seq: u64,
    pub(super) reserved: u64,
    pub(super) broken: bool,
    /// None: something was written since the log was opened.
    pub(super) opening: Option<Opening>,
    pub(super) steps: Steps,
    /// Whether `steps` is not on the disk yet.
    pub(super) steps_changed: bool,
    /// Whether the list of segments names all of them.
    pub(super) is_listed: bool,
    /// Segments that are no more in the list, and may be gone.
    pub(super) leaving: Vec<u32>,
    pub(super) size: u64,
    /// As told to [`super::shared::Counts::wasted`].
    pub(super) wasted: u64,
    pub(super) segment_bytes: u64,
    pub(super) compaction: Option<Compaction>,
    pub(super) retry: Retry,
    /// Ids of messages from this sequence on have to stay.
    pub(super) ids_from: u64,
    /// The clock at the last tick.
    pub(super) now: u64,
    /// Bytes written since the last tick: giving room back has to keep up with them.
    pub(super) since_tick: u64,
}

impl std::fmt::Debug for DiskLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DiskLog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DiskLog {
    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.folder.join(file_name(number))
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        self.shared.check()?;
        if self.broken {
            return Err(LogError::Damaged(format!(
                "{} can't be used after an error before it was opened again",
                self.folder.display()
            )));
        }
        Ok(())
    }

    /// Nothing works from now on. Only what is certain is believed when the log is opened again.
    pub(super) fn fail(&mut self, path: &std::path::Path, error: std::io::Error, len: u64) -> LogError {
        self.broken = true;
        self.pending = Vec::new();
        let trusted = Trusted { segment: self.active, len, lost: len < self.committed };
        self.shared.distrust(&self.name, trusted);
        if trusted.lost {
            let (boot, sync) = (self.shared.files.boot_id(), self.shared.sync);
            let mark = Mark::Running { boot, sync, short: true };
            // If this fails, too, the process still knows.
            let _ = mark.write(&*self.shared.files, &self.folder);
        }
        // At once, too, in case this process ends before. Opening it again does the same, and tells if it can't be done.
        let _ = self.file.set_len(len);
        self.shared.error(path, error)
    }

    fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn grow(&mut self, before: u64) {
        let added = self.end() - before;
        self.size += added;
        self.since_tick += added;
        self.shared.resized(0, added);
        if let Some(segment) = self.segments.get_mut(self.active) {
            segment.len += added;
        }
    }

    /// Writes what waits. It need not be on the disk then.
    fn write(&mut self) -> Result<(), LogError> {
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

    /// Writes and syncs.
    fn sync(&mut self) -> Result<(), LogError> {
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

    /// Ends the active segment, which is synced, and begins another.
    pub(super) fn roll(&mut self) -> Result<(), LogError> {
        self.sync_all()?;
        let number = self.active + 1;
        let salt = Salt::random();
        let header = Header { number, last_seq: self.last_seq, reserved: self.reserved, salt }.encode();
        let (path, shared) = (self.path(number), Arc::clone(&self.shared));
        let made = shared.write(|| replace(&*shared.files, &self.folder, &file_name(number), &header));
        let file = match made.and_then(|()| shared.files.open(&path)) {
            Ok(file) => file,
            Err(error) => {
                // A half-made one that has its name already would be taken for the newest.
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

    /// What the checksums in the active segment begin with.
    fn salt(&self) -> Salt {
        self.segments.get(self.active).map_or(Salt::NONE, |segment| segment.salt)
    }

    /// What `synced` of a record says: a segment is below 4 GiB.
    fn witness(&self) -> u32 {
        u32::try_from(self.synced).unwrap_or(0)
    }

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
            if self.readers.len() > 64 {
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

    /// The file of a segment is another one now, or gone.
    pub(super) fn close_reader(&mut self, number: u32) {
        self.readers.remove(&number);
    }
}

impl Log for DiskLog {
    fn append(&mut self, record: Record) -> Result<(), LogError> {
        self.begin_to_write()?;
        let too_far = self.segments.get(self.active).is_some_and(|active| active.is_too_far(record.seq));
        if self.end() >= self.segment_bytes && self.committed == self.end() || too_far {
            self.roll()?;
        }
        let before = self.end();
        let (salt, witness) = (self.salt(), self.witness());
        if record.seq > self.reserved {
            self.reserved = record.seq + BLOCK;
            frame::put_reserve(&mut self.pending, salt, witness, self.reserved);
            if self.shared.sync == Sync::Relaxed {
                // The only thing that has to be on the disk before what comes after it can be seen.
                self.grow(before);
                self.sync()?;
                return self.append(record);
            }
        }
        let at = self.end();
        frame::put_message(&mut self.pending, salt, witness, &record);
        let len = u32::try_from(self.end() - at).expect("a message is below 1 GB");
        let Ok(offset) = i32::try_from(at).map(i32::cast_unsigned) else {
            let path = self.path(self.active);
            return Err(self.fail(&path, std::io::ErrorKind::FileTooLarge.into(), self.committed));
        };
        self.segments.add(self.active, record.seq, Span { at: offset, len });
        self.last_seq = self.last_seq.max(record.seq);
        self.grow(before);
        if self.pending.len() >= WRITE_AT { self.write() } else { Ok(()) }
    }

    fn read(&mut self, seq: u64) -> Result<Option<Record>, LogError> {
        self.check()?;
        let Some(segment) = self.segments.holder(seq).and_then(|number| self.segments.get(number)) else {
            return Ok(None);
        };
        let (number, salt, Some(span)) = (segment.number, segment.salt, segment.find(seq)) else {
            return Ok(None);
        };
        let path = self.path(number);
        let data =
            self.bytes_at(number, span).map_err(|source| LogError::Io { path: path.clone(), source })?;
        match frame::read_alone(&data, 0, salt).map(|frame| frame.entry) {
            Some(Entry::Message(record)) if record.seq == seq => Ok(Some(record)),
            _ => Err(LogError::Damaged(format!(
                "{} is damaged at byte {}: message {seq} can't be read. Check the disk; then restore the data \
                 folder from a backup",
                path.display(),
                span.at
            ))),
        }
    }

    fn forget(&mut self, seqs: &[u64]) -> Result<(), LogError> {
        self.check()?;
        let due = self.now.saturating_add(EXPIRED_WITHIN);
        for seq in seqs {
            if let Some(segment) = self.segments.holder_mut(*seq)
                && segment.kill(*seq, 0)
            {
                segment.clear_by(due);
            }
        }
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64], why: Why) -> Result<(), LogError> {
        self.begin_to_write()?;
        let (before, salt, witness) = (self.end(), self.salt(), self.witness());
        frame::put_remove(&mut self.pending, salt, witness, why, seqs);
        self.grow(before);
        let clear_by = match why {
            Why::Limit => None,
            Why::Age => Some(self.now.saturating_add(EXPIRED_WITHIN)),
            Why::Order => Some(self.now.saturating_add(ERASED_WITHIN)),
        };
        for seq in seqs {
            self.segments.remove_message(*seq, self.active, clear_by);
        }
        if self.pending.len() >= WRITE_AT { self.write() } else { Ok(()) }
    }

    fn keep_ids_from(&mut self, seq: u64) {
        self.ids_from = seq;
    }

    fn note_shortness(&mut self) -> Result<(), LogError> {
        match &mut self.opening {
            Some(Opening { mark: Mark::Running { short, .. }, .. }) => *short = false,
            Some(_) => {}
            None => {
                let (shared, boot) = (&*self.shared, self.shared.files.boot_id());
                let mark = Mark::Running { boot, sync: shared.sync, short: false };
                shared
                    .write(|| mark.write(&*shared.files, &self.folder))
                    .map_err(|error| shared.error(&self.folder, error))?;
            }
        }
        self.begin_to_write()
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.check()?;
        match self.shared.sync {
            Sync::Strict => self.sync()?,
            Sync::Relaxed => self.write()?,
        }
        self.committed = self.written;
        if self.steps_changed {
            self.write_steps();
        }
        Ok(())
    }

    fn on_step(&mut self, by: i64) -> Result<(), LogError> {
        let first = self.segments.iter().find_map(Segment::base).unwrap_or(self.last_seq);
        self.steps.add(first, self.last_seq, by);
        self.steps_changed = true;
        Ok(())
    }

    fn room(&self, bytes: u64, claim: Claim) -> Result<(), LogError> {
        self.shared.room(bytes, claim)
    }

    fn reclaimable(&self) -> Option<Reclaimable> {
        // A disk that others have filled does not get much emptier by this, and there is no room for copies.
        let wanted = !self.shared.is_disk_full();
        let (_, best) = self.best(|_, one| wanted && one.waste * 100 >= one.of * WORTH_IF_WANTED)?;
        Some(best)
    }

    fn reclaim(&mut self) -> Result<u64, LogError> {
        self.begin_to_write()?;
        self.reclaim_best()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn on_tick(&mut self, now: u64) -> Result<(), LogError> {
        self.shared.look(now);
        self.check()?;
        self.now = now;
        if self.end() > self.synced {
            let due = *self.sync_due.get_or_insert(now + SYNC_AFTER);
            if self.shared.sync == Sync::Strict || now >= due || !self.pending.is_empty() {
                self.sync_all()?;
            }
        }
        self.give_back()
    }
}

impl DiskLog {
    /// Whether everything that was appended is on the disk.
    pub(super) fn all_synced(&self) -> bool {
        self.synced == self.end()
    }

    /// Syncs, so that what is removed is removed for good before its room is used again.
    pub(super) fn sync_all(&mut self) -> Result<(), LogError> {
        self.sync()?;
        self.committed = self.written;
        Ok(())
    }

    /// Keeps when the clock was set. If that can't be written now, the next commit tries again.
    fn write_steps(&mut self) {
        let (shared, steps) = (&self.shared, &self.steps);
        match shared.write(|| steps.write(&*shared.files, &self.folder)) {
            Ok(()) => self.steps_changed = false,
            Err(error) => {
                let error = shared.error(&self.folder, error);
                tracing::warn!(%error, "that the system's clock was set can't be kept; trying again");
            }
        }
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.opening.is_some() {
            // What the last mark says is still so.
            return Ok(());
        }
        self.sync_all()?;
        // A shortness that nobody took note of must not be forgotten.
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

/// A log that ends with its process ends well, unless it was in the middle of something.
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

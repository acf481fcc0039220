//! The log of one stream: segment files, of which the newest is written.
//!
//! What is appended waits in memory until `commit` writes it with one call. After any error nothing works until the log
//! was opened again: the bytes behind the last good commit are cut off then, because a file whose sync failed may have
//! lost what it was given and still show it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::compact::Compaction;
use super::files::{OneFile, replace};
use super::frame::{self, Entry, Header, Salt};
use super::mark::Mark;
use super::scan::{self, file_name, holder};
use super::segment::Segment;
use super::shared::{Shared, Trusted};
use crate::config::Sync;
use crate::storage::{Log, LogError, Opened, Record, Told};

/// Bytes after which a segment is ended and another begun.
pub(super) const SEGMENT: u64 = 32 << 20;
/// Bytes that wait in memory at most, besides one message.
const WRITE_AT: usize = 4 << 20;
/// How far ahead sequences are made durable as in use.
const BLOCK: u64 = 65_536;
/// How long acknowledged messages may be unsynced in the relaxed setting, in nanoseconds. Ticks come on top.
const SYNC_AFTER: u64 = 500_000_000;

pub(super) struct DiskLog {
    pub(super) shared: Arc<Shared>,
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) active: u32,
    file: Box<dyn OneFile>,
    /// Open files of older segments, few.
    readers: BTreeMap<u32, Box<dyn OneFile>>,
    /// Appended and not yet written; it begins at the offset `written` of the active file.
    pending: Vec<u8>,
    /// Bytes of the active file.
    written: u64,
    committed: u64,
    synced: u64,
    /// When the sync is due, in nanoseconds since 1970.
    sync_due: Option<u64>,
    last_seq: u64,
    reserved: u64,
    broken: bool,
    pub(super) size: u64,
    pub(super) segment_bytes: u64,
    pub(super) compaction: Option<Compaction>,
    /// Bytes written since the last tick: giving room back has to keep up with them.
    pub(super) since_tick: u64,
}

impl std::fmt::Debug for DiskLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DiskLog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DiskLog {
    /// Opens what is in a folder, or begins with its first segment.
    pub(super) fn open(
        shared: &Arc<Shared>,
        name: &str,
        folder: PathBuf,
        segment_bytes: u64,
        tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<(Self, Opened), LogError> {
        let files = &*shared.files;
        let (mark, boot) = (Mark::read(files, &folder), files.boot_id());
        let trusted = shared.trusted(name);
        let found = scan::scan(shared, &folder, &mark, trusted, tell)?;
        scan::tell(shared, &folder, &found.segments, tell)?;
        let lost = trusted.is_some_and(|trusted| trusted.lost);
        let may_miss_some = mark.may_miss_some(&boot) || lost;
        // Whatever was lost: no sequence that may have been seen is given again.
        let all_seen = !found.cut && !may_miss_some && !mark.machine_went_down(&boot);
        let last_seq = if all_seen { found.last_seq } else { found.last_seq.max(found.reserved) };
        let mut segments = found.segments;
        let active = match segments.keys().next_back() {
            Some(number) => *number,
            None => first(shared, &folder, last_seq, found.reserved, &mut segments)?,
        };
        let path = folder.join(file_name(active));
        let mut file = files.open(&path).map_err(|error| shared.error(&path, error))?;
        // What another process had written and not synced.
        file.sync().map_err(|error| shared.error(&path, error))?;
        let written = segments[&active].len;
        let size = segments.values().map(|segment| segment.len).sum();
        shared.resized(0, size);
        shared.counts.segments(0, segments.len());
        let mut log = Self {
            shared: Arc::clone(shared),
            name: name.to_owned(),
            folder,
            segments,
            active,
            file,
            readers: BTreeMap::new(),
            pending: Vec::new(),
            written,
            committed: written,
            synced: written,
            sync_due: None,
            last_seq,
            reserved: found.reserved,
            // Until its mark is there: a log that is dropped before must not leave a clean one.
            broken: true,
            size,
            segment_bytes,
            compaction: None,
            since_tick: 0,
        };
        if last_seq > found.last_seq || log.salt() == Salt::NONE {
            // The header of the next segment keeps the sequence, and has a salt.
            log.roll()?;
        }
        // Only now: until here, what the old mark says has to be found again if this is cut off.
        Mark::Running { boot, sync: shared.sync, short: may_miss_some }
            .write(files, &log.folder)
            .map_err(|error| shared.error(&log.folder, error))?;
        shared.trust(name);
        log.broken = false;
        Ok((log, Opened { last_seq, may_miss_some }))
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.folder.join(file_name(number))
    }

    fn check(&self) -> Result<(), LogError> {
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
        if let Some(segment) = self.segments.get_mut(&self.active) {
            segment.len += added;
        }
    }

    /// Writes what waits. It need not be on the disk then.
    fn write(&mut self) -> Result<(), LogError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_at(&self.pending, self.written) {
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
        let header = Header { number, last_seq: self.last_seq, reserved: self.reserved, salt };
        let path = self.path(number);
        let shared = Arc::clone(&self.shared);
        let made = replace(&*shared.files, &self.folder, &file_name(number), &header.encode())
            .and_then(|()| shared.files.open(&path));
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // A half-made one that has its name already would be taken for the newest.
                let _ = shared.files.remove(&path);
                return Err(self.fail(&path, error, self.synced));
            }
        };
        if let Some(segment) = self.segments.get_mut(&self.active) {
            segment.shrink();
        }
        self.file = file;
        self.readers.clear();
        let len = Header::LEN as u64;
        self.segments.insert(number, Segment::new(number, salt, len));
        (self.active, self.written, self.committed, self.synced) = (number, len, len, len);
        self.size += len;
        self.shared.resized(0, len);
        self.shared.counts.segments(0, 1);
        Ok(())
    }

    /// What the checksums in the active segment begin with.
    fn salt(&self) -> Salt {
        self.segments.get(&self.active).map_or(Salt::NONE, |segment| segment.salt)
    }

    /// What `synced` of a record says: a segment is below 4 GiB.
    fn witness(&self) -> u32 {
        u32::try_from(self.synced).unwrap_or(0)
    }

    fn bytes_at(&mut self, number: u32, at: u64) -> std::io::Result<Bytes> {
        if number == self.active && at >= self.written {
            let from = usize::try_from(at - self.written).unwrap_or(usize::MAX);
            let rest = self.pending.get(from..).unwrap_or_default();
            let length = frame::length(rest).unwrap_or(0).min(rest.len());
            return Ok(Bytes::copy_from_slice(&rest[..length]));
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
        let mut prefix = [0; frame::PREFIX];
        file.read_at(&mut prefix, at)?;
        let length = frame::length(&prefix).unwrap_or(0);
        let most = self.segments.get(&number).map_or(0, |segment| segment.len.saturating_sub(at));
        if length as u64 > most {
            return Ok(Bytes::new());
        }
        let mut data = vec![0; length];
        file.read_at(&mut data, at)?;
        Ok(data.into())
    }

    /// The file of a segment is another one now, or gone.
    pub(super) fn close_reader(&mut self, number: u32) {
        self.readers.remove(&number);
    }
}

/// Begins the first segment of a log.
fn first(
    shared: &Shared,
    folder: &std::path::Path,
    last_seq: u64,
    reserved: u64,
    segments: &mut BTreeMap<u32, Segment>,
) -> Result<u32, LogError> {
    let salt = Salt::random();
    let header = Header { number: 1, last_seq, reserved, salt };
    replace(&*shared.files, folder, &file_name(1), &header.encode())
        .map_err(|error| shared.error(folder, error))?;
    segments.insert(1, Segment::new(1, salt, Header::LEN as u64));
    Ok(1)
}

impl Log for DiskLog {
    fn append(&mut self, record: Record) -> Result<(), LogError> {
        self.check()?;
        let too_far = self.segments.get(&self.active).is_some_and(|active| active.is_too_far(record.seq));
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
        let Ok(offset) = i32::try_from(at).map(i32::cast_unsigned) else {
            let path = self.path(self.active);
            return Err(self.fail(&path, std::io::ErrorKind::FileTooLarge.into(), self.committed));
        };
        frame::put_message(&mut self.pending, salt, witness, &record);
        if let Some(segment) = self.segments.get_mut(&self.active) {
            segment.add(record.seq, offset);
        }
        self.last_seq = self.last_seq.max(record.seq);
        self.grow(before);
        if self.pending.len() >= WRITE_AT { self.write() } else { Ok(()) }
    }

    fn read(&mut self, seq: u64) -> Result<Option<Record>, LogError> {
        self.check()?;
        let Some(number) = holder(&self.segments, seq) else { return Ok(None) };
        let Some(segment) = self.segments.get(&number) else { return Ok(None) };
        let (salt, Some(at)) = (segment.salt, segment.find(seq)) else { return Ok(None) };
        let path = self.path(number);
        let data = self
            .bytes_at(number, u64::from(at))
            .map_err(|source| LogError::Io { path: path.clone(), source })?;
        match frame::read_alone(&data, 0, salt).map(|frame| frame.entry) {
            Some(Entry::Message(record)) if record.seq == seq => Ok(Some(record)),
            Some(Entry::Message(_) | Entry::Remove(_) | Entry::Reserve(_)) | None => {
                Err(LogError::Damaged(format!(
                    "{} is damaged at byte {at}: message {seq} can't be read. Check the disk; then restore the data \
                     folder from a backup",
                    path.display()
                )))
            }
        }
    }

    fn forget(&mut self, seqs: &[u64]) -> Result<(), LogError> {
        self.check()?;
        for seq in seqs {
            if let Some(segment) =
                holder(&self.segments, *seq).and_then(|number| self.segments.get_mut(&number))
            {
                segment.kill(*seq, 0);
            }
        }
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64]) -> Result<(), LogError> {
        self.check()?;
        let (before, salt, witness) = (self.end(), self.salt(), self.witness());
        frame::put_remove(&mut self.pending, salt, witness, seqs);
        self.grow(before);
        for seq in seqs {
            scan::remove(&mut self.segments, *seq, self.active);
        }
        if self.pending.len() >= WRITE_AT { self.write() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.check()?;
        match self.shared.sync {
            Sync::Strict => self.sync()?,
            Sync::Relaxed => self.write()?,
        }
        self.committed = self.written;
        Ok(())
    }

    fn room(&self) -> Result<(), LogError> {
        self.shared.room()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn on_tick(&mut self, now: u64) -> Result<(), LogError> {
        self.shared.look(now);
        self.check()?;
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

    fn close(&mut self) -> Result<(), LogError> {
        self.check()?;
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
        self.shared.counts.segments(self.segments.len(), 0);
        if self.broken || self.end() > self.committed || std::thread::panicking() {
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a log could not be ended well: it is checked when it is opened again");
        }
    }
}

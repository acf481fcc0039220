//! Reads all segments of a log that is being opened, and decides which bytes to believe.
//!
//! An error before a byte that was durable is damage, and nothing is opened. An error at the very end, where
//! a crash can have cut off a write, is cut off.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::clock_steps::ClockSteps;
use super::frame::{self, Header, LogEntry, Salt};
use super::listing;
use super::mark::Mark;
use super::segment::{Segment, Span};
use super::segments::Segments;
use super::shared::{Shared, Trusted};
use crate::storage::{Record, RemovalReason, Replayed, StoreError};

/// The findings of a scan.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segments: Segments,
    /// The highest sequence in a message or a header.
    pub(super) last_seq: u64,
    /// The highest sequence of a message, or of the id that remains of one.
    seen: u64,
    /// Sequences up to and including this one may have been in use.
    pub(super) reserved: u64,
    /// Whether there is a list of all segments.
    pub(super) is_listed: bool,
    /// Where the newest segment has to be cut off before anything is written.
    pub(super) cut: Option<u64>,
}

impl Found {
    /// Marks messages as removed by segment `by`.
    fn remove(&mut self, seqs: Vec<u64>, by: u32, reason: RemovalReason) {
        // Erased messages leave their file as soon as something can be written.
        let clear_by = (reason == RemovalReason::Request).then_some(0);
        seqs.into_iter().for_each(|seq| self.segments.remove_message(seq, by, clear_by));
    }
}

pub(super) fn file_name(number: u32) -> String {
    format!("{number:08x}.log")
}

fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok())?
}

fn damaged(path: &Path, at: usize, what: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{} is damaged at byte {at}: {what}. Nothing of it was changed. Check the disk; then restore the data folder \
         from a backup, or move the folder of this stream away and start with an empty one",
        path.display()
    ))
}

/// Reads the segments of a log that is being opened.
pub(super) struct Scanner<'a> {
    pub(super) shared: &'a Shared,
    pub(super) folder: &'a Path,
    /// How the last use of the log ended.
    pub(super) mark: &'a Mark,
    /// The certain bytes after a failed write of this process.
    pub(super) trusted: Option<Trusted>,
    pub(super) steps: &'a ClockSteps,
}

impl Scanner<'_> {
    /// Reads all segments, and calls `replay` for every message that was stored.
    pub(super) fn scan(&self, replay: &mut dyn FnMut(Replayed<'_>)) -> Result<Found, StoreError> {
        let replay = &mut |mut record: Record| {
            record.time = self.steps.correct(record.seq, record.time);
            replay(Replayed::Stored(&record));
        };
        let mut found = Found::default();
        let numbers = self.segment_numbers(&mut found)?;
        for number in &numbers {
            self.scan_segment(&mut found, *number, Some(number) == numbers.last(), replay)?;
        }
        if let Mark::Clean { segment, .. } = self.mark
            && numbers.last().is_some_and(|last| last < segment)
        {
            return Err(damaged(&self.folder.join(file_name(*segment)), 0, "it is missing"));
        }
        Ok(found)
    }

    /// Returns the numbers of the segments to read, in order. Removes unfinished files, and segments whose
    /// removal was cut off. A listed segment that is missing is damage.
    fn segment_numbers(&self, found: &mut Found) -> Result<Vec<u32>, StoreError> {
        let (shared, folder, files) = (self.shared, self.folder, &*self.shared.files);
        let names = files.list(folder).map_err(|error| shared.error(folder, error))?;
        for unfinished in names.iter().filter(|name| name.ends_with(".new")) {
            let path = folder.join(unfinished);
            files.remove(&path).map_err(|error| shared.error(&path, error))?;
        }
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        let listed = listing::read(files, folder).map_err(|error| shared.error(folder, error))?;
        found.is_listed = listed.is_some();
        let Some(listed) = listed else { return Ok(numbers) };
        if let Some(missing) = listed.iter().find(|number| numbers.binary_search(number).is_err()) {
            return Err(damaged(&folder.join(file_name(*missing)), 0, "it is missing"));
        }
        let is_left_over = |number: &u32| !listed.contains(number) && Some(number) < listed.last();
        for left_over in numbers.extract_if(.., |number| is_left_over(number)) {
            let path = folder.join(file_name(left_over));
            files.remove(&path).map_err(|error| shared.error(&path, error))?;
        }
        Ok(numbers)
    }

    /// Reads one segment, and decides where its believable part ends.
    fn scan_segment(
        &self,
        found: &mut Found,
        number: u32,
        is_last: bool,
        replay: &mut dyn FnMut(Record),
    ) -> Result<(), StoreError> {
        let path = self.folder.join(file_name(number));
        let read = self.shared.files.read(&path).map_err(|error| self.shared.error(&path, error))?;
        let mut data = Bytes::from(read);
        let trusted = self.trusted.filter(|trusted| trusted.segment == number);
        if let Some(trusted) = trusted {
            data.truncate(usize::try_from(trusted.len).unwrap_or(usize::MAX));
        }
        let ended_well = matches!(self.mark, Mark::Clean { .. });
        if let Mark::Clean { segment, len } = self.mark
            && *segment == number
            && *len != data.len() as u64
        {
            let what = format!("it ended well with {len} bytes and has {} now", data.len());
            return Err(damaged(&path, data.len(), &what));
        }
        let end = read_segment(found, SegmentFile { path: &path, number, is_last, data: &data }, replay)?;
        if end < data.len() && ended_well {
            return Err(damaged(&path, end, "it ended well and can't be read to its end now"));
        }
        if end < data.len() || trusted.is_some() {
            self.report_cut(&path, end, data.len());
            found.cut = Some(end as u64);
        }
        Ok(())
    }

    fn report_cut(&self, path: &Path, end: usize, of: usize) {
        if end < of {
            self.shared.counts.cut();
            tracing::warn!(
                file = %path.display(),
                at = end,
                bytes = of - end,
                "the end of a log was cut off while it was written: it is dropped, and was not acknowledged unless \
                 somebody changed the file since"
            );
        }
    }

    /// Calls `replay` for every message that is alive, in the order of their sequences.
    pub(super) fn replay_living(
        &self,
        segments: &Segments,
        replay: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(), StoreError> {
        for segment in segments.iter().filter(|segment| segment.alive() > 0) {
            let path: PathBuf = self.folder.join(file_name(segment.number));
            let data = self.shared.files.read(&path).map_err(|error| self.shared.error(&path, error))?;
            let data = Bytes::from(data);
            for Span { at, .. } in segment.living() {
                let Some(LogEntry::Message(mut record)) =
                    frame::read_trusted(&data, at as usize).map(|frame| frame.entry)
                else {
                    return Err(damaged(&path, at as usize, "it has changed while it was read"));
                };
                record.time = self.steps.correct(record.seq, record.time);
                replay(Replayed::Present(record));
            }
        }
        Ok(())
    }
}

/// A segment file that was read whole.
#[derive(Clone, Copy)]
struct SegmentFile<'a> {
    path: &'a Path,
    number: u32,
    /// Whether this is the newest segment, whose end a crash can have cut off.
    is_last: bool,
    data: &'a Bytes,
}

/// Adds one segment to what was found. Returns the offset where its believable part ends.
fn read_segment(
    found: &mut Found,
    SegmentFile { path, number, is_last, data }: SegmentFile<'_>,
    replay: &mut dyn FnMut(Record),
) -> Result<usize, StoreError> {
    let header = Header::decode(data).map_err(|error| damaged(path, 0, &error.to_string()))?;
    if header.number != number {
        return Err(damaged(path, 0, "it is another segment than its name says"));
    }
    found.last_seq = found.last_seq.max(header.last_seq);
    found.reserved = found.reserved.max(header.reserved);
    let mut segment = Segment::new(number, header.salt, data.len() as u64);
    let mut at = header.len();
    let mut removals = Vec::new();
    while at < data.len() {
        let Some(frame) = frame::read(data, at, header.salt) else {
            if !is_last || is_witnessed(data, at, header.salt) {
                return Err(damaged(path, at, "its checksum is wrong, and it was whole once"));
            }
            break;
        };
        match frame.entry {
            LogEntry::Message(record) | LogEntry::Id(record)
                if segment.is_too_far(record.seq) || record.seq <= found.seen =>
            {
                return Err(damaged(path, at, "its sequences are out of order"));
            }
            LogEntry::Message(record) => {
                let span = span(at, frame.end).ok_or_else(|| damaged(path, at, "it is too large"))?;
                segment.add(record.seq, span);
                found.seen = record.seq;
                replay(record);
            }
            LogEntry::Id(record) => {
                segment.add_id(record.seq, (frame.end - at) as u64);
                found.seen = record.seq;
                replay(record);
            }
            LogEntry::Remove(reason, seqs) => removals.push((reason, seqs)),
            LogEntry::Reserve(up_to) => found.reserved = found.reserved.max(up_to),
        }
        at = frame.end;
    }
    found.last_seq = found.last_seq.max(found.seen);
    segment.len = at as u64;
    segment.shrink();
    found.segments.insert(segment);
    for (reason, seqs) in removals {
        found.remove(seqs, number, reason);
    }
    Ok(at)
}

fn span(at: usize, end: usize) -> Option<Span> {
    Some(Span { at: u32::try_from(at).ok()?, len: u32::try_from(end - at).ok()? })
}

/// Whether a later record was written when the bytes at `at` were known to be on the disk. Bytes of a
/// publisher that look like a record lack the salt.
fn is_witnessed(data: &Bytes, at: usize, salt: Salt) -> bool {
    let reads = |later| frame::read(data, later, salt);
    (at + 1..data.len()).any(|later| reads(later).is_some_and(|frame| frame.synced as usize > at))
}

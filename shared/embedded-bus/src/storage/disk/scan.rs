//! Reads all segments of a log when it is opened, and decides what of them can be believed.
//!
//! Whatever is wrong before a byte that was durable is damage, and nothing is opened; what is wrong at the very end, where
//! a crash can have cut a write off, is cut off.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::frame::{self, Entry, Header, Salt};
use super::listing;
use super::mark::Mark;
use super::segment::{Segment, Span};
use super::segments::Segments;
use super::shared::{Shared, Trusted};
use super::steps::Steps;
use crate::storage::{LogError, Record, Told, Why};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segments: Segments,
    /// The highest sequence that was seen or is told of.
    pub(super) last_seq: u64,
    /// The highest sequence of a message, or of what is left of one.
    seen: u64,
    /// Sequences up to and including this one may have been in use.
    pub(super) reserved: u64,
    /// Whether there is a list of all segments.
    pub(super) is_listed: bool,
    /// The newest segment ends here, and what its file has behind that has to go before anything is written.
    pub(super) cut: Option<u64>,
}

pub(super) fn file_name(number: u32) -> String {
    format!("{number:08x}.log")
}

fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok())?
}

fn damaged(path: &Path, at: usize, what: &str) -> LogError {
    LogError::Damaged(format!(
        "{} is damaged at byte {at}: {what}. Nothing of it was changed. Check the disk; then restore the data folder \
         from a backup, or move the folder of this stream away and start with an empty one",
        path.display()
    ))
}

/// Reads everything, and tells what was stored. The last use ended as `mark` says; `trusted`: what a write that failed in
/// this process left behind.
pub(super) fn scan(
    shared: &Shared,
    folder: &Path,
    (mark, trusted): (&Mark, Option<Trusted>),
    steps: &Steps,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Found, LogError> {
    let tell = &mut |mut record: Record| {
        record.time = steps.correct(record.seq, record.time);
        tell(Told::Stored(&record));
    };
    let files = &*shared.files;
    let names = files.list(folder).map_err(|error| shared.error(folder, error))?;
    for unfinished in names.iter().filter(|name| name.ends_with(".new")) {
        let path = folder.join(unfinished);
        files.remove(&path).map_err(|error| shared.error(&path, error))?;
    }
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    let listed = listing::read(files, folder).map_err(|error| shared.error(folder, error))?;
    if let Some(listed) = &listed {
        if let Some(missing) = listed.iter().find(|number| numbers.binary_search(number).is_err()) {
            return Err(damaged(&folder.join(file_name(*missing)), 0, "it is missing"));
        }
        let is_left_over = |number: &u32| !listed.contains(number) && Some(number) < listed.last();
        for left_over in numbers.extract_if(.., |number| is_left_over(number)) {
            let path = folder.join(file_name(left_over));
            files.remove(&path).map_err(|error| shared.error(&path, error))?;
        }
    }
    let mut found = Found { is_listed: listed.is_some(), ..Found::default() };
    for number in &numbers {
        let path = folder.join(file_name(*number));
        let last = Some(number) == numbers.last();
        let mut data = Bytes::from(files.read(&path).map_err(|error| shared.error(&path, error))?);
        if let Some(trusted) = trusted.filter(|trusted| trusted.segment == *number) {
            data.truncate(usize::try_from(trusted.len).unwrap_or(usize::MAX));
        }
        if let Mark::Clean { segment, len } = mark
            && segment == number
            && *len != data.len() as u64
        {
            let what = format!("it ended well with {len} bytes and has {} now", data.len());
            return Err(damaged(&path, data.len(), &what));
        }
        let end = one(&mut found, &path, (*number, last), &data, tell)?;
        let cut_by_hand = trusted.is_some_and(|trusted| trusted.segment == *number);
        if end < data.len() && matches!(mark, Mark::Clean { .. }) {
            return Err(damaged(&path, end, "it ended well and can't be read to its end now"));
        }
        if end < data.len() || cut_by_hand {
            tell_of_cut(shared, &path, end, data.len());
            found.cut = Some(end as u64);
        }
    }
    if let Mark::Clean { segment, .. } = mark
        && numbers.last().is_some_and(|last| last < segment)
    {
        return Err(damaged(&folder.join(file_name(*segment)), 0, "it is missing"));
    }
    Ok(found)
}

/// Takes one segment in. Says where what can be believed ends.
fn one(
    found: &mut Found,
    path: &Path,
    (number, last): (u32, bool),
    data: &Bytes,
    tell: &mut dyn FnMut(Record),
) -> Result<usize, LogError> {
    let header = match Header::decode(data) {
        Ok(header) if header.number == number => header,
        Ok(_) => return Err(damaged(path, 0, "it is another segment than its name says")),
        Err(what) => return Err(damaged(path, 0, &what)),
    };
    found.last_seq = found.last_seq.max(header.last_seq);
    found.reserved = found.reserved.max(header.reserved);
    let mut segment = Segment::new(number, header.salt, data.len() as u64);
    let mut at = header.len();
    let mut removals = Vec::new();
    while at < data.len() {
        let Some(frame) = frame::read(data, at, header.salt) else {
            if !last || is_witnessed(data, at, header.salt) {
                return Err(damaged(path, at, "its checksum is wrong, and it was whole once"));
            }
            break;
        };
        match frame.entry {
            Entry::Message(record) | Entry::Id(record)
                if segment.is_too_far(record.seq) || record.seq <= found.seen =>
            {
                return Err(damaged(path, at, "its sequences are out of order"));
            }
            Entry::Message(record) => {
                segment.add(
                    record.seq,
                    span(at, frame.end).ok_or_else(|| damaged(path, at, "it is too large"))?,
                );
                found.seen = record.seq;
                tell(record);
            }
            Entry::Id(record) => {
                segment.add_id(record.seq, (frame.end - at) as u64);
                found.seen = record.seq;
                tell(record);
            }
            Entry::Remove(why, seqs) => removals.push((why, seqs)),
            Entry::Reserve(up_to) => found.reserved = found.reserved.max(up_to),
        }
        at = frame.end;
    }
    found.last_seq = found.last_seq.max(found.seen);
    segment.len = at as u64;
    segment.shrink();
    found.segments.insert(segment);
    for (why, seqs) in removals {
        // What was erased is out of its file as soon as something can be written.
        let clear_by = (why == Why::Order).then_some(0);
        seqs.into_iter().for_each(|seq| found.segments.remove_message(seq, number, clear_by));
    }
    Ok(at)
}

fn span(at: usize, end: usize) -> Option<Span> {
    Some(Span { at: u32::try_from(at).ok()?, len: u32::try_from(end - at).ok()? })
}

/// Whether a record behind `at` was written when `at` was known to be on the disk. What only looks like a record, because
/// a publisher put it into a message, lacks the salt.
fn is_witnessed(data: &Bytes, at: usize, salt: Salt) -> bool {
    let reads = |later| frame::read(data, later, salt);
    (at + 1..data.len()).any(|later| reads(later).is_some_and(|frame| frame.synced as usize > at))
}

fn tell_of_cut(shared: &Shared, path: &Path, end: usize, of: usize) {
    if end < of {
        shared.counts.cut();
        tracing::warn!(
            file = %path.display(),
            at = end,
            bytes = of - end,
            "the end of a log was cut off while it was written: it is dropped, and was not acknowledged unless somebody \
             changed the file since"
        );
    }
}

/// Tells every message that is alive, in the order of their sequences.
pub(super) fn tell(
    shared: &Shared,
    folder: &Path,
    segments: &Segments,
    steps: &Steps,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<(), LogError> {
    for segment in segments.iter().filter(|segment| segment.alive() > 0) {
        let path: PathBuf = folder.join(file_name(segment.number));
        let data = Bytes::from(shared.files.read(&path).map_err(|error| shared.error(&path, error))?);
        for (_, Span { at, .. }) in segment.living() {
            let Some(Entry::Message(mut record)) =
                frame::read_trusted(&data, at as usize).map(|frame| frame.entry)
            else {
                return Err(damaged(&path, at as usize, "it has changed while it was read"));
            };
            record.time = steps.correct(record.seq, record.time);
            tell(Told::There(record));
        }
    }
    Ok(())
}

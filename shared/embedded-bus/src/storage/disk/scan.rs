//! Reads all segments of a log when it is opened, and decides what of them can be believed.
//!
//! Whatever is wrong before a byte that was durable is damage, and nothing is opened; what is wrong at the very end, where
//! a crash can have cut a write off, is cut off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::frame::{self, Entry, Header, Salt};
use super::mark::Mark;
use super::segment::Segment;
use super::shared::{Shared, Trusted};
use crate::storage::{LogError, Told};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segments: BTreeMap<u32, Segment>,
    /// The highest sequence that was seen.
    pub(super) last_seq: u64,
    /// Sequences up to and including this one may have been in use.
    pub(super) reserved: u64,
    /// Bytes were cut off the end.
    pub(super) cut: bool,
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

/// Reads everything, and tells what was stored. `trusted`: what a write that failed in this process left behind.
pub(super) fn scan(
    shared: &Shared,
    folder: &Path,
    mark: &Mark,
    trusted: Option<Trusted>,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Found, LogError> {
    let files = &*shared.files;
    let names = files.list(folder).map_err(|error| shared.error(folder, error))?;
    for unfinished in names.iter().filter(|name| name.ends_with(".new")) {
        let path = folder.join(unfinished);
        files.remove(&path).map_err(|error| shared.error(&path, error))?;
    }
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    let mut found = Found::default();
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
            cut(shared, &path, end, data.len())?;
            found.cut = true;
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
    tell: &mut dyn FnMut(Told<'_>),
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
    let mut removals: Vec<u64> = Vec::new();
    while at < data.len() {
        let Some(frame) = frame::read(data, at, header.salt) else {
            if !last || is_witnessed(data, at, header.salt) {
                return Err(damaged(path, at, "its checksum is wrong, and it was whole once"));
            }
            break;
        };
        match frame.entry {
            Entry::Message(record) => {
                let seq = record.seq;
                if segment.is_too_far(seq) || seq <= found.last_seq {
                    return Err(damaged(path, at, "its sequences are out of order"));
                }
                let offset = u32::try_from(at).map_err(|_| damaged(path, at, "it is too large"))?;
                segment.add(seq, offset);
                found.last_seq = found.last_seq.max(seq);
                tell(Told::Stored(&record));
            }
            Entry::Remove(seqs) => removals.extend(seqs),
            Entry::Reserve(up_to) => found.reserved = found.reserved.max(up_to),
        }
        at = frame.end;
    }
    segment.len = at as u64;
    segment.shrink();
    found.segments.insert(number, segment);
    for seq in removals {
        remove(&mut found.segments, seq, number);
    }
    Ok(at)
}

/// Marks a message as removed by segment `by`.
pub(super) fn remove(segments: &mut BTreeMap<u32, Segment>, seq: u64, by: u32) {
    let killed = holder(segments, seq)
        .and_then(|number| segments.get_mut(&number))
        .is_some_and(|segment| segment.kill(seq, by));
    if killed && let Some(by) = segments.get_mut(&by) {
        by.add_tombs(1);
    } else {
        waste_tomb(segments, by);
    }
}

fn waste_tomb(segments: &mut BTreeMap<u32, Segment>, by: u32) {
    if let Some(by) = segments.get_mut(&by) {
        by.waste += frame::TOMB;
    }
}

/// The segment that a message would be in.
pub(super) fn holder(segments: &BTreeMap<u32, Segment>, seq: u64) -> Option<u32> {
    // Few segments, most of them with messages: from the newest, because most reads want what is new.
    segments
        .iter()
        .rev()
        .find(|(_, segment)| segment.base().is_some_and(|base| base <= seq))
        .map(|(number, _)| *number)
}

/// Whether a record behind `at` was written when `at` was known to be on the disk. What only looks like a record, because
/// a publisher put it into a message, lacks the salt.
fn is_witnessed(data: &Bytes, at: usize, salt: Salt) -> bool {
    let reads = |later| frame::read(data, later, salt);
    (at + 1..data.len()).any(|later| reads(later).is_some_and(|frame| frame.synced as usize > at))
}

fn cut(shared: &Shared, path: &Path, end: usize, of: usize) -> Result<(), LogError> {
    if end < of {
        shared.counts.cut();
        tracing::warn!(
            file = %path.display(),
            at = end,
            bytes = of - end,
            "the end of a log was cut off while it was written: what was not acknowledged is dropped"
        );
    }
    let attempt = || {
        let mut file = shared.files.open(path)?;
        file.set_len(end as u64)?;
        file.sync()
    };
    attempt().map_err(|error| shared.error(path, error))
}

/// Tells every message that is alive, in the order of their sequences.
pub(super) fn tell(
    shared: &Shared,
    folder: &Path,
    segments: &BTreeMap<u32, Segment>,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<(), LogError> {
    for (number, segment) in segments.iter().filter(|(_, segment)| segment.alive() > 0) {
        let path: PathBuf = folder.join(file_name(*number));
        let data = Bytes::from(shared.files.read(&path).map_err(|error| shared.error(&path, error))?);
        for (_, at) in segment.living() {
            match frame::read_trusted(&data, at as usize).map(|frame| frame.entry) {
                Some(Entry::Message(record)) => tell(Told::There(record)),
                Some(Entry::Remove(_) | Entry::Reserve(_)) | None => {
                    return Err(damaged(&path, at as usize, "it has changed while it was read"));
                }
            }
        }
    }
    Ok(())
}

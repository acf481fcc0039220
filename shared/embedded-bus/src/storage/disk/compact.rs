//! Gives room back: removes segments of which nothing is needed, and rewrites one that is mostly waste, a step at a tick.
//!
//! Nothing is given back before the removals that allow it are on the disk, and a removal's record stays until the folder
//! without the message is: whatever a crash takes back, a removed message does not return.

use bytes::Bytes;

use super::files::OneFile;
use super::frame::{self, Entry, Header, Salt};
use super::log::DiskLog;
use super::scan::{file_name, holder};
use super::segment::Segment;
use crate::storage::LogError;

/// Bytes that one tick reads at least, and at most, besides one record.
const STEP: u64 = 2 << 20;
const LARGEST_STEP: u64 = 16 << 20;
/// Bytes from which on the active segment is ended if it is mostly waste, and the same while messages are refused.
const LEAST: u64 = 1 << 20;
const LEAST_IF_FULL: u64 = 64 << 10;

/// A segment that is being rewritten.
#[derive(Debug)]
pub(super) struct Compaction {
    number: u32,
    from: Box<dyn OneFile>,
    to: Box<dyn OneFile>,
    /// Read so far.
    at: u64,
    /// What the new file holds.
    segment: Segment,
}

impl DiskLog {
    /// Ends the active segment early if most of it is of no use, so that its room can be given back too: a stream that
    /// few messages come to, or one that is refused for want of room, would keep it for ever.
    fn end_wasteful(&mut self) -> Result<(), LogError> {
        let least = if self.shared.refuses() { LEAST_IF_FULL } else { LEAST };
        let least = least.min(self.segment_bytes / 2);
        let active = self.segments.get(&self.active);
        if active.is_some_and(|active| active.len > least && active.waste > active.len / 2) {
            self.roll()?;
        }
        Ok(())
    }

    /// One step.
    pub(super) fn give_back(&mut self) -> Result<(), LogError> {
        self.end_wasteful()?;
        let budget = (STEP + 2 * std::mem::take(&mut self.since_tick)).min(LARGEST_STEP);
        if self.compaction.is_none() {
            let others = || self.segments.values().filter(|segment| segment.number != self.active);
            let useless: Vec<u32> = others().filter(|one| one.is_useless()).map(|one| one.number).collect();
            let wasteful =
                others().find(|one| !one.is_useless() && one.waste > one.len / 2).map(|one| one.number);
            if useless.is_empty() && wasteful.is_none() {
                return Ok(());
            }
            self.sync_before()?;
            self.unlink(&useless)?;
            let Some(number) = wasteful else { return Ok(()) };
            self.begin(number)?;
        }
        self.sync_before()?;
        let Some(mut compaction) = self.compaction.take() else { return Ok(()) };
        let number = compaction.number;
        if self.step(&mut compaction, budget).map_err(|error| self.gave_up(number, error))? {
            self.finish(compaction)
        } else {
            self.compaction = Some(compaction);
            Ok(())
        }
    }

    fn sync_before(&mut self) -> Result<(), LogError> {
        if self.all_synced() { Ok(()) } else { self.sync_all() }
    }

    /// The old file is still whole: only the new one is dropped.
    fn gave_up(&self, number: u32, error: std::io::Error) -> LogError {
        let path = self.folder.join(format!("{}.new", file_name(number)));
        let _ = self.shared.files.remove(&path);
        self.shared.error(&path, error)
    }

    fn unlink(&mut self, numbers: &[u32]) -> Result<(), LogError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let files = &self.shared.files;
        for number in numbers {
            let path = self.path(*number);
            files.remove(&path).map_err(|error| self.shared.error(&path, error))?;
        }
        files.sync_folder(&self.folder).map_err(|error| self.shared.error(&self.folder, error))?;
        for number in numbers {
            self.close_reader(*number);
            let Some(segment) = self.segments.remove(number) else { continue };
            self.resize(segment.len, 0);
            self.shared.counts.segments(1, 0);
            for (_, by) in segment.dead() {
                self.drop_tomb(by);
            }
        }
        Ok(())
    }

    fn resize(&mut self, before: u64, after: u64) {
        self.size = self.size + after - before;
        self.shared.resized(before, after);
    }

    fn drop_tomb(&mut self, by: u32) {
        if let Some(by) = self.segments.get_mut(&by) {
            by.drop_tomb(frame::TOMB);
        }
    }

    fn begin(&mut self, number: u32) -> Result<(), LogError> {
        let (path, files) = (self.path(number), &self.shared.files);
        let salt = self.segments.get(&number).map_or(Salt::NONE, |segment| segment.salt);
        let len = Header { number, last_seq: 0, reserved: 0, salt }.len();
        let attempt = || {
            let from = files.open(&path)?;
            let mut header = vec![0; len];
            from.read_at(&mut header, 0)?;
            let mut to = files.create(&self.folder.join(format!("{}.new", file_name(number))))?;
            to.write_at(&header, 0)?;
            Ok((from, to))
        };
        let (from, to) = attempt().map_err(|error| self.gave_up(number, error))?;
        let at = len as u64;
        self.compaction = Some(Compaction { number, from, to, at, segment: Segment::new(number, salt, at) });
        Ok(())
    }

    /// Copies what is needed of the next bytes. Whether all was read.
    fn step(&self, compaction: &mut Compaction, budget: u64) -> std::io::Result<bool> {
        let Some(old) = self.segments.get(&compaction.number) else { return Ok(true) };
        let data = read_some(compaction, old.len, budget)?;
        let (mut at, mut out) = (0, Vec::new());
        while let Some(record) = frame::read_alone(&data, at, old.salt) {
            let offset = compaction.at + at as u64;
            let to = compaction.segment.len + out.len() as u64;
            match record.entry {
                Entry::Message(message) => {
                    if old.find(message.seq).is_some_and(|found| u64::from(found) == offset) {
                        compaction.segment.add(message.seq, u32::try_from(to).unwrap_or(0));
                        frame::put_message(&mut out, old.salt, 0, &message);
                    }
                }
                Entry::Remove(mut seqs) => {
                    seqs.retain(|seq| self.is_needed(*seq, compaction.number));
                    if !seqs.is_empty() {
                        compaction.segment.add_tombs(seqs.len() as u64);
                        frame::put_remove(&mut out, old.salt, 0, &seqs);
                    }
                }
                // The header of the next segment says the same.
                Entry::Reserve(_) => {}
            }
            at = record.end;
        }
        if at == 0 && compaction.at < old.len {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{} is damaged at byte {}", self.path(compaction.number).display(), compaction.at),
            ));
        }
        compaction.to.write_at(&out, compaction.segment.len)?;
        // Each step its own, so that none of them is long.
        compaction.to.sync()?;
        compaction.segment.len += out.len() as u64;
        compaction.at += at as u64;
        Ok(compaction.at >= old.len)
    }

    /// Whether the removal of a message, written in segment `by`, has to stay when that one is rewritten.
    fn is_needed(&self, seq: u64, by: u32) -> bool {
        // A message of the same segment goes together with its removal.
        holder(&self.segments, seq).is_some_and(|number| {
            number != by && self.segments.get(&number).is_some_and(|segment| segment.is_killed_by(seq, by))
        })
    }

    fn finish(&mut self, compaction: Compaction) -> Result<(), LogError> {
        let Compaction { number, mut segment, .. } = compaction;
        let (new, path) = (self.folder.join(format!("{}.new", file_name(number))), self.path(number));
        let files = &self.shared.files;
        files
            .rename(&new, &path)
            .and_then(|()| files.sync_folder(&self.folder))
            .map_err(|error| self.fail_renamed(&path, error))?;
        self.close_reader(number);
        let Some(old) = self.segments.remove(&number) else { return Ok(()) };
        for (seq, by) in old.dead() {
            // What died since it was copied is in the new file, too.
            if !segment.kill(seq, by) && by != number {
                self.drop_tomb(by);
            }
        }
        segment.shrink();
        self.resize(old.len, segment.len);
        self.segments.insert(number, segment);
        Ok(())
    }

    /// Which of the two files is there is not known: the log has to be opened again.
    fn fail_renamed(&self, path: &std::path::Path, error: std::io::Error) -> LogError {
        self.shared.error(path, error)
    }
}

/// The next bytes, at least one whole record.
fn read_some(compaction: &Compaction, end: u64, budget: u64) -> std::io::Result<Bytes> {
    let left = end - compaction.at;
    let mut length = left.min(budget);
    if left >= frame::PREFIX as u64 {
        let mut prefix = [0; frame::PREFIX];
        compaction.from.read_at(&mut prefix, compaction.at)?;
        length = length.max(frame::length(&prefix).unwrap_or(0) as u64).min(left);
    }
    let mut data = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    compaction.from.read_at(&mut data, compaction.at)?;
    Ok(data.into())
}

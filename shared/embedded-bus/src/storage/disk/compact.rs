//! Gives room back: removes segments of which nothing is needed, and rewrites those that are worth it. A step at a tick
//! while there is room; all of one segment at once when a message wants room that there is not.
//!
//! Nothing is given back before the removals that allow it are on the disk, and a removal's record stays until the folder
//! without the message is: whatever a crash takes back, a removed message does not return. What can't be given back now is
//! tried again later: a log that can't be made smaller is a good log.

use std::io::ErrorKind;

use bytes::Bytes;

use super::files::OneFile;
use super::frame::{self, Entry, Header};
use super::log::DiskLog;
use super::scan::file_name;
use super::segment::{Segment, Span};
use crate::storage::{LogError, Reclaimable, Record};
use crate::stream::headers::message_id;

/// Bytes that one tick reads at least, and at most, besides one record.
const STEP: u64 = 2 << 20;
const LARGEST_STEP: u64 = 16 << 20;
/// Bytes of the active segment from which on it is rewritten because of its waste.
const LEAST: u64 = 1 << 20;
/// Bytes up to which the active segment is rewritten as it is. A larger one is ended first.
const IN_PLACE: u64 = 4 << 20;
/// Waste in percent of a file from which on it is rewritten, by the share of the limit that is used, in percent.
const WORTH: [(u64, u64); 3] = [(50, 50), (CROWDED, 25), (u64::MAX, 12)];
/// The share of the limit, in percent, from which on files are rewritten although their ids are still wanted.
const CROWDED: u64 = 75;
/// The same, of a file that is rewritten because a message has no room.
pub(super) const WORTH_IF_WANTED: u64 = 10;
/// How long nothing is tried after it failed, at first and at most, in nanoseconds.
const FIRST_PAUSE: u64 = 1_000_000_000;
const LAST_PAUSE: u64 = 60_000_000_000;

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

/// When room may be given back again after that failed.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// By the clock of ticks.
    at: u64,
    pause: u64,
}

impl DiskLog {
    /// Gives back what is worth it, for one tick.
    pub(super) fn give_back(&mut self) -> Result<(), LogError> {
        self.count_waste();
        let budget = (STEP + 2 * std::mem::take(&mut self.since_tick)).min(LARGEST_STEP);
        if self.now < self.retry.at {
            return Ok(());
        }
        let result = self.give_back_some(budget);
        self.bear(result)
    }

    /// The segment of those that are worth it whose rewriting gives most back for its cost, and what that is. The one that
    /// is being rewritten comes first.
    pub(super) fn best(
        &self,
        is_worth_it: impl Fn(&Segment, Reclaimable) -> bool,
    ) -> Option<(u32, Reclaimable)> {
        if self.now < self.retry.at {
            return None;
        }
        let reclaimable = |segment: &Segment| {
            let waste = segment.reclaimable(self.ids_from);
            (waste > 0).then_some(Reclaimable { waste, of: segment.len })
        };
        if let Some(compaction) = &self.compaction {
            let number = compaction.number;
            return Some((number, reclaimable(self.segments.get(number)?)?));
        }
        let all = self.segments.iter().filter_map(|segment| Some((segment, reclaimable(segment)?)));
        all.filter(|(segment, one)| is_worth_it(segment, *one))
            .reduce(|best, one| if one.1.is_better_than(best.1) { one } else { best })
            .map(|(segment, one)| (segment.number, one))
    }

    /// Gives back the waste of one segment at once. How many bytes.
    pub(super) fn reclaim_best(&mut self) -> Result<u64, LogError> {
        let before = self.size;
        let best = self.best(|_, one| one.waste * 100 >= one.of * WORTH_IF_WANTED);
        let result = match (self.compaction.take(), best) {
            (Some(compaction), _) => self.go_on(compaction, u64::MAX).map(drop),
            (None, Some((number, _))) => self.rewrite(number, u64::MAX).map(drop),
            (None, None) => Ok(()),
        };
        self.bear(result)?;
        Ok(before.saturating_sub(self.size))
    }

    /// Goes on after room could not be given back, unless the log itself can't.
    fn bear(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        match result {
            Ok(()) => self.retry = Retry::default(),
            Err(error) if self.check().is_err() => return Err(error),
            Err(error) => {
                self.compaction = None;
                self.shared.counts.failed_to_rewrite();
                if self.retry.pause == 0 {
                    tracing::warn!(log = self.name, %error, "room can't be given back; trying again");
                }
                let pause = (self.retry.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
                self.retry = Retry { at: self.now.saturating_add(pause), pause };
            }
        }
        Ok(())
    }

    fn count_waste(&mut self) {
        let wasted = self.segments.iter().map(|segment| segment.reclaimable(self.ids_from)).sum();
        self.shared.counts.wasted(self.wasted, wasted);
        self.wasted = wasted;
    }

    fn give_back_some(&mut self, mut budget: u64) -> Result<(), LogError> {
        if let Some(compaction) = self.compaction.take() {
            budget = self.go_on(compaction, budget)?;
        }
        while self.compaction.is_none() {
            // What is removed with a file may have been all that another one was needed for.
            while self.unlink_useless()? {}
            let Some(number) = self.next_to_rewrite().filter(|_| budget > 0) else { return Ok(()) };
            self.begin_to_write()?;
            let len = self.segments.get(number).map_or(0, |segment| segment.len);
            if number == self.active && len <= IN_PLACE {
                self.rewrite(number, u64::MAX)?;
                budget = budget.saturating_sub(len);
                continue;
            }
            if number == self.active {
                self.roll()?;
            }
            budget = self.rewrite(number, budget)?;
        }
        Ok(())
    }

    /// Whether there was any.
    fn unlink_useless(&mut self) -> Result<bool, LogError> {
        let useless: Vec<u32> = self
            .segments
            .iter()
            .filter(|one| one.number != self.active && one.is_useless(self.ids_from))
            .map(|one| one.number)
            .collect();
        if useless.is_empty() {
            return Ok(false);
        }
        self.begin_to_write()?;
        self.sync_before()?;
        self.unlink(&useless)?;
        Ok(true)
    }

    /// A segment whose dead have to go now; if there is none, the most wasteful one, if that is worth it.
    fn next_to_rewrite(&self) -> Option<u32> {
        let due = self.segments.iter().filter_map(|one| Some((one.due?, one.number))).min();
        if let Some((_, number)) = due.filter(|(due, _)| *due <= self.now) {
            return Some(number);
        }
        let used = if self.shared.is_disk_full() { 100 } else { self.shared.percent_used() };
        let worth = WORTH.iter().find(|(up_to, _)| used < *up_to).map_or(100, |(_, worth)| *worth);
        let least = LEAST.min(self.segment_bytes / 2);
        let is_worth_it = |segment: &Segment, one: Reclaimable| {
            let is_large = segment.number != self.active || one.waste >= least;
            // While there is room: soon the ids are of no use either, and with them most of such a file.
            let is_ripe = used >= CROWDED || !segment.may_hold_ids(self.ids_from);
            one.waste * 100 > one.of * worth && is_large && is_ripe
        };
        self.best(is_worth_it).map(|(number, _)| number)
    }

    fn sync_before(&mut self) -> Result<(), LogError> {
        if self.all_synced() { Ok(()) } else { self.sync_all() }
    }

    fn unlink(&mut self, numbers: &[u32]) -> Result<(), LogError> {
        self.leaving = numbers.to_vec();
        self.list()?;
        let files = &self.shared.files;
        for number in numbers {
            let path = self.path(*number);
            match files.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.shared.error(&path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        files.sync_folder(&self.folder).map_err(|error| self.shared.error(&self.folder, error))?;
        for number in numbers {
            self.close_reader(*number);
            let Some(segment) = self.segments.remove(*number) else { continue };
            self.resize(segment.len, 0);
            self.shared.counts.segments(1, 0);
            for (_, by) in segment.dead() {
                self.drop_tomb(by);
            }
        }
        self.leaving.clear();
        Ok(())
    }

    fn resize(&mut self, before: u64, after: u64) {
        self.size = self.size + after - before;
        self.shared.resized(before, after);
    }

    fn drop_tomb(&mut self, by: u32) {
        if let Some(by) = self.segments.get_mut(by) {
            by.drop_tomb(frame::TOMB);
        }
    }

    /// Begins to rewrite a segment, and reads so many bytes of it. Says how many were not needed.
    fn rewrite(&mut self, number: u32, budget: u64) -> Result<u64, LogError> {
        self.sync_before()?;
        let Some(segment) = self.segments.get(number) else { return Ok(budget) };
        let salt = segment.salt;
        let header_len = Header { number, last_seq: 0, reserved: 0, salt }.len();
        let (path, files) = (self.path(number), &self.shared.files);
        // What is appended to the active segment later has to find there what a new segment's header would say.
        let own = Header { number, last_seq: self.last_seq, reserved: self.reserved, salt };
        let attempt = || {
            let from = files.open(&path)?;
            let mut header = own.encode();
            if number != self.active {
                header = vec![0; header_len];
                from.read_at(&mut header, 0)?;
            }
            let mut to = files.create(&self.new_path(number))?;
            to.write_at(&header, 0)?;
            Ok((from, to))
        };
        let (from, to) = attempt().map_err(|error| self.gave_up(number, error))?;
        let at = header_len as u64;
        self.go_on(Compaction { number, from, to, at, segment: Segment::new(number, salt, at) }, budget)
    }

    fn new_path(&self, number: u32) -> std::path::PathBuf {
        self.folder.join(format!("{}.new", file_name(number)))
    }

    /// The old file is still whole: only the new one is dropped.
    fn gave_up(&self, number: u32, error: std::io::Error) -> LogError {
        let path = self.new_path(number);
        let _ = self.shared.files.remove(&path);
        self.shared.error(&path, error)
    }

    /// Reads so many bytes more, and ends if those were the last. Says how many were not needed.
    fn go_on(&mut self, mut compaction: Compaction, mut budget: u64) -> Result<u64, LogError> {
        // What is removed meanwhile is copied only if its removal could still be taken back.
        self.sync_before()?;
        loop {
            let from = compaction.at;
            let step = budget.min(LARGEST_STEP);
            let ended =
                self.step(&mut compaction, step).map_err(|error| self.gave_up(compaction.number, error))?;
            budget = budget.saturating_sub(compaction.at - from);
            if ended {
                self.finish(compaction)?;
                return Ok(budget);
            }
            if budget == 0 {
                self.compaction = Some(compaction);
                return Ok(0);
            }
        }
    }

    /// Copies what is needed of the next bytes. Whether all was read.
    fn step(&self, compaction: &mut Compaction, budget: u64) -> std::io::Result<bool> {
        let Some(old) = self.segments.get(compaction.number) else { return Ok(true) };
        let data = read_some(compaction, old.len, budget)?;
        let (mut at, mut out) = (0, Vec::new());
        while let Some(record) = frame::read_alone(&data, at, old.salt) {
            let offset = compaction.at + at as u64;
            self.copy(old, (record.entry, offset), &mut compaction.segment, &mut out);
            at = record.end;
        }
        if at == 0 && compaction.at < old.len {
            return Err(std::io::Error::new(
                ErrorKind::InvalidData,
                format!("{} is damaged at byte {}", self.path(compaction.number).display(), compaction.at),
            ));
        }
        compaction.to.write_at(&out, compaction.segment.len)?;
        // Each step its own, so that none of them is long.
        compaction.to.sync()?;
        self.shared.counts.copied(out.len() as u64);
        compaction.segment.len += out.len() as u64;
        compaction.at += at as u64;
        Ok(compaction.at >= old.len)
    }

    /// Copies a record of a segment, or as much of it as is needed, behind what `out` adds to the new one.
    fn copy(&self, old: &Segment, (entry, offset): (Entry, u64), new: &mut Segment, out: &mut Vec<u8>) {
        let from = out.len();
        match entry {
            Entry::Message(message) => {
                if old.find(message.seq).is_some_and(|found| u64::from(found.at) == offset) {
                    frame::put_message(out, old.salt, 0, &message);
                    let len = u32::try_from(out.len() - from).unwrap_or(u32::MAX);
                    let at = u32::try_from(new.len + from as u64).unwrap_or(0);
                    new.add(message.seq, Span { at, len });
                } else if message.seq >= self.ids_from
                    && let Some(id) = only_id(&message)
                {
                    frame::put_id(out, old.salt, 0, &id);
                    new.add_id(id.seq, (out.len() - from) as u64);
                }
            }
            Entry::Id(id) => {
                if id.seq >= self.ids_from {
                    frame::put_id(out, old.salt, 0, &id);
                    new.add_id(id.seq, (out.len() - from) as u64);
                }
            }
            Entry::Remove(why, mut seqs) => {
                seqs.retain(|seq| self.is_needed(*seq, old.number));
                if !seqs.is_empty() {
                    new.add_tombs(seqs.len() as u64);
                    frame::put_remove(out, old.salt, 0, why, &seqs);
                }
            }
            // The header of the next segment says the same, or that of this one if it is the newest.
            Entry::Reserve(_) => {}
        }
    }

    /// Whether the removal of a message, written in segment `by`, has to stay when that one is rewritten.
    fn is_needed(&self, seq: u64, by: u32) -> bool {
        // A message of the same segment goes together with its removal.
        self.segments.holder(seq).is_some_and(|number| {
            number != by && self.segments.get(number).is_some_and(|segment| segment.is_killed_by(seq, by))
        })
    }

    fn finish(&mut self, compaction: Compaction) -> Result<(), LogError> {
        let Compaction { number, mut segment, to, .. } = compaction;
        let (new, path) = (self.new_path(number), self.path(number));
        if let Err(error) = self.shared.files.rename(&new, &path) {
            return Err(self.gave_up(number, error));
        }
        if let Err(error) = self.shared.files.sync_folder(&self.folder) {
            // Which of the two files is there after a power cut is not known: removals must stay.
            return Err(self.fail(&path, error, self.synced));
        }
        self.shared.counts.rewrote();
        self.close_reader(number);
        if number == self.active {
            self.file = to;
            (self.written, self.committed, self.synced) = (segment.len, segment.len, segment.len);
        }
        let Some(old) = self.segments.remove(number) else { return Ok(()) };
        for (seq, by) in old.dead() {
            if segment.kill(seq, by) {
                // The message died since it was copied.
                segment.due = old.due;
            } else if by != number {
                self.drop_tomb(by);
            }
        }
        segment.shrink();
        self.resize(old.len, segment.len);
        self.segments.insert(segment);
        Ok(())
    }
}

/// What has to be kept of a message that has left while its id is in the duplicate window.
fn only_id(message: &Record) -> Option<Record> {
    let id = message_id(&message.headers)?;
    let headers = [b"NATS/1.0\r\nNats-Msg-Id: ", id, b"\r\n\r\n"].concat().into();
    Some(Record {
        seq: message.seq,
        time: message.time,
        subject: Bytes::new(),
        headers,
        payload: Bytes::new(),
    })
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

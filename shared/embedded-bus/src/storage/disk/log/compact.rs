//! Gives disk space back: removes segments without any use, and rewrites segments with much waste. At a tick
//! this goes a step further; when a message finds no space, one segment is rewritten at once.
//!
//! No space is given back before the removals that allow it are on the disk. The record of a removal stays
//! until the file without the removed message is on the disk, so a removed message never returns, whatever a
//! crash takes back. A failure is no failure of the log: compaction is tried again later.

use std::io::ErrorKind;

use bytes::Bytes;

use super::{Compaction, DiskLog, Retry};
use crate::headers::message_id;
use crate::storage::disk::frame::{self, Frame, Header, LogEntry};
use crate::storage::disk::scan::file_name;
use crate::storage::disk::segment::{Segment, Span};
use crate::storage::{Reclaimable, Record, StoreError};

/// Bytes that one tick reads at least, and at most, besides one record.
const STEP: u64 = 2 << 20;
const LARGEST_STEP: u64 = 16 << 20;
/// Wasted bytes from which on the active segment is rewritten.
const LEAST: u64 = 1 << 20;
/// Bytes up to which the active segment is rewritten in place. A larger one is ended first.
const IN_PLACE: u64 = 4 << 20;
/// How much waste makes a file worth rewriting, by how full the data folder is.
const THRESHOLDS: [Threshold; 3] = [
    Threshold { used_below: 50, waste_above: 50 },
    Threshold { used_below: CROWDED, waste_above: 25 },
    Threshold { used_below: u64::MAX, waste_above: 12 },
];
/// The share of the limit, in percent, from which on files are rewritten although their ids are still needed.
const CROWDED: u64 = 75;
/// Waste in percent of a file from which on it is rewritten because a message has no space.
const WORTH_WHEN_FULL: u64 = 10;
/// How long nothing is tried after a failure, at first and at most, in nanoseconds.
const FIRST_PAUSE: u64 = 1_000_000_000;
const LAST_PAUSE: u64 = 60_000_000_000;

/// A share of waste that makes a file worth rewriting. Both fields are in percent.
struct Threshold {
    /// Holds while less of the limit is used.
    used_below: u64,
    /// Waste of the file.
    waste_above: u64,
}

/// A segment that can be rewritten, and what that would give back.
struct Candidate {
    number: u32,
    reclaimable: Reclaimable,
}

impl DiskLog {
    /// Gives back space that is worth the work, for one tick.
    pub(super) fn give_back(&mut self) -> Result<(), StoreError> {
        self.count_waste();
        let budget = (STEP + 2 * std::mem::take(&mut self.since_tick)).min(LARGEST_STEP);
        if self.now < self.retry.at {
            return Ok(());
        }
        let result = self.give_back_some(budget);
        self.tolerate(result)
    }

    /// Returns what [`DiskLog::reclaim_best`] would give back.
    pub(super) fn reclaimable_when_full(&self) -> Option<Reclaimable> {
        // A disk that other programs filled is not emptied much by compaction, and has no space for a copy.
        let has_space = !self.shared.is_disk_full();
        self.best(|_, one| has_space && is_worth_it_when_full(one)).map(|best| best.reclaimable)
    }

    /// Gives back the waste of one segment at once. Returns how many bytes.
    pub(super) fn reclaim_best(&mut self) -> Result<u64, StoreError> {
        let before = self.size;
        let best = self.best(|_, one| is_worth_it_when_full(one));
        let result = match (self.compaction.take(), best) {
            (Some(compaction), _) => self.go_on(compaction, u64::MAX).map(drop),
            (None, Some(best)) => self.rewrite(best.number, u64::MAX).map(drop),
            (None, None) => Ok(()),
        };
        self.tolerate(result)?;
        Ok(before.saturating_sub(self.size))
    }

    /// Finds the segment, of those worth rewriting, that gives most back for its cost. A segment that is
    /// already being rewritten comes first.
    fn best(&self, is_worth_it: impl Fn(&Segment, Reclaimable) -> bool) -> Option<Candidate> {
        if self.now < self.retry.at {
            return None;
        }
        let reclaimable = |segment: &Segment| {
            let waste = segment.reclaimable(self.ids_from);
            (waste > 0).then_some(Reclaimable { waste, of: segment.len })
        };
        if let Some(compaction) = &self.compaction {
            let number = compaction.number;
            return Some(Candidate { number, reclaimable: reclaimable(self.segments.get(number)?)? });
        }
        let all = self.segments.iter().filter_map(|segment| Some((segment, reclaimable(segment)?)));
        all.filter(|(segment, one)| is_worth_it(segment, *one))
            .map(|(segment, reclaimable)| Candidate { number: segment.number, reclaimable })
            .reduce(|best, one| if one.reclaimable.is_better_than(best.reclaimable) { one } else { best })
    }

    /// Postpones compaction after a failure, unless the log itself is broken.
    fn tolerate(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        match result {
            Ok(()) => self.retry = Retry::default(),
            Err(error) if self.check().is_err() => return Err(error),
            Err(error) => {
                self.compaction = None;
                self.shared.counts.failed_to_rewrite();
                if self.retry.pause == 0 {
                    tracing::warn!(log = self.name, %error, "disk space can't be given back; trying again");
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

    fn give_back_some(&mut self, mut budget: u64) -> Result<(), StoreError> {
        if let Some(compaction) = self.compaction.take() {
            budget = self.go_on(compaction, budget)?;
        }
        while self.compaction.is_none() {
            // Each unlinked file may have held the last message that the removals in another file are kept
            // for.
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

    /// Unlinks segments without any use. Returns whether there were any.
    fn unlink_useless(&mut self) -> Result<bool, StoreError> {
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

    /// Finds a segment whose dead messages are due to leave, else the most wasteful segment worth rewriting.
    fn next_to_rewrite(&self) -> Option<u32> {
        let due = self.segments.iter().filter(|one| one.due.is_some_and(|due| due <= self.now));
        if let Some(segment) = due.min_by_key(|one| (one.due, one.number)) {
            return Some(segment.number);
        }
        let used = if self.shared.is_disk_full() { 100 } else { self.shared.percent_used() };
        let worth = THRESHOLDS.iter().find(|one| used < one.used_below).map_or(100, |one| one.waste_above);
        let least = LEAST.min(self.segment_bytes / 2);
        let is_worth_it = |segment: &Segment, one: Reclaimable| {
            let is_large = segment.number != self.active || one.waste >= least;
            // With free space left, waiting pays: once the ids have expired, most of such a file is waste.
            let is_ripe = used >= CROWDED || !segment.may_hold_ids(self.ids_from);
            one.waste * 100 > one.of * worth && is_large && is_ripe
        };
        self.best(is_worth_it).map(|best| best.number)
    }

    /// Syncs the log, so that the removals that allow a rewrite are on the disk before it begins.
    fn sync_before(&mut self) -> Result<(), StoreError> {
        if self.all_synced() { Ok(()) } else { self.sync_all() }
    }

    fn unlink(&mut self, numbers: &[u32]) -> Result<(), StoreError> {
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
            for dead in segment.dead() {
                self.drop_tombstone(dead.by);
            }
        }
        self.leaving.clear();
        Ok(())
    }

    fn resize(&mut self, before: u64, after: u64) {
        self.size = self.size + after - before;
        self.shared.resized(before, after);
    }

    fn drop_tombstone(&mut self, by: u32) {
        if let Some(by) = self.segments.get_mut(by) {
            by.drop_tombstone(frame::TOMBSTONE);
        }
    }

    /// Begins to rewrite a segment, and reads up to `budget` bytes of it. Returns the rest of the budget.
    fn rewrite(&mut self, number: u32, budget: u64) -> Result<u64, StoreError> {
        self.sync_before()?;
        let Some(segment) = self.segments.get(number) else { return Ok(budget) };
        let salt = segment.salt;
        let header_len = Header { number, last_seq: 0, reserved: 0, salt }.len();
        let (path, files) = (self.path(number), &self.shared.files);
        // The rewritten active segment is appended to, so its header has to say what that of a new segment
        // would.
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

    /// Drops the new file after a failure. The old file is still whole.
    fn gave_up(&self, number: u32, error: std::io::Error) -> StoreError {
        let path = self.new_path(number);
        let _ = self.shared.files.remove(&path);
        self.shared.error(&path, error)
    }

    /// Reads up to `budget` more bytes, and finishes if those were the last. Returns the rest of the budget.
    fn go_on(&mut self, mut compaction: Compaction, mut budget: u64) -> Result<u64, StoreError> {
        // A message that was removed meanwhile is copied only if a crash could still undo the removal.
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

    /// Copies the needed records of the next `budget` bytes. Returns whether the old file was read to its
    /// end.
    fn step(&self, compaction: &mut Compaction, budget: u64) -> std::io::Result<bool> {
        let Some(old) = self.segments.get(compaction.number) else { return Ok(true) };
        let data = read_some(compaction, old.len, budget)?;
        let (mut at, mut out) = (0, Vec::new());
        while let Some(record) = frame::read_alone(&data, at, old.salt) {
            let (offset, end) = (compaction.at + at as u64, record.end);
            self.copy(old, record, offset, &mut compaction.segment, &mut out);
            at = end;
        }
        if at == 0 && compaction.at < old.len {
            return Err(std::io::Error::new(
                ErrorKind::InvalidData,
                format!("{} is damaged at byte {}", self.path(compaction.number).display(), compaction.at),
            ));
        }
        compaction.to.write_at(&out, compaction.segment.len)?;
        // Synced step by step, so that no single sync is long.
        compaction.to.sync()?;
        self.shared.counts.copied(out.len() as u64);
        compaction.segment.len += out.len() as u64;
        compaction.at += at as u64;
        Ok(compaction.at >= old.len)
    }

    /// Copies the needed part of a record, which lies at `offset` of segment `old`. `out` is appended to
    /// segment `new`.
    fn copy(&self, old: &Segment, record: Frame, offset: u64, new: &mut Segment, out: &mut Vec<u8>) {
        let from = out.len();
        match record.entry {
            LogEntry::Message(message) => {
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
            LogEntry::Id(id) => {
                if id.seq >= self.ids_from {
                    frame::put_id(out, old.salt, 0, &id);
                    new.add_id(id.seq, (out.len() - from) as u64);
                }
            }
            LogEntry::Remove(reason, mut seqs) => {
                seqs.retain(|seq| self.is_removal_needed(*seq, old.number));
                if !seqs.is_empty() {
                    new.add_tombstones(seqs.len() as u64);
                    frame::put_remove(out, old.salt, 0, reason, &seqs);
                }
            }
            // The header of the next segment says the same, or the header of this one if it is the newest.
            LogEntry::Reserve(_) => {}
        }
    }

    /// Whether the removal of a message has to stay in segment `by` when that segment is rewritten.
    fn is_removal_needed(&self, seq: u64, by: u32) -> bool {
        // A message of the same segment leaves together with its removal.
        self.segments.holder(seq).is_some_and(|number| {
            number != by && self.segments.get(number).is_some_and(|segment| segment.is_killed_by(seq, by))
        })
    }

    /// Puts the new file in place of the old one.
    fn finish(&mut self, compaction: Compaction) -> Result<(), StoreError> {
        let Compaction { number, mut segment, to, .. } = compaction;
        let (new, path) = (self.new_path(number), self.path(number));
        if let Err(error) = self.shared.files.rename(&new, &path) {
            return Err(self.gave_up(number, error));
        }
        if let Err(error) = self.shared.files.sync_folder(&self.folder) {
            // A power cut may bring either of the two files back, so removals must stay.
            return Err(self.fail(&path, error, self.synced));
        }
        self.shared.counts.rewrote();
        self.close_reader(number);
        if number == self.active {
            self.file = to;
            (self.written, self.committed, self.synced) = (segment.len, segment.len, segment.len);
        }
        let Some(old) = self.segments.remove(number) else { return Ok(()) };
        for dead in old.dead() {
            if segment.kill(dead.seq, dead.by) {
                // The message died after it was copied.
                segment.due = old.due;
            } else if dead.by != number {
                self.drop_tombstone(dead.by);
            }
        }
        segment.shrink();
        self.resize(old.len, segment.len);
        self.segments.insert(segment);
        Ok(())
    }
}

fn is_worth_it_when_full(one: Reclaimable) -> bool {
    one.waste * 100 >= one.of * WORTH_WHEN_FULL
}

/// Returns the record that remains of a removed message while its id is in the duplicate window.
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

/// Reads the next bytes, at least one whole record.
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

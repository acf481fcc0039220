//! The operations of a log: [`Log`] for [`DiskLog`].

use super::{DiskLog, Preparation, WRITE_AT};
use crate::config::SyncMode;
use crate::storage::disk::frame::{self, LogEntry};
use crate::storage::disk::mark::Mark;
use crate::storage::disk::segment::{Segment, Span};
use crate::storage::{Log, Priority, Reclaimable, Record, RemovalReason, StoreError};

/// How far ahead of the last message sequences are durably noted as in use.
const BLOCK: u64 = 65_536;
/// How long acknowledged messages may be unsynced in the relaxed setting, in nanoseconds. Ticks come on top.
const SYNC_AFTER: u64 = 500_000_000;
/// How long an erased message, or an expired one, may stay in a file before the file is rewritten, in
/// nanoseconds.
const ERASED_WITHIN: u64 = 60_000_000_000;
const EXPIRED_WITHIN: u64 = 3_600_000_000_000;

impl Log for DiskLog {
    fn append(&mut self, record: Record) -> Result<(), StoreError> {
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
            if self.shared.sync == SyncMode::Relaxed {
                // Only the reserve has to be on the disk before anybody hears of a sequence in its block.
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

    fn read(&mut self, seq: u64) -> Result<Option<Record>, StoreError> {
        self.check()?;
        let Some(segment) = self.segments.holder(seq).and_then(|number| self.segments.get(number)) else {
            return Ok(None);
        };
        let (number, salt, Some(span)) = (segment.number, segment.salt, segment.find(seq)) else {
            return Ok(None);
        };
        let path = self.path(number);
        let data =
            self.bytes_at(number, span).map_err(|source| StoreError::Io { path: path.clone(), source })?;
        match frame::read_alone(&data, 0, salt).map(|frame| frame.entry) {
            Some(LogEntry::Message(record)) if record.seq == seq => Ok(Some(record)),
            _ => Err(StoreError::Damaged(format!(
                "{} is damaged at byte {}: message {seq} can't be read. Check the disk; then restore the data \
                 folder from a backup",
                path.display(),
                span.at
            ))),
        }
    }

    fn forget(&mut self, seqs: &[u64]) -> Result<(), StoreError> {
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

    fn remove(&mut self, seqs: &[u64], reason: RemovalReason) -> Result<(), StoreError> {
        self.begin_to_write()?;
        let (before, salt, witness) = (self.end(), self.salt(), self.witness());
        frame::put_remove(&mut self.pending, salt, witness, reason, seqs);
        self.grow(before);
        let clear_by = match reason {
            RemovalReason::Limit => None,
            RemovalReason::Age => Some(self.now.saturating_add(EXPIRED_WITHIN)),
            RemovalReason::Request => Some(self.now.saturating_add(ERASED_WITHIN)),
        };
        for seq in seqs {
            self.segments.remove_message(*seq, self.active, clear_by);
        }
        if self.pending.len() >= WRITE_AT { self.write() } else { Ok(()) }
    }

    fn retain_ids_from(&mut self, seq: u64) {
        self.ids_from = seq;
    }

    fn note_shortness(&mut self) -> Result<(), StoreError> {
        match &mut self.preparation {
            Some(Preparation { mark: Mark::Running { short, .. }, .. }) => *short = false,
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

    fn commit(&mut self) -> Result<(), StoreError> {
        self.check()?;
        match self.shared.sync {
            SyncMode::Strict => self.sync()?,
            SyncMode::Relaxed => self.write()?,
        }
        self.committed = self.written;
        if self.steps_changed {
            self.write_steps();
        }
        Ok(())
    }

    fn on_step(&mut self, by: i64) -> Result<(), StoreError> {
        let first = self.segments.iter().find_map(Segment::base).unwrap_or(self.last_seq);
        self.steps.add(first, self.last_seq, by);
        self.steps_changed = true;
        Ok(())
    }

    fn check_space(&self, bytes: u64, priority: Priority) -> Result<(), StoreError> {
        self.shared.check_space(bytes, priority)
    }

    fn reclaimable(&self) -> Option<Reclaimable> {
        self.reclaimable_when_full()
    }

    fn reclaim(&mut self) -> Result<u64, StoreError> {
        self.begin_to_write()?;
        self.reclaim_best()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn on_tick(&mut self, now: u64) -> Result<(), StoreError> {
        self.shared.look(now);
        self.check()?;
        self.now = now;
        if self.end() > self.synced {
            let due = *self.sync_due.get_or_insert(now + SYNC_AFTER);
            if self.shared.sync == SyncMode::Strict || now >= due || !self.pending.is_empty() {
                self.sync_all()?;
            }
        }
        self.give_back()
    }
}

impl DiskLog {
    /// Writes when the clock was set. After a failure the next commit tries again.
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
}

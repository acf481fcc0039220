//! Opening a log, and beginning to write to it.
//!
//! Opening changes nothing on the disk; the first write does, so that a log on a full disk can be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DiskLog, Preparation, Retry};
use crate::storage::disk::clock_steps::ClockSteps;
use crate::storage::disk::files::{OpenFile, replace};
use crate::storage::disk::frame::{Header, Salt};
use crate::storage::disk::listing;
use crate::storage::disk::mark::Mark;
use crate::storage::disk::scan::{Found, Scanner, file_name};
use crate::storage::disk::segment::Segment;
use crate::storage::disk::shared::Shared;
use crate::storage::{Opened, Replayed, StoreError};

impl DiskLog {
    /// Opens the log in a folder, or begins one with its first segment. Calls `replay` for everything in the
    /// log.
    pub(in crate::storage::disk) fn open(
        shared: &Arc<Shared>,
        name: &str,
        folder: PathBuf,
        segment_bytes: u64,
        replay: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(Self, Opened), StoreError> {
        shared.check()?;
        let files = &*shared.files;
        let (mark, boot) = (Mark::read(files, &folder), files.boot_id());
        let trusted = shared.trusted(name);
        let steps = ClockSteps::read(files, &folder).map_err(|error| shared.error(&folder, error))?;
        let scanner = Scanner { shared, folder: &folder, mark: &mark, trusted, steps: &steps };
        let mut found = scanner.scan(replay)?;
        scanner.replay_living(&found.segments, replay)?;
        let lost = trusted.is_some_and(|trusted| trusted.lost);
        let may_miss_some = mark.may_miss_some(&boot) || lost;
        // No sequence that somebody may have seen is given again, whatever was lost.
        let all_seen = found.cut.is_none() && !may_miss_some && !mark.machine_went_down(&boot);
        let last_seq = if all_seen { found.last_seq } else { found.last_seq.max(found.reserved) };
        if found.segments.last().is_none() {
            begin_first_segment(shared, &folder, last_seq, &mut found)?;
        }
        let mark = Mark::Running { boot, sync: shared.sync, short: may_miss_some };
        let (seen, cut) = (found.last_seq, found.cut);
        let mut log = Self::on_segments(shared, name, folder, segment_bytes, found)?;
        log.last_seq = last_seq;
        log.steps = steps;
        let roll = last_seq > seen || log.salt() == Salt::NONE;
        log.preparation = Some(Preparation { cut, mark, roll });
        if roll || cut.is_some() {
            // The next opening can't see any more what was lost, so it has to find the sequence.
            match log.begin_to_write() {
                Ok(()) => {}
                Err(StoreError::Full(_)) if !log.broken => {}
                Err(error) => return Err(error),
            }
        }
        Ok((log, Opened { last_seq, may_miss_some }))
    }

    /// Returns a log on the segments that a scan found, with everything else at its beginning.
    fn on_segments(
        shared: &Arc<Shared>,
        name: &str,
        folder: PathBuf,
        segment_bytes: u64,
        Found { segments, last_seq, reserved, is_listed, .. }: Found,
    ) -> Result<Self, StoreError> {
        let active = segments.last().unwrap_or_default();
        let file = open_synced(shared, &folder.join(file_name(active)))?;
        let written = segments.get(active).map_or(0, |segment| segment.len);
        let size = segments.iter().map(|segment| segment.len).sum();
        shared.resized(0, size);
        shared.counts.segments(0, segments.len());
        Ok(Self {
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
            reserved,
            broken: false,
            preparation: None,
            steps: ClockSteps::default(),
            steps_changed: false,
            is_listed,
            leaving: Vec::new(),
            size,
            wasted: 0,
            segment_bytes,
            compaction: None,
            retry: Retry::default(),
            ids_from: 0,
            now: 0,
            since_tick: 0,
        })
    }

    /// Does what the first write has to do, unless it is done. After a failure the log is as before, and can
    /// be read.
    pub(super) fn begin_to_write(&mut self) -> Result<(), StoreError> {
        self.check()?;
        let Some(Preparation { cut, roll, .. }) = &mut self.preparation else { return Ok(()) };
        if let Some(end) = *cut {
            let cut_off = self.file.set_len(end).and_then(|()| self.file.sync());
            cut_off.map_err(|error| self.shared.error(&self.folder, error))?;
            *cut = None;
        }
        if std::mem::take(roll)
            && let Err(error) = self.roll()
        {
            if let Some(preparation) = &mut self.preparation {
                preparation.roll = true;
            }
            return Err(error);
        }
        let Some(Preparation { mark, .. }) = &self.preparation else { return Ok(()) };
        // Written after the new segment: until then a crash must find what the old mark says.
        let shared = &*self.shared;
        shared
            .write(|| mark.write(&*shared.files, &self.folder))
            .map_err(|error| shared.error(&self.folder, error))?;
        shared.trust(&self.name);
        self.preparation = None;
        if !self.is_listed {
            self.list_new();
        }
        Ok(())
    }

    /// Lists a new segment. Until that succeeds, the loss of a segment goes unnoticed.
    pub(super) fn list_new(&mut self) {
        self.is_listed = self.list().is_ok();
    }

    /// Lists all segments but those that are leaving.
    pub(super) fn list(&self) -> Result<(), StoreError> {
        let all = || self.segments.iter().map(|one| one.number).filter(|one| !self.leaving.contains(one));
        let shared = &*self.shared;
        shared
            .write(|| listing::write(&*shared.files, &self.folder, all()))
            .map_err(|error| shared.error(&self.folder, error))
    }
}

/// Opens the active segment, and syncs what another process had written and not synced.
fn open_synced(shared: &Shared, path: &Path) -> Result<Box<dyn OpenFile>, StoreError> {
    let mut file = shared.files.open(path).map_err(|error| shared.error(path, error))?;
    file.sync().map_err(|error| shared.error(path, error))?;
    Ok(file)
}

/// Begins the first segment of a log.
fn begin_first_segment(
    shared: &Shared,
    folder: &Path,
    last_seq: u64,
    found: &mut Found,
) -> Result<(), StoreError> {
    let salt = Salt::random();
    let header = Header { number: 1, last_seq, reserved: found.reserved, salt }.encode();
    shared
        .write(|| replace(&*shared.files, folder, &file_name(1), &header))
        .map_err(|error| shared.error(folder, error))?;
    found.segments.insert(Segment::new(1, salt, Header::LEN as u64));
    Ok(())
}

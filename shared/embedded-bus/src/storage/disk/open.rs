//! How a log is opened, and how it begins to write.
//!
//! To open a log changes nothing on the disk; the first thing that is to be written does, so that a full disk can be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compact::Retry;
use super::files::replace;
use super::frame::{Header, Salt};
use super::listing;
use super::log::DiskLog;
use super::mark::Mark;
use super::scan::{self, file_name};
use super::segment::Segment;
use super::segments::Segments;
use super::shared::Shared;
use super::steps::Steps;
use crate::storage::{LogError, Opened, Told};

/// What has to be written before anything else can be.
#[derive(Debug)]
pub(super) struct Opening {
    /// Where the active file has to end.
    pub(super) cut: Option<u64>,
    /// The mark of a log that is in use.
    pub(super) mark: Mark,
    /// Whether what is appended needs a new segment: its header keeps the sequence, and has a salt.
    pub(super) roll: bool,
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
        shared.check()?;
        let files = &*shared.files;
        let (mark, boot) = (Mark::read(files, &folder), files.boot_id());
        let trusted = shared.trusted(name);
        let steps = Steps::read(files, &folder).map_err(|error| shared.error(&folder, error))?;
        let found = scan::scan(shared, &folder, (&mark, trusted), &steps, tell)?;
        scan::tell(shared, &folder, &found.segments, &steps, tell)?;
        let lost = trusted.is_some_and(|trusted| trusted.lost);
        let may_miss_some = mark.may_miss_some(&boot) || lost;
        // Whatever was lost: no sequence that may have been seen is given again.
        let all_seen = found.cut.is_none() && !may_miss_some && !mark.machine_went_down(&boot);
        let last_seq = if all_seen { found.last_seq } else { found.last_seq.max(found.reserved) };
        let mut segments = found.segments;
        let active = match segments.last() {
            Some(number) => number,
            None => first(shared, &folder, last_seq, found.reserved, &mut segments)?,
        };
        let path = folder.join(file_name(active));
        let mut file = files.open(&path).map_err(|error| shared.error(&path, error))?;
        // What another process had written and not synced.
        file.sync().map_err(|error| shared.error(&path, error))?;
        let written = segments.get(active).map_or(0, |segment| segment.len);
        let salted = segments.get(active).is_some_and(|segment| segment.salt != Salt::NONE);
        let size = segments.iter().map(|segment| segment.len).sum();
        shared.resized(0, size);
        shared.counts.segments(0, segments.len());
        let mark = Mark::Running { boot, sync: shared.sync, short: may_miss_some };
        let roll = last_seq > found.last_seq || !salted;
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
            broken: false,
            opening: Some(Opening { cut: found.cut, mark, roll }),
            steps,
            steps_changed: false,
            is_listed: found.is_listed,
            leaving: Vec::new(),
            size,
            wasted: 0,
            segment_bytes,
            compaction: None,
            retry: Retry::default(),
            ids_from: 0,
            now: 0,
            since_tick: 0,
        };
        if roll || found.cut.is_some() {
            // The next opening can't see any more what was lost, so it has to find the sequence.
            match log.begin_to_write() {
                Ok(()) => {}
                Err(LogError::Full(_)) if !log.broken => {}
                Err(error) => return Err(error),
            }
        }
        Ok((log, Opened { last_seq, may_miss_some }))
    }

    /// Begins to write, if that has not begun. A log that can't begin is as it was, and can be read.
    pub(super) fn begin_to_write(&mut self) -> Result<(), LogError> {
        self.check()?;
        let Some(Opening { cut, roll, .. }) = &mut self.opening else { return Ok(()) };
        if let Some(end) = *cut {
            let cut_off = self.file.set_len(end).and_then(|()| self.file.sync());
            cut_off.map_err(|error| self.shared.error(&self.folder, error))?;
            *cut = None;
        }
        if std::mem::take(roll)
            && let Err(error) = self.roll()
        {
            if let Some(opening) = &mut self.opening {
                opening.roll = true;
            }
            return Err(error);
        }
        let Some(Opening { mark, .. }) = &self.opening else { return Ok(()) };
        // Only behind the new segment: until here, what the old mark says has to be found again if this is cut off.
        let shared = &*self.shared;
        shared
            .write(|| mark.write(&*shared.files, &self.folder))
            .map_err(|error| shared.error(&self.folder, error))?;
        shared.trust(&self.name);
        self.opening = None;
        if !self.is_listed {
            self.list_new();
        }
        Ok(())
    }

    /// Notes that there is a new segment. Until that can be kept, one that is lost is not noticed.
    pub(super) fn list_new(&mut self) {
        self.is_listed = self.list().is_ok();
    }

    /// Lists all segments but those that are leaving.
    pub(super) fn list(&self) -> Result<(), LogError> {
        let all = || self.segments.iter().map(|one| one.number).filter(|one| !self.leaving.contains(one));
        let shared = &*self.shared;
        shared
            .write(|| listing::write(&*shared.files, &self.folder, all()))
            .map_err(|error| shared.error(&self.folder, error))
    }
}

/// Begins the first segment of a log.
fn first(
    shared: &Shared,
    folder: &Path,
    last_seq: u64,
    reserved: u64,
    segments: &mut Segments,
) -> Result<u32, LogError> {
    let salt = Salt::random();
    let header = Header { number: 1, last_seq, reserved, salt };
    let header = header.encode();
    shared
        .write(|| replace(&*shared.files, folder, &file_name(1), &header))
        .map_err(|error| shared.error(folder, error))?;
    segments.insert(Segment::new(1, salt, Header::LEN as u64));
    Ok(1)
}

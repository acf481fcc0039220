//! Steps of the system's clock: the file `steps` in the folder of a log.
//!
//! The record of a message has the time of the clock as it was. Each line of the file says that the clock was
//! set while a certain message was the newest, and by how much: messages up to it count as stored that much
//! later. So ages outlive a restart.

use std::io;
use std::path::Path;

use super::files::{Files, replace};

pub(super) const NAME: &str = "steps";
/// Lines of the file at most. Messages before the oldest of more steps are corrected by less than they should
/// be.
const MOST: usize = 1_000;

/// One step of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClockStep {
    /// The newest message at that time.
    last_seq: u64,
    /// Nanoseconds by which messages up to `last_seq` count as stored later.
    by: i64,
}

/// The steps of the system's clock, in the order of sequences.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClockSteps(Vec<ClockStep>);

impl ClockSteps {
    /// Reads the steps of a folder. Without the file there are none; lines of another form are skipped.
    pub(super) fn read(files: &dyn Files, folder: &Path) -> io::Result<Self> {
        let data = match files.read(&folder.join(NAME)) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let step = |line: &str| {
            let (last_seq, by) = line.split_once(' ')?;
            Some(ClockStep { last_seq: last_seq.parse().ok()?, by: by.trim_end().parse().ok()? })
        };
        Ok(Self(String::from_utf8_lossy(&data).lines().filter_map(step).collect()))
    }

    /// Notes that the clock was set by `by` when `last_seq` was the newest message and `first_seq` the
    /// oldest.
    pub(super) fn add(&mut self, first_seq: u64, last_seq: u64, by: i64) {
        self.0.retain(|step| step.last_seq >= first_seq);
        match self.0.last_mut() {
            Some(step) if step.last_seq == last_seq => step.by = step.by.saturating_add(by),
            Some(_) | None => self.0.push(ClockStep { last_seq, by }),
        }
        let surplus = self.0.len().saturating_sub(MOST);
        self.0.drain(..surplus);
    }

    pub(super) fn write(&self, files: &dyn Files, folder: &Path) -> io::Result<()> {
        use std::fmt::Write as _;
        let mut text = String::new();
        for ClockStep { last_seq, by } in &self.0 {
            let _ = writeln!(text, "{last_seq} {by}");
        }
        replace(files, folder, NAME, text.as_bytes())
    }

    /// Returns when a message was stored, by the clock as it is now.
    pub(super) fn correct(&self, seq: u64, time: u64) -> u64 {
        let from = self.0.partition_point(|step| step.last_seq < seq);
        self.0[from..].iter().fold(time, |time, step| time.saturating_add_signed(step.by))
    }
}

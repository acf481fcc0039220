//! The list of a log's segments: the file `segments` in its folder, so that a missing segment is noticed.
//!
//! A segment newer than all in the list was begun just before the process ended. A segment that is older than
//! the newest in the list, and not in it, was being unlinked.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::files::{Files, replace};

pub(super) const NAME: &str = "segments";

/// Returns the listed numbers; `None`: there is no list.
pub(super) fn read(files: &dyn Files, folder: &Path) -> io::Result<Option<BTreeSet<u32>>> {
    let data = match files.read(&folder.join(NAME)) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let lines = String::from_utf8_lossy(&data);
    Ok(Some(lines.lines().filter_map(|line| u32::from_str_radix(line, 16).ok()).collect()))
}

pub(super) fn write(files: &dyn Files, folder: &Path, numbers: impl Iterator<Item = u32>) -> io::Result<()> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in numbers {
        let _ = writeln!(text, "{number:08x}");
    }
    replace(files, folder, NAME, text.as_bytes())
}

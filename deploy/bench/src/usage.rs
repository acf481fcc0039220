//! The usage of processes of this machine: processor time and resident memory, read from `/proc` of Linux.
//!
//! On other systems the usage is unknown, and the report says so.

use serde::{Deserialize, Serialize};

/// A process of the server, and the name by which the report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedProcess {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

/// The usage of one process so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
}

/// Returns the usage of a process. `None`: there is no such process, or no `/proc`.
pub(crate) fn of(pid: u32) -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let ticks = ticks(&read("stat")?)?;
    let pages = pages(&read("statm")?)?;
    Some(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        resident_bytes: pages * rustix::param::page_size() as u64,
    })
}

/// Returns the name of a process.
pub(crate) fn name(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned())
}

/// Reads user and system time from `/proc/PID/stat`, in ticks.
fn ticks(stat: &str) -> Option<u64> {
    // The name of the process stands in parentheses and may contain any character, so the search goes
    // backwards.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Reads the number of resident pages from `/proc/PID/statm`.
fn pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 5 6 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(
            (ticks("7 (x"), ticks("7 (x) S 1"), pages("9"), pages("9 8 7")),
            (None, None, None, Some(8))
        );
    }

    #[test]
    fn this_process_uses_something() {
        if std::path::Path::new("/proc/self/stat").exists() {
            assert!(of(std::process::id()).unwrap().resident_bytes > 0);
            assert!(name(std::process::id()).is_some());
        }
        assert_eq!(of(u32::MAX), None);
    }
}

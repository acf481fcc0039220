//! Figures of this process and its folder, from the system.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU seconds of this process, user and system.
pub fn cpu() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// CPU seconds of this thread.
pub fn thread_cpu() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Bytes that this process has caused to be written to disks.
pub fn written() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

/// Bytes of memory in use.
pub fn memory() -> u64 {
    field("/proc/self/status", "VmRSS:") << 10
}

/// Bytes of a folder on the disk.
pub fn disk(folder: &Path) -> u64 {
    // A file may vanish during the walk.
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let Ok(entry) = entry else { return 0 };
        match entry.metadata() {
            Ok(about) if about.is_dir() => disk(&entry.path()),
            Ok(about) => about.blocks() * 512,
            Err(_) => 0,
        }
    };
    entries.map(size).sum()
}

//! Disk space that this process holds in reserve, so that erasures and bans can be written on a disk that
//! others fill.
//!
//! The reserve is a file of zeros beside the streams. When a write finds no space, the file is made shorter
//! by a little more than the write needs. When there is space again, the file grows back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::files::{Files, is_full};

/// Bytes of the reserve at most.
const MOST: u64 = 4 << 20;
/// Bytes that one write gets at least.
const PIECE: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// Bytes of a full reserve.
    whole: u64,
    held: AtomicU64,
    /// Whether the filesystem can't reserve space.
    unsupported: AtomicBool,
}

impl Reserve {
    /// Returns the reserve of a folder that may take so many bytes. It includes the file of an earlier
    /// process.
    pub(super) fn new(files: &dyn Files, folder: &Path, max_bytes: u64) -> Self {
        let path = folder.join("reserve");
        let held = files.len(&path).unwrap_or(0).into();
        Self { path, whole: MOST.min(max_bytes / 16), held, unsupported: AtomicBool::new(false) }
    }

    /// Runs a write. Without free space it runs again, with some of the reserve given up each time.
    pub(super) fn for_write<T>(
        &self,
        files: &dyn Files,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if is_full(&error) && self.spend(files) => {}
                result => return result,
            }
        }
    }

    /// Gives some of the reserve up. Returns whether there was any.
    fn spend(&self, files: &dyn Files) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        let rest = held.saturating_sub(PIECE.max(self.whole / 8));
        if held == 0 || files.hold(&self.path, rest).is_err() {
            return false;
        }
        self.held.store(rest, Ordering::Relaxed);
        true
    }

    /// Restores the reserve if so many bytes are free beyond those that messages leave free.
    pub(super) fn refill(&self, files: &dyn Files, free: u64) {
        let held = self.held.load(Ordering::Relaxed);
        if held >= self.whole || free < self.whole || self.unsupported.load(Ordering::Relaxed) {
            return;
        }
        match files.hold(&self.path, self.whole) {
            Ok(()) => self.held.store(self.whole, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.unsupported.store(true, Ordering::Relaxed);
                tracing::info!(file = %self.path.display(), "this filesystem holds no room for erasing when it is full");
            }
            // The next tick tries again.
            Err(_) => {}
        }
    }
}

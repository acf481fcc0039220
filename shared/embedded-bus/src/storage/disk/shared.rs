//! State that the logs of one data folder share: its space, and the consequences of failed writes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::files::{self, Files};
use super::folder::LOCK;
use super::reserve::Reserve;
use crate::config::SyncMode;
use crate::stats::StoreSnapshot;
use crate::storage::{Priority, StoreError};

/// Bytes of the disk that messages leave free for removals, compaction and configurations.
const SPARE: u64 = 16 << 20;
/// This fraction of `max_bytes` is left for removals, bans and compaction.
const RESERVED_PART: u64 = 16;
/// How long nothing is tried after the disk was full, in nanoseconds. (A quota does not say how much space is
/// left.)
const WAIT_FOR_SPACE: u64 = 2_000_000_000;

/// The certain bytes of a segment after a write or a sync failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    pub(super) segment: u32,
    pub(super) len: u64,
    /// Whether acknowledged messages were behind them.
    pub(super) lost: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: Box<dyn Files>,
    pub(super) folder: PathBuf,
    pub(super) sync: SyncMode,
    max_bytes: u64,
    used: AtomicU64,
    full: AtomicBool,
    /// When free space is looked for again, in nanoseconds since 1970; 0: not set yet.
    look_again: AtomicU64,
    told: AtomicBool,
    /// Bytes of the smallest message that the limit has no space for; 0: none.
    refused: AtomicU64,
    /// Bytes added since free space was last looked up.
    since_look: AtomicU64,
    trusted: Mutex<HashMap<String, Trusted>>,
    reserve: Reserve,
    pub(super) counts: StoreCounters,
    /// Held until the last log is closed: a log that is still ending must not write beside another process.
    lock: Option<File>,
    /// Whether the folder was removed or replaced under this process.
    lost: AtomicBool,
}

/// Counters of a data folder.
#[derive(Debug, Default)]
pub(super) struct StoreCounters {
    segments: AtomicU64,
    free: AtomicU64,
    syncs: AtomicU64,
    sync_micros: AtomicU64,
    last_sync_micros: AtomicU64,
    errors: AtomicU64,
    cuts: AtomicU64,
    waste: AtomicU64,
    rewritten: AtomicU64,
    rewrites: AtomicU64,
    failed_rewrites: AtomicU64,
}

impl StoreCounters {
    /// Counts a change of the number of segment files.
    pub(super) fn segments(&self, before: usize, after: usize) {
        self.segments.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    /// Counts a sync of a file.
    pub(super) fn synced(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_sync_micros.store(micros, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a change of the useless bytes of a log.
    pub(super) fn wasted(&self, before: u64, after: u64) {
        self.waste.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Counts bytes that were copied into the new version of a file.
    pub(super) fn copied(&self, bytes: u64) {
        self.rewritten.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a file that was rewritten.
    pub(super) fn rewrote(&self) {
        self.rewrites.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt to give space back that failed.
    pub(super) fn failed_to_rewrite(&self) {
        self.failed_rewrites.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a file whose end was cut off when it was opened.
    pub(super) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(
        files: Box<dyn Files>,
        folder: &Path,
        sync: SyncMode,
        max_bytes: u64,
        lock: Option<File>,
    ) -> Arc<Self> {
        let reserve = Reserve::new(&*files, folder, max_bytes);
        Arc::new(Self {
            files,
            folder: folder.to_owned(),
            sync,
            max_bytes,
            used: AtomicU64::new(0),
            full: AtomicBool::new(false),
            look_again: AtomicU64::new(0),
            told: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            since_look: AtomicU64::new(0),
            trusted: Mutex::default(),
            reserve,
            counts: StoreCounters::default(),
            lock,
            lost: AtomicBool::new(false),
        })
    }

    /// Counts a change of the size of a log.
    pub(super) fn resized(&self, before: u64, after: u64) {
        self.since_look.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        self.used.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Checks whether one more message of so many bytes may be stored.
    pub(super) fn check_space(&self, bytes: u64, priority: Priority) -> Result<(), StoreError> {
        // Many bytes can come between two ticks.
        if self.since_look.load(Ordering::Relaxed) > SPARE / 4 {
            self.look_at_disk();
        }
        let in_limit = self.is_in_limit(bytes, priority);
        // On a full disk a write that may use the reserve is tried.
        if in_limit && (priority == Priority::Reserved || !self.is_disk_full()) {
            return Ok(());
        }
        if !in_limit && priority == Priority::Common {
            let before = self.refused.load(Ordering::Relaxed);
            if before == 0 || bytes < before {
                self.refused.store(bytes.max(1), Ordering::Relaxed);
            }
        }
        Err(StoreError::Full(self.folder.clone()))
    }

    fn is_in_limit(&self, bytes: u64, priority: Priority) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit(priority)
    }

    /// Whether a message of a size that was refused lately would be refused again.
    fn refuses(&self) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        self.is_disk_full() || refused > 0 && !self.is_in_limit(refused, Priority::Common)
    }

    fn limit(&self, priority: Priority) -> u64 {
        match priority {
            Priority::Common => self.max_bytes - self.max_bytes / RESERVED_PART,
            Priority::Reserved => self.max_bytes,
        }
    }

    /// Whether the disk has fewer free bytes than messages have to leave.
    pub(super) fn is_disk_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Returns the share of the limit in use, in percent.
    pub(super) fn percent_used(&self) -> u64 {
        let used = u128::from(self.used.load(Ordering::Relaxed)) * 100;
        u64::try_from(used / u128::from(self.limit(Priority::Common).max(1))).unwrap_or(100)
    }

    /// Runs a write, which may use the reserve if the disk is full.
    pub(super) fn write<T>(&self, attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.reserve.for_write(&*self.files, attempt)
    }

    /// Returns the current figures.
    pub(super) fn snapshot(&self) -> StoreSnapshot {
        let counts = &self.counts;
        StoreSnapshot {
            bytes: self.used.load(Ordering::Relaxed),
            max_bytes: self.max_bytes,
            free_bytes: counts.free.load(Ordering::Relaxed),
            segments: counts.segments.load(Ordering::Relaxed),
            full: self.refuses(),
            refused: 0,
            syncs: counts.syncs.load(Ordering::Relaxed),
            sync_micros: counts.sync_micros.load(Ordering::Relaxed),
            last_sync_micros: counts.last_sync_micros.load(Ordering::Relaxed),
            errors: counts.errors.load(Ordering::Relaxed),
            cuts: counts.cuts.load(Ordering::Relaxed),
            wasted_bytes: counts.waste.load(Ordering::Relaxed),
            rewritten_bytes: counts.rewritten.load(Ordering::Relaxed),
            rewrites: counts.rewrites.load(Ordering::Relaxed),
            failed_rewrites: counts.failed_rewrites.load(Ordering::Relaxed),
        }
    }

    /// Notes that a write found no space.
    pub(super) fn is_full(&self) {
        self.look_again.store(0, Ordering::Relaxed);
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                folder = %self.folder.display(),
                "there is no room on the disk: nothing is stored until there is; free some"
            );
        }
    }

    /// Looks up the free space of the disk, and restores the reserve if there is enough. Returns whether there
    /// is.
    pub(super) fn look_at_disk(&self) -> bool {
        self.since_look.store(0, Ordering::Relaxed);
        // If the system can't say, a write will find out.
        let free = self.files.free(&self.folder).unwrap_or(u64::MAX);
        self.counts.free.store(free, Ordering::Relaxed);
        if free < SPARE {
            self.is_full();
        } else {
            self.reserve.refill(&*self.files, free - SPARE);
        }
        free >= SPARE
    }

    /// Checks that the folder is still the one that this process took.
    ///
    /// # Errors
    /// Fails if the folder was removed or replaced: writes would go into files that nobody will find, or that
    /// another process writes.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if !self.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "the data folder {} was removed or replaced under this process, which stores nothing any more: end it, put \
             the folder back, and start again",
            self.folder.display()
        )))
    }

    fn is_ours(&self) -> bool {
        let Some(Ok(own)) = self.lock.as_ref().map(File::metadata) else { return true };
        let path = self.folder.join(LOCK);
        match fs::metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => true,
            // Some filesystems number their files anew now and then.
            Ok(_) => fs::read_to_string(&path).is_ok_and(|id| id.trim() == std::process::id().to_string()),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Looks whether the folder is there, and how much space is free.
    pub(super) fn look(&self, now: u64) {
        if !self.is_ours() {
            self.lost.store(true, Ordering::Relaxed);
        }
        if self.is_in_limit(self.refused.load(Ordering::Relaxed), Priority::Common) {
            self.refused.store(0, Ordering::Relaxed);
        }
        if self.full.load(Ordering::Relaxed) {
            let look_again = self.look_again.load(Ordering::Relaxed);
            if look_again == 0 {
                return self.look_again.store(now + WAIT_FOR_SPACE, Ordering::Relaxed);
            }
            if now < look_again {
                return;
            }
        }
        if self.look_at_disk() && self.full.swap(false, Ordering::Relaxed) {
            tracing::info!(folder = %self.folder.display(), "there is room on the disk again");
        }
        self.warn();
    }

    /// Logs once that the limit is near, and again only after it was far.
    fn warn(&self) {
        let (used, limit) = (self.used.load(Ordering::Relaxed), self.max_bytes);
        if used < limit / 10 * 7 {
            self.told.store(false, Ordering::Relaxed);
        } else if used >= limit / 10 * 8 && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                used,
                limit,
                "the bus has filled 80 % of bus.store.max_bytes; at the limit it refuses messages: raise it, or keep \
                 less history"
            );
        }
    }

    /// Notes how far a log may be believed when it is opened again.
    pub(super) fn distrust(&self, name: &str, trusted: Trusted) {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert(trusted);
    }

    pub(super) fn trusted(&self, name: &str) -> Option<Trusted> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(super) fn trust(&self, name: &str) {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Turns an error of the system into one of the store.
    pub(super) fn error(&self, path: &Path, source: io::Error) -> StoreError {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        if files::is_full(&source) {
            self.is_full();
            return StoreError::Full(self.folder.clone());
        }
        StoreError::Io { path: path.to_owned(), source }
    }
}

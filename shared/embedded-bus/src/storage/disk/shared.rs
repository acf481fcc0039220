//! What the logs of one data folder have in common: how much room there is, and what a failed write left behind.

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

/// Bytes of the disk that messages do not take: removals, compaction and configurations have to find room.
const SPARE: u64 = 16 << 20;
/// The part of `max_bytes` that only removals, bans and compaction use.
const RESERVED_PART: u64 = 16;
/// How long nothing is tried after the disk was full, in nanoseconds. (A quota says nothing of the room that is left.)
const WAIT_FOR_SPACE: u64 = 2_000_000_000;

/// Bytes of a segment that can be trusted after a write or a sync failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    pub(super) segment: u32,
    pub(super) len: u64,
    /// Acknowledged messages were behind it.
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
    /// When room is looked for again, in nanoseconds since 1970; 0: not set yet.
    look_again: AtomicU64,
    told: AtomicBool,
    /// Bytes of the smallest message that the limit has no room for; 0: there is none.
    refused: AtomicU64,
    /// Bytes added since it was last looked how much is free.
    since_look: AtomicU64,
    trusted: Mutex<HashMap<String, Trusted>>,
    reserve: Reserve,
    pub(super) counts: StoreCounters,
    /// The folder is this process's until the last log is closed: one that still ends must not write beside another's.
    lock: Option<File>,
    /// The folder is not the one any more that this process took.
    lost: AtomicBool,
}

/// What is counted about a data folder.
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
    /// There are more or fewer segment files.
    pub(super) fn segments(&self, before: usize, after: usize) {
        self.segments.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    /// A sync of a file took so long.
    pub(super) fn synced(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_sync_micros.store(micros, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Files of a log hold more or fewer bytes of no use.
    pub(super) fn wasted(&self, before: u64, after: u64) {
        self.waste.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// So many bytes of a file were copied into its new version.
    pub(super) fn copied(&self, bytes: u64) {
        self.rewritten.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file was replaced by one without what is dead.
    pub(super) fn rewrote(&self) {
        self.rewrites.fetch_add(1, Ordering::Relaxed);
    }

    /// Room could not be given back.
    pub(super) fn failed_to_rewrite(&self) {
        self.failed_rewrites.fetch_add(1, Ordering::Relaxed);
    }

    /// The end of a file was cut off when it was opened.
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

    /// A log has become larger or smaller.
    pub(super) fn resized(&self, before: u64, after: u64) {
        self.since_look.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        self.used.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Whether one more message of so many bytes may be stored.
    pub(super) fn check_space(&self, bytes: u64, priority: Priority) -> Result<(), StoreError> {
        // Much can come between two ticks.
        if self.since_look.load(Ordering::Relaxed) > SPARE / 4 {
            self.look_at_disk();
        }
        let in_limit = self.is_in_limit(bytes, priority);
        // Where the disk is full, a write that may use the reserve is tried.
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

    /// Whether a message of a size that was lately wanted has no room.
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

    /// Whether the disk has less room than messages have to leave.
    pub(super) fn is_disk_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The share of the limit that is used, in percent.
    pub(super) fn percent_used(&self) -> u64 {
        let used = u128::from(self.used.load(Ordering::Relaxed)) * 100;
        u64::try_from(used / u128::from(self.limit(Priority::Common).max(1))).unwrap_or(100)
    }

    /// Runs what writes; it may use the reserve if the disk is full.
    pub(super) fn write<T>(&self, attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.reserve.for_write(&*self.files, attempt)
    }

    /// How it stands now.
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

    /// A write found no room.
    pub(super) fn is_full(&self) {
        self.look_again.store(0, Ordering::Relaxed);
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                folder = %self.folder.display(),
                "there is no room on the disk: nothing is stored until there is; free some"
            );
        }
    }

    /// Whether the disk has room.
    fn look_at_disk(&self) -> bool {
        self.since_look.store(0, Ordering::Relaxed);
        // Where that can't be asked, a write will tell.
        let free = self.files.free(&self.folder).unwrap_or(u64::MAX);
        self.counts.free.store(free, Ordering::Relaxed);
        if free < SPARE {
            self.is_full();
        } else {
            self.reserve.refill(&*self.files, free - SPARE);
        }
        free >= SPARE
    }

    /// Whether the folder is still the one that this process took.
    ///
    /// # Errors
    /// It was removed or replaced: what is written goes into files that nobody will find, or that others write.
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

    /// Looks at whether the folder is there, and how much room there is.
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

    /// Says once that the limit is near, and again only after it was far.
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

    /// A log must not be believed beyond this when it is opened again.
    pub(super) fn distrust(&self, name: &str, trusted: Trusted) {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert(trusted);
    }

    pub(super) fn trusted(&self, name: &str) -> Option<Trusted> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(super) fn trust(&self, name: &str) {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What the system said, in words of the store.
    pub(super) fn error(&self, path: &Path, source: io::Error) -> StoreError {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        if files::is_full(&source) {
            self.is_full();
            return StoreError::Full(self.folder.clone());
        }
        StoreError::Io { path: path.to_owned(), source }
    }
}

//! Streams on a disk: a folder for each, with segment files of checksummed records, and an index in memory.
//!
//! Strict: every acknowledged message was synced. Relaxed: it was written, and is synced within a second, so
//! only a crash of the machine can take it back, and the next opening reports that. The README of this crate
//! describes the format and the measurements.

mod clock_steps;
mod files;
mod folder;
mod frame;
mod listing;
mod log;
mod mark;
mod reserve;
mod scan;
mod segment;
mod segments;
mod shared;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::files::{Files, SystemFiles, replace};
use self::log::DiskLog;
use self::mark::Mark;
use self::shared::Shared;
use super::{Log, Opened, Replayed, Store, StoreError, StoredStream};
use crate::config::DiskConfig;
use crate::stats::StoreSnapshot;

const STREAMS: &str = "streams";
const CONFIG: &str = "stream.json";
/// A file in the folder of a stream that is being deleted.
const DELETED: &str = "deleted";

/// All streams in one data folder.
#[derive(Debug)]
pub(crate) struct DiskStore {
    shared: Arc<Shared>,
    segment_bytes: u64,
}

/// The settings of a stream as they lie on the disk.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    name: String,
    created: u64,
    config: serde_json::Value,
}

impl DiskStore {
    /// Takes a data folder, or makes one.
    pub(crate) fn open(config: &DiskConfig) -> Result<Self, StoreError> {
        let lock = folder::take(&config.path)?;
        let shared =
            Shared::new(Box::new(SystemFiles), &config.path, config.sync, config.max_bytes, Some(lock));
        // Without a first look the reserve would come with the first tick, and others may fill the disk before.
        shared.look_at_disk();
        Self::with(shared, log::segment_bytes(config.max_bytes))
    }

    fn with(shared: Arc<Shared>, segment_bytes: u64) -> Result<Self, StoreError> {
        let streams = shared.folder.join(STREAMS);
        shared
            .files
            .create_folder(&streams)
            .and_then(|()| shared.files.sync_folder(&shared.folder))
            .map_err(|error| shared.error(&streams, error))?;
        Ok(Self { shared, segment_bytes })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.shared.folder.join(STREAMS).join(escape(name))
    }

    fn files(&self) -> &dyn Files {
        &*self.shared.files
    }
}

/// Returns the name of a stream's folder. Each byte with a meaning in paths is written as `%` and its code.
fn escape(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

impl Store for DiskStore {
    fn streams(&mut self) -> Result<Vec<StoredStream>, StoreError> {
        let all = self.shared.folder.join(STREAMS);
        let names = self.files().list(&all).map_err(|error| self.shared.error(&all, error))?;
        let mut saved = Vec::new();
        for name in names {
            let path = all.join(&name).join(CONFIG);
            let data = match self.files().read(&path) {
                Ok(data) => data,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.check_unnamed(&all.join(&name))?;
                    continue;
                }
                Err(error) => return Err(self.shared.error(&path, error)),
            };
            let settings = serde_json::from_slice::<OnDisk>(&data).map_err(|source| StoreError::Settings {
                what: format!("{} can't be read", path.display()),
                source,
                advice: ". Restore the data folder from a backup, or move the folder of this stream away and \
                         start with an empty one",
            });
            let OnDisk { name, created, config } = settings?;
            saved.push(StoredStream { name, config: config.to_string().into(), created });
        }
        Ok(saved)
    }

    fn open(
        &mut self,
        name: &str,
        replay: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(Box<dyn Log>, Opened), StoreError> {
        let (log, opened) = DiskLog::open(&self.shared, name, self.folder(name), self.segment_bytes, replay)?;
        Ok((Box::new(log), opened))
    }

    fn create(&mut self, stream: &StoredStream) -> Result<Box<dyn Log>, StoreError> {
        self.shared.check()?;
        let folder = self.folder(&stream.name);
        self.clear(&folder)?;
        let parent = self.shared.folder.join(STREAMS);
        self.files()
            .create_folder(&folder)
            .and_then(|()| self.files().sync_folder(&parent))
            .and_then(|()| {
                // The mark comes first, so that a log without one is known to have lost it.
                Mark::Clean { segment: 0, len: 0 }.write(self.files(), &folder)
            })
            .map_err(|error| self.shared.error(&folder, error))?;
        let (log, _) = DiskLog::open(&self.shared, &stream.name, folder, self.segment_bytes, &mut |_| {})?;
        self.save(stream)?;
        Ok(Box::new(log))
    }

    fn save(&mut self, stream: &StoredStream) -> Result<(), StoreError> {
        self.shared.check()?;
        let folder = self.folder(&stream.name);
        let config = serde_json::from_slice(&stream.config).map_err(|source| StoreError::Settings {
            what: format!("the configuration of {:?} is no JSON", stream.name),
            source,
            advice: "",
        })?;
        let on_disk = OnDisk { name: stream.name.clone(), created: stream.created, config };
        let json = Bytes::from(serde_json::to_vec(&on_disk).expect("strings and numbers are always JSON"));
        self.shared
            .write(|| replace(self.files(), &folder, CONFIG, &json))
            .map_err(|error| self.shared.error(&folder, error))
    }

    fn delete(&mut self, name: &str) -> Result<(), StoreError> {
        self.shared.trust(name);
        let folder = self.folder(name);
        self.clear(&folder)
    }

    fn snapshot(&self) -> StoreSnapshot {
        self.shared.snapshot()
    }
}

impl DiskStore {
    /// Checks a folder without settings. It belongs to a stream that was being created or deleted, of which
    /// no client was told. If it holds messages and was not deleted, the settings are lost.
    fn check_unnamed(&self, folder: &std::path::Path) -> Result<(), StoreError> {
        let names = self.files().list(folder).map_err(|error| self.shared.error(folder, error))?;
        let is_used = |name: &String| {
            let len =
                if name.ends_with(".log") { self.files().len(&folder.join(name)).unwrap_or(0) } else { 0 };
            len > frame::Header::LEN as u64
        };
        if names.iter().any(|name| name == DELETED) || !names.iter().any(is_used) {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "{} is missing, and there are messages in its folder. Nothing of it was changed. Restore the data folder from a \
             backup, or move the folder of this stream away and start with an empty one",
            folder.join(CONFIG).display()
        )))
    }

    /// Removes a stream's folder. The settings go first: a folder without them is no stream.
    fn clear(&self, folder: &std::path::Path) -> Result<(), StoreError> {
        let files = self.files();
        let attempt = || {
            let mut names = match files.list(folder) {
                Ok(names) => names,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            if let Some(config) = names.iter().position(|name| name == CONFIG) {
                self.shared.write(|| files.create(&folder.join(DELETED)).map(drop))?;
                files.sync_folder(folder)?;
                names.push(DELETED.to_owned());
                files.remove(&folder.join(names.swap_remove(config)))?;
                files.sync_folder(folder)?;
            }
            for name in names {
                files.remove(&folder.join(name))?;
            }
            files.remove_folder(folder)?;
            files.sync_folder(&self.shared.folder.join(STREAMS))
        };
        attempt().map_err(|error| self.shared.error(folder, error))
    }
}

/// A simulated disk, for tests of the streams.
#[cfg(test)]
pub(crate) struct Simulated {
    disk: sim::Sim,
    segment_bytes: u64,
    max_bytes: u64,
}

#[cfg(test)]
impl Simulated {
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self { disk: sim::Sim::new(), segment_bytes, max_bytes: 1 << 30 }
    }

    /// Returns a disk for a data folder that may take so many bytes.
    pub(crate) fn limited(max_bytes: u64) -> Self {
        Self { disk: sim::Sim::new(), segment_bytes: log::segment_bytes(max_bytes), max_bytes }
    }

    /// Lets another program take all free space.
    pub(crate) fn fill(&self) {
        self.disk.fill();
    }

    /// Sets the free bytes of the disk.
    pub(crate) fn set_left(&self, bytes: u64) {
        self.disk.set_left(bytes);
    }

    /// Returns the bytes of all files.
    pub(crate) fn contents(&self) -> Vec<u8> {
        self.disk.contents()
    }

    /// Opens a store on the disk.
    pub(crate) fn open(&self) -> Box<dyn Store> {
        let path = std::path::Path::new("/data");
        let shared =
            Shared::new(Box::new(self.disk.clone()), path, crate::SyncMode::Strict, self.max_bytes, None);
        Box::new(DiskStore::with(shared, self.segment_bytes).expect("the disk works"))
    }

    /// Ends the user of a store like `kill -9`: its last writes do not reach the disk.
    pub(crate) fn kill<T>(&self, user: T) {
        self.disk.cut_after(1);
        drop(user);
        self.disk.kill();
    }
}

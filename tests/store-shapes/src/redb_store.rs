//! redb: tables of messages by sequence, of ids whose message is gone, and of the highest sequence.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, Database, Durability, ReadableDatabase as _, ReadableTable as _, StorageBackend,
    TableDefinition, WriteTransaction,
};

use crate::shape::{Done, Found, Shape, Store, decode, encode};
use crate::traffic::{Batch, id};

const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
const GONE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("gone");
const STATE: TableDefinition<'_, u8, u64> = TableDefinition::new("state");
/// Bytes of the cache; the default is 1 GiB.
const CACHE: usize = 256 << 20;
const SYNC_EVERY: u64 = 1_000_000_000;

struct Redb {
    database: Database,
    strict: bool,
    quick: bool,
    /// Set before the one sync that must reach the disk.
    syncs: Option<Arc<AtomicBool>>,
    unsynced: bool,
    synced_at: u64,
    forgotten: u64,
}

pub fn open(
    shape: Shape,
    folder: &Path,
    strict: bool,
    tell: &mut dyn FnMut(Found<'_>),
) -> Done<(Box<dyn Store>, u64)> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("messages.redb");
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    let unsynced = shape == Shape::RedbUnsynced && !strict;
    let (database, syncs) = if unsynced {
        let syncs = Arc::new(AtomicBool::new(true));
        let options =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let backend = Unsynced { file: FileBackend::new(options)?, syncs: Arc::clone(&syncs) };
        (builder.create_with_backend(backend)?, Some(syncs))
    } else {
        (builder.create(&path)?, None)
    };
    let quick = shape == Shape::RedbQuick;
    let mut redb = Redb { database, strict, quick, syncs, unsynced: false, synced_at: 0, forgotten: 0 };
    let last = redb.load(tell)?;
    Ok((Box::new(redb), last))
}

impl Redb {
    fn load(&mut self, tell: &mut dyn FnMut(Found<'_>)) -> Done<u64> {
        let begun = self.begin(Durability::Immediate)?;
        let _ = (begun.open_table(MESSAGES)?, begun.open_table(GONE)?, begun.open_table(STATE)?);
        begun.commit()?;
        let read = self.database.begin_read()?;
        for entry in read.open_table(MESSAGES)?.iter()? {
            let (seq, value) = entry?;
            tell(decode(seq.value(), value.value()).ok_or("a value is damaged")?);
        }
        // The duplicate window needs the ids of removed messages, too.
        for entry in read.open_table(GONE)?.iter()? {
            entry?;
        }
        Ok(read.open_table(STATE)?.get(0)?.map_or(0, |last| last.value()))
    }

    fn begin(&self, durability: Durability) -> Done<WriteTransaction> {
        let mut begun = self.database.begin_write()?;
        begun.set_durability(durability)?;
        begun.set_quick_repair(self.quick);
        Ok(begun)
    }

    fn write(&mut self, begun: &WriteTransaction, batch: &Batch<'_>) -> Done {
        let (mut messages, mut gone) = (begun.open_table(MESSAGES)?, begun.open_table(GONE)?);
        for message in &batch.messages {
            if !batch.has_come_and_gone(message.seq) {
                messages.insert(message.seq, &*encode(message))?;
            }
            if let Some(removes) = message.removes {
                if !batch.has_come_and_gone(removes) {
                    messages.remove(removes)?;
                }
                if removes >= batch.window_from {
                    gone.insert(removes, &*id(removes))?;
                }
            }
        }
        if batch.window_from > self.forgotten {
            gone.retain_in::<u64, _>(self.forgotten..batch.window_from, |_, _| false)?;
            self.forgotten = batch.window_from;
        }
        let last = batch.messages.last().map_or(0, |message| message.seq);
        begun.open_table(STATE)?.insert(0, last)?;
        Ok(())
    }
}

impl Store for Redb {
    fn batch(&mut self, batch: &Batch<'_>) -> Done {
        let immediate = self.strict || self.syncs.is_some();
        let begun = self.begin(if immediate { Durability::Immediate } else { Durability::None })?;
        self.write(&begun, batch)?;
        begun.commit()?;
        self.unsynced = !self.strict;
        Ok(())
    }

    fn tick(&mut self, now: u64) -> Done {
        if self.unsynced && now >= self.synced_at + SYNC_EVERY {
            if let Some(syncs) = &self.syncs {
                syncs.store(true, Ordering::Relaxed);
            }
            // This empty commit makes the earlier commits without durability durable.
            self.begin(Durability::Immediate)?.commit()?;
            (self.unsynced, self.synced_at) = (false, now);
        }
        Ok(())
    }

    fn read(&mut self, seq: u64) -> Done<Option<usize>> {
        let read = self.database.begin_read()?;
        let found = read.open_table(MESSAGES)?.get(seq)?;
        let size = |value: &[u8]| {
            let found = decode(seq, value)?;
            Some(found.subject.len() + found.headers.len() + found.payload.len())
        };
        Ok(found.and_then(|value| size(value.value())))
    }

    fn compact(&mut self) -> Done<bool> {
        while self.database.compact()? {}
        Ok(true)
    }
}

/// A file that skips syncs, except on request.
#[derive(Debug)]
struct Unsynced {
    file: FileBackend,
    syncs: Arc<AtomicBool>,
}

impl StorageBackend for Unsynced {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        if self.syncs.swap(false, Ordering::Relaxed) { self.file.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.file.sync_data()?;
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}

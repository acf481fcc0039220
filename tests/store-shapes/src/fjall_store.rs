//! fjall: keyspaces of messages by sequence, of ids whose message is gone, and of the highest sequence.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use crate::shape::{Done, Found, Shape, Store, decode, encode};
use crate::traffic::{Batch, id};

/// Bytes of the block cache; the default is 32 MiB.
const CACHE: u64 = 256 << 20;
const SYNC_EVERY: u64 = 1_000_000_000;

struct Fjall {
    database: Database,
    messages: Keyspace,
    gone: Keyspace,
    state: Keyspace,
    strict: bool,
    unsynced: bool,
    synced_at: u64,
    forgotten: u64,
}

/// The smallest total size of the journals, and the size of a memtable.
const TIGHT_JOURNALS: u64 = 64 << 20;
const TIGHT_MEMTABLE: u64 = 16 << 20;

pub fn open(
    shape: Shape,
    folder: &Path,
    strict: bool,
    tell: &mut dyn FnMut(Found<'_>),
) -> Done<(Box<dyn Store>, u64)> {
    let (builder, options) = (Database::builder(folder).cache_size(CACHE), KeyspaceCreateOptions::default());
    let (builder, options) = match shape {
        Shape::FjallTight => {
            (builder.max_journaling_size(TIGHT_JOURNALS), options.max_memtable_size(TIGHT_MEMTABLE))
        }
        _ => (builder, options),
    };
    let database = builder.open()?;
    // Large values live outside the tree, as fjall's manual advises.
    let separate = || options.clone().with_kv_separation(Some(KvSeparationOptions::default()));
    let messages = database.keyspace("messages", separate)?;
    let gone = database.keyspace("gone", || options.clone())?;
    let state = database.keyspace("state", || options.clone())?;
    for entry in messages.iter() {
        let (key, value) = entry.into_inner()?;
        let seq = u64::from_be_bytes((*key).try_into()?);
        tell(decode(seq, &value).ok_or("a value is damaged")?);
    }
    let mut forgotten = u64::MAX;
    // The duplicate window needs the ids of removed messages, too.
    for entry in gone.iter() {
        let key = entry.key()?;
        forgotten = forgotten.min(u64::from_be_bytes((*key).try_into()?));
    }
    let last = match state.get("last")? {
        Some(value) => u64::from_le_bytes((*value).try_into()?),
        None => 0,
    };
    let forgotten = if forgotten == u64::MAX { 0 } else { forgotten };
    let fjall = Fjall { database, messages, gone, state, strict, unsynced: false, synced_at: 0, forgotten };
    Ok((Box::new(fjall), last))
}

impl Store for Fjall {
    fn batch(&mut self, batch: &Batch<'_>) -> Done {
        let mode = if self.strict { PersistMode::SyncAll } else { PersistMode::Buffer };
        let mut writes = self.database.batch().durability(Some(mode));
        for message in &batch.messages {
            if !batch.has_come_and_gone(message.seq) {
                writes.insert(&self.messages, message.seq.to_be_bytes(), encode(message));
            }
            if let Some(removes) = message.removes {
                if !batch.has_come_and_gone(removes) {
                    writes.remove(&self.messages, removes.to_be_bytes());
                }
                if removes >= batch.window_from {
                    writes.insert(&self.gone, removes.to_be_bytes(), id(removes));
                }
            }
        }
        if batch.window_from > self.forgotten {
            for entry in self.gone.range(self.forgotten.to_be_bytes()..batch.window_from.to_be_bytes()) {
                writes.remove(&self.gone, entry.key()?);
            }
            self.forgotten = batch.window_from;
        }
        let last = batch.messages.last().map_or(0, |message| message.seq);
        writes.insert(&self.state, "last", last.to_le_bytes());
        writes.commit()?;
        self.unsynced = !self.strict;
        Ok(())
    }

    fn tick(&mut self, now: u64) -> Done {
        if self.unsynced && now >= self.synced_at + SYNC_EVERY {
            self.database.persist(PersistMode::SyncAll)?;
            (self.unsynced, self.synced_at) = (false, now);
        }
        Ok(())
    }

    fn read(&mut self, seq: u64) -> Done<Option<usize>> {
        let Some(value) = self.messages.get(seq.to_be_bytes())? else { return Ok(None) };
        let found = decode(seq, &value).ok_or("a value is damaged")?;
        Ok(Some(found.subject.len() + found.headers.len() + found.payload.len()))
    }

    fn is_busy(&self) -> bool {
        self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0
    }
}

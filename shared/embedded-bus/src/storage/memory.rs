//! Streams in memory, which live as long as the process.
//!
//! A message costs its headers and its payload in one allocation. Its subject is shared by all messages of
//! the subject.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{Log, Opened, Record, RemovalReason, Replayed, Store, StoreError, StoredStream};

/// A store that keeps nothing beyond the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore;

impl Store for MemoryStore {
    fn streams(&mut self) -> Result<Vec<StoredStream>, StoreError> {
        Ok(Vec::new())
    }

    fn open(
        &mut self,
        name: &str,
        _replay: &mut dyn FnMut(Replayed<'_>),
    ) -> Result<(Box<dyn Log>, Opened), StoreError> {
        Err(StoreError::Damaged(format!("stream {name:?} is in memory only, and its memory is gone")))
    }

    fn create(&mut self, _stream: &StoredStream) -> Result<Box<dyn Log>, StoreError> {
        Ok(Box::new(MemoryLog::default()))
    }

    fn save(&mut self, _stream: &StoredStream) -> Result<(), StoreError> {
        Ok(())
    }

    fn delete(&mut self, _name: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Debug)]
struct StoredMessage {
    time: u64,
    subject: Arc<[u8]>,
    headers: u32,
    /// Headers, then payload.
    body: Box<[u8]>,
}

#[derive(Debug, Default)]
struct MemoryLog {
    messages: BTreeMap<u64, StoredMessage>,
    subjects: HashSet<Arc<[u8]>>,
    size: u64,
}

impl MemoryLog {
    fn drop_all(&mut self, seqs: &[u64]) {
        for seq in seqs {
            let Some(stored) = self.messages.remove(seq) else { continue };
            self.size -= stored.body.len() as u64;
            // One reference is in the set, the other one here: no further message has this subject.
            if Arc::strong_count(&stored.subject) == 2 {
                self.subjects.remove(&stored.subject);
            }
        }
    }
}

impl Log for MemoryLog {
    fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let subject = match self.subjects.get(&record.subject[..]) {
            Some(subject) => Arc::clone(subject),
            None => {
                let subject: Arc<[u8]> = record.subject[..].into();
                self.subjects.insert(Arc::clone(&subject));
                subject
            }
        };
        let body: Box<[u8]> = [&record.headers[..], &record.payload[..]].concat().into();
        self.size += body.len() as u64;
        let headers = u32::try_from(record.headers.len()).expect("headers are below 64 KiB");
        self.messages.insert(record.seq, StoredMessage { time: record.time, subject, headers, body });
        Ok(())
    }

    fn read(&mut self, seq: u64) -> Result<Option<Record>, StoreError> {
        Ok(self.messages.get(&seq).map(|stored| {
            let (headers, payload) = stored.body.split_at(stored.headers as usize);
            Record {
                seq,
                time: stored.time,
                subject: Bytes::copy_from_slice(&stored.subject),
                headers: Bytes::copy_from_slice(headers),
                payload: Bytes::copy_from_slice(payload),
            }
        }))
    }

    fn forget(&mut self, seqs: &[u64]) -> Result<(), StoreError> {
        self.drop_all(seqs);
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64], _reason: RemovalReason) -> Result<(), StoreError> {
        self.drop_all(seqs);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn on_tick(&mut self, _now: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

//! Streams that live as long as the process.
//!
//! A message costs its headers and its payload in one allocation; its subject is shared with all of that subject.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{Log, LogError, Opened, Record, Saved, Store, Told, Why};

/// Keeps nothing beyond the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore;

impl Store for MemoryStore {
    fn streams(&mut self) -> Result<Vec<Saved>, LogError> {
        Ok(Vec::new())
    }

    fn open(
        &mut self,
        name: &str,
        _tell: &mut dyn FnMut(Told<'_>),
    ) -> Result<(Box<dyn Log>, Opened), LogError> {
        Err(LogError::Damaged(format!("stream {name:?} is in memory only, and its memory is gone")))
    }

    fn create(&mut self, _stream: &Saved) -> Result<Box<dyn Log>, LogError> {
        Ok(Box::new(MemoryLog::default()))
    }

    fn save(&mut self, _stream: &Saved) -> Result<(), LogError> {
        Ok(())
    }

    fn delete(&mut self, _name: &str) -> Result<(), LogError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Kept {
    time: u64,
    subject: Arc<[u8]>,
    headers: u32,
    /// Headers, then payload.
    body: Box<[u8]>,
}

#[derive(Debug, Default)]
struct MemoryLog {
    messages: BTreeMap<u64, Kept>,
    subjects: HashSet<Arc<[u8]>>,
    size: u64,
}

impl MemoryLog {
    fn drop_all(&mut self, seqs: &[u64]) {
        for seq in seqs {
            let Some(kept) = self.messages.remove(seq) else { continue };
            self.size -= kept.body.len() as u64;
            // One in the set, one here: nobody else has it.
            if Arc::strong_count(&kept.subject) == 2 {
                self.subjects.remove(&kept.subject);
            }
        }
    }
}

impl Log for MemoryLog {
    fn append(&mut self, record: Record) -> Result<(), LogError> {
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
        self.messages.insert(record.seq, Kept { time: record.time, subject, headers, body });
        Ok(())
    }

    fn read(&mut self, seq: u64) -> Result<Option<Record>, LogError> {
        Ok(self.messages.get(&seq).map(|kept| {
            let (headers, payload) = kept.body.split_at(kept.headers as usize);
            Record {
                seq,
                time: kept.time,
                subject: Bytes::copy_from_slice(&kept.subject),
                headers: Bytes::copy_from_slice(headers),
                payload: Bytes::copy_from_slice(payload),
            }
        }))
    }

    fn forget(&mut self, seqs: &[u64]) -> Result<(), LogError> {
        self.drop_all(seqs);
        Ok(())
    }

    fn remove(&mut self, seqs: &[u64], _why: Why) -> Result<(), LogError> {
        self.drop_all(seqs);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn on_tick(&mut self, _now: u64) -> Result<(), LogError> {
        Ok(())
    }
}

//! The compared stores of one stream, behind one interface.

use std::path::Path;

use crate::traffic::Batch;
use crate::{fjall_store, log_store, redb_store};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Done<T = ()> = Result<T, Failure>;

/// A stored message, as found on opening.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub seq: u64,
    pub time: u64,
    pub subject: &'a [u8],
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

pub trait Store {
    /// Stores and removes messages; returns once the batch is as durable as the setting promises.
    fn batch(&mut self, batch: &Batch<'_>) -> Done;

    /// Does the work that is due at `now`, in nanoseconds since 1970. Called every 200 ms.
    fn tick(&mut self, now: u64) -> Done;

    /// Bytes of a message, all parts; `None` if the message is absent.
    fn read(&mut self, seq: u64) -> Done<Option<usize>>;

    /// Whether the store has background work left.
    fn is_busy(&self) -> bool {
        false
    }

    /// Gives back space, if the store does so only on request; `false`: it has no such request.
    fn compact(&mut self) -> Done<bool> {
        Ok(false)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The segment log of the embedded bus.
    Log,
    Redb,
    /// redb with `set_quick_repair`.
    RedbQuick,
    /// redb on a backend that skips syncs, for the relaxed setting: survives `kill -9`, but not a power cut.
    RedbUnsynced,
    Fjall,
    /// fjall with the smallest journals, and memtables of 16 MiB: less to replay at a start, and less on the
    /// disk.
    FjallTight,
}

pub const SHAPES: [(&str, Shape); 6] = [
    ("log", Shape::Log),
    ("redb", Shape::Redb),
    ("redb-quick", Shape::RedbQuick),
    ("redb-unsynced", Shape::RedbUnsynced),
    ("fjall", Shape::Fjall),
    ("fjall-tight", Shape::FjallTight),
];

impl Shape {
    pub fn name(self) -> &'static str {
        SHAPES.iter().find(|(_, shape)| *shape == self).map_or("", |(name, _)| name)
    }

    /// Opens or creates a store. Passes each message to `found` in order of sequence; returns the highest
    /// sequence in use.
    pub fn open(
        self,
        folder: &Path,
        strict: bool,
        tell: &mut dyn FnMut(Found<'_>),
    ) -> Done<(Box<dyn Store>, u64)> {
        match self {
            Self::Log => log_store::open(folder, strict, tell),
            Self::Redb | Self::RedbQuick | Self::RedbUnsynced => redb_store::open(self, folder, strict, tell),
            Self::Fjall | Self::FjallTight => fjall_store::open(self, folder, strict, tell),
        }
    }
}

/// A message as one value: time, lengths, and parts.
pub fn encode(message: &crate::traffic::Message<'_>) -> Vec<u8> {
    let mut value = Vec::with_capacity(14 + message.size());
    value.extend(message.time.to_le_bytes());
    value.extend((message.subject.len() as u16).to_le_bytes());
    value.extend((message.headers.len() as u32).to_le_bytes());
    value.extend(message.subject.as_bytes());
    value.extend(message.headers.as_bytes());
    value.extend(message.payload);
    value
}

pub fn decode(seq: u64, value: &[u8]) -> Option<Found<'_>> {
    let (time, rest) = value.split_first_chunk()?;
    let (subject, rest) = rest.split_first_chunk()?;
    let (headers, rest) = rest.split_first_chunk()?;
    let (subject, rest) = rest.split_at_checked(u16::from_le_bytes(*subject).into())?;
    let (headers, payload) = rest.split_at_checked(u32::from_le_bytes(*headers) as usize)?;
    Some(Found { seq, time: u64::from_le_bytes(*time), subject, headers, payload })
}

//! The format of one record of a segment.
//!
//! `length u32 | checksum u32 | synced u32 | kind u8 | body`, little-endian. The length counts everything
//! behind the checksum. The checksum covers the length and everything behind itself, and begins with the salt
//! of the segment. `synced` is the offset up to which the segment was known to be on the disk when the record
//! was written. So each record bears witness that the bytes before that offset were complete once: an error
//! there is damage. An error beyond every witness is a write that a crash cut off.
//!
//! The salt is random and in no message, so bytes that a publisher chose are never a record of the log,
//! wherever they lie.

use bytes::{BufMut, Bytes};

use crate::storage::{Record, RemovalReason};

/// Bytes before the kind.
pub(super) const PREFIX: usize = 12;
/// Bytes of one sequence in a record of removals.
pub(super) const TOMBSTONE: u64 = 8;

const MESSAGE: u8 = 1;
const REMOVE: u8 = 2;
const RESERVE: u8 = 3;
const ID: u8 = 4;
const ERASE: u8 = 5;

/// The beginning of all checksums of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(u32);

impl Salt {
    /// The salt of segments of version 1.
    pub(super) const NONE: Self = Self(0);

    /// Returns a salt that nobody knows.
    pub(super) fn random() -> Self {
        Self(fastrand::u32(1..))
    }
}

/// The content of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogEntry {
    /// A stored message.
    Message(Record),
    /// Messages that were removed for good. Age is not told from another limit.
    Remove(RemovalReason, Vec<u64>),
    /// Sequences up to and including this one may be in use.
    Reserve(u64),
    /// The id of a message that was removed while its id still counts. The record has only the sequence, the
    /// time and the header of the id.
    Id(Record),
}

/// A record, and where the next one begins.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) entry: LogEntry,
    pub(super) synced: u32,
    /// Offset of the next record.
    pub(super) end: usize,
}

fn frame(out: &mut Vec<u8>, salt: Salt, synced: u32, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_bytes(0, 8);
    out.put_u32_le(synced);
    out.put_u8(kind);
    body(out);
    let length = u32::try_from(out.len() - start - 8).expect("a message is below 1 GB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(salt, length, &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(salt: Salt, length: u32, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt.0);
    hasher.update(&length.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// Appends a message.
pub(super) fn put_message(out: &mut Vec<u8>, salt: Salt, synced: u32, record: &Record) {
    put_record(out, salt, synced, MESSAGE, record);
}

/// Appends what remains of a removed message, for the sake of its id.
pub(super) fn put_id(out: &mut Vec<u8>, salt: Salt, synced: u32, record: &Record) {
    put_record(out, salt, synced, ID, record);
}

fn put_record(out: &mut Vec<u8>, salt: Salt, synced: u32, kind: u8, record: &Record) {
    frame(out, salt, synced, kind, |out| {
        out.put_u64_le(record.seq);
        out.put_u64_le(record.time);
        out.put_u16_le(u16::try_from(record.subject.len()).expect("subjects are below 64 KiB"));
        out.put_u32_le(u32::try_from(record.headers.len()).expect("headers are below 64 KiB"));
        out.put_slice(&record.subject);
        out.put_slice(&record.headers);
        out.put_slice(&record.payload);
    });
}

/// Appends removals.
pub(super) fn put_remove(out: &mut Vec<u8>, salt: Salt, synced: u32, reason: RemovalReason, seqs: &[u64]) {
    let kind = if reason == RemovalReason::Request { ERASE } else { REMOVE };
    frame(out, salt, synced, kind, |out| seqs.iter().for_each(|seq| out.put_u64_le(*seq)));
}

/// Appends the sequence up to which sequences may be in use.
pub(super) fn put_reserve(out: &mut Vec<u8>, salt: Salt, synced: u32, up_to: u64) {
    frame(out, salt, synced, RESERVE, |out| out.put_u64_le(up_to));
}

/// Reads the record at `at`; `None` if there is no complete one. `data` is a segment from its first byte.
pub(super) fn read(data: &Bytes, at: usize, salt: Salt) -> Option<Frame> {
    // A cheap test first: a search for records tries every byte.
    let synced = u32_at(data, at.checked_add(8)?)?;
    if synced as usize > at { None } else { read_alone(data, at, salt) }
}

/// Reads the record at `at` of a part of a segment.
pub(super) fn read_alone(data: &Bytes, at: usize, salt: Salt) -> Option<Frame> {
    let (length, sum) = (u32_at(data, at)?, u32_at(data, at + 4)?);
    let end = (at + 8).checked_add(length as usize)?;
    let rest = data.get(at + 8..end)?;
    let (synced, kind) = (u32_at(rest, 0)?, *rest.get(4)?);
    if !(MESSAGE..=ERASE).contains(&kind) || checksum(salt, length, rest) != sum {
        return None;
    }
    let entry = body(kind, data.slice(at + 8 + 5..end))?;
    Some(Frame { entry, synced, end })
}

/// Reads the record at `at` of bytes whose checksum was tested before.
pub(super) fn read_trusted(data: &Bytes, at: usize) -> Option<Frame> {
    let end = (at + 8).checked_add(u32_at(data, at)? as usize)?;
    if end > data.len() {
        return None;
    }
    let synced = u32_at(data, at + 8)?;
    let entry = body(*data.get(at + PREFIX)?, data.slice(at + PREFIX + 1..end))?;
    Some(Frame { entry, synced, end })
}

fn body(kind: u8, body: Bytes) -> Option<LogEntry> {
    match kind {
        MESSAGE | ID => {
            let (seq, time) = (u64_at(&body, 0)?, u64_at(&body, 8)?);
            let subject = usize::from(u16::from_le_bytes(body.get(16..18)?.try_into().ok()?));
            let headers = u32_at(&body, 18)? as usize;
            let headers_from = 22 + subject;
            let payload_from = headers_from.checked_add(headers)?;
            if payload_from > body.len() {
                return None;
            }
            let record = Record {
                seq,
                time,
                subject: body.slice(22..headers_from),
                headers: body.slice(headers_from..payload_from),
                payload: body.slice(payload_from..),
            };
            Some(if kind == MESSAGE { LogEntry::Message(record) } else { LogEntry::Id(record) })
        }
        REMOVE | ERASE if body.len().is_multiple_of(8) => {
            let reason = if kind == ERASE { RemovalReason::Request } else { RemovalReason::Limit };
            Some(LogEntry::Remove(
                reason,
                (0..body.len()).step_by(8).filter_map(|at| u64_at(&body, at)).collect(),
            ))
        }
        RESERVE if body.len() == 8 => Some(LogEntry::Reserve(u64_at(&body, 0)?)),
        _ => None,
    }
}

/// Returns the length of the record that begins with `prefix`.
pub(super) fn length(prefix: &[u8]) -> Option<usize> {
    Some(u32_at(prefix, 0)? as usize + 8)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Segments are read in the order of their numbers, which may have gaps.
    pub(super) number: u32,
    /// The highest sequence of all segments before.
    pub(super) last_seq: u64,
    /// Sequences up to and including this one may be in use.
    pub(super) reserved: u64,
    /// The beginning of the checksums of the segment's records.
    pub(super) salt: Salt,
}

const MAGIC: &[u8; 4] = b"MCLG";
/// The version of the format that this program writes.
const VERSION: u32 = 2;
/// The previous version, whose segments have no salt. This program reads them, and does not write to them.
const UNSALTED: u32 = 1;

/// Why the header of a segment can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("it ends within its header")]
    Short,
    #[error("it is no segment of a log")]
    Magic,
    #[error("its format is not version {VERSION}; was it written by a newer program?")]
    Version,
    #[error("the checksum of its header is wrong")]
    Checksum,
}

impl Header {
    /// Bytes of a header that this program writes.
    pub(super) const LEN: usize = 36;
    /// Bytes of a header without a salt.
    const UNSALTED_LEN: usize = 32;

    /// Bytes of this header.
    pub(super) fn len(self) -> usize {
        if self.salt == Salt::NONE { Self::UNSALTED_LEN } else { Self::LEN }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        let salted = self.salt != Salt::NONE;
        out.put_slice(MAGIC);
        out.put_u32_le(if salted { VERSION } else { UNSALTED });
        out.put_u32_le(self.number);
        out.put_u64_le(self.last_seq);
        out.put_u64_le(self.reserved);
        if salted {
            out.put_u32_le(self.salt.0);
        }
        out.put_u32_le(crc32fast::hash(&out));
        out
    }

    /// Reads the header at the beginning of a segment.
    pub(super) fn decode(data: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short;
        if data.get(..4).ok_or(short)? != MAGIC {
            return Err(HeaderError::Magic);
        }
        let salted = match u32_at(data, 4).ok_or(short)? {
            VERSION => true,
            UNSALTED => false,
            _ => return Err(HeaderError::Version),
        };
        let len = if salted { Self::LEN } else { Self::UNSALTED_LEN };
        let header = data.get(..len).ok_or(short)?;
        if u32_at(header, len - 4) != Some(crc32fast::hash(&header[..len - 4])) {
            return Err(HeaderError::Checksum);
        }
        let all = (u32_at(header, 8), u64_at(header, 12), u64_at(header, 20));
        let (Some(number), Some(last_seq), Some(reserved)) = all else { return Err(short) };
        let salt = if salted { Salt(u32_at(header, 28).ok_or(short)?) } else { Salt::NONE };
        Ok(Self { number, last_seq, reserved, salt })
    }
}

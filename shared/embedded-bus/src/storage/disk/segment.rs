//! The index of one segment file: where its messages lie, and how much of it is useless.
//!
//! Each message record in the file takes twelve bytes, whether the message is alive or dead. A dead message
//! remembers the segment with the record of its removal, because that record must stay for as long as the
//! message can be read anew.

use super::frame::Salt;

/// Set in `at` of a dead message. The other bits are then the segment with its removal; 0: none is needed.
const DEAD: u32 = 1 << 31;

/// Where a message is, or who removed it.
#[derive(Clone, Copy, Debug)]
struct Location {
    /// Its sequence, less that of the segment's first message.
    delta: u32,
    /// Its offset in the file, or [`DEAD`] and the segment with its removal.
    at: u32,
    /// Bytes of its record.
    len: u32,
}

/// Where the record of a message is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u32,
    pub(super) len: u32,
}

/// A message that is removed and still in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) seq: u64,
    /// The segment with the record of its removal; 0: none is needed.
    pub(super) by: u32,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    /// The beginning of the checksums in the file.
    pub(super) salt: Salt,
    /// Bytes of the file.
    pub(super) len: u64,
    base: u64,
    locations: Vec<Location>,
    alive: usize,
    /// Bytes of useless records.
    pub(super) waste: u64,
    /// Removals in this file that have to stay.
    tombstones: u64,
    /// The highest sequence of a message whose id the file may hold.
    newest_id: u64,
    /// Bytes of the records that hold only an id.
    ids: u64,
    /// When the dead messages have to be out of the file, by the clock of [`crate::storage::Log::on_tick`].
    pub(super) due: Option<u64>,
}

impl Segment {
    pub(super) fn new(number: u32, salt: Salt, len: u64) -> Self {
        Self {
            number,
            salt,
            len,
            base: 0,
            locations: Vec::new(),
            alive: 0,
            waste: 0,
            tombstones: 0,
            newest_id: 0,
            ids: 0,
            due: None,
        }
    }

    /// Returns the sequence of the first message, if the segment ever had one.
    pub(super) fn base(&self) -> Option<u64> {
        (!self.locations.is_empty()).then_some(self.base)
    }

    /// Whether a sequence is too far from the first one for the index.
    pub(super) fn is_too_far(&self, seq: u64) -> bool {
        !self.locations.is_empty() && seq - self.base > u64::from(u32::MAX)
    }

    /// Adds a message. Sequences grow.
    pub(super) fn add(&mut self, seq: u64, Span { at, len }: Span) {
        if self.locations.is_empty() {
            self.base = seq;
        }
        let delta = u32::try_from(seq - self.base).expect("asked for by is_too_far");
        self.locations.push(Location { delta, at, len });
        self.alive += 1;
        self.newest_id = self.newest_id.max(seq);
    }

    /// Adds the id of a removed message.
    pub(super) fn add_id(&mut self, seq: u64, len: u64) {
        self.newest_id = self.newest_id.max(seq);
        self.ids += len;
    }

    fn position(&self, seq: u64) -> Option<usize> {
        let delta = u32::try_from(seq.checked_sub(self.base)?).ok()?;
        self.locations.binary_search_by_key(&delta, |location| location.delta).ok()
    }

    /// Returns where a living message is.
    pub(super) fn find(&self, seq: u64) -> Option<Span> {
        let Location { at, len, .. } = self.locations[self.position(seq)?];
        (at & DEAD == 0).then_some(Span { at, len })
    }

    /// Marks a message as dead. `by` is the segment with its removal; 0: none is needed. Returns whether it
    /// was alive.
    pub(super) fn kill(&mut self, seq: u64, by: u32) -> bool {
        let Some(position) = self.position(seq) else { return false };
        let location = &mut self.locations[position];
        if location.at & DEAD != 0 {
            return false;
        }
        location.at = DEAD | by;
        self.alive -= 1;
        self.waste += u64::from(location.len);
        true
    }

    /// Sets the time when the dead have to be out of the file, if that is earlier than the current one.
    pub(super) fn clear_by(&mut self, when: u64) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// Whether the removal of a message by segment `by` has to stay.
    pub(super) fn is_killed_by(&self, seq: u64, by: u32) -> bool {
        self.position(seq).is_some_and(|position| self.locations[position].at == DEAD | by)
    }

    /// Counts removals in this file that have to stay.
    pub(super) fn add_tombstones(&mut self, count: u64) {
        self.tombstones += count;
    }

    /// Counts a removal in this file as useless: its message is in no file any more.
    pub(super) fn drop_tombstone(&mut self, bytes: u64) {
        self.tombstones = self.tombstones.saturating_sub(1);
        self.waste += bytes;
    }

    /// Whether the file may hold ids of messages from this sequence on.
    pub(super) fn may_hold_ids(&self, ids_from: u64) -> bool {
        self.newest_id >= ids_from
    }

    /// Whether the file is useless. Ids of messages from sequence `ids_from` on are needed.
    pub(super) fn is_useless(&self, ids_from: u64) -> bool {
        self.alive == 0 && self.tombstones == 0 && !self.may_hold_ids(ids_from)
    }

    /// Returns the bytes that a rewrite would give back. Ids of messages from sequence `ids_from` on have to
    /// stay.
    pub(super) fn reclaimable(&self, ids_from: u64) -> u64 {
        self.waste + if self.may_hold_ids(ids_from) { 0 } else { self.ids }
    }

    /// Returns the dead messages that are still in the file.
    pub(super) fn dead(&self) -> impl Iterator<Item = Dead> {
        self.locations
            .iter()
            .filter(|location| location.at & DEAD != 0)
            .map(|location| Dead { seq: self.base + u64::from(location.delta), by: location.at & !DEAD })
    }

    /// Returns where the living messages are, in the order of their sequences.
    pub(super) fn living(&self) -> impl Iterator<Item = Span> {
        self.locations
            .iter()
            .filter(|location| location.at & DEAD == 0)
            .map(|location| Span { at: location.at, len: location.len })
    }

    /// Returns the number of living messages.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// Gives back memory that growing took too much.
    pub(super) fn shrink(&mut self) {
        self.locations.shrink_to_fit();
    }
}

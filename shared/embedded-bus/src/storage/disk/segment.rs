//! What is known of one segment file: where its messages lie, and what of it is of no use any more.
//!
//! Twelve bytes for each record of a message that is in the file, whether it is still alive or not: a dead one remembers
//! which segment holds the record of its removal, because that must stay for as long as the message can be read anew.

use super::frame::Salt;

/// Set in a place: the message is gone. The rest is then the number of the segment that says so, 0 if none has to.
const DEAD: u32 = 1 << 31;

/// Where a message is.
#[derive(Clone, Copy, Debug)]
struct Location {
    /// Its sequence, less that of the segment's first message.
    delta: u32,
    /// Its offset in the file, or who says that it is dead.
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

/// A message that is gone and still in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) seq: u64,
    /// The segment that holds the record of its removal; 0: none has to.
    pub(super) by: u32,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    /// What the checksums in the file begin with.
    pub(super) salt: Salt,
    /// Bytes of the file.
    pub(super) len: u64,
    base: u64,
    locations: Vec<Location>,
    alive: usize,
    /// Bytes of records that nobody needs.
    pub(super) waste: u64,
    /// Removals in this file that have to stay.
    tombstones: u64,
    /// The highest sequence of a message whose id the file may hold.
    newest_id: u64,
    /// Bytes of the records that keep no more than an id.
    ids: u64,
    /// When what is dead has to be out of the file at the latest, by the clock of [`crate::storage::Log::on_tick`].
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

    /// The sequence of its first message, if a message ever was in it.
    pub(super) fn base(&self) -> Option<u64> {
        (!self.locations.is_empty()).then_some(self.base)
    }

    /// Whether a sequence is too far from the first to be remembered here.
    pub(super) fn is_too_far(&self, seq: u64) -> bool {
        !self.locations.is_empty() && seq - self.base > u64::from(u32::MAX)
    }

    /// A message is here. Sequences grow.
    pub(super) fn add(&mut self, seq: u64, Span { at, len }: Span) {
        if self.locations.is_empty() {
            self.base = seq;
        }
        let delta = u32::try_from(seq - self.base).expect("asked for by is_too_far");
        self.locations.push(Location { delta, at, len });
        self.alive += 1;
        self.newest_id = self.newest_id.max(seq);
    }

    /// The id of a message that has left is here, and no more of it.
    pub(super) fn add_id(&mut self, seq: u64, len: u64) {
        self.newest_id = self.newest_id.max(seq);
        self.ids += len;
    }

    fn position(&self, seq: u64) -> Option<usize> {
        let delta = u32::try_from(seq.checked_sub(self.base)?).ok()?;
        self.locations.binary_search_by_key(&delta, |location| location.delta).ok()
    }

    /// Where a message is that is alive.
    pub(super) fn find(&self, seq: u64) -> Option<Span> {
        let Location { at, len, .. } = self.locations[self.position(seq)?];
        (at & DEAD == 0).then_some(Span { at, len })
    }

    /// A message is gone; `by` is the segment that says so, 0: none has to. Whether it was alive.
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

    /// What is dead has to be out of the file by then, if not earlier.
    pub(super) fn clear_by(&mut self, when: u64) {
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    /// Whether the removal of a message by segment `by` has to stay.
    pub(super) fn is_killed_by(&self, seq: u64, by: u32) -> bool {
        self.position(seq).is_some_and(|position| self.locations[position].at == DEAD | by)
    }

    /// Removals in this file have to stay.
    pub(super) fn add_tombstones(&mut self, count: u64) {
        self.tombstones += count;
    }

    /// A removal in this file is of no use any more: what it removed is not in any file.
    pub(super) fn drop_tombstone(&mut self, bytes: u64) {
        self.tombstones = self.tombstones.saturating_sub(1);
        self.waste += bytes;
    }

    /// Whether the file may hold ids of messages from this sequence on.
    pub(super) fn may_hold_ids(&self, ids_from: u64) -> bool {
        self.newest_id >= ids_from
    }

    /// Whether nothing in this file is of any use. Ids of messages from sequence `ids_from` on are.
    pub(super) fn is_useless(&self, ids_from: u64) -> bool {
        self.alive == 0 && self.tombstones == 0 && !self.may_hold_ids(ids_from)
    }

    /// Bytes that rewriting the file would give back. Ids of messages from sequence `ids_from` on have to stay.
    pub(super) fn reclaimable(&self, ids_from: u64) -> u64 {
        self.waste + if self.may_hold_ids(ids_from) { 0 } else { self.ids }
    }

    /// The dead messages that are still in the file.
    pub(super) fn dead(&self) -> impl Iterator<Item = Dead> {
        self.locations
            .iter()
            .filter(|location| location.at & DEAD != 0)
            .map(|location| Dead { seq: self.base + u64::from(location.delta), by: location.at & !DEAD })
    }

    /// Where the messages are that are alive, in the order of their sequences.
    pub(super) fn living(&self) -> impl Iterator<Item = Span> {
        self.locations
            .iter()
            .filter(|location| location.at & DEAD == 0)
            .map(|location| Span { at: location.at, len: location.len })
    }

    /// How many messages are alive.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// Gives back what growing took too much.
    pub(super) fn shrink(&mut self) {
        self.locations.shrink_to_fit();
    }
}

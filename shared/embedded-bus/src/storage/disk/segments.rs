//! All segments of a log, found by their number and by the sequences in them.

use std::collections::BTreeMap;

use super::frame;
use super::segment::{Segment, Span};

/// A message and its file: segments with higher numbers hold higher sequences.
#[derive(Debug, Default)]
pub(super) struct Segments {
    all: BTreeMap<u32, Segment>,
    /// Their numbers by the sequence of their first message. Those without a message are not in it.
    bases: BTreeMap<u64, u32>,
}

impl Segments {
    /// Takes a segment in, in place of one with the same number, which is given back.
    pub(super) fn insert(&mut self, segment: Segment) -> Option<Segment> {
        let old = self.remove(segment.number);
        if let Some(base) = segment.base() {
            self.bases.insert(base, segment.number);
        }
        self.all.insert(segment.number, segment);
        old
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, number: u32) -> Option<Segment> {
        let old = self.all.remove(&number)?;
        if let Some(base) = old.base() {
            self.bases.remove(&base);
        }
        Some(old)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Segment> {
        self.all.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Segment> {
        self.all.get_mut(&number)
    }

    /// In the order of their numbers.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.all.values()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The newest one's number.
    pub(super) fn last(&self) -> Option<u32> {
        self.all.keys().next_back().copied()
    }

    /// A message is in this segment.
    pub(super) fn add(&mut self, number: u32, seq: u64, span: Span) {
        let Some(segment) = self.all.get_mut(&number) else { return };
        if segment.base().is_none() {
            self.bases.insert(seq, number);
        }
        segment.add(seq, span);
    }

    /// The segment that a message would be in.
    pub(super) fn holder(&self, seq: u64) -> Option<u32> {
        self.bases.range(..=seq).next_back().map(|(_, number)| *number)
    }

    /// The same, to change it.
    pub(super) fn holder_mut(&mut self, seq: u64) -> Option<&mut Segment> {
        let number = self.holder(seq)?;
        self.all.get_mut(&number)
    }

    /// Marks a message as removed by segment `by`. Its text has to be out of its file at `clear_by`, if that is said.
    pub(super) fn remove_message(&mut self, seq: u64, by: u32, clear_by: Option<u64>) {
        let killed = self.holder_mut(seq).is_some_and(|segment| {
            let killed = segment.kill(seq, by);
            if let Some(when) = clear_by.filter(|_| killed) {
                segment.clear_by(when);
            }
            killed
        });
        let Some(by) = self.all.get_mut(&by) else { return };
        if killed {
            by.add_tombstones(1);
        } else {
            by.waste += frame::TOMBSTONE;
        }
    }
}

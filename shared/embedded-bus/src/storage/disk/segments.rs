//! All segments of a log, by number and by sequence.

use std::collections::BTreeMap;

use super::frame;
use super::segment::{Segment, Span};

/// The segments. Higher numbers hold higher sequences.
#[derive(Debug, Default)]
pub(super) struct Segments {
    all: BTreeMap<u32, Segment>,
    /// Numbers of the segments by the sequence of their first message. Segments without a message are not in
    /// it.
    bases: BTreeMap<u64, u32>,
}

impl Segments {
    /// Adds a segment. Returns the segment of the same number that it replaces.
    pub(super) fn insert(&mut self, segment: Segment) -> Option<Segment> {
        let old = self.remove(segment.number);
        if let Some(base) = segment.base() {
            self.bases.insert(base, segment.number);
        }
        self.all.insert(segment.number, segment);
        old
    }

    /// Removes a segment.
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

    /// Returns the segments in the order of their numbers.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.all.values()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the number of the newest segment.
    pub(super) fn last(&self) -> Option<u32> {
        self.all.keys().next_back().copied()
    }

    /// Adds a message to a segment.
    pub(super) fn add(&mut self, number: u32, seq: u64, span: Span) {
        let Some(segment) = self.all.get_mut(&number) else { return };
        if segment.base().is_none() {
            self.bases.insert(seq, number);
        }
        segment.add(seq, span);
    }

    /// Returns the number of the segment that would hold a message.
    pub(super) fn holder(&self, seq: u64) -> Option<u32> {
        self.bases.range(..=seq).next_back().map(|(_, number)| *number)
    }

    /// Returns the segment that would hold a message.
    pub(super) fn holder_mut(&mut self, seq: u64) -> Option<&mut Segment> {
        let number = self.holder(seq)?;
        self.all.get_mut(&number)
    }

    /// Marks a message as removed by segment `by`. `clear_by` is when its text has to be out of its file.
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

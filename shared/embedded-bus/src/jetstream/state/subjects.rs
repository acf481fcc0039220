//! The sequences of each subject of a stream. The name of a subject is stored once, however many messages it
//! has.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::subject;

/// A choice of subjects: one, those of a pattern, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter<'a> {
    All,
    One(&'a [u8]),
    Pattern(&'a [u8]),
}

impl<'a> Filter<'a> {
    /// Reads the text of a request; an empty text means all.
    pub(crate) fn new(text: &'a str) -> Self {
        Self::of(text.as_bytes())
    }

    /// Reads a subject or a pattern as bytes.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        match bytes {
            b"" | b">" => Self::All,
            pattern if subject::has_wildcard(pattern) => Self::Pattern(pattern),
            one => Self::One(one),
        }
    }

    fn matches(self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == name,
            Self::Pattern(pattern) => subject::matches(pattern, name),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: Arc<[u8]>,
    /// In order; empty only in a free slot.
    pub(crate) seqs: VecDeque<u64>,
}

/// The subjects of one stream.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    slots: Vec<Subject>,
    free: Vec<u32>,
    by_name: HashMap<Arc<[u8]>, u32>,
    /// Bytes of the names.
    name_bytes: usize,
}

impl Subjects {
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns the bytes of all names.
    pub(crate) fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Subject> {
        self.by_name.get(name).map(|slot| &self.slots[*slot as usize])
    }

    pub(crate) fn at(&self, slot: u32) -> &Subject {
        &self.slots[slot as usize]
    }

    /// Adds a message behind all others of its subject. Returns the slot of the subject.
    pub(crate) fn push(&mut self, name: &[u8], seq: u64) -> u32 {
        if let Some(slot) = self.by_name.get(name) {
            self.slots[*slot as usize].seqs.push_back(seq);
            return *slot;
        }
        self.name_bytes += name.len();
        let name: Arc<[u8]> = name.into();
        // Most subjects have few messages.
        let mut seqs = VecDeque::with_capacity(2);
        seqs.push_back(seq);
        let subject = Subject { name: Arc::clone(&name), seqs };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = subject;
                slot
            }
            None => {
                self.slots.push(subject);
                u32::try_from(self.slots.len() - 1).expect("memory ends before four billion subjects")
            }
        };
        self.by_name.insert(name, slot);
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32, seq: u64) {
        let subject = &mut self.slots[slot as usize];
        if subject.seqs.front() == Some(&seq) {
            subject.seqs.pop_front();
        } else if let Ok(index) = subject.seqs.binary_search(&seq) {
            subject.seqs.remove(index);
        }
        if subject.seqs.is_empty() {
            self.by_name.remove(&subject.name);
            self.name_bytes -= subject.name.len();
            *subject = Subject { name: (&[][..]).into(), seqs: VecDeque::new() };
            self.free.push(slot);
            if self.by_name.len() < self.by_name.capacity() / 8 {
                self.by_name.shrink_to_fit();
            }
        } else if subject.seqs.capacity() > 8 && subject.seqs.len() < subject.seqs.capacity() / 4 {
            subject.seqs.shrink_to(subject.seqs.len() * 2);
        }
    }

    /// Returns the subjects that a filter matches, in no order.
    pub(crate) fn matching<'a>(&'a self, filter: Filter<'a>) -> Box<dyn Iterator<Item = &'a Subject> + 'a> {
        match filter {
            Filter::One(name) => Box::new(self.get(name).into_iter()),
            Filter::All | Filter::Pattern(_) => {
                let live = self.slots.iter().filter(|subject| !subject.seqs.is_empty());
                Box::new(live.filter(move |subject| filter.matches(&subject.name)))
            }
        }
    }
}

impl Subject {
    /// Returns the first sequence of the subject that is not below `from`.
    pub(crate) fn next(&self, from: u64) -> Option<u64> {
        self.seqs.get(self.below(from)).copied()
    }

    /// Returns the last sequence of the subject that is not above `to`.
    pub(crate) fn last_up_to(&self, to: u64) -> Option<u64> {
        match self.seqs.back() {
            Some(last) if *last <= to => Some(*last),
            Some(_) | None => self.seqs.get(self.below(to.saturating_add(1)).checked_sub(1)?).copied(),
        }
    }

    /// Counts the sequences of the subject below `seq`.
    pub(crate) fn below(&self, seq: u64) -> usize {
        self.seqs.partition_point(|own| *own < seq)
    }
}

//! The state of a stream: its messages by sequence and by subject, its limits and its duplicate window. The
//! state is pure: it has no payloads, no disk and no clock.
//!
//! Invariants after every call: no limit is exceeded, sequences only grow, and the views by sequence and by
//! subject name the same messages. Limits apply in nats-server's order: per subject, then messages, then
//! bytes. Calls return the messages that left, and the caller tells the log.
//!
//! Times are those of the streams' clock, and never fall in the order of sequences.

mod messages;
mod subjects;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;

use super::config::{Discard, StreamConfig};
use super::error::ApiError;
use super::memory::MemoryCounts;
use messages::Messages;
pub(crate) use messages::Meta;
pub(crate) use subjects::Filter;
use subjects::Subjects;
use window::Window;

/// Messages to look at one by one before a search goes over to subjects.
const NEAR: usize = 1024;

/// The limits of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) messages: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) per_subject: Option<u64>,
    /// Nanoseconds.
    pub(crate) age: Option<u64>,
    /// Whether a new message is refused at a limit, instead of pushing out the oldest.
    pub(crate) refuse: bool,
    /// Whether `refuse` applies to the limit per subject too.
    pub(crate) refuse_per_subject: bool,
    /// Nanoseconds.
    pub(crate) window: u64,
}

impl Limits {
    pub(crate) fn of(config: &StreamConfig) -> Self {
        Self {
            messages: StreamConfig::limit(config.max_msgs),
            bytes: StreamConfig::limit(config.max_bytes),
            per_subject: StreamConfig::limit(config.max_msgs_per_subject),
            age: StreamConfig::limit(config.max_age),
            refuse: config.discard == Discard::New,
            refuse_per_subject: config.discard_new_per_subject,
            window: config.duplicate_window.unsigned_abs(),
        }
    }
}

/// The result of appending a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) seq: u64,
    /// The sequence before it of its subject; 0: none.
    pub(crate) previous: u64,
    /// The messages that it pushed out, possibly itself.
    pub(crate) evicted: Vec<u64>,
}

/// The message that was stored last. It may have been removed since.
#[derive(Debug)]
pub(crate) struct LastStored {
    pub(crate) seq: u64,
    pub(crate) time: u64,
    pub(crate) id: Option<Box<[u8]>>,
}

/// The extent of a purge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purge<'a> {
    pub(crate) filter: Filter<'a>,
    /// Only messages below this sequence.
    pub(crate) before: Option<u64>,
    /// Messages of the filter that have to be left.
    pub(crate) keep: u64,
}

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    limits: Limits,
    messages: Messages,
    subjects: Subjects,
    window: Window,
    bytes: u64,
    last_seq: u64,
    last_time: u64,
    last_id: Option<Box<[u8]>>,
}

impl StreamState {
    /// Returns an empty state. The first message gets the sequence after `last_seq`.
    pub(crate) fn new(limits: Limits, last_seq: u64) -> Self {
        Self {
            window: Window::new(limits.window),
            limits,
            messages: Messages::default(),
            subjects: Subjects::default(),
            bytes: 0,
            last_seq,
            last_time: 0,
            last_id: None,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn subject_count(&self) -> usize {
        self.subjects.len()
    }

    pub(crate) fn ids_in_window(&self) -> usize {
        self.window.len()
    }

    /// Returns the sequence of the oldest message whose id is in the window; `u64::MAX`: there is none.
    pub(crate) fn first_seq_in_window(&mut self, now: u64) -> u64 {
        self.window.expire(now);
        self.window.first_seq().unwrap_or(u64::MAX)
    }

    /// Returns the numbers from which the memory is estimated.
    pub(crate) fn memory(&self) -> MemoryCounts {
        MemoryCounts {
            messages: self.len(),
            subjects: self.subjects.len() as u64,
            names: self.subjects.name_bytes() as u64,
            ids: self.window.len() as u64,
            id_bytes: self.window.id_bytes() as u64,
        }
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Returns when the last message was stored, even if that message is gone; 0: there never was a message.
    pub(crate) fn last_time(&self) -> u64 {
        self.last_time
    }

    /// Returns the id of the message that was stored last, if it had one.
    pub(crate) fn last_id(&self) -> Option<&[u8]> {
        self.last_id.as_deref()
    }

    /// Returns the first message.
    pub(crate) fn first(&self) -> Option<Meta> {
        self.messages.first()
    }

    /// Returns the first sequence that has a message, or will have one.
    pub(crate) fn first_seq(&self) -> u64 {
        match self.messages.first() {
            Some(first) => first.seq,
            None if self.last_seq == 0 => 0,
            None => self.last_seq + 1,
        }
    }

    /// Returns the sequence that was stored with this message id within the window.
    pub(crate) fn duplicate(&mut self, id: &[u8], now: u64) -> Option<u64> {
        self.window.get(id, now)
    }

    /// Checks whether a stream that refuses new messages has space for a message. `rolls_up`: the message
    /// replaces the others of its subject.
    pub(crate) fn admit(&self, subject: &[u8], size: u64, rolls_up: bool) -> Result<(), ApiError> {
        if !self.limits.refuse {
            return Ok(());
        }
        let own = self.subjects.get(subject);
        let replaces =
            own.zip(self.limits.per_subject).filter(|(own, limit)| own.seqs.len() as u64 >= *limit);
        if replaces.is_some() && self.limits.refuse_per_subject && !rolls_up {
            return Err(ApiError::store_failed("maximum messages per subject exceeded"));
        }
        let replaced = replaces.and_then(|(own, _)| self.messages.get(*own.seqs.front()?));
        if self.limits.messages.is_some_and(|limit| self.len() >= limit) && replaced.is_none() {
            return Err(ApiError::max_messages());
        }
        if self.limits.bytes.is_some_and(|limit| self.bytes + size > limit)
            && replaced.is_none_or(|replaced| u64::from(replaced.size) < size)
        {
            return Err(ApiError::max_bytes());
        }
        Ok(())
    }

    /// Returns the bytes of all messages of a subject.
    pub(crate) fn bytes_of(&self, subject: &[u8]) -> u64 {
        let own = self.subjects.get(subject).into_iter().flat_map(|own| &own.seqs);
        own.filter_map(|seq| self.messages.get(*seq)).map(|message| u64::from(message.size)).sum()
    }

    /// Adds a message with the next sequence.
    pub(crate) fn append(&mut self, time: u64, subject: &[u8], size: u64, id: Option<&[u8]>) -> Appended {
        let (seq, time) = (self.last_seq + 1, time.max(self.last_time));
        self.last_id = id.map(Into::into);
        if let Some(id) = id {
            self.window.insert(id, seq, time);
        }
        self.restore(seq, time, subject, size)
    }

    /// Adds a stored message with a sequence above all others. The same limits leave the same messages.
    /// Earlier messages are made no younger than this one: the clock was ahead when they were stored.
    pub(crate) fn restore(&mut self, seq: u64, time: u64, subject: &[u8], size: u64) -> Appended {
        let previous = self.subjects.get(subject).and_then(|own| own.seqs.back().copied()).unwrap_or(0);
        let slot = self.subjects.push(subject, seq);
        let size = u32::try_from(size).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
        self.messages.cap(time);
        self.messages.push(Meta { seq, time, subject: slot, size });
        self.bytes += u64::from(size);
        self.last_seq = seq;
        self.last_time = time;
        let mut evicted = Vec::new();
        if let Some(limit) = self.limits.per_subject {
            self.trim_subject(slot, limit, &mut evicted);
        }
        self.trim(&mut evicted);
        Appended { seq, previous, evicted }
    }

    /// Notes in the order of sequences that a message was stored, which may be gone. Ids too old `now` are
    /// not remembered.
    pub(crate) fn remember(&mut self, id: Option<&[u8]>, seq: u64, time: u64, now: u64) {
        self.window.cap(time);
        self.window.expire(now);
        if let Some(id) = id.filter(|_| time.saturating_add(self.limits.window) > now) {
            self.window.insert(id, seq, time);
        }
    }

    /// Gives no new message a sequence up to `last_seq`. `last` is the message that was stored last.
    pub(crate) fn go_on_after(&mut self, last_seq: u64, last: Option<LastStored>) {
        if let Some(last) = last.filter(|last| last.seq >= self.last_seq) {
            self.messages.cap(last.time);
            (self.last_time, self.last_id) = (last.time, last.id);
        }
        self.last_seq = self.last_seq.max(last_seq);
    }

    /// Caps times: no message counts as stored later than now.
    pub(crate) fn cap_times(&mut self, now: u64) {
        self.messages.cap(now);
        self.window.cap(now);
        self.last_time = self.last_time.min(now);
    }

    /// Changes the limits. Returns the messages that had to go.
    pub(crate) fn set_limits(&mut self, limits: Limits) -> Vec<u64> {
        self.limits = limits;
        self.window.set_span(limits.window);
        let mut evicted = Vec::new();
        if let Some(limit) = limits.per_subject {
            let all = self.subjects.matching(Filter::All);
            let over = all.filter(|own| own.seqs.len() as u64 > limit);
            let over: Vec<u64> =
                over.flat_map(|own| own.seqs.iter().take(own.seqs.len() - limit as usize).copied()).collect();
            for seq in over {
                self.take(seq, &mut evicted);
            }
        }
        self.trim(&mut evicted);
        evicted
    }

    /// Removes expired messages and ids. Returns the messages.
    pub(crate) fn expire(&mut self, now: u64) -> Vec<u64> {
        self.window.expire(now);
        let mut evicted = Vec::new();
        if let Some(age) = self.limits.age {
            while let Some(first) = self.messages.first()
                && first.time.saturating_add(age) <= now
            {
                self.take(first.seq, &mut evicted);
            }
        }
        evicted
    }

    /// Removes one message. Returns false if it is not there.
    pub(crate) fn remove(&mut self, seq: u64) -> bool {
        self.take(seq, &mut Vec::new())
    }

    /// Removes the messages of a purge, and returns them.
    pub(crate) fn purge(&mut self, purge: Purge<'_>) -> Vec<u64> {
        let mut named: Vec<u64> = match purge.filter {
            Filter::All => self.messages.from(0).map(|meta| meta.seq).collect(),
            Filter::One(_) | Filter::Pattern(_) => {
                self.subjects.matching(purge.filter).flat_map(|own| own.seqs.iter().copied()).collect()
            }
        };
        named.sort_unstable();
        if let Some(before) = purge.before {
            named.truncate(named.partition_point(|seq| *seq < before));
        }
        named.truncate(named.len().saturating_sub(usize::try_from(purge.keep).unwrap_or(usize::MAX)));
        let mut removed = Vec::with_capacity(named.len());
        for seq in named {
            self.take(seq, &mut removed);
        }
        removed
    }

    pub(crate) fn get(&self, seq: u64) -> Option<Meta> {
        self.messages.get(seq)
    }

    /// Returns the last message that a filter matches.
    pub(crate) fn last_of(&self, filter: Filter<'_>) -> Option<u64> {
        match filter {
            Filter::All => self.messages.last().map(|meta| meta.seq),
            Filter::One(_) | Filter::Pattern(_) => {
                self.subjects.matching(filter).filter_map(|own| own.seqs.back().copied()).max()
            }
        }
    }

    /// Returns the first message from a sequence on that a filter matches.
    pub(crate) fn next_of(&self, filter: Filter<'_>, from: u64) -> Option<u64> {
        match filter {
            Filter::All => self.messages.from(from).next().map(|meta| meta.seq),
            Filter::One(name) => self.subjects.get(name)?.next(from),
            Filter::Pattern(pattern) => {
                let matches =
                    |meta: &Meta| crate::subject::matches(pattern, &self.subjects.at(meta.subject).name);
                // If many messages match, one is near. Otherwise there are fewer subjects than messages to
                // look at.
                let near = self.messages.from(from).take(NEAR).find(matches).map(|meta| meta.seq);
                near.or_else(|| self.subjects.matching(filter).filter_map(|own| own.next(from)).min())
            }
        }
    }

    /// Counts the messages from a sequence on that a filter matches.
    pub(crate) fn count_from(&self, filter: Filter<'_>, from: u64) -> u64 {
        match filter {
            Filter::All => self.messages.count_from(from),
            Filter::One(_) | Filter::Pattern(_) => {
                self.subjects.matching(filter).map(|own| (own.seqs.len() - own.below(from)) as u64).sum()
            }
        }
    }

    /// Returns, in order, the last message up to a sequence of each matching subject; `None`: there are more
    /// than `most`.
    pub(crate) fn last_of_each(&self, filters: &[Filter<'_>], up_to: u64, most: usize) -> Option<Vec<u64>> {
        let mut found = std::collections::BTreeSet::new();
        for filter in filters {
            for own in self.subjects.matching(*filter) {
                found.extend(own.last_up_to(up_to));
                if found.len() > most {
                    return None;
                }
            }
        }
        Some(found.into_iter().collect())
    }

    /// Returns the first message that was stored at this time or later.
    pub(crate) fn first_at(&self, time: u64) -> Option<u64> {
        self.messages.first_at(time)
    }

    /// Counts the messages of each matching subject.
    pub(crate) fn counts(&self, filter: Filter<'_>) -> BTreeMap<String, u64> {
        let matching = self.subjects.matching(filter);
        matching.map(|own| (String::from_utf8_lossy(&own.name).into_owned(), own.seqs.len() as u64)).collect()
    }

    /// Counts the sequences between the first and the last message that have no message.
    pub(crate) fn deleted_count(&self) -> u64 {
        let first = self.first_seq();
        if self.messages.len() == 0 { 0 } else { self.last_seq - first + 1 - self.len() }
    }

    /// Returns the sequences between the first and the last message that have no message, `most` at most.
    pub(crate) fn deleted(&self, most: usize) -> Vec<u64> {
        if self.messages.len() == 0 {
            return Vec::new();
        }
        let (mut gone, mut expected) = (Vec::new(), self.first_seq());
        let ends = self.messages.from(0).map(|meta| meta.seq).chain([self.last_seq + 1]);
        for seq in ends {
            let room = most - gone.len();
            gone.extend((expected..seq).take(room));
            expected = seq + 1;
            if gone.len() == most {
                break;
            }
        }
        gone
    }

    fn trim_subject(&mut self, slot: u32, limit: u64, evicted: &mut Vec<u64>) {
        while let Some(first) = self.subjects.at(slot).seqs.front().copied()
            && self.subjects.at(slot).seqs.len() as u64 > limit
        {
            self.take(first, evicted);
        }
    }

    /// Removes the oldest messages beyond the limits of messages and bytes.
    fn trim(&mut self, evicted: &mut Vec<u64>) {
        let over = |state: &Self| {
            state.limits.messages.is_some_and(|limit| state.len() > limit)
                || state.limits.bytes.is_some_and(|limit| state.bytes > limit)
        };
        while over(self)
            && let Some(first) = self.messages.first()
        {
            self.take(first.seq, evicted);
        }
    }

    fn take(&mut self, seq: u64, taken: &mut Vec<u64>) -> bool {
        let Some(meta) = self.messages.remove(seq) else { return false };
        self.subjects.remove(meta.subject, seq);
        self.bytes -= u64::from(meta.size);
        taken.push(seq);
        true
    }
}

//! Channels with history: live copies, fetches, and cursors.
//!
//! Everything that decides who gets a message happens under the lock of the channel's shard: handling it,
//! beginning to follow, ending a fetch. So a session joins between two messages, never during one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::history::{End, Epoch, Position};
use shared::ids::Channel;
use shared::wire::Counts;
use tokio::time::Instant;

use super::Hub;
use super::guards::Fetching;
use crate::channel::cursor::{Missing, Step};
use crate::channel::recoverable::NotWhole;
use crate::channel::{Arrival, LiveCopy, Seen};

/// The outcome of a live copy of a stored message.
#[derive(Debug)]
pub(crate) struct Handled {
    /// Delivered, or why not.
    pub(crate) step: Step,
    /// How many sessions got the message, if it was delivered.
    pub(crate) counts: Counts,
    /// The fetch that must come first, if something is missing.
    pub(crate) fetching: Option<Fetching>,
}

impl Hub {
    /// Takes a live copy: delivers it, or begins a fetch, or neither.
    pub(crate) fn on_live(self: &Arc<Self>, channel: &str, copy: &LiveCopy<'_>, now: Instant) -> Handled {
        let mut channels = self.channels.of(channel);
        let Some(state) = channels.get_mut(channel) else {
            return Handled { step: Step::Deliver, counts: Counts::default(), fetching: None };
        };
        let (step, counts) = state.on_live(copy, &self.memory, now);
        let mut fetching = None;
        match step {
            Step::Deliver => self.progressed(),
            Step::Fetch => {
                fetching = Channel::parse(channel).ok().map(|channel| self.fetching(&channel, state));
            }
            Step::Ignore => {}
        }
        Handled { step, counts, fetching }
    }

    /// Takes a missing message that was read from the store. None: the message was handled already.
    pub(crate) fn on_fetched(
        &self,
        channel: &Channel,
        epoch: Epoch,
        arrival: &Arrival<'_>,
        now: Instant,
    ) -> Option<Counts> {
        let mut channels = self.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str())?;
        let counts = state.on_fetched(epoch, arrival, &self.memory, now);
        self.progressed();
        counts
    }

    /// Returns what a fetch looks for. None: the fetch is over.
    pub(crate) fn missing(&self, fetching: &Fetching) -> Option<Missing> {
        let channel = fetching.channel().as_str();
        self.channels.of(channel).get(channel)?.cursor.missing(fetching.number())
    }

    /// Ends a fetch of something that the stream does not have. Tails must be compared then.
    pub(crate) fn give_back(&self, fetching: &Fetching) {
        let channel = fetching.channel().as_str();
        if let Some(state) = self.channels.of(channel).get_mut(channel) {
            state.cursor.give_back(fetching.number());
        }
        self.progressed();
    }

    /// Takes over the gaps of channels that are `wanted`, where no fetch runs.
    pub(crate) fn abandoned(self: &Arc<Self>, wanted: impl Fn(&Channel) -> bool) -> Vec<Fetching> {
        let mut abandoned = Vec::new();
        for shard in self.channels.all() {
            let some = shard.iter().filter(|(channel, state)| {
                state.has_history && state.cursor.is_abandoned() && wanted(channel)
            });
            abandoned.extend(some.map(|(channel, _)| channel.clone()));
        }
        abandoned.iter().filter_map(|channel| self.want(channel, 0)).collect()
    }

    /// Ends a fetch if nothing is missing any more, and tells whether.
    pub(crate) fn settle(&self, channel: &Channel) -> bool {
        let mut channels = self.channels.of(channel.as_str());
        let settled = channels.get_mut(channel.as_str()).is_none_or(|state| state.cursor.settle());
        self.progressed();
        settled
    }

    /// Takes the store's answer where the channel ends, and how far the store has come itself. True: nothing
    /// is missing any more.
    pub(crate) fn on_tail(&self, channel: &Channel, asked_up_to: u64, end: &End) -> bool {
        let End { epoch, tail, come } = *end;
        let mut channels = self.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str());
        let settled = state.is_none_or(|state| state.cursor.on_tail(epoch, asked_up_to, tail, come));
        self.progressed();
        settled
    }

    /// Gives up what is missing: goes on behind `tail`, and tells all followers. Returns how many were told.
    pub(crate) fn skip(&self, channel: &Channel, tail: u64, why: NotWhole, now: Instant) -> u64 {
        let mut channels = self.channels.of(channel.as_str());
        let Some(state) = channels.get_mut(channel.as_str()) else { return 0 };
        let followers = state.skip(tail, why, &self.memory, now);
        self.progressed();
        followers
    }

    /// Opens the cursor of a channel at the tail that the store named. Some: the fetch of what came since.
    pub(crate) fn open_cursor(
        self: &Arc<Self>,
        channel: &Channel,
        epoch: Epoch,
        tail: u64,
        now: Instant,
    ) -> Option<Fetching> {
        let mut channels = self.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str())?;
        let begins = state.open(epoch, tail, &self.memory, now);
        self.progressed();
        begins.then(|| self.fetching(channel, state))
    }

    /// Notes that this sequence of a channel is said to exist by a source that must know. Some: the fetch of
    /// it.
    pub(crate) fn want(self: &Arc<Self>, channel: &Channel, seq: u64) -> Option<Fetching> {
        let mut channels = self.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str())?;
        state.cursor.want(seq).then(|| self.fetching(channel, state))
    }

    /// Returns whether everything up to this sequence was handled in this epoch.
    pub(crate) fn has_come_to(&self, channel: &Channel, epoch: Epoch, seq: u64) -> bool {
        let channels = self.channels.of(channel.as_str());
        channels
            .get(channel.as_str())
            .is_some_and(|state| state.cursor.epoch() == Some(epoch) && state.cursor.last() >= seq)
    }

    /// Returns what is known here of a stored message. `None` for `epoch`: the epoch of the channel here.
    pub(crate) fn seen(&self, channel: &Channel, epoch: Option<Epoch>, seq: u64) -> Seen {
        let channels = self.channels.of(channel.as_str());
        channels.get(channel.as_str()).map_or(Seen::Nobody, |state| state.seen(epoch, seq))
    }

    /// Returns the channels with history that are `wanted`: judged by the channel and the epoch of its
    /// cursor, if the cursor is open.
    pub(crate) fn with_history(&self, wanted: impl Fn(&Channel, Option<Epoch>) -> bool) -> Vec<Channel> {
        let mut found = Vec::new();
        for shard in self.channels.all() {
            let some = shard.iter();
            let some =
                some.filter(|(channel, state)| state.has_history && wanted(channel, state.cursor.epoch()));
            found.extend(some.map(|(channel, _)| channel.clone()));
        }
        found
    }

    /// Returns the channels for which `wanted` holds and whose followers learned no position since `before`.
    pub(crate) fn quiet(&self, before: Instant, wanted: impl Fn(&Channel) -> bool) -> Vec<Channel> {
        let mut quiet = Vec::new();
        for shard in self.channels.all() {
            let some = shard.iter().filter(|(channel, state)| state.is_quiet(before) && wanted(channel));
            quiet.extend(some.map(|(channel, _)| channel.clone()));
        }
        quiet
    }

    /// Returns the epoch of a channel's cursor. None: the cursor is not open.
    pub(crate) fn epoch_of(&self, channel: &Channel) -> Option<Epoch> {
        self.channels.of(channel.as_str()).get(channel.as_str())?.cursor.epoch()
    }

    /// Passes over a stored message that can't be read, so no session gets it.
    pub(crate) fn pass(&self, channel: &Channel, epoch: Epoch, seq: u64) {
        if let Some(state) = self.channels.of(channel.as_str()).get_mut(channel.as_str()) {
            state.cursor.on_fetched(epoch, seq);
        }
    }

    /// Forgets a channel's cursor, since its stream has another epoch now.
    pub(crate) fn forget_cursor(&self, channel: &Channel) {
        if let Some(state) = self.channels.of(channel.as_str()).get_mut(channel.as_str()) {
            state.cursor.forget();
        }
    }

    /// Tells followers that learned no position since `before` how far they have come. `covered`: everything
    /// of the partition up to there was handled. Returns how many were told.
    pub(crate) fn tell_position(
        &self,
        channel: &Channel,
        covered: Position,
        before: Instant,
        now: Instant,
    ) -> u64 {
        let mut channels = self.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str());
        state.map_or(0, |state| state.tell_position(covered, before, &self.memory, now))
    }

    /// Wakes everybody who waits for a cursor.
    pub(crate) fn progressed(&self) {
        self.progress.notify_waiters();
    }

    /// Waits until `found` finds something, and asks it again whenever a cursor has moved on.
    pub(crate) async fn when<T>(&self, mut found: impl FnMut() -> Option<T>) -> T {
        loop {
            let moved = self.progress.notified();
            tokio::pin!(moved);
            // From here on no progress is missed.
            moved.as_mut().enable();
            if let Some(found) = found() {
                return found;
            }
            moved.await;
        }
    }

    /// Returns how many sessions receive messages with ids, and how many replays are in progress.
    pub(crate) fn following_and_replaying(&self) -> (usize, usize) {
        (self.following.load(Ordering::Relaxed), self.replays.load(Ordering::Relaxed))
    }
}

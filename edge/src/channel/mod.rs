//! One channel on this edge: its subscribers, and how far its messages were handled. Pure: time is told.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`ChannelState`]: delivers, and counts |
//! | [`cursor`] | how far the channel was handled, in order; what to do with a live copy |
//! | [`recoverable`] | the verdict whether a client can be given everything after its position |
//! | [`subscribers`] | the sessions that are subscribed |
//! | [`frames`] | the frames that recovering subscribers are sent |
//!
//! A message is offered to all subscribers in one go, under the lock of the hub's shard, so that it is
//! counted exactly. It is encoded once for all plain subscribers, and once for each name by which followers
//! call the channel.

pub(crate) mod cursor;
pub(crate) mod frames;
pub(crate) mod recoverable;
pub(crate) mod subscribers;

use std::sync::Arc;

use shared::history::{Epoch, Position, StoredMessage};
use shared::wire::{Counts, LiveMessage};
use tokio::time::Instant;
use tracing::Span;

use crate::frame::{Frame, FrameMemory, SubscriptionId};
use crate::outbox::Offer;
use crate::session_handle::SessionHandle;
use cursor::{Cursor, Step};
use recoverable::NotWhole;
use subscribers::{OfSession, Subscribers};

/// The trust in a live copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The copy follows the newest one of its partition.
    Sure,
    /// The copy may be of another epoch of the stream. `first`: this copy raised the doubt, so the caller
    /// must ask the stream's leader.
    Doubtful { first: bool },
}

/// A stored message that came, as a live copy or from the store.
#[derive(Debug)]
pub(crate) struct Arrival<'m> {
    /// The message's sequence.
    pub(crate) seq: u64,
    /// The message; none if its sequence stands in place of messages that were erased.
    pub(crate) message: Option<&'m LiveMessage>,
    /// The trace that the frames belong to.
    pub(crate) span: &'m Span,
}

impl<'m> Arrival<'m> {
    /// Returns a message that was read from the store. None: the message can't be read.
    pub(crate) fn read(stored: &'m StoredMessage, span: &'m Span) -> Option<Self> {
        let message = if stored.erased { None } else { Some(stored.message.as_ref().ok()?) };
        Some(Self { seq: stored.seq, message, span })
    }
}

/// The live copy of a stored message.
#[derive(Debug)]
pub(crate) struct LiveCopy<'m> {
    pub(crate) arrival: Arrival<'m>,
    /// The sequence of the channel's message before this one; 0 if there is none.
    pub(crate) before: u64,
    /// The epoch in which the stream is known to be.
    pub(crate) epoch: Option<Epoch>,
    /// Whether the copy surely is of that epoch.
    pub(crate) trust: Trust,
}

/// This edge's knowledge of a stored message that a publisher asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No session here was subscribed when the message came.
    Nobody,
    /// The message was handled; its counts are remembered, or were.
    Handled,
    /// The message was not handled yet.
    NotYet,
    /// The message is of another epoch than the channel here.
    OtherEpoch,
}

/// A session that receives messages as they were published.
#[derive(Debug)]
struct Plain {
    handle: Arc<SessionHandle>,
    subscription: SubscriptionId,
}

impl OfSession for Plain {
    fn id(&self) -> u64 {
        self.handle.id()
    }
}

/// A session that receives messages with their ids.
#[derive(Debug)]
struct Follower {
    handle: Arc<SessionHandle>,
    /// The names by which the client calls the channel; mostly one.
    names: Vec<(Arc<str>, SubscriptionId)>,
}

impl OfSession for Follower {
    fn id(&self) -> u64 {
        self.handle.id()
    }
}

/// One channel that has subscribers, or is being read from the store.
#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    plain: Subscribers<Plain>,
    followers: Subscribers<Follower>,
    /// Whether the channel has history, so that its cursor matters.
    pub(crate) has_history: bool,
    pub(crate) cursor: Cursor,
    /// Sessions in a replay, which will follow.
    pub(crate) replaying: u32,
    /// Subscriptions being made, and fetches: they need the cursor even if no session is subscribed.
    pub(crate) guards: u32,
    /// When followers last learned a position; none if there are no followers.
    position_told: Option<Instant>,
}

impl ChannelState {
    /// Returns whether nothing of this channel is needed.
    pub(crate) fn is_unneeded(&self) -> bool {
        self.guards == 0 && self.replaying == 0 && self.plain.is_empty() && self.followers.is_empty()
    }

    /// Adds a session that receives messages as they were published, unless it does already.
    pub(crate) fn subscribe(&mut self, handle: &Arc<SessionHandle>, subscription: SubscriptionId) {
        self.plain.insert(Plain { handle: Arc::clone(handle), subscription });
    }

    /// Removes a session that receives messages as they were published. Returns the subscription that ended.
    pub(crate) fn unsubscribe(&mut self, id: u64) -> Option<SubscriptionId> {
        self.plain.remove(id).map(|plain| plain.subscription)
    }

    /// Delivers a message that is stored nowhere. `frame` is called only if there is a subscriber.
    pub(crate) fn deliver(&self, frame: impl FnOnce() -> Frame) -> Counts {
        let mut counts = Counts::default();
        if !self.plain.is_empty() {
            let frame = frame();
            self.plain.each(|plain| offer(&plain.handle, &frame, plain.subscription, &mut counts));
        }
        counts
    }

    /// Takes a live copy: delivers it, or says why not.
    pub(crate) fn on_live(
        &mut self,
        copy: &LiveCopy<'_>,
        memory: &FrameMemory,
        now: Instant,
    ) -> (Step, Counts) {
        // The cursor may still be in the epoch before, or already in the next.
        let known = self.cursor.epoch();
        let sure = copy.trust == Trust::Sure && (known.is_none() || known == copy.epoch);
        match self.cursor.on_live(copy.before, copy.arrival.seq, sure) {
            Step::Deliver => (Step::Deliver, self.handle(&copy.arrival, memory, now)),
            step @ (Step::Ignore | Step::Fetch) => (step, Counts::default()),
        }
    }

    /// Takes a missing message that was read from the store. None: the message was handled already.
    pub(crate) fn on_fetched(
        &mut self,
        epoch: Epoch,
        arrival: &Arrival<'_>,
        memory: &FrameMemory,
        now: Instant,
    ) -> Option<Counts> {
        self.cursor.on_fetched(epoch, arrival.seq).then(|| self.handle(arrival, memory, now))
    }

    /// Opens the cursor at the tail that the store named. True: begin to fetch what came since.
    pub(crate) fn open(&mut self, epoch: Epoch, tail: u64, memory: &FrameMemory, now: Instant) -> bool {
        let known = self.cursor.epoch();
        // No session can follow a channel whose cursor was never open, unless the cursor was forgotten.
        let reopened = known.map_or(!self.followers.is_empty(), |known| known != epoch);
        let begins = self.cursor.open(epoch, tail);
        if reopened {
            self.tell_to_reload(NotWhole::OtherEpoch, memory, now);
        }
        begins
    }

    /// Gives up what is missing: goes on behind `tail`, and tells all followers. Returns how many.
    pub(crate) fn skip(&mut self, tail: u64, why: NotWhole, memory: &FrameMemory, now: Instant) -> u64 {
        self.cursor.skip(tail);
        self.tell_to_reload(why, memory, now)
    }

    /// Returns what is known of a stored message. Without an epoch, that of this channel is meant.
    pub(crate) fn seen(&self, epoch: Option<Epoch>, seq: u64) -> Seen {
        match self.cursor.epoch() {
            None => Seen::NotYet,
            known if epoch.is_some() && known != epoch => Seen::OtherEpoch,
            Some(_) if seq <= self.cursor.opened() => Seen::Nobody,
            Some(_) if seq <= self.cursor.last() => Seen::Handled,
            Some(_) => Seen::NotYet,
        }
    }

    /// Returns whether there are followers, and they have not learned a position since `before`.
    pub(crate) fn is_quiet(&self, before: Instant) -> bool {
        self.position_told.is_some_and(|told| told <= before)
    }

    /// Tells followers that learned no position since `before` how far they have come. `covered`: everything
    /// of the partition up to there was handled. Returns how many were told.
    pub(crate) fn tell_position(
        &mut self,
        covered: Position,
        before: Instant,
        memory: &FrameMemory,
        now: Instant,
    ) -> u64 {
        let due = self.is_quiet(before) && !self.cursor.lacks();
        let position = self.position(covered.seq).filter(|position| position.epoch == covered.epoch);
        let Some(position) = position.filter(|_| due) else { return 0 };
        let mut counts = Counts::default();
        self.tell(now, memory, &mut counts, |name| frames::position(position, name));
        counts.sessions
    }

    /// Adds a session that receives messages with their ids, for a new subscription. Returns the subscription
    /// that ends: the one under this name, or the plain one if the new one comes `instead_of_plain`.
    pub(crate) fn follow(
        &mut self,
        handle: &Arc<SessionHandle>,
        (name, subscription): (&Arc<str>, SubscriptionId),
        instead_of_plain: bool,
        now: Instant,
    ) -> Option<SubscriptionId> {
        let plain = if instead_of_plain { self.unsubscribe(handle.id()) } else { None };
        self.position_told.get_or_insert(now);
        let new = (Arc::clone(name), subscription);
        let replaced = match self.followers.get_mut(handle.id()) {
            None => {
                self.followers.insert(Follower { handle: Arc::clone(handle), names: vec![new] });
                None
            }
            Some(follower) => match follower.names.iter_mut().find(|(known, _)| known == name) {
                Some(known) => Some(std::mem::replace(&mut known.1, subscription)),
                None => {
                    follower.names.push(new);
                    None
                }
            },
        };
        replaced.or(plain)
    }

    /// Ends what a session receives under this name. Returns the subscription.
    pub(crate) fn unfollow(&mut self, id: u64, name: &str) -> Option<SubscriptionId> {
        let follower = self.followers.get_mut(id)?;
        let index = follower.names.iter().position(|(known, _)| **known == *name)?;
        let (_, subscription) = follower.names.remove(index);
        if follower.names.is_empty() {
            self.followers.remove(id);
        }
        if self.followers.is_empty() {
            self.position_told = None;
        }
        Some(subscription)
    }

    /// Returns the subscription by which a session receives messages with ids under this name.
    pub(crate) fn subscription_of(&mut self, id: u64, name: &str) -> Option<SubscriptionId> {
        let follower = self.followers.get_mut(id)?;
        follower.names.iter().find(|(known, _)| **known == *name).map(|(_, subscription)| *subscription)
    }

    /// Returns the position up to which everything of the channel was handled. `covered` is what the
    /// partition's gap tracker knows of. None: the cursor is not open.
    pub(crate) fn position(&self, covered: u64) -> Option<Position> {
        let epoch = self.cursor.epoch()?;
        let last = self.cursor.last();
        Some(Position { epoch, seq: if self.cursor.lacks() { last } else { last.max(covered) } })
    }

    /// Delivers the next message, and counts.
    fn handle(&mut self, arrival: &Arrival<'_>, memory: &FrameMemory, now: Instant) -> Counts {
        let Some(epoch) = self.cursor.epoch() else { return Counts::default() };
        let Some(message) = arrival.message else {
            self.tell_to_reload(NotWhole::Erased, memory, now);
            return Counts::default();
        };
        let (position, span) = (Position { epoch, seq: arrival.seq }, arrival.span);
        let frame = || Frame::message(message.kind, &message.payload).traced(span).counted(memory);
        let mut counts = self.deliver(frame);
        self.tell(now, memory, &mut counts, |name| {
            frames::message(position, name, message.kind, &message.payload).traced(span)
        });
        // Sessions in a replay count too: they read the message from the store.
        counts.sessions += u64::from(self.replaying);
        counts
    }

    fn tell_to_reload(&mut self, why: NotWhole, memory: &FrameMemory, now: Instant) -> u64 {
        let mut counts = Counts::default();
        if let Some(position) = self.position(0) {
            self.tell(now, memory, &mut counts, |name| frames::reload(position, name, why));
        }
        counts.sessions
    }

    /// Offers all followers a frame that names a position.
    fn tell(
        &mut self,
        now: Instant,
        memory: &FrameMemory,
        counts: &mut Counts,
        frame: impl Fn(&str) -> Frame,
    ) {
        if self.followers.is_empty() {
            return;
        }
        self.position_told = Some(now);
        let mut frames: Vec<(Arc<str>, Frame)> = Vec::new();
        self.followers.each(|follower| {
            for (name, subscription) in &follower.names {
                let known = frames.iter().position(|(other, _)| other == name);
                let known = known.unwrap_or_else(|| {
                    frames.push((Arc::clone(name), frame(name).counted(memory)));
                    frames.len() - 1
                });
                offer(&follower.handle, &frames[known].1, *subscription, counts);
            }
        });
    }
}

fn offer(handle: &SessionHandle, frame: &Frame, subscription: SubscriptionId, counts: &mut Counts) {
    match handle.outbox.offer(frame, subscription) {
        Offer::Accepted => counts.sessions += 1,
        Offer::Full | Offer::Closed => counts.failed += 1,
    }
}

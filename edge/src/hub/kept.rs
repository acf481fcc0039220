//! The part of the hub that knows of history: lines, followers, and those who are being given what is stored.
//!
//! Everything that decides who gets a message happens under the lock of the channel's room: handling it,
//! beginning to follow, ending a fetch. So a session joins between two messages, never during one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::history::{End, Epoch, Position, StoredMessage};
use shared::ids::Channel;
use shared::wire::{Counts, LiveMessage};
use tokio::time::Instant;
use tracing::Span;

use super::room::Room;
use super::{Hub, Member};
use crate::frame::SubscriptionId;
use crate::recovery::doubt::Trust;
use crate::recovery::envelope;
use crate::recovery::line::{Line, Step};
use crate::recovery::verdict::NotWhole;

/// What became of a live copy of a stored message.
#[derive(Debug)]
pub(crate) struct Handled {
    /// Delivered, or why not.
    pub(crate) step: Step,
    /// To how many, if it was delivered.
    pub(crate) counts: Counts,
    /// What is to be fetched first, if something is.
    pub(crate) fetching: Option<Fetching>,
}

/// What is known of a stored message that a publisher asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nobody here was subscribed when it came.
    Nobody,
    /// It was handled; its counts are remembered, or were.
    Handled,
    /// It has not been handled yet.
    NotYet,
    /// It is of another epoch than the channel here.
    OtherEpoch,
}

/// Whether a session that was given what is stored follows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// From the next message on; everything up to here is behind it.
    Joined(Position),
    /// There is more to give first.
    Behind,
    /// The stream is another one now.
    OtherEpoch,
}

/// A stored message as a room takes it.
pub(crate) struct Incoming<'m> {
    /// Its place.
    pub(crate) seq: u64,
    /// None: it stands in place of messages that were erased.
    pub(crate) message: Option<&'m LiveMessage>,
    /// Whose trace the frames belong to.
    pub(crate) span: &'m Span,
}

impl Hub {
    /// Keeps the line of a channel for as long as what is returned lives.
    pub(crate) fn hold(self: &Arc<Self>, channel: &Channel) -> Hold {
        let mut channels = self.channels.of(channel.as_str());
        let room = channels.entry(channel.clone()).or_default();
        room.kept = true;
        self.hold_room(channel, room)
    }

    fn hold_room(self: &Arc<Self>, channel: &Channel, room: &mut Room) -> Hold {
        room.holds += 1;
        Hold { hub: Arc::clone(self), channel: channel.clone() }
    }

    /// The fetch that a room's line has just begun.
    fn fetching(self: &Arc<Self>, channel: &Channel, room: &mut Room) -> Fetching {
        Fetching { number: room.line.fetch(), hold: self.hold_room(channel, room) }
    }

    /// A live copy of a stored message came. `before`: the sequence of the channel's message before it;
    /// `trust`: whether it surely is of this epoch.
    pub(crate) fn on_live(
        self: &Arc<Self>,
        channel: &str,
        before: u64,
        (epoch, trust): (Option<Epoch>, Trust),
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Handled {
        let mut channels = self.channels.of(channel);
        let Some(room) = channels.get_mut(channel) else {
            return Handled { step: Step::Deliver, counts: Counts::default(), fetching: None };
        };
        // A line that was not begun anew yet, or was before the sender knew, is not the one that the copy is
        // of.
        let known = room.line.epoch();
        let sure = trust == Trust::Sure && (known.is_none() || known == epoch);
        let step = room.line.on_live(before, incoming.seq, sure, self.heals);
        let (mut counts, mut fetching) = (Counts::default(), None);
        match step {
            Step::Deliver => {
                counts = self.handle(room, incoming, now);
                self.progressed();
            }
            Step::Fetch => {
                fetching = Channel::parse(channel).ok().map(|channel| self.fetching(&channel, room));
            }
            Step::Ignore => {}
        }
        Handled { step, counts, fetching }
    }

    /// A message that was missing was read from the store. None: it was handled already.
    pub(crate) fn on_fetched(
        &self,
        channel: &Channel,
        epoch: Epoch,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Option<Counts> {
        let mut channels = self.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str())?;
        let counts = room.line.on_fetched(epoch, incoming.seq).then(|| self.handle(room, incoming, now));
        self.progressed();
        counts
    }

    /// What a fetch looks for: after which sequence, and up to which at least. None: it is over.
    pub(crate) fn missing(&self, fetching: &Fetching) -> Option<(Epoch, u64, u64)> {
        let channel = fetching.channel().as_str();
        self.channels.of(channel).get(channel)?.line.missing(fetching.number)
    }

    /// The stream has nothing of what a fetch looks for: compare tails.
    pub(crate) fn give_back(&self, fetching: &Fetching) {
        let channel = fetching.channel().as_str();
        if let Some(room) = self.channels.of(channel).get_mut(channel) {
            room.line.give_back(fetching.number);
        }
        self.progressed();
    }

    /// Takes over what is missing in channels that are `wanted`, and that nobody fetches.
    pub(crate) fn abandoned(self: &Arc<Self>, wanted: impl Fn(&Channel) -> bool) -> Vec<Fetching> {
        let is_due = |channel: &Channel, line: &Line| line.is_abandoned() && wanted(channel);
        let mut abandoned = Vec::new();
        for part in self.channels.all() {
            let some = part.iter().filter(|(channel, room)| room.kept && is_due(channel, &room.line));
            abandoned.extend(some.map(|(channel, _)| channel.clone()));
        }
        abandoned.iter().filter_map(|channel| self.want(channel, 0)).collect()
    }

    /// Ends a fetch if nothing is missing any more, and tells whether.
    pub(crate) fn settle(&self, channel: &Channel) -> bool {
        let mut channels = self.channels.of(channel.as_str());
        let settled = channels.get_mut(channel.as_str()).is_none_or(|room| room.line.settle());
        self.progressed();
        settled
    }

    /// The store says where the channel ends, and how far it has come itself. True: nothing is missing any
    /// more.
    pub(crate) fn on_tail(&self, channel: &Channel, asked_up_to: u64, end: &End) -> bool {
        let End { epoch, tail, come } = *end;
        let mut channels = self.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str());
        let settled = room.is_none_or(|room| room.line.on_tail(epoch, asked_up_to, tail, come));
        self.progressed();
        settled
    }

    /// What is missing can't be had any more: goes on behind `tail`, and tells all who follow. How many were
    /// told.
    pub(crate) fn skip(&self, channel: &Channel, tail: u64, why: NotWhole, now: Instant) -> u64 {
        let mut channels = self.channels.of(channel.as_str());
        let Some(room) = channels.get_mut(channel.as_str()) else { return 0 };
        room.line.skip(tail);
        let told = self.reload(room, why, now);
        self.progressed();
        told
    }

    /// The beginning of a line is known. Some: fetch what came since.
    pub(crate) fn open_line(
        self: &Arc<Self>,
        channel: &Channel,
        epoch: Epoch,
        tail: u64,
        now: Instant,
    ) -> Option<Fetching> {
        let mut channels = self.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str())?;
        let other = room.line.epoch().is_some_and(|known| known != epoch);
        // Nobody can follow a line that was not open, unless it was forgotten.
        let reopened = other || (room.line.epoch().is_none() && !room.followers.is_empty());
        let begins = room.line.open(epoch, tail);
        if reopened {
            self.reload(room, NotWhole::OtherEpoch, now);
        }
        self.progressed();
        begins.then(|| self.fetching(channel, room))
    }

    /// This sequence of a channel exists, as somebody says who must know. Some: fetch it.
    pub(crate) fn want(self: &Arc<Self>, channel: &Channel, seq: u64) -> Option<Fetching> {
        let mut channels = self.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str())?;
        room.line.want(seq).then(|| self.fetching(channel, room))
    }

    /// Whether everything up to this sequence was handled in this epoch.
    pub(crate) fn has_come_to(&self, channel: &Channel, epoch: Epoch, seq: u64) -> bool {
        let channels = self.channels.of(channel.as_str());
        channels
            .get(channel.as_str())
            .is_some_and(|room| room.line.epoch() == Some(epoch) && room.line.last() >= seq)
    }

    /// What is known here of a stored message. Who names no epoch asks about that of the channel here.
    pub(crate) fn seen(&self, channel: &Channel, epoch: Option<Epoch>, seq: u64) -> Seen {
        let channels = self.channels.of(channel.as_str());
        match channels.get(channel.as_str()) {
            None => Seen::Nobody,
            Some(room) if room.line.epoch().is_none() => Seen::NotYet,
            Some(room) if epoch.is_some() && room.line.epoch() != epoch => Seen::OtherEpoch,
            Some(room) if seq <= room.line.opened() => Seen::Nobody,
            Some(room) if seq <= room.line.last() => Seen::Handled,
            Some(_) => Seen::NotYet,
        }
    }

    /// The channels with history that are `wanted`, by name and the life of their stream, if that is known.
    pub(crate) fn lines(&self, wanted: impl Fn(&Channel, Option<Epoch>) -> bool) -> Vec<Channel> {
        let mut lines = Vec::new();
        for part in self.channels.all() {
            let some = part.iter().filter(|(channel, room)| room.kept && wanted(channel, room.line.epoch()));
            lines.extend(some.map(|(channel, _)| channel.clone()));
        }
        lines
    }

    /// The channels whose followers heard nothing since `before`.
    pub(crate) fn quiet(&self, before: Instant, wanted: impl Fn(&Channel) -> bool) -> Vec<Channel> {
        let mut quiet = Vec::new();
        for part in self.channels.all() {
            let due = |room: &Room| room.told.is_some_and(|told| told <= before);
            let some = part.iter().filter(|(channel, room)| due(room) && wanted(channel));
            quiet.extend(some.map(|(channel, _)| channel.clone()));
        }
        quiet
    }

    /// The life of the stream that a line is in. None: it is not open.
    pub(crate) fn epoch_of(&self, channel: &Channel) -> Option<Epoch> {
        self.channels.of(channel.as_str()).get(channel.as_str())?.line.epoch()
    }

    /// A stored message can't be read, so nobody gets it.
    pub(crate) fn pass(&self, channel: &Channel, epoch: Epoch, seq: u64) {
        if let Some(room) = self.channels.of(channel.as_str()).get_mut(channel.as_str()) {
            room.line.on_fetched(epoch, seq);
        }
    }

    /// The stream of these channels is another one now.
    pub(crate) fn forget_line(&self, channel: &Channel) {
        if let Some(room) = self.channels.of(channel.as_str()).get_mut(channel.as_str()) {
            room.line.forget();
        }
    }

    /// Tells those who follow, and heard nothing since `before`, how far they have come. `covered`:
    /// everything up to there was handled, of this partition in this epoch. How many were told.
    pub(crate) fn tell_positions(
        &self,
        channel: &Channel,
        (epoch, covered): (Epoch, u64),
        before: Instant,
        now: Instant,
    ) -> u64 {
        let mut channels = self.channels.of(channel.as_str());
        let Some(room) = channels.get_mut(channel.as_str()) else { return 0 };
        let due = room.told.is_some_and(|told| told <= before) && !room.line.lacks();
        let Some(position) = room.position(covered).filter(|it| due && it.epoch == epoch) else { return 0 };
        let mut counts = Counts::default();
        room.tell((now, &self.memory), &mut counts, |name| envelope::position(position, name));
        counts.sessions
    }

    /// Delivers what is next, and counts.
    fn handle(&self, room: &mut Room, incoming: &Incoming<'_>, now: Instant) -> Counts {
        let Some(epoch) = room.line.epoch() else { return Counts::default() };
        match incoming.message {
            Some(message) => {
                let position = Position { epoch, seq: incoming.seq };
                room.deliver_stored(message, position, (incoming.span, &self.memory), now)
            }
            None => {
                self.reload(room, NotWhole::Erased, now);
                Counts::default()
            }
        }
    }

    fn reload(&self, room: &mut Room, why: NotWhole, now: Instant) -> u64 {
        let mut counts = Counts::default();
        if let Some(position) = room.position(0) {
            room.tell((now, &self.memory), &mut counts, |name| envelope::reload(position, name, why));
        }
        counts.sessions
    }

    /// Something moved on: whoever waits for a line looks again.
    pub(crate) fn progressed(&self) {
        self.progress.notify_waiters();
    }

    /// Waits for whatever `found` looks for, which is looked at whenever a line has moved on.
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

    /// Sessions that receive messages with ids, and ways of sessions through what is stored.
    pub(crate) fn following_and_replaying(&self) -> (usize, usize) {
        (self.following.load(Ordering::Relaxed), self.replays.load(Ordering::Relaxed))
    }
}

/// Where a session began to receive messages with ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Everything up to here is behind it.
    pub(crate) position: Position,
    /// The subscription that ended in the same step: its frames are from before this position.
    pub(crate) ended: Option<SubscriptionId>,
}

impl Member {
    /// Receives messages of this channel with their ids from now on; says where that is. None: its line is
    /// not open. With `instead_of_plain` it receives them as they were published no longer, in the same step.
    pub(crate) fn follow(
        &mut self,
        channel: &Channel,
        (name, subscription): (&Arc<str>, SubscriptionId),
        instead_of_plain: bool,
        covered: u64,
        replaying: Option<&mut Replaying>,
        now: Instant,
    ) -> Option<Followed> {
        let mut channels = self.hub.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str())?;
        let position = room.position(covered)?;
        let ended = room.follow(&self.peer, (name, subscription), instead_of_plain, now);
        if let Some(replaying) = replaying {
            replaying.end(room);
        }
        drop(channels);
        if instead_of_plain {
            self.channels.retain(|watched| watched != channel);
        }
        self.followed(channel, name);
        Some(Followed { position, ended })
    }

    /// The same, if there is nothing left to give of what is stored after `cursor`.
    pub(crate) fn join(
        &mut self,
        channel: &Channel,
        (name, subscription): (&Arc<str>, SubscriptionId),
        (epoch, cursor): (Epoch, u64),
        covered: u64,
        replaying: Option<&mut Replaying>,
        now: Instant,
    ) -> Join {
        let mut channels = self.hub.channels.of(channel.as_str());
        let Some(room) = channels.get_mut(channel.as_str()) else { return Join::OtherEpoch };
        if room.line.epoch() != Some(epoch) {
            return Join::OtherEpoch;
        }
        if cursor < room.line.last() {
            return Join::Behind;
        }
        room.follow(&self.peer, (name, subscription), false, now);
        if let Some(replaying) = replaying {
            replaying.end(room);
        }
        let seq = room.position(covered).map_or(cursor, |position| position.seq.max(cursor));
        drop(channels);
        self.followed(channel, name);
        Join::Joined(Position { epoch, seq })
    }

    fn followed(&mut self, channel: &Channel, name: &Arc<str>) {
        if self.follows.is_none() {
            self.peer.follows.store(true, Ordering::Relaxed);
            self.hub.following.fetch_add(1, Ordering::Relaxed);
        }
        let follows = self.follows.get_or_insert_default();
        if !follows.iter().any(|(_, known)| known == name) {
            follows.push((channel.clone(), Arc::clone(name)));
        }
    }

    /// Receives nothing more under this name. Returns the subscription that ended.
    pub(crate) fn unfollow(&mut self, name: &str) -> Option<SubscriptionId> {
        let follows = self.follows.as_mut()?;
        let place = follows.iter().position(|(_, known)| **known == *name)?;
        let (channel, _) = follows.swap_remove(place);
        if follows.is_empty() {
            self.follows_nothing();
        }
        self.leave_as_follower(&channel, name)
    }

    /// Receives nothing with ids any more.
    pub(super) fn unfollow_all(&mut self) {
        if let Some(follows) = self.follows.take() {
            self.follows_nothing();
            for (channel, name) in *follows {
                self.leave_as_follower(&channel, &name);
            }
        }
    }

    fn follows_nothing(&mut self) {
        self.follows = None;
        self.peer.follows.store(false, Ordering::Relaxed);
        self.hub.following.fetch_sub(1, Ordering::Relaxed);
    }

    fn leave_as_follower(&self, channel: &Channel, name: &str) -> Option<SubscriptionId> {
        let mut channels = self.hub.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str())?;
        let left = room.unfollow(self.peer.id, name);
        if room.is_empty() {
            channels.remove(channel.as_str());
        }
        left
    }

    /// Asks the client to open another connection, once for each name that it follows, so that each position
    /// is exact.
    pub(crate) fn say_reconnect(&self, within_ms: u64, covered: impl Fn(&Channel, Epoch) -> u64) {
        for (channel, name) in self.follows.iter().flat_map(|follows| follows.iter()) {
            let Some(epoch) = self.hub.epoch_of(channel) else { continue };
            let covered = covered(channel, epoch);
            let mut channels = self.hub.channels.of(channel.as_str());
            // Under the room's lock, so that this stands in the outbox behind everything up to the position.
            let Some(room) = channels.get_mut(channel.as_str()) else { continue };
            let position = room.position(covered).filter(|position| position.epoch == epoch);
            let Some(position) = position else { continue };
            if let Some(subscription) = room.subscription_of(self.peer.id, name) {
                let frame = envelope::reconnect(within_ms, position, name).counted(&self.hub.memory);
                self.peer.outbox.offer(&frame, subscription);
            }
        }
    }
}

/// Keeps the line of a channel. Whoever is in a replay holds one as well.
#[derive(Debug)]
pub(crate) struct Hold {
    hub: Arc<Hub>,
    channel: Channel,
}

impl Hold {
    /// The session is given what is stored from now on, and counts as one that messages go to.
    pub(crate) fn replay(self) -> Replaying {
        let mut channels = self.hub.channels.of(self.channel.as_str());
        if let Some(room) = channels.get_mut(self.channel.as_str()) {
            room.replaying += 1;
        }
        drop(channels);
        self.hub.replays.fetch_add(1, Ordering::Relaxed);
        Replaying { hold: self, counts: true }
    }

    /// The channel.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut channels = self.hub.channels.of(self.channel.as_str());
        if let Some(room) = channels.get_mut(self.channel.as_str()) {
            room.holds -= 1;
            if room.is_empty() {
                channels.remove(self.channel.as_str());
            }
        }
    }
}

/// A fetch of what a line misses. Whoever is handed it brings it to its end; if it is dropped before, the
/// line knows that nobody fetches any more.
#[derive(Debug)]
pub(crate) struct Fetching {
    number: u64,
    hold: Hold,
}

impl Fetching {
    /// The channel.
    pub(crate) fn channel(&self) -> &Channel {
        &self.hold.channel
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let Hold { hub, channel } = &self.hold;
        if let Some(room) = hub.channels.of(channel.as_str()).get_mut(channel.as_str()) {
            room.line.abandon(self.number);
        }
        hub.progressed();
    }
}

/// A session that is given what is stored.
#[derive(Debug)]
pub(crate) struct Replaying {
    hold: Hold,
    /// Whether the room still counts it.
    counts: bool,
}

impl Replaying {
    /// It follows from here on: in the same step, so that no message counts it twice.
    fn end(&mut self, room: &mut Room) {
        if std::mem::take(&mut self.counts) {
            room.replaying -= 1;
        }
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        let Hold { hub, channel } = &self.hold;
        if self.counts
            && let Some(room) = hub.channels.of(channel.as_str()).get_mut(channel.as_str())
        {
            room.replaying -= 1;
        }
        hub.replays.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a room takes of a message that was read from the store. None: it can't be read.
pub(crate) fn readable<'m>(stored: &'m StoredMessage, span: &'m Span) -> Option<Incoming<'m>> {
    let message = if stored.erased { None } else { Some(stored.message.as_ref().ok()?) };
    Some(Incoming { seq: stored.seq, message, span })
}

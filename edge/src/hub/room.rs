//! What is known of one channel: who listens, and how far its messages have come.
//!
//! A message is offered to all that listen in one go, under the lock of the room's map, so that it is counted
//! exactly. It is encoded once for all plain listeners, and once for each name by which recovering ones call
//! the channel.

use std::sync::Arc;

use shared::history::{Epoch, Position};
use shared::wire::{Counts, LiveMessage};
use tokio::time::Instant;
use tracing::Span;

use super::Peer;
use super::audience::{Audience, Listener, OfSession};
use crate::frame::{Frame, FrameMemory, SubscriptionId};
use crate::recovery::envelope;
use crate::recovery::line::Line;
use crate::session::outbox::Offer;

/// A session that receives messages with their ids.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) peer: Arc<Peer>,
    /// What it calls the channel; mostly one name.
    names: Vec<(Arc<str>, SubscriptionId)>,
}

impl OfSession for Follower {
    fn id(&self) -> u64 {
        self.peer.id
    }
}

/// One channel that has sessions, or is being read from the store.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Receive what was published, as it is.
    pub(super) plain: Audience<Listener>,
    pub(super) followers: Audience<Follower>,
    /// Whether the channel has history, so that its line matters.
    pub(super) kept: bool,
    pub(super) line: Line,
    /// Sessions that are given what is stored, and will follow.
    pub(super) replaying: u32,
    /// Who needs the line although nobody listens: sessions that are subscribing, fetches.
    pub(super) holds: u32,
    /// When followers last learned a position; none while there are none.
    pub(super) told: Option<Instant>,
}

impl Room {
    /// Whether nothing of it is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.holds == 0 && self.replaying == 0 && self.plain.is_empty() && self.followers.is_empty()
    }

    /// Delivers a message that is kept nowhere.
    pub(super) fn deliver(&self, frame: impl FnOnce() -> Frame) -> Counts {
        let mut counts = Counts::default();
        if !self.plain.is_empty() {
            let frame = frame();
            self.plain.each(|listener| offer(&listener.peer, &frame, listener.subscription, &mut counts));
        }
        counts
    }

    /// Delivers a stored message to all that listen. Those who are being given what is stored count too.
    pub(super) fn deliver_stored(
        &mut self,
        message: &LiveMessage,
        position: Position,
        (span, memory): (&Span, &FrameMemory),
        now: Instant,
    ) -> Counts {
        let frame = || Frame::message(message.kind, &message.payload).traced(span).counted(memory);
        let mut counts = self.deliver(frame);
        self.tell((now, memory), &mut counts, |name| {
            envelope::message(position, name, message.kind, &message.payload).traced(span)
        });
        counts.sessions += u64::from(self.replaying);
        counts
    }

    /// Tells all followers something that names a position.
    pub(super) fn tell(
        &mut self,
        (now, memory): (Instant, &FrameMemory),
        counts: &mut Counts,
        frame: impl Fn(&str) -> Frame,
    ) {
        if self.followers.is_empty() {
            return;
        }
        self.told = Some(now);
        let mut frames: Vec<(Arc<str>, Frame)> = Vec::new();
        self.followers.each(|follower| {
            for (name, subscription) in &follower.names {
                let known = frames.iter().position(|(other, _)| other == name);
                let known = known.unwrap_or_else(|| {
                    frames.push((Arc::clone(name), frame(name).counted(memory)));
                    frames.len() - 1
                });
                offer(&follower.peer, &frames[known].1, *subscription, counts);
            }
        });
    }

    /// A session receives messages with their ids from now on, for a new subscription. Returns the one that
    /// ends: what the session received under this name, or as published if the new one comes
    /// `instead_of_plain`.
    pub(super) fn follow(
        &mut self,
        peer: &Arc<Peer>,
        (name, subscription): (&Arc<str>, SubscriptionId),
        instead_of_plain: bool,
        now: Instant,
    ) -> Option<SubscriptionId> {
        let plain = if instead_of_plain { self.plain.remove(peer.id) } else { None };
        self.told.get_or_insert(now);
        let new = (Arc::clone(name), subscription);
        let replaced = match self.followers.get_mut(peer.id) {
            None => {
                self.followers.insert(Follower { peer: Arc::clone(peer), names: vec![new] });
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
        replaced.or(plain.map(|listener| listener.subscription))
    }

    /// Ends what a session receives under this name. Returns the subscription.
    pub(super) fn unfollow(&mut self, id: u64, name: &str) -> Option<SubscriptionId> {
        let follower = self.followers.get_mut(id)?;
        let place = follower.names.iter().position(|(known, _)| **known == *name)?;
        let (_, subscription) = follower.names.remove(place);
        if follower.names.is_empty() {
            self.followers.remove(id);
        }
        if self.followers.is_empty() {
            self.told = None;
        }
        Some(subscription)
    }

    /// The subscription by which a session receives messages with ids under this name.
    pub(super) fn subscription_of(&mut self, id: u64, name: &str) -> Option<SubscriptionId> {
        let follower = self.followers.get_mut(id)?;
        follower.names.iter().find(|(known, _)| **known == *name).map(|(_, subscription)| *subscription)
    }

    /// Everything of the channel up to here was handled; `covered` is what the partition's feed knows of.
    pub(super) fn position(&self, covered: u64) -> Option<Position> {
        let epoch: Epoch = self.line.epoch()?;
        let last = self.line.last();
        Some(Position { epoch, seq: if self.line.lacks() { last } else { last.max(covered) } })
    }
}

fn offer(peer: &Arc<Peer>, frame: &Frame, subscription: SubscriptionId, counts: &mut Counts) {
    match peer.outbox.offer(frame, subscription) {
        Offer::Accepted => counts.sessions += 1,
        Offer::Full | Offer::Closed => counts.failed += 1,
    }
}

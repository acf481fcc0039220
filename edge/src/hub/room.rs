//! What is known of one channel: who listens, and how far its messages have come.
//!
//! A message is offered to all that listen in one go, under the lock of the room's map, so that it is counted exactly. It
//! is encoded once for all plain listeners, and once for each name by which recovering ones call the channel.

use std::sync::Arc;

use shared::history::{Epoch, Position};
use shared::wire::{Counts, LiveMessage};
use tokio::time::Instant;
use tracing::Span;

use super::Peer;
use super::audience::{Audience, OfSession};
use crate::frame::Frame;
use crate::recovery::envelope;
use crate::recovery::line::Line;
use crate::session::outbox::Offer;

/// A session that receives messages with their ids.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) peer: Arc<Peer>,
    /// What it calls the channel; mostly one name.
    names: Vec<Arc<str>>,
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
    pub(super) plain: Audience<Arc<Peer>>,
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
            self.plain.each(|peer| offer(peer, &frame, &mut counts));
        }
        counts
    }

    /// Delivers a stored message to all that listen. Those who are being given what is stored count too.
    pub(super) fn deliver_stored(
        &mut self,
        message: &LiveMessage,
        position: Position,
        span: &Span,
        now: Instant,
    ) -> Counts {
        let mut counts = self.deliver(|| Frame::message(message.kind, &message.payload).traced(span));
        self.tell(now, &mut counts, |name| {
            envelope::message(position, name, message.kind, &message.payload).traced(span)
        });
        counts.sessions += u64::from(self.replaying);
        counts
    }

    /// Tells all followers something that names a position.
    pub(super) fn tell(&mut self, now: Instant, counts: &mut Counts, frame: impl Fn(&str) -> Frame) {
        if self.followers.is_empty() {
            return;
        }
        self.told = Some(now);
        let mut frames: Vec<(Arc<str>, Frame)> = Vec::new();
        self.followers.each(|follower| {
            for name in &follower.names {
                let known = frames.iter().position(|(other, _)| other == name);
                let known = known.unwrap_or_else(|| {
                    frames.push((Arc::clone(name), frame(name)));
                    frames.len() - 1
                });
                offer(&follower.peer, &frames[known].1, counts);
            }
        });
    }

    /// A session receives messages with their ids from now on.
    pub(super) fn follow(&mut self, peer: &Arc<Peer>, name: &Arc<str>, now: Instant) {
        self.told.get_or_insert(now);
        match self.followers.get_mut(peer.id) {
            Some(follower) if follower.names.contains(name) => {}
            Some(follower) => follower.names.push(Arc::clone(name)),
            None => {
                self.followers.insert(Follower { peer: Arc::clone(peer), names: vec![Arc::clone(name)] });
            }
        }
    }

    /// It does not under this name any more.
    pub(super) fn unfollow(&mut self, id: u64, name: &str) {
        let Some(follower) = self.followers.get_mut(id) else { return };
        follower.names.retain(|known| **known != *name);
        if follower.names.is_empty() {
            self.followers.remove(id);
        }
        if self.followers.is_empty() {
            self.told = None;
        }
    }

    /// Everything of the channel up to here was handled; `covered` is what the partition's feed knows of.
    pub(super) fn position(&self, covered: u64) -> Option<Position> {
        let epoch: Epoch = self.line.epoch()?;
        let last = self.line.last();
        Some(Position { epoch, seq: if self.line.is_fetching() { last } else { last.max(covered) } })
    }
}

fn offer(peer: &Arc<Peer>, frame: &Frame, counts: &mut Counts) {
    match peer.outbox.offer(frame) {
        Offer::Accepted => counts.sessions += 1,
        Offer::Full | Offer::Closed => counts.failed += 1,
    }
}

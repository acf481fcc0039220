//! Subscriptions with ids: a session follows a channel, at once or at the end of a replay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::history::{Epoch, Position};
use shared::ids::Channel;
use tokio::time::Instant;

use super::guards::Replaying;
use super::member::Member;
use crate::channel::frames;
use crate::frame::SubscriptionId;

/// Whether a session at the end of a replay follows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// The session follows from the next message on; everything up to this position is behind it.
    Joined(Position),
    /// There is more to replay first.
    Behind,
    /// The stream has another epoch now.
    OtherEpoch,
}

/// Where a session began to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Everything up to this position is behind the session.
    pub(crate) position: Position,
    /// The subscription that ended in the same step: its frames are from before this position.
    pub(crate) ended: Option<SubscriptionId>,
}

impl Member {
    /// Receives messages of this channel with their ids from now on. With `instead_of_plain` the plain
    /// subscription ends in the same step. None: the channel's cursor is not open.
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
        let state = channels.get_mut(channel.as_str())?;
        let position = state.position(covered)?;
        let ended = state.follow(&self.handle, (name, subscription), instead_of_plain, now);
        if let Some(replaying) = replaying {
            replaying.end(state);
        }
        drop(channels);
        if instead_of_plain {
            self.channels.retain(|watched| watched != channel);
        }
        self.followed(channel, name);
        Some(Followed { position, ended })
    }

    /// Follows this channel if nothing is left to replay after the position `given`.
    pub(crate) fn join(
        &mut self,
        channel: &Channel,
        (name, subscription): (&Arc<str>, SubscriptionId),
        given: Position,
        covered: u64,
        replaying: Option<&mut Replaying>,
        now: Instant,
    ) -> Join {
        let mut channels = self.hub.channels.of(channel.as_str());
        let Some(state) = channels.get_mut(channel.as_str()) else { return Join::OtherEpoch };
        if state.cursor.epoch() != Some(given.epoch) {
            return Join::OtherEpoch;
        }
        if given.seq < state.cursor.last() {
            return Join::Behind;
        }
        state.follow(&self.handle, (name, subscription), false, now);
        if let Some(replaying) = replaying {
            replaying.end(state);
        }
        let seq = state.position(covered).map_or(given.seq, |position| position.seq.max(given.seq));
        drop(channels);
        self.followed(channel, name);
        Join::Joined(Position { epoch: given.epoch, seq })
    }

    fn followed(&mut self, channel: &Channel, name: &Arc<str>) {
        if self.follows.is_none() {
            self.handle.set_follows(true);
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
        let index = follows.iter().position(|(_, known)| **known == *name)?;
        let (channel, _) = follows.swap_remove(index);
        if follows.is_empty() {
            self.follows_nothing();
        }
        self.leave_as_follower(&channel, name)
    }

    /// Ends all subscriptions with ids.
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
        self.handle.set_follows(false);
        self.hub.following.fetch_sub(1, Ordering::Relaxed);
    }

    fn leave_as_follower(&self, channel: &Channel, name: &str) -> Option<SubscriptionId> {
        let mut channels = self.hub.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str())?;
        let ended = state.unfollow(self.handle.id(), name);
        if state.is_unneeded() {
            channels.remove(channel.as_str());
        }
        ended
    }

    /// Asks the client to open another connection, once for each name that it follows, so that each position
    /// is exact.
    pub(crate) fn say_reconnect(&self, within_ms: u64, covered: impl Fn(&Channel, Epoch) -> u64) {
        for (channel, name) in self.follows.iter().flat_map(|follows| follows.iter()) {
            let Some(epoch) = self.hub.epoch_of(channel) else { continue };
            let covered = covered(channel, epoch);
            let mut channels = self.hub.channels.of(channel.as_str());
            // Under the lock, so that the frame stands in the outbox behind everything up to the position.
            let Some(state) = channels.get_mut(channel.as_str()) else { continue };
            let position = state.position(covered).filter(|position| position.epoch == epoch);
            let Some(position) = position else { continue };
            if let Some(subscription) = state.subscription_of(self.handle.id(), name) {
                let frame = frames::reconnect(within_ms, position, name).counted(&self.hub.memory);
                self.handle.outbox.offer(&frame, subscription);
            }
        }
    }
}

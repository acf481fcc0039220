//! Channels that a session receives with ids.

use std::sync::Arc;
use std::time::Duration;

use shared::history::{Epoch, Page, Position};
use shared::ids::Channel;
use sockets::Acknowledged;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::ops::{Followable, Wanted};
use super::state::{Granted, Rest, Unproved};
use super::{PendingReload, Session};
use crate::channel::frames;
use crate::channel::recoverable::NotWhole;
use crate::code::CloseCode;
use crate::frame::SubscriptionId;
use crate::hub::following::{Followed, Join};
use crate::metrics::Loss;
use crate::recovery::replay::{Read, Replay};

impl<S: AsyncRead + AsyncWrite + Acknowledged + Unpin> Session<S> {
    /// Follows a channel, or begins the replay of its stored messages.
    pub(super) fn follow(&mut self, followable: Followable, now: Instant) -> Result<Granted, Unproved> {
        let Followable { wanted: Wanted { name, after, instead_of_plain }, found } = followable;
        let (attached, first) = (found.attached, found.first);
        let channel = attached.guard.channel().clone();
        let covered = self.covered(&channel, attached.leader.epoch);
        if after.is_some() {
            self.deps.recovery.count_recovery(first.as_ref().map(drop).map_err(|why| *why));
        }
        let subscription = self.member.next_subscription();
        let named = (&name, subscription);
        let (Some(after), Ok(first)) = (after, first) else {
            let followed = self.member.follow(&channel, named, instead_of_plain, covered, None, now);
            let Followed { position, ended } = followed.ok_or(Unproved)?;
            self.replays.retain(|replay| replay.name != name);
            let reloads = self.pending_reloads.len();
            self.pending_reloads.retain(|reload| reload.name != name);
            if self.end(ended, Rest::Give) || self.pending_reloads.len() < reloads {
                self.pending_reloads.push(PendingReload { name, position });
            }
            return Ok(Granted::Following { position, recovered: after.is_none() });
        };
        if first.is_none() {
            match self.member.join(&channel, named, after, covered, None, now) {
                Join::Joined(position) => return Ok(Granted::Following { position, recovered: true }),
                Join::Behind => {}
                Join::OtherEpoch => return Err(Unproved),
            }
        }
        self.replays.push(Replay::new(attached.guard, (name, subscription), after, first));
        Ok(Granted::Following { position: after, recovered: true })
    }

    /// Receives nothing more under this name.
    pub(super) fn unfollow(&mut self, name: &str, rest: Rest) {
        let replay = self.replays.iter().position(|replay| *replay.name == *name);
        let replay = replay.map(|index| self.replays.remove(index).subscription);
        let ended = self.member.unfollow(name).or(replay);
        self.pending_reloads.retain(|reload| *reload.name != *name);
        self.end(ended, rest);
    }

    /// Receives this channel as it was published no longer.
    pub(super) fn unwatch(&mut self, channel: &Channel, rest: Rest) {
        let ended = self.member.unwatch(channel);
        self.end(ended, rest);
    }

    /// Takes the waiting messages of an ended subscription out of the outbox, so that none of them comes
    /// after the answer to the next op. True: messages were thrown away that should have been given.
    fn end(&mut self, ended: Option<SubscriptionId>, rest: Rest) -> bool {
        let Some(ended) = ended else { return false };
        let waiting = self.member.outbox().withdraw(ended);
        match rest {
            Rest::Give if !self.paused => {
                waiting.into_iter().for_each(|frame| self.transport.push(frame));
                false
            }
            Rest::Give => {
                self.deps.metrics.lost(Loss::Unsubscribed, waiting.len());
                !waiting.is_empty()
            }
            Rest::Drop => self.drop_waiting(ended, waiting.len(), Loss::Resubscribed),
            Rest::Forbid => self.drop_waiting(ended, waiting.len(), Loss::NotMember),
        }
    }

    /// Throws away what already waits to be written for an ended subscription, and counts it.
    fn drop_waiting(&mut self, ended: SubscriptionId, in_outbox: usize, why: Loss) -> bool {
        let lost = in_outbox + self.transport.withdraw(ended);
        self.deps.metrics.lost(why, lost);
        false
    }

    /// Ends all subscriptions, and throws away what waits for them.
    pub(super) fn forget(&mut self) {
        self.member.unsubscribe_all();
        self.replays = Vec::new();
        self.pending_reloads = Vec::new();
        self.farewell = None;
        self.deps.metrics.lost(Loss::OtherUser, self.member.outbox().discard());
    }

    /// Gives the client what a replay has read. Some: the session ends with this code.
    pub(super) fn on_read(&mut self, read: Read) -> Option<CloseCode> {
        let mut replay = if self.replays.is_empty() { return None } else { self.replays.remove(0) };
        match read {
            Read::Page(page) => {
                self.give(&mut replay, page);
                let given = replay.given;
                let Replay { channel, name, subscription, replaying, .. } = &mut replay;
                let named = (&*name, *subscription);
                match self.member.join(channel, named, given, 0, Some(replaying), Instant::now()) {
                    Join::Joined(_) => {}
                    // The other replays take their turn.
                    Join::Behind | Join::OtherEpoch => self.replays.push(replay),
                }
            }
            Read::Lost(why, attached) => {
                let covered = self.covered(&replay.channel, attached.leader.epoch);
                let Replay { channel, name, subscription, replaying, .. } = &mut replay;
                let (named, now) = ((&*name, *subscription), Instant::now());
                match self.member.follow(channel, named, false, covered, Some(replaying), now) {
                    Some(followed) => self.say_reload(&replay, followed.position, why),
                    None => self.replays.push(replay),
                }
            }
            Read::Unavailable => return Some(CloseCode::StoreUnavailable),
        }
        None
    }

    fn give(&mut self, replay: &mut Replay, page: Page) {
        for stored in page.messages {
            replay.given.seq = stored.seq;
            let position = replay.given;
            match stored.message {
                _ if stored.erased => self.say_reload(replay, position, NotWhole::Erased),
                Ok(message) => {
                    let (name, subscription) = (&replay.name, replay.subscription);
                    let frame = frames::message(position, name, message.kind, &message.payload);
                    self.send(frame.of(subscription));
                }
                Err(error) => {
                    self.deps.metrics.lost(Loss::BadMessage, 1);
                    tracing::warn!(%error, seq = stored.seq, "passed over a stored message that can't be read");
                }
            }
        }
    }

    fn say_reload(&mut self, replay: &Replay, position: Position, why: NotWhole) {
        self.deps.recovery.count_reloads(why, 1);
        self.send(frames::reload(position, &replay.name, why).of(replay.subscription));
    }

    /// Tells the client to open another connection before this one is closed, if the client can go on there
    /// where it is here. While messages are held back the client is not told: the positions of its channels
    /// are messages too.
    pub(super) fn say_farewell(&mut self, at: Instant) {
        if self.paused {
            self.farewell = Some(at);
            return;
        }
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let within_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let recovery = Arc::clone(&self.deps.recovery);
        self.member.say_reconnect(within_ms, |channel, epoch| recovery.covered(channel, epoch));
        for replay in &self.replays {
            let frame = frames::reconnect(within_ms, replay.given, &replay.name).of(replay.subscription);
            self.transport.push(frame.counted(self.member.memory()));
        }
    }

    /// Lets messages go again.
    pub(super) fn resume(&mut self) {
        self.paused = false;
        for PendingReload { name, position } in std::mem::take(&mut self.pending_reloads) {
            self.deps.recovery.count_reloads(NotWhole::HeldBack, 1);
            self.send(frames::reload(position, &name, NotWhole::HeldBack));
        }
        if let Some(at) = self.farewell.take() {
            self.say_farewell(at);
        }
    }

    fn covered(&self, channel: &Channel, epoch: Epoch) -> u64 {
        self.deps.recovery.covered(channel, epoch)
    }
}

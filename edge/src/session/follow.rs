//! What a session does for the channels that it receives with ids.

use std::sync::Arc;
use std::time::Duration;

use shared::history::{Epoch, Page, Position};
use shared::ids::Channel;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::state::{Granted, Unproved};
use super::{Followable, Session};
use crate::code::CloseCode;
use crate::hub::kept::Join;
use crate::metrics::Loss;
use crate::recovery::envelope;
use crate::recovery::replay::{Read, Replay};
use crate::recovery::verdict::NotWhole;

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Follows a channel, or begins to give what is stored of it.
    pub(super) fn follow(&mut self, followable: Followable, now: Instant) -> Result<Granted, Unproved> {
        let Followable { name, after, found } = followable;
        let (opened, first) = (found.opened, found.first);
        let channel = opened.hold.channel().clone();
        let covered = self.covered(&channel, opened.leader.epoch);
        if after.is_some() {
            self.env.keep.metrics.recovery(first.as_ref().map(drop).map_err(|why| *why));
        }
        let (Some(after), Ok(first)) = (after, first) else {
            let position = self.member.follow(&channel, &name, covered, None, now).ok_or(Unproved)?;
            return Ok(Granted::Following { position, recovered: after.is_none() });
        };
        if first.is_none() {
            let here = (after.epoch, after.seq);
            match self.member.join(&channel, &name, here, covered, None, now) {
                Join::Joined(position) => return Ok(Granted::Following { position, recovered: true }),
                Join::Behind => {}
                Join::OtherEpoch => return Err(Unproved),
            }
        }
        self.replays.push(Replay::new(opened.hold, name, after, first));
        Ok(Granted::Following { position: after, recovered: true })
    }

    /// Receives nothing more under this name. What was on its way goes out first, so that nothing of it comes after the
    /// answer to what follows.
    pub(super) fn unfollow(&mut self, name: &str) {
        self.replays.retain(|replay| *replay.name != *name);
        self.member.unfollow(name);
        let waiting = self.member.outbox().take(usize::MAX);
        waiting.into_iter().for_each(|frame| self.transport.push(frame));
    }

    /// Gives what was read. Some: the session ends.
    pub(super) fn on_read(&mut self, read: Read) -> Option<CloseCode> {
        let mut replay = if self.replays.is_empty() { return None } else { self.replays.remove(0) };
        match read {
            Read::Page(page) => {
                self.give(&mut replay, page);
                let here = (replay.epoch, replay.cursor);
                let Replay { channel, name, replaying, .. } = &mut replay;
                match self.member.join(channel, name, here, 0, Some(replaying), Instant::now()) {
                    Join::Joined(_) => {}
                    // The others take their turn.
                    Join::Behind | Join::OtherEpoch => self.replays.push(replay),
                }
            }
            Read::Lost(why, opened) => {
                let covered = self.covered(&replay.channel, opened.leader.epoch);
                let Replay { channel, name, replaying, .. } = &mut replay;
                match self.member.follow(channel, name, covered, Some(replaying), Instant::now()) {
                    Some(position) => self.say_reload(position, &replay.name, why),
                    None => self.replays.push(replay),
                }
            }
            Read::Unavailable => return Some(CloseCode::StoreUnavailable),
        }
        None
    }

    fn give(&mut self, replay: &mut Replay, page: Page) {
        for stored in page.messages {
            replay.cursor = stored.seq;
            let position = Position { epoch: replay.epoch, seq: stored.seq };
            match stored.message {
                _ if stored.erased => self.say_reload(position, &replay.name, NotWhole::Erased),
                Ok(message) => {
                    let name = &replay.name;
                    self.transport.push(envelope::message(position, name, message.kind, &message.payload));
                }
                Err(error) => {
                    self.env.metrics.lost(Loss::BadMessage, 1);
                    tracing::warn!(%error, seq = stored.seq, "passed over a stored message that can't be read");
                }
            }
        }
    }

    fn say_reload(&mut self, position: Position, name: &str, why: NotWhole) {
        self.env.keep.metrics.reload(why, 1);
        self.transport.push(envelope::reload(position, name, why));
    }

    /// Tells the client to open another connection before this one is closed, if it can go on there where it is here.
    pub(super) fn say_farewell(&mut self, at: Instant) {
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let within_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let keep = Arc::clone(&self.env.keep);
        self.member.say_reconnect(within_ms, |channel, epoch| keep.covered(channel, epoch));
        for replay in &self.replays {
            let here = Position { epoch: replay.epoch, seq: replay.cursor };
            self.transport.push(envelope::reconnect(within_ms, here, &replay.name));
        }
    }

    fn covered(&self, channel: &Channel, epoch: Epoch) -> u64 {
        self.env.keep.covered(channel, epoch)
    }
}

//! Guards of a channel. A task that needs the channel's cursor, fetches its missing messages, or replays the
//! channel holds one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::ids::Channel;

use super::Hub;
use crate::channel::ChannelState;

/// Keeps the cursor of a channel alive. Every replay holds a guard as well.
#[derive(Debug)]
pub(crate) struct ChannelGuard {
    hub: Arc<Hub>,
    channel: Channel,
}

impl Hub {
    /// Keeps the cursor of a channel with history alive for as long as the guard lives.
    pub(crate) fn guard(self: &Arc<Self>, channel: &Channel) -> ChannelGuard {
        let mut channels = self.channels.of(channel.as_str());
        let state = channels.entry(channel.clone()).or_default();
        state.has_history = true;
        self.guard_state(channel, state)
    }

    fn guard_state(self: &Arc<Self>, channel: &Channel, state: &mut ChannelState) -> ChannelGuard {
        state.guards += 1;
        ChannelGuard { hub: Arc::clone(self), channel: channel.clone() }
    }

    /// Returns the fetch that a channel's cursor has just begun.
    pub(super) fn fetching(self: &Arc<Self>, channel: &Channel, state: &mut ChannelState) -> Fetching {
        Fetching { number: state.cursor.fetch(), guard: self.guard_state(channel, state) }
    }
}

impl ChannelGuard {
    /// Begins a replay: from now on the session counts among those that messages go to.
    pub(crate) fn replay(self) -> Replaying {
        let mut channels = self.hub.channels.of(self.channel.as_str());
        if let Some(state) = channels.get_mut(self.channel.as_str()) {
            state.replaying += 1;
        }
        drop(channels);
        self.hub.replays.fetch_add(1, Ordering::Relaxed);
        Replaying { guard: self, counts: true }
    }

    /// Returns the channel.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        let mut channels = self.hub.channels.of(self.channel.as_str());
        if let Some(state) = channels.get_mut(self.channel.as_str()) {
            state.guards -= 1;
            if state.is_unneeded() {
                channels.remove(self.channel.as_str());
            }
        }
    }
}

/// A fetch of a channel's missing messages. The holder brings the fetch to its end; if the fetch is dropped
/// before, the cursor knows that no fetch runs any more.
#[derive(Debug)]
pub(crate) struct Fetching {
    number: u64,
    guard: ChannelGuard,
}

impl Fetching {
    /// Returns the channel.
    pub(crate) fn channel(&self) -> &Channel {
        &self.guard.channel
    }

    /// Returns the number of the fetch among those of its channel.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let ChannelGuard { hub, channel } = &self.guard;
        if let Some(state) = hub.channels.of(channel.as_str()).get_mut(channel.as_str()) {
            state.cursor.abandon(self.number);
        }
        hub.progressed();
    }
}

/// A session in a replay.
#[derive(Debug)]
pub(crate) struct Replaying {
    guard: ChannelGuard,
    /// Whether the channel still counts the replay.
    counts: bool,
}

impl Replaying {
    /// Ends the replay in the step in which the session follows, so that no message counts the session twice.
    pub(super) fn end(&mut self, state: &mut ChannelState) {
        if std::mem::take(&mut self.counts) {
            state.replaying -= 1;
        }
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        let ChannelGuard { hub, channel } = &self.guard;
        if self.counts
            && let Some(state) = hub.channels.of(channel.as_str()).get_mut(channel.as_str())
        {
            state.replaying -= 1;
        }
        hub.replays.fetch_sub(1, Ordering::Relaxed);
    }
}

//! Reads the missing messages of a channel, and delivers them before anything that came after them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use shared::history::{Epoch, Page, Position, ReadError};
use shared::ids::Channel;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::metrics::Cause;
use super::recent::Key;
use super::{PAGE, PAUSE, Recovery, SHORT_PAUSE};
use crate::channel::Arrival;
use crate::channel::cursor::Missing;
use crate::channel::recoverable::NotWhole;
use crate::hub::guards::Fetching;
use crate::spans;

/// Channels that one task catches up with at a time.
const AT_ONCE: usize = 64;

/// How long the store may lack a message that is said to be stored.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of a fetch after a page.
enum Taken {
    /// Nothing is missing any more.
    All,
    /// More is missing, or may be.
    Some,
    /// As far as the store knows, the wanted message is not there.
    NotThere,
}

impl Recovery {
    /// Fetches what a channel has just begun to miss, in a task of its own.
    pub(crate) fn fetch(self: &Arc<Self>, fetching: Fetching, cause: Cause) {
        let recovery = Arc::clone(self);
        let gone = self.gone.clone();
        // If this task were lost, everything behind the gap would wait for ever.
        self.drain.spawn_whole(
            "edge-fetch",
            async move {
                tokio::select! { () = recovery.catch_up(fetching, cause) => {}, () = gone.cancelled() => {} }
            }
            .in_current_span(),
        );
    }

    /// Fetches what several channels have just begun to miss, in one task.
    pub(super) fn fetch_all(self: &Arc<Self>, fetches: Vec<Fetching>, cause: Cause) {
        let (recovery, gone) = (Arc::clone(self), self.gone.clone());
        self.drain.spawn_whole("edge-fetch", async move {
            let all =
                stream::iter(fetches).for_each_concurrent(AT_ONCE, |fetch| recovery.catch_up(fetch, cause));
            tokio::select! { () = all => {}, () = gone.cancelled() => {} }
        });
    }

    /// Fetches until nothing is missing any more.
    pub(crate) async fn catch_up(&self, fetching: Fetching, cause: Cause) {
        self.metrics.fetch(cause);
        let channel = fetching.channel();
        // Until when the store may lack a message that is said to be stored.
        let mut patience = None;
        while let Some(Missing { epoch, after, up_to }) = self.hub.missing(&fetching) {
            match self.read_missing(channel, epoch, after).await {
                Ok(page) => match self.take(channel, page, up_to).await {
                    Taken::All => return,
                    Taken::Some => patience = None,
                    Taken::NotThere => {
                        let now = Instant::now();
                        if *patience.get_or_insert(now + PATIENCE) <= now {
                            return self.give_back(&fetching, Position { epoch, seq: after });
                        }
                        sleep(SHORT_PAUSE).await;
                    }
                },
                // The sweep begins anew in the other epoch. As long as this edge knows of no other epoch, the
                // answer may be wrong.
                Err(ReadError::OtherEpoch) if self.history.epoch(channel) != Some(epoch) => return,
                Err(error) => {
                    self.metrics.read_errors.inc();
                    tracing::debug!(%channel, %error, "what is missing can't be read yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn read_missing(&self, channel: &Channel, epoch: Epoch, after: u64) -> Result<Page, ReadError> {
        let slot = self.read_slot(&self.fetches, self.history.partition(channel), epoch).await;
        let _slot = slot.ok_or(ReadError::NotReady)?;
        self.history.page(channel, epoch, after, PAGE).await
    }

    /// Delivers a page.
    async fn take(&self, channel: &Channel, page: Page, wanted: u64) -> Taken {
        let epoch = page.epoch;
        if !page.whole {
            return if self.give_up(channel, epoch).await { Taken::All } else { Taken::Some };
        }
        let mut last = 0;
        for stored in &page.messages {
            last = stored.seq;
            let span = spans::delivery(
                Some(&stored.headers),
                stored.message.as_ref().map_or(0, |it| it.payload.len()),
            );
            let Some(arrival) = Arrival::read(stored, &span) else {
                tracing::warn!(%channel, seq = stored.seq, "passed over a stored message that can't be read");
                self.hub.pass(channel, epoch, stored.seq);
                continue;
            };
            if let Some(counts) =
                span.in_scope(|| self.hub.on_fetched(channel, epoch, &arrival, Instant::now()))
            {
                spans::delivered(&span, counts);
                self.metrics.fetched.inc();
                self.metrics.deliveries.count(counts.sessions, counts.failed);
                self.recent.remember(Key::Stored(Position { epoch, seq: stored.seq }), counts);
            }
        }
        if self.hub.settle(channel) {
            return Taken::All;
        }
        if page.remaining > 0 || last >= wanted {
            return Taken::Some;
        }
        if page.last_seq < wanted {
            return Taken::NotThere;
        }
        // The replica is behind, or the wanted message is gone.
        match self.history.end(channel, epoch).await {
            Ok(end) if self.hub.on_tail(channel, wanted, &end) => Taken::All,
            Ok(_) | Err(_) => Taken::NotThere,
        }
    }

    /// Gives a fetch back, since the stream does not have the wanted message: its end was assumed too far
    /// off, or its leader has lost much. The channels are compared again, since copies that came meanwhile
    /// count as heard.
    fn give_back(&self, fetching: &Fetching, last: Position) {
        let channel = fetching.channel();
        self.metrics.given_back.inc();
        tracing::debug!(%channel, last = last.seq, "a message that is said to be stored is not there");
        self.hub.give_back(fetching);
        self.missed(self.history.partition(channel), last.epoch, last.seq);
    }

    /// Gives up messages that are missing for good, and goes on with the next.
    async fn give_up(&self, channel: &Channel, epoch: Epoch) -> bool {
        match self.history.tail(channel).await {
            Ok(tail) if tail.epoch == epoch => {
                let subscribers = self.hub.skip(channel, tail.seq, NotWhole::TooFar, Instant::now());
                self.metrics.reload(NotWhole::TooFar, subscribers);
                tracing::warn!(%channel, subscribers, "messages were gone before they could be fetched");
                self.hub.settle(channel)
            }
            Ok(_) | Err(_) => {
                sleep(PAUSE).await;
                false
            }
        }
    }
}

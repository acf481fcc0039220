//! Reads what is missing of a channel, and delivers it, before anything that came after it.

use std::sync::Arc;

use shared::history::{Epoch, Page, ReadError};
use shared::ids::Channel;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::keep::{Keep, PAGE, PAUSE, SHORT_PAUSE};
use super::metrics::Cause;
use super::recent::Key;
use super::verdict::NotWhole;
use crate::hub::kept::{Hold, readable};
use crate::traced;

impl Keep {
    /// Fetches what a line has just begun to miss, in a task of its own.
    pub(crate) fn fetch(self: &Arc<Self>, channel: &Channel, cause: Cause) {
        let (keep, hold) = (Arc::clone(self), self.hub.hold(channel));
        let gone = self.gone.clone();
        self.drain.spawn(
            async move {
                tokio::select! { () = keep.catch_up(hold, cause) => {}, () = gone.cancelled() => {} }
            }
            .in_current_span(),
        );
    }

    /// Fetches until nothing is missing any more.
    pub(crate) async fn catch_up(&self, hold: Hold, cause: Cause) {
        self.metrics.fetch(cause);
        let channel = hold.channel();
        while let Some((epoch, after, wanted)) = self.hub.missing(channel) {
            let Ok(_place) = self.fetches.acquire().await else { return };
            self.sure(self.history.partition(channel), epoch).await;
            match self.history.page(channel, epoch, after, PAGE).await {
                Ok(page) => {
                    if self.take(channel, page, wanted).await {
                        return;
                    }
                }
                // The sweep begins anew.
                Err(ReadError::OtherEpoch) => return,
                Err(error) => {
                    self.metrics.read_errors.inc();
                    tracing::debug!(%channel, %error, "what is missing can't be read yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Delivers a page. True: nothing is missing any more.
    async fn take(&self, channel: &Channel, page: Page, wanted: u64) -> bool {
        let epoch = page.epoch;
        if !page.whole {
            return self.give_up(channel, epoch).await;
        }
        let mut last = 0;
        for stored in &page.messages {
            last = stored.seq;
            let span = traced::delivery(
                Some(&stored.headers),
                stored.message.as_ref().map_or(0, |it| it.payload.len()),
            );
            let Some(incoming) = readable(stored, &span) else {
                tracing::warn!(%channel, seq = stored.seq, "passed over a stored message that can't be read");
                self.hub.pass(channel, epoch, stored.seq);
                continue;
            };
            if let Some(counts) =
                span.in_scope(|| self.hub.on_fetched(channel, epoch, &incoming, Instant::now()))
            {
                traced::delivered(&span, counts);
                self.metrics.fetched.inc();
                self.recent.remember(Key::Stored(epoch, stored.seq), counts);
            }
        }
        if self.hub.settle(channel) {
            return true;
        }
        if page.remaining == 0 && last < wanted {
            // The replica is behind, or what is wanted is not there any more: the leader knows.
            return match self.history.tail(channel).await {
                Ok((now, tail)) if now == epoch && self.hub.on_tail(channel, epoch, wanted, tail) => true,
                Ok(_) | Err(_) => {
                    sleep(SHORT_PAUSE).await;
                    false
                }
            };
        }
        false
    }

    /// Something is missing for good. Goes on with what comes next.
    async fn give_up(&self, channel: &Channel, epoch: Epoch) -> bool {
        match self.history.tail(channel).await {
            Ok((now, tail)) if now == epoch => {
                let told = self.hub.skip(channel, tail, NotWhole::TooFar, Instant::now());
                self.metrics.reload(NotWhole::TooFar, told);
                tracing::warn!(%channel, told, "messages were gone before they could be fetched");
                self.hub.settle(channel)
            }
            Ok(_) | Err(ReadError::OtherEpoch) => true,
            Err(_) => {
                sleep(PAUSE).await;
                false
            }
        }
    }
}

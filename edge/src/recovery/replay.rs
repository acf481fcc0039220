//! Gives one session what is stored after its position, as fast as it reads, until it can follow.
//!
//! Nothing of the channel goes through the outbox meanwhile, so how much there is never makes a session too
//! slow. Each page proves that it is whole, at the time it was read; the last step, from reading to
//! following, is one step of the hub.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shared::history::{Epoch, Page, Position, ReadError, StoredMessage};
use shared::ids::Channel;
use tokio::time::{sleep, timeout};

use super::keep::{Keep, PAGE, PAUSE, SHORT_PAUSE};
use super::opening::Opened;
use super::verdict::{NotWhole, judge};
use crate::frame::{SubscriptionId, block};
use crate::hub::kept::{Hold, Replaying};

/// How long the store may be away in the middle of a replay before the client is sent to another edge.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a session that subscribes with a position finds.
#[derive(Debug)]
pub(crate) struct Found {
    /// The line, which has come as far as the store.
    pub(crate) opened: Opened,
    /// The first page after its position, if there is one, or why nothing can be given.
    pub(crate) first: Result<Option<Page>, NotWhole>,
}

/// What the next read brought.
#[derive(Debug)]
pub(crate) enum Read {
    /// More; whole.
    Page(Page),
    /// The rest can't be given any more. The line is open.
    Lost(NotWhole, Opened),
    /// The store was away for too long.
    Unavailable,
}

/// One session's way through one channel.
pub(crate) struct Replay {
    pub(crate) channel: Channel,
    /// What the client calls it.
    pub(crate) name: Arc<str>,
    /// What the session is given it for, now and once it follows.
    pub(crate) subscription: SubscriptionId,
    pub(crate) epoch: Epoch,
    /// The last sequence that the client was given, or named.
    pub(crate) cursor: u64,
    /// A page that is still to be given.
    pub(crate) page: Option<Page>,
    page_cost: usize,
    reading: Option<Pin<Box<dyn Future<Output = Read> + Send>>>,
    /// Counts it among those that messages go to.
    pub(crate) replaying: Replaying,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("channel", &self.channel)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Replay {
    pub(crate) fn new(
        hold: Hold,
        (name, subscription): (Arc<str>, SubscriptionId),
        after: Position,
        page: Option<Page>,
    ) -> Self {
        let channel = hold.channel().clone();
        let Position { epoch, seq: cursor } = after;
        let page_cost = page.as_ref().map_or(0, cost_of);
        let replaying = hold.replay();
        Self { channel, name, subscription, epoch, cursor, page, page_cost, reading: None, replaying }
    }

    /// What the page takes that is still to be given.
    pub(crate) fn held(&self) -> usize {
        self.page.as_ref().map_or(0, |_| self.page_cost)
    }

    /// Waits for the next page. Nothing is lost when this is dropped halfway.
    pub(crate) async fn next(&mut self, keep: &Arc<Keep>) -> Read {
        if let Some(page) = self.page.take() {
            return Read::Page(page);
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (keep, channel) = (Arc::clone(keep), self.channel.clone());
            let (epoch, cursor) = (self.epoch, self.cursor);
            Box::pin(async move { keep.read_on(&channel, epoch, cursor).await })
        });
        let read = reading.await;
        self.reading = None;
        read
    }
}

/// What a header takes beside its texts: its place in a map, and a list of values.
const HEADER: usize = 96;

/// What a page takes of the heap.
fn cost_of(page: &Page) -> usize {
    let each = |stored: &StoredMessage| {
        let headers = stored.headers.iter();
        let headers = headers.map(|(name, values)| {
            let values = values.iter().map(|value| block(value.as_str().len())).sum::<usize>();
            HEADER + block(AsRef::<[u8]>::as_ref(name).len()) + values
        });
        let payload = stored.message.as_ref().map_or(0, |message| block(message.payload.len()));
        payload + headers.sum::<usize>()
    };
    page.messages.capacity() * size_of::<StoredMessage>() + page.messages.iter().map(each).sum::<usize>()
}

impl Keep {
    /// Looks whether everything after a position can be given, and reads the first of it. Give it a deadline.
    pub(crate) async fn find(self: &Arc<Self>, channel: &Channel, after: Position) -> Found {
        loop {
            let opened = self.open(channel).await;
            if let Err(why) = judge(after, opened.leader) {
                return Found { opened, first: Err(why) };
            }
            if after.seq >= opened.tail {
                return Found { opened, first: Ok(None) };
            }
            match self.read_page(channel, after.epoch, after.seq).await {
                Ok(page) if !page.whole => return Found { opened, first: Err(NotWhole::TooFar) },
                Ok(page) if page.messages.iter().any(|message| message.erased) => {
                    return Found { opened, first: Err(NotWhole::Erased) };
                }
                Ok(page) if page.messages.is_empty() => sleep(SHORT_PAUSE).await,
                Ok(page) => {
                    // In another life of the stream, what was found is of no use.
                    if self.line_comes_to(channel, after.epoch, &page).await.is_ok() {
                        return Found { opened, first: Ok(Some(page)) };
                    }
                }
                Err(error) => {
                    self.metrics.read_errors.inc();
                    tracing::debug!(%channel, %error, "what is stored can't be read yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn read_page(&self, channel: &Channel, epoch: Epoch, after: u64) -> Result<Page, ReadError> {
        let place = self.place(&self.replays, self.history.partition(channel), epoch).await;
        let _place = place.ok_or(ReadError::NotReady)?;
        let page = self.history.page(channel, epoch, after, PAGE).await?;
        self.metrics.replayed.inc_by(page.messages.len() as u64);
        Ok(page)
    }

    /// Waits until the line has come to the end of a page: what is given to a session may be ahead of its
    /// live copy, and would come again if the session joined before.
    async fn line_comes_to(
        self: &Arc<Self>,
        channel: &Channel,
        epoch: Epoch,
        page: &Page,
    ) -> Result<(), ReadError> {
        match page.messages.last() {
            Some(last) => self.catch_up_to(channel, epoch, last.seq).await,
            None => Ok(()),
        }
    }

    async fn read_on(self: &Arc<Self>, channel: &Channel, epoch: Epoch, cursor: u64) -> Read {
        // Whatever it waits for: the store, the line, or the beginning of another one.
        timeout(PATIENCE, self.try_to_read_on(channel, epoch, cursor)).await.unwrap_or(Read::Unavailable)
    }

    async fn try_to_read_on(self: &Arc<Self>, channel: &Channel, epoch: Epoch, cursor: u64) -> Read {
        loop {
            match self.read_page(channel, epoch, cursor).await {
                Ok(page) if !page.whole => return Read::Lost(NotWhole::TooFar, self.open(channel).await),
                Ok(page) if !page.messages.is_empty() => {
                    return match self.line_comes_to(channel, epoch, &page).await {
                        Ok(()) => Read::Page(page),
                        Err(_) => Read::Lost(NotWhole::OtherEpoch, self.open(channel).await),
                    };
                }
                Ok(_) => match self.history.tail(channel).await {
                    // The line came further than the store now goes.
                    Ok((now, tail)) if now == epoch && tail <= cursor => {
                        return Read::Lost(NotWhole::Erased, self.open(channel).await);
                    }
                    // A replica is behind.
                    Ok(_) | Err(_) => sleep(SHORT_PAUSE).await,
                },
                Err(ReadError::OtherEpoch) => {
                    return Read::Lost(NotWhole::OtherEpoch, self.open(channel).await);
                }
                Err(error) => {
                    self.metrics.read_errors.inc();
                    tracing::debug!(%channel, %error, "what is stored can't be read yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use shared::bus::{self, Bus, BusConfig};
    use shared::drain::Drain;
    use shared::faults::Faults;
    use shared::history::{History, HistoryConfig, Role};

    use super::*;
    use crate::hub::{Hub, Places, SessionPolicy};
    use crate::recovery::keep::KeepLimits;
    use crate::recovery::metrics::RecoveryMetrics;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_replay_that_lost_its_way_ends_though_the_store_never_says_where_the_channel_goes_on() {
        let (rest, of_bus) = (Drain::new(), Drain::new());
        let server = bus::provide(&BusConfig::default(), &of_bus).await.unwrap();
        let bus = Bus::connect(&server, "test", &rest).await.unwrap();
        let places = Places { sessions: 0, watermark: 0, per_user: 1, policy: SessionPolicy::default() };
        let hub = Arc::new(Hub::new(places));
        let history = History::open(&bus, &HistoryConfig::default(), Role::Reader, &rest);
        let mut state = history.state();
        let ready = state.wait_for(|state| state.epochs().is_some());
        timeout(MINUTE, ready).await.expect("history is ready").unwrap();
        let limits = KeepLimits { replays: 1, remembered: 1, faults: Faults::default() };
        let metrics = RecoveryMetrics::register(&mut Registry::default());
        let keep = Arc::new(Keep::new(history, hub, limits, metrics, rest.clone(), rest.token()));
        assert_eq!(of_bus.finish(MINUTE).await, 0);
        tokio::time::pause();
        // Another life of the stream: what the session was reading is lost.
        let channel = Channel::parse("user:1").unwrap();
        let read = timeout(10 * MINUTE, keep.read_on(&channel, Epoch(7), 0)).await;
        assert!(matches!(read, Ok(Read::Unavailable)), "{read:?}");
        tokio::time::resume();
        assert_eq!(rest.finish(MINUTE).await, 0);
    }
}

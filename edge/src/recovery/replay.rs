//! Gives one session the stored messages after its position, as fast as it reads, until it can follow.
//!
//! During a replay nothing of the channel goes through the outbox, so however much is stored, a replay never
//! makes a session too slow. Each page proves that it is whole at the time it was read. The step from reading
//! to following is one step of the hub.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shared::history::{Epoch, Page, Position, ReadError, StoredMessage};
use shared::ids::Channel;
use tokio::time::{sleep, timeout};

use super::attach::Attached;
use super::{PAGE, PAUSE, Recovery, SHORT_PAUSE};
use crate::channel::recoverable::{NotWhole, judge};
use crate::frame::{SubscriptionId, block};
use crate::hub::guards::{ChannelGuard, Replaying};

/// How long the store may be away in the middle of a replay before the client is sent to another edge.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer to a session that subscribes with a position.
#[derive(Debug)]
pub(crate) struct Found {
    /// The channel; its cursor has come as far as the store.
    pub(crate) attached: Attached,
    /// The first page after the position, if there is one, or the reason why nothing can be given.
    pub(crate) first: Result<Option<Page>, NotWhole>,
}

/// The result of the next read.
#[derive(Debug)]
pub(crate) enum Read {
    /// More messages, without a gap.
    Page(Page),
    /// The rest can't be given any more. The cursor is open.
    Lost(NotWhole, Attached),
    /// The store was away for too long.
    Unavailable,
}

/// The replay of one channel for one session.
pub(crate) struct Replay {
    pub(crate) channel: Channel,
    /// The name by which the client calls the channel.
    pub(crate) name: Arc<str>,
    /// The subscription that the messages are for, in the replay and once the session follows.
    pub(crate) subscription: SubscriptionId,
    /// The last position that the client was given, or named.
    pub(crate) given: Position,
    /// The page that is still to be given.
    pub(crate) page: Option<Page>,
    page_cost: usize,
    reading: Option<Pin<Box<dyn Future<Output = Read> + Send>>>,
    /// Counts the session among those that messages go to.
    pub(crate) replaying: Replaying,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("channel", &self.channel)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl Replay {
    pub(crate) fn new(
        guard: ChannelGuard,
        (name, subscription): (Arc<str>, SubscriptionId),
        given: Position,
        page: Option<Page>,
    ) -> Self {
        let channel = guard.channel().clone();
        let page_cost = page.as_ref().map_or(0, cost_of);
        let replaying = guard.replay();
        Self { channel, name, subscription, given, page, page_cost, reading: None, replaying }
    }

    /// Returns the memory of the page that is still to be given.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.page.as_ref().map_or(0, |_| self.page_cost)
    }

    /// Waits for the next page. Nothing is lost when the future is dropped halfway.
    pub(crate) async fn next(&mut self, recovery: &Arc<Recovery>) -> Read {
        if let Some(page) = self.page.take() {
            return Read::Page(page);
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (recovery, channel, given) = (Arc::clone(recovery), self.channel.clone(), self.given);
            Box::pin(async move { recovery.read_on(&channel, given).await })
        });
        let read = reading.await;
        self.reading = None;
        read
    }
}

/// Memory of a header besides its texts: its entry in a map, and a list of values.
const HEADER: usize = 96;

/// Returns the memory of a page on the heap.
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

impl Recovery {
    /// Finds out whether everything after a position can be given, and reads the first page. There is no time
    /// limit: the caller sets a deadline.
    pub(crate) async fn find(self: &Arc<Self>, channel: &Channel, after: Position) -> Found {
        loop {
            let attached = self.attach(channel).await;
            if let Err(why) = judge(after, attached.leader) {
                return Found { attached, first: Err(why) };
            }
            if after.seq >= attached.tail {
                return Found { attached, first: Ok(None) };
            }
            match self.read_page(channel, after).await {
                Ok(page) if !page.whole => return Found { attached, first: Err(NotWhole::TooFar) },
                Ok(page) if page.messages.iter().any(|message| message.erased) => {
                    return Found { attached, first: Err(NotWhole::Erased) };
                }
                Ok(page) if page.messages.is_empty() => sleep(SHORT_PAUSE).await,
                Ok(page) => {
                    // In another epoch the page is of no use.
                    if self.cursor_comes_to(channel, after.epoch, &page).await.is_ok() {
                        return Found { attached, first: Ok(Some(page)) };
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

    async fn read_page(&self, channel: &Channel, after: Position) -> Result<Page, ReadError> {
        let slot = self.read_slot(&self.replays, self.history.partition(channel), after.epoch).await;
        let _slot = slot.ok_or(ReadError::NotReady)?;
        self.metrics.replay_reads.inc();
        let page = self.history.page(channel, after.epoch, after.seq, PAGE).await?;
        self.metrics.replayed.inc_by(page.messages.len() as u64);
        Ok(page)
    }

    /// Waits until the cursor has come to the end of a page. A message of the page may be ahead of its live
    /// copy, and would come again if the session joined before.
    async fn cursor_comes_to(
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

    async fn read_on(self: &Arc<Self>, channel: &Channel, given: Position) -> Read {
        // The bound holds whatever the read waits for: the store, the cursor, or the next epoch.
        timeout(PATIENCE, self.try_to_read_on(channel, given)).await.unwrap_or(Read::Unavailable)
    }

    async fn try_to_read_on(self: &Arc<Self>, channel: &Channel, given: Position) -> Read {
        loop {
            match self.read_page(channel, given).await {
                Ok(page) if !page.whole => return Read::Lost(NotWhole::TooFar, self.attach(channel).await),
                Ok(page) if !page.messages.is_empty() => {
                    return match self.cursor_comes_to(channel, given.epoch, &page).await {
                        Ok(()) => Read::Page(page),
                        Err(_) => Read::Lost(NotWhole::OtherEpoch, self.attach(channel).await),
                    };
                }
                Ok(_) => match self.history.tail(channel).await {
                    // The cursor came further than the store now goes.
                    Ok(tail) if tail.epoch == given.epoch && tail.seq <= given.seq => {
                        return Read::Lost(NotWhole::Erased, self.attach(channel).await);
                    }
                    // A replica is behind.
                    Ok(_) | Err(_) => sleep(SHORT_PAUSE).await,
                },
                Err(ReadError::OtherEpoch) => {
                    return Read::Lost(NotWhole::OtherEpoch, self.attach(channel).await);
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
    use crate::hub::{Hub, SessionLimits, SessionPolicy};
    use crate::recovery::RecoveryLimits;
    use crate::recovery::metrics::RecoveryMetrics;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_replay_that_lost_its_way_ends_though_the_store_never_says_where_the_channel_goes_on() {
        let (rest, of_bus) = (Drain::new(), Drain::new());
        let server = bus::provide(&BusConfig::default(), &of_bus).await.unwrap();
        let bus = Bus::connect(&server, "test", &rest).await.unwrap();
        let sessions =
            SessionLimits { sessions: 0, watermark: 0, per_user: 1, policy: SessionPolicy::default() };
        let hub = Arc::new(Hub::new(sessions));
        let history = History::open(&bus, &HistoryConfig::default(), Role::Reader, &rest);
        let mut state = history.state();
        let ready = state.wait_for(|state| state.epochs().is_some());
        timeout(MINUTE, ready).await.expect("history is ready").unwrap();
        let limits = RecoveryLimits { replays: 1, remembered: 1, faults: Faults::default() };
        let metrics = RecoveryMetrics::register(&mut Registry::default());
        let recovery = Arc::new(Recovery::new(history, hub, limits, metrics, rest.clone(), rest.token()));
        assert_eq!(of_bus.finish(MINUTE).await, 0);
        tokio::time::pause();
        // In another epoch the rest of the session's replay is lost.
        let channel = Channel::parse("user:1").unwrap();
        let read =
            timeout(10 * MINUTE, recovery.read_on(&channel, Position { epoch: Epoch(7), seq: 0 })).await;
        assert!(matches!(read, Ok(Read::Unavailable)), "{read:?}");
        tokio::time::resume();
        assert_eq!(rest.finish(MINUTE).await, 0);
    }
}

//! The one place where a checked publish becomes a message on the bus.
//!
//! Two steps: handing over, which keeps the order of the caller, and the receipt, which may take its time.
//! Without history, handing over is giving the message to the bus connection, and the question about it is
//! put only after that. With history it is waiting for the store to say where the message is, and the
//! question names that place.

pub(crate) mod bulk;
pub(crate) mod lanes;
mod store;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::awake::Awake;
use shared::bus::Bus;
use shared::drain::Drain;
use shared::faults::Faults;
use shared::gauge::GaugeGuard;
use shared::history::{History, Position};
use shared::ids::{Channel, MessageId, MessageIds};
use shared::log_throttle::LogThrottle;
use shared::rules::Rules;
use shared::subject;
use shared::trace::TraceContext;
use shared::wire::{Counts, LiveMessage};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::connmix::Publish;
use crate::edges::Edges;
use crate::error::Refusal;
use crate::keys::Caller;
use crate::metrics::Metrics;
use crate::receipts::{Asker, Receipt, Which};
use crate::shares::{NoShare, Share, Shares};
use crate::spans;
use bulk::BulkPlaces;
pub(crate) use store::Accepted;

/// What headers add to a payload, at most, in bytes.
const HEADERS_BYTES: usize = 1_024;

/// Bounds of publishing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Publishes without a receipt yet.
    pub(crate) in_flight: usize,
    /// The same for messages of calls with several, which wait for a place.
    pub(crate) bulk: usize,
    /// How long a publish waits for a bus that is away, counted from when it was first missed.
    pub(crate) bus_wait: Duration,
    /// How long a message waits for the store to answer, retries included.
    pub(crate) store_wait: Duration,
    /// The same once this part leaves.
    pub(crate) store_wait_leaving: Duration,
    /// How long a receipt may take before it is called unknown. Longer than the asker needs.
    pub(crate) receipt: Duration,
}

/// Publishes.
#[derive(Debug)]
pub(crate) struct Publisher {
    bus: Bus,
    history: History,
    rules: Rules,
    faults: Faults,
    /// Begins when this part leaves.
    drain: Drain,
    edges: Arc<Edges>,
    asker: Asker,
    ids: MessageIds,
    slots: Arc<Shares>,
    bulk_slots: BulkPlaces,
    limits: Limits,
    /// The absence of the bus that publishes met last. Held only to read or replace it.
    outage: Mutex<Option<Outage>>,
    /// An outage of the store is one line, not one for each message.
    complaints: LogThrottle,
    metrics: Arc<Metrics>,
}

/// An absence of the bus: the one after connection number `connects`.
#[derive(Debug, Clone, Copy)]
struct Outage {
    connects: u64,
    since: Instant,
}

/// What a publisher works with.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) bus: Bus,
    pub(crate) history: History,
    pub(crate) rules: Rules,
    pub(crate) edges: Arc<Edges>,
    pub(crate) asker: Asker,
    pub(crate) faults: Faults,
    pub(crate) drain: Drain,
}

/// Whether a caller is told to how many sessions its message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// The edges are asked.
    Wanted,
    /// Nobody is asked.
    Unwanted,
}

impl Counting {
    /// What a call says with `receipt`, if anything.
    pub(crate) fn of(receipt: Option<bool>) -> Self {
        if receipt.unwrap_or(true) { Self::Wanted } else { Self::Unwanted }
    }
}

/// A message that the bus has, or the store.
#[derive(Debug)]
pub(crate) struct HandedOver {
    id: MessageId,
    /// Where it is stored, if it is, and whether it was there before.
    stored: Option<(Position, bool)>,
    began: Instant,
    receipt: Option<oneshot::Receiver<Receipt>>,
    patience: Duration,
    awake: Awake,
    /// Ends when the counts are known.
    span: Span,
    metrics: Arc<Metrics>,
    _slot: Share,
    _held: GaugeGuard,
}

impl Publisher {
    pub(crate) fn new(means: Means, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let Means { bus, history, rules, edges, asker, faults, drain } = means;
        Self {
            bus,
            history,
            rules,
            faults,
            drain,
            edges,
            asker,
            ids: MessageIds::random(),
            slots: Shares::new(limits.in_flight),
            bulk_slots: BulkPlaces::new(limits.bulk),
            limits,
            outage: Mutex::new(None),
            complaints: LogThrottle::default(),
            metrics,
        }
    }

    /// The clock by which others are judged.
    pub(crate) fn awake(&self) -> &Awake {
        self.bus.awake()
    }

    /// The history of channels.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Whether messages of this channel are stored.
    pub(crate) fn keeps(&self, channel: &Channel) -> bool {
        self.rules.has_history(channel)
    }

    /// Until when a call that begins now may wait for the store, as [`Publisher::awake`] counts.
    pub(crate) fn store_deadline(&self) -> Instant {
        self.bus.awake().now() + self.limits.store_wait
    }

    /// An id that nothing else has.
    pub(crate) fn new_id(&self) -> MessageId {
        self.ids.next()
    }

    /// Says early whether a publish would be refused for want of room.
    ///
    /// # Errors
    /// Code 107.
    pub(crate) fn has_room(&self, caller: &Caller) -> Result<(), Refusal> {
        self.slots.check(&caller.owner()).map_err(|none| self.no_slot(caller, none))
    }

    fn slot(&self, caller: &Caller) -> Result<Share, Refusal> {
        self.slots.take(&caller.owner()).map_err(|none| self.no_slot(caller, none))
    }

    fn no_slot(&self, caller: &Caller, none: NoShare) -> Refusal {
        caller.no_slot(none, "publishes", self.limits.in_flight)
    }

    /// Hands the message to the bus, behind all that this caller handed over before, or to the store. `id`:
    /// of a message that may have been stored before.
    pub(crate) async fn hand_over(
        &self,
        caller: &Caller,
        publish: Publish,
        id: Option<MessageId>,
        counting: Counting,
    ) -> Result<HandedOver, Refusal> {
        if self.keeps(&publish.channel) {
            return self.keep(self.accept(caller, publish, id)?, counting).await;
        }
        let span = spans::publish();
        let mut handed_over = self.take(caller, publish, counting).instrument(span.clone()).await?;
        handed_over.span = span;
        Ok(handed_over)
    }

    async fn take(
        &self,
        caller: &Caller,
        publish: Publish,
        counting: Counting,
    ) -> Result<HandedOver, Refusal> {
        let began = Instant::now();
        let slot = self.slot(caller)?;
        let held = GaugeGuard::new(&self.metrics.in_flight);
        let Publish { channel, kind, payload } = publish;
        let message = LiveMessage { id: self.ids.next(), kind, payload };
        self.send(&channel, &message).instrument(spans::bus(&message)).await?;
        self.metrics.handed_over(message.payload.len(), began.elapsed());
        tracing::debug!(message_id = %message.id, %channel, bytes = message.payload.len(), "published");
        let asks = self.asks(counting);
        let receipt = asks.then(|| self.asker.ask(Which::Live(message.id)));
        Ok(HandedOver {
            id: message.id,
            stored: None,
            began,
            receipt,
            patience: self.limits.receipt,
            awake: self.bus.awake().clone(),
            span: Span::none(),
            metrics: Arc::clone(&self.metrics),
            _slot: slot,
            _held: held,
        })
    }

    /// Whether the edges are asked about a message.
    fn asks(&self, counting: Counting) -> bool {
        counting == Counting::Wanted && !self.edges.expected().nobody()
    }

    async fn send(&self, channel: &Channel, message: &LiveMessage) -> Result<(), Refusal> {
        let subject = subject::live(channel, self.history.partitions());
        let (deadline, awake) = (self.deadline(), self.bus.awake());
        loop {
            let left = deadline.saturating_duration_since(awake.now());
            self.bus.connected(left).await.map_err(|_| Refusal::Unavailable)?;
            self.check_size(message)?;
            // A full send buffer gets the same time as a bus that is away, but never none.
            let patience = deadline.max(awake.now() + self.limits.bus_wait);
            let mut headers = message.headers();
            if let Some(trace) = TraceContext::current() {
                trace.to_bus(&mut headers);
            }
            let sent = self.bus.publish(subject.clone(), None, Some(headers), message.payload.clone());
            match awake.timeout_at(patience, sent).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) if self.bus.is_connected() => return Err(Refusal::Unavailable),
                // The connection went between the two steps.
                Ok(Err(_)) => {}
                Err(_) => return Err(Refusal::Unavailable),
            }
        }
    }

    /// Until when to wait for the bus, as [`Bus::awake`] counts. All publishes that meet one absence share
    /// its deadline, so that a long one refuses at once and a queue of publishes does not wait for each in
    /// turn.
    fn deadline(&self) -> Instant {
        let (state, now) = (*self.bus.state().borrow(), self.bus.awake().now());
        if state.connected {
            return now + self.limits.bus_wait;
        }
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match *outage {
            Some(known) if known.connects == state.connects => known,
            Some(_) | None => Outage { connects: state.connects, since: now },
        };
        *outage = Some(current);
        current.since + self.limits.bus_wait
    }

    /// The bus may take less than this part is configured for.
    fn check_size(&self, message: &LiveMessage) -> Result<(), Refusal> {
        let limit = self.bus.max_payload().saturating_sub(HEADERS_BYTES);
        if limit > 0 && message.payload.len() > limit {
            return Err(Refusal::TooLarge { what: "the message, for this bus,", limit });
        }
        Ok(())
    }
}

impl HandedOver {
    /// The id of the message.
    pub(crate) fn id(&self) -> MessageId {
        self.id
    }

    /// Where the message is stored, if it is, and whether it was there before.
    pub(crate) fn stored(&self) -> Option<(Position, bool)> {
        self.stored
    }

    /// Waits until it is known to how many sessions the message went, or cannot be known any more.
    pub(crate) async fn receipt(self) -> Receipt {
        let receipt = match self.receipt {
            None => Receipt::nobody(),
            Some(receipt) => match self.awake.timeout(self.patience, receipt).await {
                Ok(Ok(receipt)) => receipt,
                Ok(Err(_)) | Err(_) => Receipt::unknown(),
            },
        };
        if !receipt.complete {
            tracing::debug!(message_id = %self.id, missing = ?receipt.missing, "these counts may not be all");
        }
        let Counts { sessions, failed } = receipt.counts;
        self.span.record("mc.sessions.accepted", sessions).record("mc.sessions.failed", failed);
        self.span.record("mc.complete", receipt.complete);
        self.metrics.received(receipt.complete, self.began.elapsed());
        receipt
    }
}

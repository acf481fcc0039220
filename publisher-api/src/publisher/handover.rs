//! The one way from a checked message to its receipt, with and without history, alone and in a wave.
//!
//! A message is accepted first: it gets an id and a slot. Then it is handed over, which keeps the order of
//! the caller. Without history, handing over is giving the message to the bus connection; the edges are asked
//! about its id after that. With history, handing over is waiting for the store to say the position; the
//! edges are asked about that position. The receipt may take its time.

use std::sync::Arc;
use std::time::Duration;

use shared::awake::Awake;
use shared::gauge::GaugeGuard;
use shared::history::{Position, Stored};
use shared::ids::{Channel, MessageId, MessageIds};
use shared::rules::Rules;
use shared::wire::{Counts, LiveMessage, StoredRef};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::live::Live;
use super::message::Message;
use super::store::Store;
use crate::edges::Edges;
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::receipts::{Asker, Receipt, Which};
use crate::shares::Share;

/// Whether a caller is told to how many sessions its message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    /// The edges are asked.
    Wanted,
    /// Nobody is asked.
    Unwanted,
}

impl Counting {
    /// Reads the field `receipt` of a call.
    pub(crate) fn of(receipt: Option<bool>) -> Self {
        if receipt.unwrap_or(true) { Self::Wanted } else { Self::Unwanted }
    }
}

/// The slot of an open message. Slots bound the number of messages that are open at a time.
#[derive(Debug)]
pub(super) enum Slot {
    /// The message has a slot of its own until its receipt is there, and a span of its own.
    Single {
        /// Gives the slot back when it is dropped.
        _share: Share,
    },
    /// The wave has slots for all its messages.
    Wave,
}

/// An accepted message, which waits for its turn.
#[derive(Debug)]
pub(crate) struct Accepted {
    channel: Channel,
    message: LiveMessage,
    began: Instant,
    /// Until when the store may answer, as [`Awake`] counts. `None`: the channel has no history.
    store_by: Option<Instant>,
    /// Ends when the counts are known.
    span: Span,
    slot: Slot,
    gauge: GaugeGuard,
}

impl Accepted {
    /// The channel that receives the message.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the message goes to the store.
    pub(crate) fn is_stored(&self) -> bool {
        self.store_by.is_some()
    }
}

/// A message that the bus has, or the store.
#[derive(Debug)]
pub(crate) struct HandedOver {
    id: MessageId,
    stored: Option<Stored>,
    began: Instant,
    /// `None`: nobody was asked.
    receipt: Option<oneshot::Receiver<Receipt>>,
    patience: Duration,
    awake: Awake,
    /// Ends when the counts are known.
    span: Span,
    metrics: Arc<Metrics>,
    _slot: Slot,
    _gauge: GaugeGuard,
}

/// Hands messages over.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) live: Live,
    pub(super) store: Store,
    pub(super) rules: Rules,
    pub(super) edges: Arc<Edges>,
    pub(super) asker: Asker,
    pub(super) ids: MessageIds,
    pub(super) awake: Awake,
    /// How long a receipt may take before its counts are called unknown.
    pub(super) patience: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl Pipeline {
    /// Accepts a message. `id`: of a message that may have been stored before. `store_by`: until when the
    /// store may answer; `None`: the channel has no history.
    pub(super) fn accept(
        &self,
        message: Message,
        id: Option<MessageId>,
        store_by: Option<Instant>,
        slot: Slot,
        span: Span,
    ) -> Accepted {
        let began = Instant::now();
        let Message { channel, kind, payload } = message;
        Accepted {
            store_by,
            channel,
            message: LiveMessage { id: id.unwrap_or_else(|| self.ids.next()), kind, payload },
            began,
            span,
            slot,
            gauge: GaugeGuard::new(&self.metrics.in_flight),
        }
    }

    /// Hands an accepted message over: to the bus, behind all that its caller handed over before, or to the
    /// store. Then asks the edges about the message, if its counts are wanted.
    ///
    /// # Errors
    /// Codes 104, 108.
    pub(super) async fn hand_over(
        &self,
        accepted: Accepted,
        counting: Counting,
    ) -> Result<HandedOver, Refusal> {
        let Accepted { channel, message, began, store_by, span, slot, gauge } = accepted;
        let work = async {
            let stored = match store_by {
                Some(deadline) => Some(self.store.store(&channel, &message, deadline).await?),
                None => {
                    self.live.send(&channel, &message).await?;
                    None
                }
            };
            self.metrics.handed_over(message.payload.len(), began.elapsed());
            let asks = counting == Counting::Wanted && !self.edges.is_nobody();
            let receipt = asks.then(|| self.asker.ask(question(channel, message.id, stored)));
            Ok::<_, Refusal>((stored, receipt))
        };
        let (stored, receipt) = work.instrument(span.clone()).await?;
        Ok(HandedOver {
            id: message.id,
            stored,
            began,
            receipt,
            patience: self.patience,
            awake: self.awake.clone(),
            span,
            metrics: Arc::clone(&self.metrics),
            _slot: slot,
            _gauge: gauge,
        })
    }
}

/// The question about a message that was handed over.
fn question(channel: Channel, id: MessageId, stored: Option<Stored>) -> Which {
    match stored {
        Some(Stored { position: Position { epoch, seq }, .. }) => {
            Which::Stored(StoredRef { channel, seq, epoch: Some(epoch) })
        }
        None => Which::Live(id),
    }
}

impl HandedOver {
    /// The id of the message.
    pub(crate) fn id(&self) -> MessageId {
        self.id
    }

    /// The answer of the store. `None`: the channel has no history.
    pub(crate) fn stored(&self) -> Option<Stored> {
        self.stored
    }

    /// Waits until the counts of the message are known, or cannot be known any more.
    pub(crate) async fn receipt(self) -> Receipt {
        let deadline = self.awake.now() + self.patience;
        self.receipt_by(deadline).await
    }

    /// As [`HandedOver::receipt`], but until `deadline`, as [`Awake`] counts.
    pub(super) async fn receipt_by(self, deadline: Instant) -> Receipt {
        let receipt = match self.receipt {
            None => Receipt::nobody(),
            Some(receipt) => match self.awake.timeout_at(deadline, receipt).await {
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

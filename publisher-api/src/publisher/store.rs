//! The store step: a message of a channel with history is acknowledged only once the store says where it is.
//!
//! Its id stays the same on every try, so that the store knows a message that it already has. How long is
//! waited counts from when the message was taken, not from its turn, so that a queue that meets one absence
//! is refused together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::bus::async_nats::HeaderMap;
use shared::bus::jetstream::ApiError;
use shared::faults::Fault;
use shared::gauge::GaugeGuard;
use shared::history::{HistoryState, Position, StoreError, Stored};
use shared::ids::{Channel, MessageId};
use shared::trace::TraceContext;
use shared::wire::{LiveMessage, StoredRef};
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, Span};

use super::{Counting, HandedOver, Publisher};
use crate::connmix::Publish;
use crate::error::{Refusal, StoreRefusal};
use crate::keys::Caller;
use crate::metrics::Outcome;
use crate::receipts::Which;
use crate::shares::Share;
use crate::spans;

/// "maximum message size exceeded"; it has two numbers.
const MESSAGE_TOO_LARGE: [u64; 2] = [10_054, 10_097];

/// A publish to a channel with history that has its place and waits for its turn.
#[derive(Debug)]
pub(crate) struct Accepted {
    channel: Channel,
    message: LiveMessage,
    began: Instant,
    /// Until when the store may answer, as [`Publisher::awake`] counts.
    deadline: Instant,
    span: Span,
    slot: Share,
    held: GaugeGuard,
}

impl Accepted {
    /// Where it goes to.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }
}

impl Publisher {
    /// Takes a publish to a channel with history. Its order is that of the calls of [`Publisher::keep`].
    ///
    /// # Errors
    /// Code 107: there is no place.
    pub(crate) fn accept(
        &self,
        caller: &Caller,
        publish: Publish,
        id: Option<MessageId>,
    ) -> Result<Accepted, Refusal> {
        let slot = self.slot(caller)?;
        let Publish { channel, kind, payload } = publish;
        let message = LiveMessage { id: id.unwrap_or_else(|| self.ids.next()), kind, payload };
        let began = Instant::now();
        Ok(Accepted {
            channel,
            message,
            began,
            deadline: self.store_deadline(),
            span: spans::publish(),
            slot,
            held: GaugeGuard::new(&self.metrics.in_flight),
        })
    }

    /// Stores the message, and asks the edges about it if its counts are wanted.
    ///
    /// # Errors
    /// Codes 104, 108.
    pub(crate) async fn keep(&self, accepted: Accepted, counting: Counting) -> Result<HandedOver, Refusal> {
        let Accepted { channel, message, began, deadline, span, slot, held } = accepted;
        let work = async {
            let (position, duplicate) = self.store(&channel, &message, deadline).await?;
            self.metrics.handed_over(message.payload.len(), began.elapsed());
            let receipt = self.asks(counting).then(|| self.asker.ask(stored_at(&channel, position)));
            Ok::<_, Refusal>((position, duplicate, receipt))
        };
        let (position, duplicate, receipt) = work.instrument(span.clone()).await?;
        Ok(HandedOver {
            id: message.id,
            stored: Some((position, duplicate)),
            began,
            receipt,
            patience: self.limits.receipt,
            awake: self.bus.awake().clone(),
            span,
            metrics: Arc::clone(&self.metrics),
            _slot: slot,
            _held: held,
        })
    }

    /// Stores a message, tried until `deadline`. Says where it is, and whether it was there before.
    pub(super) async fn store(
        &self,
        channel: &Channel,
        message: &LiveMessage,
        deadline: Instant,
    ) -> Result<(Position, bool), Refusal> {
        let (span, began, tries) = (spans::store(message), Instant::now(), AtomicU64::new(0));
        let stored = tokio::select! {
            stored = self.try_to_store(channel, message, &tries, deadline).instrument(span.clone()) => stored,
            () = self.leaving() => Err(self.store_away()),
        };
        let retries = tries.into_inner().saturating_sub(1);
        self.metrics.store_took(began.elapsed(), retries);
        self.metrics.stored(outcome(&stored));
        span.record("mc.retries", retries);
        match stored {
            Ok(Stored { position, duplicate, .. }) => {
                span.record("mc.duplicate", duplicate);
                tracing::debug!(message_id = %message.id, %channel, %position, duplicate, "stored");
                Ok((position, duplicate))
            }
            Err(refusal) => {
                span.record("otel.status_code", "ERROR");
                if let Some(messages) = self.complaints.due() {
                    tracing::warn!(message_id = %message.id, retries, messages, %refusal, "messages are not stored");
                }
                Err(refusal)
            }
        }
    }

    async fn try_to_store(
        &self,
        channel: &Channel,
        message: &LiveMessage,
        tries: &AtomicU64,
        deadline: Instant,
    ) -> Result<Stored, Refusal> {
        self.history_usable(deadline).await?;
        self.check_size(message)?;
        let mut first = message.headers();
        if let Some(trace) = TraceContext::current() {
            trace.to_bus(&mut first);
        }
        let headers = || {
            let again = tries.fetch_add(1, Ordering::Relaxed) > 0;
            if again && self.faults.has(Fault::MessageId) {
                self.renamed(message, &first)
            } else {
                first.clone()
            }
        };
        let stored = self.history.store_with(channel, headers, &message.payload, deadline).await;
        stored.map_err(|error| self.not_stored(error))
    }

    /// Waits until history can be used, until `deadline`.
    pub(crate) async fn history_usable(&self, deadline: Instant) -> Result<(), Refusal> {
        let mut state = self.history.state();
        let known = state.wait_for(|state| !matches!(state, HistoryState::Opening { .. }));
        match self.bus.awake().timeout_at(deadline, known).await {
            Ok(Ok(state)) => match &*state {
                HistoryState::Mismatch { why } => {
                    Err(Refusal::StoreRefused(StoreRefusal::Mismatch(why.clone())))
                }
                HistoryState::Ready(_) | HistoryState::Opening { .. } => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(self.store_away()),
        }
    }

    /// Another id on a repeat: what a test switches on to see that the id is what keeps messages from being
    /// doubled.
    fn renamed(&self, message: &LiveMessage, first: &HeaderMap) -> HeaderMap {
        let mut headers = first.clone();
        let other = LiveMessage { id: self.ids.next(), ..message.clone() }.headers();
        for (name, values) in other.iter() {
            for value in values {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers
    }

    /// Resolves when this part has left for so long that a message had better be refused.
    async fn leaving(&self) {
        self.drain.begun().await;
        sleep(self.limits.store_wait_leaving).await;
    }

    pub(crate) fn store_away(&self) -> Refusal {
        Refusal::StoreUnavailable(self.limits.store_wait)
    }

    /// What a caller is told about an error of the store.
    pub(crate) fn not_stored(&self, error: StoreError) -> Refusal {
        match error {
            StoreError::Full => Refusal::StoreFull,
            StoreError::Unavailable(_) => self.store_away(),
            StoreError::Refused(ApiError::Api { err_code, .. }) if MESSAGE_TOO_LARGE.contains(&err_code) => {
                let limit = self.bus.max_payload().saturating_sub(super::HEADERS_BYTES);
                Refusal::TooLarge { what: "the message, for this store,", limit }
            }
            StoreError::Refused(error) => Refusal::StoreRefused(error.into()),
        }
    }
}

/// The question about a stored message.
pub(super) fn stored_at(channel: &Channel, position: Position) -> Which {
    let Position { epoch, seq } = position;
    Which::Stored(StoredRef { channel: channel.clone(), seq, epoch: Some(epoch) })
}

fn outcome(stored: &Result<Stored, Refusal>) -> Outcome {
    match stored {
        Ok(Stored { duplicate: true, .. }) => Outcome::Duplicate,
        Ok(Stored { .. }) => Outcome::Stored,
        Err(Refusal::StoreFull) => Outcome::Full,
        Err(Refusal::TooLarge { .. }) => Outcome::TooLarge,
        Err(Refusal::StoreUnavailable(_)) => Outcome::Unavailable,
        Err(_) => Outcome::Refused,
    }
}

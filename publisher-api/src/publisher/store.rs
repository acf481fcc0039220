//! The store step: a message of a channel with history is acknowledged only once the store says its position.
//!
//! The id of a message stays the same on every try, so that the store recognizes a message that it already
//! has. The deadline counts from when the message was accepted, not from its turn. So a queue of messages
//! that meets one absence is refused together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::bus::Bus;
use shared::bus::async_nats::HeaderMap;
use shared::bus::jetstream::ApiError;
use shared::drain::Drain;
use shared::faults::{Fault, Faults};
use shared::history::{History, HistoryState, StoreError, Stored};
use shared::ids::{Channel, MessageIds};
use shared::log_throttle::LogThrottle;
use shared::trace::TraceContext;
use shared::wire::LiveMessage;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::limits::{check_size, payload_limit};
use crate::error::{Refusal, StoreRefusal};
use crate::metrics::{Metrics, Outcome};
use crate::spans;

/// "maximum message size exceeded", which has two numbers.
const MESSAGE_TOO_LARGE: [u64; 2] = [10_054, 10_097];

/// The store of the history, as publishes and calls about history meet it.
#[derive(Debug)]
pub(crate) struct Store {
    bus: Bus,
    history: History,
    faults: Faults,
    /// Begins when this part leaves.
    drain: Drain,
    /// Other ids for repeats, when a test asks for them.
    ids: MessageIds,
    times: StoreTimes,
    /// An outage of the store is one line in the log, not one a message.
    complaints: LogThrottle,
    metrics: Arc<Metrics>,
}

/// How long a message waits for the store to answer, retries included.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreTimes {
    /// As a rule.
    pub(super) wait: Duration,
    /// Once this part leaves.
    pub(super) leaving: Duration,
}

impl Store {
    pub(super) fn new(
        bus: Bus,
        history: History,
        faults: Faults,
        drain: Drain,
        times: StoreTimes,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (ids, complaints) = (MessageIds::random(), LogThrottle::default());
        Self { bus, history, faults, drain, ids, times, complaints, metrics }
    }

    /// The history of channels.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Returns until when a call that begins now may wait for the store, as [`Bus::awake`] counts.
    pub(crate) fn deadline(&self) -> Instant {
        self.bus.awake().now() + self.times.wait
    }

    /// Stores a message, tried until `deadline`.
    ///
    /// # Errors
    /// Codes 104, 108.
    pub(super) async fn store(
        &self,
        channel: &Channel,
        message: &LiveMessage,
        deadline: Instant,
    ) -> Result<Stored, Refusal> {
        let (span, began, tries) = (spans::store(message), Instant::now(), AtomicU64::new(0));
        let stored = tokio::select! {
            stored = self.try_to_store(channel, message, &tries, deadline).instrument(span.clone()) => stored,
            () = self.leaving() => Err(self.away()),
        };
        let retries = tries.into_inner().saturating_sub(1);
        self.metrics.store_took(began.elapsed(), retries);
        self.metrics.stored(outcome(&stored));
        span.record("mc.retries", retries);
        match &stored {
            Ok(Stored { position, duplicate, .. }) => {
                span.record("mc.duplicate", duplicate);
                tracing::debug!(message_id = %message.id, %channel, %position, duplicate, "stored");
            }
            Err(refusal) => {
                span.record("otel.status_code", "ERROR");
                if let Some(messages) = self.complaints.due() {
                    tracing::warn!(message_id = %message.id, retries, messages, %refusal, "messages are not stored");
                }
            }
        }
        stored
    }

    async fn try_to_store(
        &self,
        channel: &Channel,
        message: &LiveMessage,
        tries: &AtomicU64,
        deadline: Instant,
    ) -> Result<Stored, Refusal> {
        self.usable(deadline).await?;
        check_size(&self.bus, message)?;
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
        stored.map_err(|error| self.refusal(error))
    }

    /// Waits until history can be used, until `deadline`.
    ///
    /// # Errors
    /// Code 108.
    pub(crate) async fn usable(&self, deadline: Instant) -> Result<(), Refusal> {
        let mut state = self.history.state();
        let known = state.wait_for(|state| !matches!(state, HistoryState::Opening { .. }));
        match self.bus.awake().timeout_at(deadline, known).await {
            Ok(Ok(state)) => match &*state {
                HistoryState::Mismatch { why } => {
                    Err(Refusal::StoreRefused(StoreRefusal::Mismatch(why.clone())))
                }
                HistoryState::Ready(_) | HistoryState::Opening { .. } => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(self.away()),
        }
    }

    /// Test switch: gives a repeat another id, to show that the id is what keeps messages from being doubled.
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

    /// Resolves when this part has been leaving for so long that a message had better be refused.
    async fn leaving(&self) {
        self.drain.begun().await;
        sleep(self.times.leaving).await;
    }

    /// The refusal of a call that the store did not answer in time.
    pub(crate) fn away(&self) -> Refusal {
        Refusal::StoreUnavailable(self.times.wait)
    }

    /// The refusal that tells a caller about an error of the store.
    pub(crate) fn refusal(&self, error: StoreError) -> Refusal {
        match error {
            StoreError::Full => Refusal::StoreFull,
            StoreError::Unavailable(_) => self.away(),
            StoreError::Refused(ApiError::Api { err_code, .. }) if MESSAGE_TOO_LARGE.contains(&err_code) => {
                Refusal::TooLarge { what: "the message, for this store,", limit: payload_limit(&self.bus) }
            }
            StoreError::Refused(error) => Refusal::StoreRefused(error.into()),
        }
    }
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

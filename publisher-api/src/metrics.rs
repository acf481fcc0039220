//! Metrics of this part. Labels come from small fixed sets, never from a caller.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The transport and dialect over which a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// `POST /v1/mesh/publish`
    Http,
    /// `/ws/v1`
    WebSocket,
    /// The native calls.
    Native,
}

/// Things that could not be used or done, without a call being refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    BadHeartbeat,
    Acknowledgement,
    BadAnswer,
    LateAnswer,
    Question,
    Connection,
    /// A connection on which nothing arrived.
    Silent,
    /// A connection beyond the limit of its address.
    AddressConnections,
    /// A connection whose slot went to another address.
    Displaced,
    SlowHead,
    /// A caller that did not take its answer in time.
    SlowReader,
}

impl Loss {
    const fn label(self) -> &'static str {
        match self {
            Self::BadHeartbeat => "bad_heartbeat",
            Self::Acknowledgement => "acknowledgement",
            Self::BadAnswer => "bad_answer",
            Self::LateAnswer => "late_answer",
            Self::Question => "question",
            Self::Connection => "connection",
            Self::Silent => "silent",
            Self::AddressConnections => "address_connections",
            Self::Displaced => "displaced",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
        }
    }
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    via: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Complete {
    complete: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// The outcome of a message that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    /// The message was stored before, by its id.
    Duplicate,
    Full,
    TooLarge,
    Unavailable,
    Refused,
    /// An earlier message of the same batch and channel was not stored.
    Behind,
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Full => "full",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Behind => "behind",
        }
    }
}

/// The kind of a call with an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyed {
    /// The first call with its key.
    First,
    Repeat,
    /// The key came before, with another body.
    Conflict,
    /// The store could not tell.
    Unknown,
}

impl Keyed {
    const fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Repeat => "repeat",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    stored: Family<OutcomeLabel, Counter>,
    store_duration: Histogram,
    store_retries: Counter,
    keyed: Family<OutcomeLabel, Counter>,
    /// Calls with an `Idempotency-Key` that are under way, or wait for a call with the same key.
    pub(crate) keyed_open: Gauge,
    answers: Family<Answered, Counter>,
    publish_duration: Histogram,
    receipt_duration: Histogram,
    receipts: Family<Complete, Counter>,
    messages: Counter,
    message_bytes: Counter,
    /// Publishes answered with counts that may be incomplete.
    incomplete: Counter,
    /// Asks sent to the edges.
    pub(crate) asks: Counter,
    losses: Family<Reason, Counter>,
    edges: Family<State, Gauge>,
    /// Publishes that were accepted and whose receipt is not there yet.
    pub(crate) in_flight: Gauge,
    /// Open TCP connections, without those that became sockets.
    pub(crate) connections: Gauge,
    /// Open WebSockets.
    pub(crate) sockets: Gauge,
    socket_ends: Family<Reason, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            stored: Family::default(),
            store_duration: Histogram::new(exponential_buckets(0.000_25, 2.0, 18)),
            store_retries: Counter::default(),
            keyed: Family::default(),
            keyed_open: Gauge::<i64, AtomicI64>::default(),
            answers: Family::default(),
            publish_duration: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            receipt_duration: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            receipts: Family::default(),
            messages: Counter::default(),
            message_bytes: Counter::default(),
            incomplete: Counter::default(),
            asks: Counter::default(),
            losses: Family::default(),
            edges: Family::default(),
            in_flight: Gauge::<i64, AtomicI64>::default(),
            connections: Gauge::<i64, AtomicI64>::default(),
            sockets: Gauge::<i64, AtomicI64>::default(),
            socket_ends: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("mc_publisher");
        registry.register("answers", "Calls answered, by door and code", metrics.answers.clone());
        registry.register("messages", "Messages that the bus took", metrics.messages.clone());
        let help = "Payloads of messages that the bus took";
        registry.register_with_unit("message", help, Unit::Bytes, metrics.message_bytes.clone());
        let (help, histogram) = ("From a checked publish to the bus", metrics.publish_duration.clone());
        registry.register_with_unit("publish_duration", help, Unit::Seconds, histogram);
        let (help, histogram) = ("From a checked publish to its counts", metrics.receipt_duration.clone());
        registry.register_with_unit("receipt_duration", help, Unit::Seconds, histogram);
        registry.register(
            "receipts",
            "Publishes whose counts are known, and whether they are surely all",
            metrics.receipts.clone(),
        );
        registry.register("incomplete", "Publishes whose counts may not be all", metrics.incomplete.clone());
        registry.register("asks", "Questions sent to the edges", metrics.asks.clone());
        metrics.register_store(registry);
        registry.register("losses", "What could not be used or done, by reason", metrics.losses.clone());
        registry.register("edges", "Edges known, by state", metrics.edges.clone());
        registry.register("in_flight", "Publishes without counts yet", metrics.in_flight.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("sockets", "Open WebSockets", metrics.sockets.clone());
        registry.register("socket_ends", "WebSockets ended, by reason", metrics.socket_ends.clone());
        metrics
    }

    fn register_store(&self, registry: &mut Registry) {
        let help = "Messages that were to be stored, by what became of them";
        registry.register("stored", help, self.stored.clone());
        let (help, histogram) =
            ("From the first try to store a message to the last", self.store_duration.clone());
        registry.register_with_unit("store_duration", help, Unit::Seconds, histogram);
        registry.register("store_retries", "Further tries to store a message", self.store_retries.clone());
        let help = "Calls with an Idempotency-Key, by what they turned out to be";
        registry.register("idempotent_calls", help, self.keyed.clone());
        let help = "Calls with an Idempotency-Key under way, or waiting for one with the same";
        registry.register("idempotent_calls_open", help, self.keyed_open.clone());
    }

    /// Counts a message that is stored, or will not be.
    pub(crate) fn stored(&self, outcome: Outcome) {
        self.stored.get_or_create(&OutcomeLabel { outcome: outcome.label() }).inc();
    }

    /// Counts a store step: how long it took, and how often it was tried again.
    pub(crate) fn store_took(&self, took: Duration, retries: u64) {
        self.store_duration.observe(took.as_secs_f64());
        self.store_retries.inc_by(retries);
    }

    pub(crate) fn keyed(&self, what: Keyed) {
        self.keyed.get_or_create(&OutcomeLabel { outcome: what.label() }).inc();
    }

    /// Counts an answer. `code`: `ok`, a number, or the name of a problem.
    pub(crate) fn answered(&self, via: Via, code: &'static str) {
        let via = match via {
            Via::Http => "http",
            Via::WebSocket => "ws",
            Via::Native => "native",
        };
        self.answers.get_or_create(&Answered { via, code }).inc();
    }

    /// Counts a message of `bytes` bytes that the bus has.
    pub(crate) fn handed_over(&self, bytes: usize, took: Duration) {
        self.messages.inc();
        self.message_bytes.inc_by(bytes as u64);
        self.publish_duration.observe(took.as_secs_f64());
    }

    /// Counts a receipt: the counts of a message are known, or as much of them as ever will be.
    pub(crate) fn received(&self, complete: bool, took: Duration) {
        if !complete {
            self.incomplete.inc();
        }
        let complete = if complete { "true" } else { "false" };
        self.receipts.get_or_create(&Complete { complete }).inc();
        self.receipt_duration.observe(took.as_secs_f64());
    }

    pub(crate) fn lost(&self, what: Loss) {
        self.losses.get_or_create(&Reason { reason: what.label() }).inc();
    }

    pub(crate) fn edges(&self, live: usize, silent: usize) {
        for (state, number) in [("live", live), ("silent", silent)] {
            self.edges.get_or_create(&State { state }).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn socket_ended(&self, reason: &'static str) {
        self.socket_ends.get_or_create(&Reason { reason }).inc();
    }
}

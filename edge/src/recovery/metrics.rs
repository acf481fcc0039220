//! The metrics of recovery. Labels come from small fixed sets.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::channel::recoverable::NotWhole;
use crate::metrics::Deliveries;

/// Why messages were fetched from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A message showed that one before it is missing.
    Gap,
    /// A comparison with the stream showed the gap.
    Sweep,
    /// A publisher asked about a message that had not come.
    Ask,
    /// The message came while a session subscribed.
    Subscribe,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct RecoveryMetrics {
    fetches: Family<ByCause, Counter>,
    /// Messages read from the store because their live copy had not come.
    pub(crate) fetched: Counter,
    /// Fetches of messages that were said to be stored, and are not.
    pub(crate) given_back: Counter,
    /// Messages read from the store for one session.
    pub(crate) replayed: Counter,
    /// Reads of the store for one session, with or without a message.
    pub(crate) replay_reads: Counter,
    /// Tail lookups; each serves all sessions that came before the lookup began.
    pub(crate) tail_lookups: Counter,
    /// Comparisons of tails with a stream.
    pub(crate) sweeps: Counter,
    /// Reads of the store that failed and were repeated.
    pub(crate) read_errors: Counter,
    /// Copies out of sequence, after which a stream was asked whether it is still the same.
    pub(crate) doubts: Counter,
    /// Live copies of messages that were handled already.
    pub(crate) repeated: Counter,
    /// Positions told to subscribers that heard nothing.
    pub(crate) positions: Counter,
    /// Messages offered to sessions, whichever way they came.
    pub(crate) deliveries: Deliveries,
    recoveries: Family<ByOutcome, Counter>,
    reloads: Family<ByReason, Counter>,
}

impl RecoveryMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("mc_edge");
        let text = "Reads of the store for messages whose live copy had not come, by what showed it";
        registry.register("fetches", text, metrics.fetches.clone());
        let text = "Messages read from the store because their live copy had not come";
        registry.register("messages_fetched", text, metrics.fetched.clone());
        let text = "Fetches given up because the stream does not have what was said to be in it";
        registry.register("fetches_in_vain", text, metrics.given_back.clone());
        let text = "Messages read from the store for one session";
        registry.register("messages_replayed", text, metrics.replayed.clone());
        let text = "Reads of the store for one session, whether a message came or not";
        registry.register("replay_reads", text, metrics.replay_reads.clone());
        let text = "Tail lookups of a channel, each shared by all who subscribed before the lookup began";
        registry.register("tail_lookups", text, metrics.tail_lookups.clone());
        let text = "Comparisons of the channels here with a stream";
        registry.register("sweeps", text, metrics.sweeps.clone());
        let text = "Reads of the store that failed and are repeated";
        registry.register("store_read_errors", text, metrics.read_errors.clone());
        let text = "Copies out of sequence, after which a stream was asked whether it is still the same";
        registry.register("stream_doubts", text, metrics.doubts.clone());
        let text = "Live copies of messages that were handled already";
        registry.register("messages_repeated", text, metrics.repeated.clone());
        let text = "Positions told to subscribers that heard nothing";
        registry.register("positions", text, metrics.positions.clone());
        let text = "Subscriptions that named a position, by what came of it";
        registry.register("recoveries", text, metrics.recoveries.clone());
        let text = "Subscribers told to reload, because something is missing that can't be had any more";
        registry.register("reloads", text, metrics.reloads.clone());
        metrics
    }

    /// Counts a fetch that begins.
    pub(crate) fn fetch(&self, cause: Cause) {
        let cause = match cause {
            Cause::Gap => "gap",
            Cause::Sweep => "sweep",
            Cause::Ask => "ask",
            Cause::Subscribe => "subscribe",
        };
        self.fetches.get_or_create(&ByCause { cause }).inc();
    }

    /// Counts a client that named a position.
    pub(crate) fn recovery(&self, outcome: Result<(), NotWhole>) {
        let outcome = outcome.map_or_else(NotWhole::text, |()| "whole");
        self.recoveries.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// Counts subscribers that were told to reload.
    pub(crate) fn reload(&self, why: NotWhole, subscribers: u64) {
        if subscribers > 0 {
            self.reloads.get_or_create(&ByReason { reason: why.text() }).inc_by(subscribers);
        }
    }
}

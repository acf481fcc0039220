//! What an auth-adapter counts. Labels are bounded: never a token, never a uid.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::business::{Answer, Failure};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Remembered, or from a flight that was under way.
    Memory,
    /// The business system was asked for it.
    Business,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The counters of one auth-adapter.
#[derive(Debug)]
pub(crate) struct Metrics {
    verdicts: Family<VerdictLabel, Counter>,
    sources: Family<SourceLabel, Counter>,
    outcomes: Family<OutcomeLabel, Counter>,
    drops: Family<ReasonLabel, Counter>,
    durations: Histogram,
    /// Questions without an answer yet.
    pub(crate) waiting: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            verdicts: Family::default(),
            sources: Family::default(),
            outcomes: Family::default(),
            drops: Family::default(),
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            waiting: Gauge::default(),
        };
        registry.register("mc_auth_verdicts", "Answers to edges", metrics.verdicts.clone());
        registry.register("mc_auth_lookups", "Where answers came from", metrics.sources.clone());
        registry.register("mc_auth_business_calls", "Calls of the business system", metrics.outcomes.clone());
        registry.register("mc_auth_drops", "Questions that were not answered", metrics.drops.clone());
        registry.register_with_unit(
            "mc_auth_business_call_duration",
            "Time that the business system took",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("mc_auth_waiting", "Questions without an answer yet", metrics.waiting.clone());
        metrics
    }

    pub(crate) fn verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&VerdictLabel { verdict }).inc();
    }

    pub(crate) fn looked_up(&self, source: Source) {
        let source = match source {
            Source::Memory => "memory",
            Source::Business => "business",
        };
        self.sources.get_or_create(&SourceLabel { source }).inc();
    }

    pub(crate) fn asked(&self, answer: Result<&Answer, &Failure>, took: Duration) {
        let outcome = match answer {
            Ok(Answer::Yes { .. }) => "yes",
            Ok(Answer::No) => "no",
            Err(failure) => failure.label(),
        };
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    pub(crate) fn dropped(&self, reason: &'static str) {
        self.drops.get_or_create(&ReasonLabel { reason }).inc();
    }
}

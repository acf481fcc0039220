//! Metrics of an auth-adapter. Labels are bounded: never a token, never a uid.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::breaker::Phase;
use crate::groups::LeftOut;

/// The source of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The memory.
    Memory,
    /// The flight of another question about the same token.
    SharedFlight,
    /// A flight of its own.
    OwnFlight,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The metrics of one auth-adapter.
#[derive(Debug)]
pub(crate) struct Metrics {
    verdicts: Family<VerdictLabel, Counter>,
    sources: Family<SourceLabel, Counter>,
    outcomes: Family<OutcomeLabel, Counter>,
    drops: Family<ReasonLabel, Counter>,
    retries: Family<OutcomeLabel, Counter>,
    breaker: Family<StateLabel, Gauge>,
    transitions: Family<StateLabel, Counter>,
    durations: Histogram,
    groups_left_out: Family<ReasonLabel, Counter>,
    /// Unanswered questions.
    pub(crate) waiting: Gauge,
    /// Calls of the business system under way.
    pub(crate) in_flight: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            verdicts: Family::default(),
            sources: Family::default(),
            outcomes: Family::default(),
            drops: Family::default(),
            retries: Family::default(),
            breaker: Family::default(),
            transitions: Family::default(),
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            groups_left_out: Family::default(),
            waiting: Gauge::default(),
            in_flight: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("mc_auth");
        registry.register("verdicts", "Answers to edges", metrics.verdicts.clone());
        registry.register("lookups", "Where answers came from", metrics.sources.clone());
        registry.register("business_calls", "Calls of the business system", metrics.outcomes.clone());
        registry.register("drops", "Checks that were not made, and answers not sent", metrics.drops.clone());
        registry.register("retries", "Calls to be made once more", metrics.retries.clone());
        registry.register("breaker_state", "1 for the state it is in", metrics.breaker.clone());
        registry.register("breaker_transitions", "Changes to this state", metrics.transitions.clone());
        registry.register_with_unit(
            "business_call_duration",
            "Time that the business system took",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "groups_left_out",
            "Groups of answers that could not be taken",
            metrics.groups_left_out.clone(),
        );
        registry.register("waiting", "Questions without an answer yet", metrics.waiting.clone());
        registry.register("in_flight", "Checks at the business system under way", metrics.in_flight.clone());
        metrics
    }

    pub(crate) fn verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&VerdictLabel { verdict }).inc();
    }

    pub(crate) fn looked_up(&self, source: Source) {
        let source = match source {
            Source::Memory => "memory",
            Source::SharedFlight => "shared_flight",
            Source::OwnFlight => "business",
        };
        self.sources.get_or_create(&SourceLabel { source }).inc();
    }

    pub(crate) fn asked(&self, outcome: &'static str, took: Duration) {
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// Counts what could not be taken from the groups of a login.
    pub(crate) fn groups_left_out(&self, left_out: LeftOut) {
        let LeftOut { unusable, beyond, no_list } = left_out;
        for (reason, number) in
            [("unusable", unusable), ("beyond_bound", beyond), ("no_list", usize::from(no_list))]
        {
            if number > 0 {
                let number = u64::try_from(number).unwrap_or(u64::MAX);
                self.groups_left_out.get_or_create(&ReasonLabel { reason }).inc_by(number);
            }
        }
    }

    pub(crate) fn retried(&self, outcome: &'static str) {
        self.retries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a turn of the breaker to this phase.
    pub(crate) fn breaker_turned(&self, phase: Phase) {
        self.breaker_is(phase);
        self.transitions.get_or_create(&StateLabel { state: name(phase) }).inc();
    }

    /// Shows the present phase of the breaker.
    pub(crate) fn breaker_is(&self, phase: Phase) {
        for candidate in [Phase::Closed, Phase::Open, Phase::HalfOpen] {
            let label = StateLabel { state: name(candidate) };
            self.breaker.get_or_create(&label).set(i64::from(candidate == phase));
        }
    }

    pub(crate) fn dropped(&self, reason: &'static str) {
        self.drops.get_or_create(&ReasonLabel { reason }).inc();
    }
}

const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Closed => "closed",
        Phase::Open => "open",
        Phase::HalfOpen => "half_open",
    }
}

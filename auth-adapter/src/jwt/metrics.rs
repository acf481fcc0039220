//! Metrics of checking JWTs. Labels are bounded: never a value of a token.

use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The metrics of checking JWTs.
#[derive(Debug)]
pub(super) struct JwtMetrics {
    checks: Family<Outcome, Counter>,
    durations: Histogram,
    fetches: Family<Outcome, Counter>,
    fetched_at: Gauge,
    keys: Gauge,
    reloads: Family<Outcome, Counter>,
}

impl JwtMetrics {
    /// Registers the metrics; those of a key set only where one is fetched.
    pub(super) fn register(registry: &mut Registry, has_key_set: bool) -> Self {
        let metrics = Self {
            checks: Family::default(),
            durations: Histogram::new(exponential_buckets(0.000_01, 4.0, 9)),
            fetches: Family::default(),
            fetched_at: Gauge::default(),
            keys: Gauge::default(),
            reloads: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("mc_auth_jwt");
        registry.register("checks", "JWTs by what became of them", metrics.checks.clone());
        let help = "Time that checking a signature took, without the wait for a turn";
        registry.register_with_unit("check_duration", help, Unit::Seconds, metrics.durations.clone());
        registry.register("keys", "Keys in use", metrics.keys.clone());
        let help = "Times that changed files of public keys were read, by what became of it";
        registry.register("key_reloads", help, metrics.reloads.clone());
        if has_key_set {
            registry.register("key_set_fetches", "Fetches of the key set", metrics.fetches.clone());
            let help = "When the key set in use was fetched, in seconds since 1970; 0 before the first one";
            registry.register("key_set_fetched_timestamp_seconds", help, metrics.fetched_at.clone());
        }
        metrics
    }

    pub(super) fn checked(&self, outcome: &'static str) {
        self.checks.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn took(&self, time: Duration) {
        self.durations.observe(time.as_secs_f64());
    }

    pub(super) fn fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn set_is_from(&self, at: SystemTime, keys: usize) {
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.fetched_at.set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
        self.keys_are(keys);
    }

    pub(super) fn keys_are(&self, keys: usize) {
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    pub(super) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&Outcome { outcome }).inc();
    }
}

//! Metrics of keys. Names of keys may be labels, since there are only those of the configuration.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The reason for which a key did not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There was no key.
    Missing,
    /// The key could not be read.
    Malformed,
    /// The key is not valid, or not any more.
    Invalid,
    /// The key lacks a scope.
    Scope,
    /// The key may not name the channel.
    Channel,
    /// The key publishes too fast.
    Rate,
    /// The key has its share of the slots already.
    Share,
}

impl Reason {
    const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Scope => "scope",
            Self::Channel => "channel",
            Self::Rate => "rate",
            Self::Share => "share",
        }
    }
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKey {
    key: Arc<str>,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    key: Arc<str>,
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reloaded {
    outcome: &'static str,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct KeyMetrics {
    admitted: Family<OfKey, Counter>,
    refused: Family<Refused, Counter>,
    reloads: Family<Reloaded, Counter>,
    /// Keys that are valid.
    pub(crate) valid: Gauge,
}

impl KeyMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            admitted: Family::default(),
            refused: Family::default(),
            reloads: Family::default(),
            valid: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("mc_publisher");
        registry.register(
            "key_messages",
            "Messages that a key was allowed to publish",
            metrics.admitted.clone(),
        );
        let help = "Requests refused for their key, by reason; no key name where it was not valid";
        registry.register("key_refusals", help, metrics.refused.clone());
        registry.register("key_reloads", "Keys read again, by outcome", metrics.reloads.clone());
        registry.register("keys", "Keys that are valid", metrics.valid.clone());
        metrics
    }

    pub(crate) fn admitted(&self, key: Arc<str>, messages: u32) {
        self.admitted.get_or_create(&OfKey { key }).inc_by(u64::from(messages));
    }

    pub(crate) fn refused(&self, key: Option<Arc<str>>, reason: Reason) {
        let key = key.unwrap_or_default();
        self.refused.get_or_create(&Refused { key, reason: reason.label() }).inc();
    }

    pub(crate) fn reloaded(&self, applied: bool) {
        let outcome = if applied { "applied" } else { "refused" };
        self.reloads.get_or_create(&Reloaded { outcome }).inc();
    }
}

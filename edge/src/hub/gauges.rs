//! Gauges of the hub.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use shared::clock::unix_ms;

use super::Hub;

/// The holdings of the hub, added up at each scrape.
#[derive(Debug)]
pub(crate) struct Holdings(pub(crate) Arc<Hub>);

impl Collector for Holdings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let (channels, users) = self.0.channels_and_users();
        let (following, replaying) = self.0.following_and_replaying();
        let waiting = self.0.waiting();
        for (name, help, unit, value) in [
            ("mc_edge_channels", "Channels that have a session here", None, channels),
            ("mc_edge_users", "Users who have a session here", None, users),
            (
                "mc_edge_max_sessions",
                "Sessions that there may be, 0 for no limit",
                None,
                self.0.max_sessions(),
            ),
            ("mc_edge_denied_users", "Users whose logins are refused", None, self.0.bans().count(unix_ms())),
            ("mc_edge_following_sessions", "Sessions that receive messages with ids", None, following),
            ("mc_edge_replays", "Channels that a session is given what is stored of", None, replaying),
            ("mc_edge_outbox_sessions", "Sessions that messages wait for", None, waiting.sessions),
            ("mc_edge_outbox_messages", "Messages that wait for a session", None, waiting.frames),
            ("mc_edge_outbox", "Messages that wait for a session", Some(&Unit::Bytes), waiting.bytes),
            (
                "mc_edge_outbox_largest",
                "The fullest outbox of a session",
                Some(&Unit::Bytes),
                waiting.largest,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

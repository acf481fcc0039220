//! Metrics of a part's connection to the bus, and of the embedded bus.

use embedded_bus::{MemorySnapshot, Snapshot, Stats, StoreSnapshot, StreamSnapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::RequestError;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The counters of one connection. Cheap to clone; they count before the part has a registry.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientMetrics {
    /// 1 while the connection stands.
    pub(super) connected: Gauge,
    /// The number of connections, the first included.
    pub(super) connects: Counter,
    /// The number of connections that broke.
    pub(super) disconnects: Counter,
    /// How often messages came faster than they were handled, and some were dropped.
    pub(super) overruns: Counter,
    /// Errors that the server or the client reported.
    pub(super) errors: Counter,
    published: Family<Outcome, Counter>,
    requests: Family<Outcome, Counter>,
}

impl ClientMetrics {
    /// Registers the counters for the part of the connection.
    pub(super) fn register(&self, registry: &mut Registry, part: &'static str) {
        let registry = registry.sub_registry_with_label(("part".into(), part.into()));
        let registry = registry.sub_registry_with_prefix("mc_bus");
        registry.register(
            "connected",
            "Whether the connection to the bus stands: 1 or 0",
            self.connected.clone(),
        );
        registry.register("connects", "Times that the bus was connected", self.connects.clone());
        registry.register("disconnects", "Times that the connection was lost", self.disconnects.clone());
        let overruns = "Times that messages came faster than they were handled and were dropped";
        registry.register("overruns", overruns, self.overruns.clone());
        registry.register("errors", "Errors that the bus or its client reported", self.errors.clone());
        registry.register("published", "Messages handed to the bus, by outcome", self.published.clone());
        registry.register("requests", "Requests over the bus, by outcome", self.requests.clone());
    }

    pub(super) fn published<T>(&self, result: &Result<T, RequestError>) {
        self.published.get_or_create(&Outcome { outcome: label(result) }).inc();
    }

    pub(super) fn requested<T>(&self, result: &Result<T, RequestError>) {
        self.requests.get_or_create(&Outcome { outcome: label(result) }).inc();
    }
}

fn label<T>(result: &Result<T, RequestError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(RequestError::Disconnected) => "disconnected",
        Err(RequestError::NoResponders) => "no_responders",
        Err(RequestError::Timeout) => "timeout",
    }
}

/// The counters of the embedded bus, read at each scrape.
#[derive(Debug)]
pub(super) struct ServerMetrics(pub(super) Stats);

/// Names without prefix, help texts, and values of what only grows.
fn counters(now: &Snapshot) -> [(&'static str, &'static str, u64); 15] {
    [
        ("connections_accepted", "Connections let in", now.connections_accepted),
        ("connections_refused", "Connections turned away, there being too many", now.connections_refused),
        ("accept_errors", "Times that the system gave no connection", now.accept_errors),
        (
            "authorization_failures",
            "Connections closed for missing or wrong credentials",
            now.authorization_failures,
        ),
        ("protocol_errors", "Connections closed for what they sent", now.protocol_errors),
        ("stale_connections", "Connections closed for not answering", now.stale_connections),
        ("slow_consumers", "Connections cut off because too much waited for them", now.slow_consumers),
        ("connection_panics", "Connections that a panic of this program ended", now.connection_panics),
        ("messages_received", "Messages that clients published", now.messages_in),
        ("messages_sent", "Messages queued for a subscriber, once for each", now.messages_out),
        (
            "messages_discarded",
            "Messages queued for a connection that ended before they were surely written",
            now.messages_discarded,
        ),
        ("no_responders", "Requests that nobody was there for", now.no_responders),
        ("received_bytes", "Bytes read from connections", now.bytes_in),
        ("sent_bytes", "Bytes written to connections", now.bytes_out),
        (
            "publishers_held",
            "Times that a publisher was held back because a receiver was nearly full",
            now.publishers_held,
        ),
    ]
}

/// Streams that are told of by name, so that nobody's streams fill the scraper.
const NAMED_STREAMS: usize = 64;

/// The same, of the streams.
fn stream_counters(now: &Snapshot) -> [(&'static str, &'static str, u64); 8] {
    [
        ("stream_stored", "Messages that streams stored", now.stream_stored),
        ("stream_duplicates", "Messages that streams had already, by their ids", now.stream_duplicates),
        (
            "stream_refused",
            "Messages that streams refused, but for expectations that did not hold",
            now.stream_refused,
        ),
        ("stream_commits", "Times that a stream made durable what it had taken", now.stream_commits),
        ("stream_failures", "Times that a stream's store failed and was read anew", now.stream_failures),
        (
            "stream_dropped",
            "Messages dropped because the streams had ended or fed themselves too fast",
            now.stream_dropped,
        ),
        (
            "stream_publishers_held",
            "Times that a publisher waited because too much waited for the streams",
            now.stream_publishers_held,
        ),
        (
            "clock_steps",
            "Times that the system's clock was set by a second or more while the bus ran",
            now.clock_steps,
        ),
    ]
}

/// The gauges of each stream.
type StreamGauge = (&'static str, &'static str, fn(&StreamSnapshot) -> u64);

const STREAM_GAUGES: [StreamGauge; 6] = [
    ("mc_bus_server_stream_messages", "Messages that a stream holds", |stream| stream.messages),
    ("mc_bus_server_stream_bytes", "Bytes that a stream holds, as its limit counts them", |stream| {
        stream.bytes
    }),
    ("mc_bus_server_stream_max_bytes", "The limit of a stream's bytes, 0 for none", |stream| {
        stream.max_bytes
    }),
    ("mc_bus_server_stream_subjects", "Subjects that have messages in a stream", |stream| stream.subjects),
    ("mc_bus_server_stream_ids", "Message ids in a stream's duplicate window", |stream| stream.ids),
    ("mc_bus_server_stream_log_bytes", "Bytes that a stream takes where it is kept", |stream| {
        stream.log_bytes
    }),
];

fn encode_streams(stats: &Stats, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let mut streams = stats.streams();
    streams.truncate(NAMED_STREAMS);
    for (name, help, value) in STREAM_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for stream in &streams {
            let gauge = ConstGauge::new(i64::try_from(value(stream)).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("stream", stream.name.as_str())])?)?;
        }
    }
    Ok(())
}

/// Names without prefix, help texts, and values of what only grows, of the data folder.
fn store_counters(store: &StoreSnapshot) -> [(&'static str, &'static str, u64); 7] {
    [
        (
            "refused",
            "Messages refused because the data folder, its disk or the memory is full",
            store.refused,
        ),
        ("syncs", "Times that a file was synced", store.syncs),
        ("errors", "Times that the system refused to write, to sync or to read", store.errors),
        ("repairs", "Files whose end was cut off while it was written and was dropped", store.cuts),
        ("rewrites", "Files replaced by ones without what nobody needs", store.rewrites),
        ("rewritten_bytes", "Bytes copied for that", store.rewritten_bytes),
        ("failed_rewrites", "Times that room could not be given back", store.failed_rewrites),
    ]
}

/// The bytes in the data folder of the streams, all zero if they are in memory, and the memory they take.
fn encode_store(
    store: &StoreSnapshot,
    memory: &MemorySnapshot,
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    for (name, help, value) in store_counters(store) {
        let name = format!("mc_bus_server_store_{name}");
        let counter = ConstCounter::new(value);
        counter.encode(encoder.encode_descriptor(&name, help, None, MetricType::Counter)?)?;
    }
    let gauges = [
        ("bytes", "Bytes of the files of all streams", store.bytes),
        ("max_bytes", "Bytes that they may have", store.max_bytes),
        ("free_bytes", "Bytes that are free on their disk", store.free_bytes),
        (
            "wasted_bytes",
            "Bytes of the files that nobody needs and that are not given back yet",
            store.wasted_bytes,
        ),
        ("segments", "Segment files", store.segments),
        ("full", "Whether messages are refused for want of room: 1 or 0", (store.full || memory.full).into()),
        ("memory_bytes", "Bytes of memory for what is stored, by estimate", memory.bytes),
        ("max_memory_bytes", "Bytes of memory that it may take", memory.max_bytes),
    ];
    for (name, help, value) in gauges {
        let name = format!("mc_bus_server_store_{name}");
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)?;
    }
    let (name, help) = ("mc_bus_server_store_sync_seconds", "Seconds spent on syncs");
    let all = ConstCounter::new(store.sync_micros as f64 / 1e6);
    all.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    let (name, help) = ("mc_bus_server_store_last_sync_seconds", "Seconds that the last sync took");
    let last = ConstGauge::new(store.last_sync_micros as f64 / 1e6);
    last.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

impl Collector for ServerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let now = self.0.snapshot();
        for (name, help, value) in counters(&now).into_iter().chain(stream_counters(&now)) {
            let name = format!("mc_bus_server_{name}");
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(&name, help, None, MetricType::Counter)?)?;
        }
        let open = [
            ("mc_bus_server_connections", "Open connections", now.connections),
            ("mc_bus_server_subscriptions", "Subscriptions of all connections", now.subscriptions),
            ("mc_bus_server_stream_queued", "Messages that wait for the streams", now.stream_queued),
            ("mc_bus_server_stream_queued_bytes", "Their bytes", now.stream_queued_bytes),
        ];
        for (name, help, value) in open {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let seconds = ConstCounter::new(now.stream_commit_micros as f64 / 1e6);
        let name = "mc_bus_server_stream_commit_seconds";
        let help = "Seconds spent making durable what streams had taken";
        seconds.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        encode_streams(&self.0, &mut encoder)?;
        encode_store(&self.0.store(), &self.0.memory(), &mut encoder)
    }
}

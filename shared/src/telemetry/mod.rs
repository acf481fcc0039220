//! Logs to standard error, as text or JSON, and traces to an OTLP collector.
//!
//! Started once, by `main`. Traces consist only of spans with the target [`trace::TARGET`], so that logs of a
//! library about the export are never exported themselves. Without an exporter these spans do not exist at
//! all.

mod environment;
mod exporter;
mod lines;
mod queue;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry as Spans};

use crate::config::{LogConfig, LogFormat, Problems};
use crate::drain::Drain;
use crate::trace;
use environment::TraceSettings;
use lines::WithTrace;
use queue::SpanCounts;
use writer::{LastLines, LostLines};

/// Libraries that write whole frames and payloads at the level TRACE.
const TALKATIVE: [&str; 2] = ["async_nats", "tungstenite"];
/// Our own modules, which `log.filter` may name without a level.
const MODULES: &[&str] =
    &["auth_adapter", "bench_tool", "edge", "embedded_bus", "publisher_api", "shared", "standalone"];

type BoxedLayer = Box<dyn Layer<Spans> + Send + Sync>;

/// Checks `[log]`.
pub fn validate(config: &LogConfig, problems: &mut Problems) {
    if let Err(error) = EnvFilter::try_new(&config.filter) {
        problems.add("log.filter", format!("{error}; write e.g. \"info\" or \"info,edge=debug\""));
    }
    // A bare word counts as the name of a module. With an unknown module, nothing would be logged.
    for word in config.filter.split(',').map(str::trim) {
        let is_bare = !word.is_empty() && !word.contains(['=', '[']);
        let module = word.split("::").next().unwrap_or_default();
        let is_known = word.parse::<LevelFilter>().is_ok() || MODULES.contains(&module);
        problems.check(!is_bare || is_known, "log.filter", || {
            format!("{word:?} is no level; there are: error, warn, info, debug, trace, off; for one module write {word}=debug")
        });
    }
}

/// Checks the standard `OTEL_*` variables.
///
/// # Errors
/// Every unusable value, a line each, with what to write instead.
pub fn check_environment(variables: &[(String, String)]) -> Result<(), String> {
    environment::read(variables).map(|_| ())
}

/// The tasks and threads of telemetry, which run until the program ends.
#[derive(Debug, Default)]
pub struct Telemetry {
    sending: Drain,
    last_lines: Option<LastLines>,
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends the waiting spans, for at most `grace`, and writes the waiting lines, for a second at most.
    pub async fn finish(mut self, grace: Duration) {
        if self.provider.is_some() && self.sending.finish(grace).await > 0 {
            tracing::warn!("left before the last traces were exported");
        }
        if let Some(last_lines) = self.last_lines.take() {
            last_lines.flush().await;
        }
    }
}

/// Starts logs and, if `variables` (the `OTEL_*` ones) say so, traces. Called once, by `main`, within the
/// runtime; `service` names the program in traces unless the variables do.
///
/// # Errors
/// Logging was started before, or traces can't be exported as the variables say.
pub fn start(config: &LogConfig, service: &str, variables: &[(String, String)]) -> anyhow::Result<Telemetry> {
    let settings = environment::read(variables).map_err(anyhow::Error::msg)?;
    let (writer, lost_lines, last_lines) = writer::to_stderr().context("standard error")?;
    // The layer sees no events: it only holds the counter for the metrics.
    let mut layers = vec![lines(config, writer), Counting(lost_lines).with_filter(LevelFilter::OFF).boxed()];
    let mut telemetry = match &settings {
        Some(settings) => export(settings, service, &mut layers)?,
        None => Telemetry::default(),
    };
    telemetry.last_lines = Some(last_lines);
    tracing_subscriber::registry().with(layers).try_init().context("logging was started before")?;
    log_panics();
    if let Some(TraceSettings { endpoint, protocol, sampler, .. }) = &settings {
        // An endpoint may hold a secret in its query.
        let endpoint = endpoint.split(['?', '#']).next().unwrap_or_default();
        let endpoint = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
        tracing::info!(endpoint, ?protocol, ?sampler, "traces are exported");
    }
    Ok(telemetry)
}

/// Writes panics as lines of the log. The default hook writes to standard error itself, and would block the
/// panicking task while nobody reads.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(
            location,
            backtrace,
            "a panic: {}",
            panic.payload_as_str().unwrap_or("without words")
        );
    }));
}

fn lines(config: &LogConfig, writer: NonBlocking) -> BoxedLayer {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Spans of traces are for the exporter; a line only names its trace.
    let silence = format!("{}=off", trace::TARGET).parse().expect("a target and a level are a directive");
    let discreet = filter_fn(is_discreet).with_max_level_hint(LevelFilter::TRACE);
    let filter = filter.add_directive(silence).and(discreet);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match config.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let format = tracing_subscriber::fmt::format().with_ansi(colour).with_target(false);
            lines.with_ansi(colour).event_format(WithTrace::new(format, false)).with_filter(filter).boxed()
        }
        LogFormat::Json => {
            let format = tracing_subscriber::fmt::format().json().flatten_event(true);
            let fields = tracing_subscriber::fmt::format::JsonFields::new();
            lines.fmt_fields(fields).event_format(WithTrace::new(format, true)).with_filter(filter).boxed()
        }
    }
}

/// Returns whether a library's line can hold no frame and no payload, in which tokens are.
fn is_discreet(line: &tracing::Metadata<'_>) -> bool {
    *line.level() != tracing::Level::TRACE
        || !TALKATIVE.iter().any(|library| line.target().starts_with(library))
}

/// Starts the export, and adds the layers that make spans.
fn export(
    settings: &TraceSettings,
    service: &str,
    layers: &mut Vec<BoxedLayer>,
) -> anyhow::Result<Telemetry> {
    let mut exporter = exporter::exporter(settings)?;
    let resource = resource(settings, service);
    exporter.set_resource(&resource);
    let (counts, sending) = (SpanCounts::default(), Drain::new());
    let (queue, sender) = queue::queue(settings, exporter, &counts);
    let state = (sender, sending.token());
    sending.supervise_useful("traces", state, |(sender, leaving)| Box::pin(sender.run(leaving)));
    let provider = SdkTracerProvider::builder()
        .with_sampler(settings.sampler.clone())
        .with_resource(resource)
        .with_span_processor(queue)
        .build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("message-center"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    let only_ours = Targets::new().with_target(trace::TARGET, LevelFilter::INFO);
    layers.push(spans.with_filter(only_ours).boxed());
    // The layer sees no events: it only holds the counters for the metrics.
    layers.push(Counting(counts).with_filter(LevelFilter::OFF).boxed());
    Ok(Telemetry { sending, last_lines: None, provider: Some(provider) })
}

/// The resource that exports: named by the variables, and by defaults for the rest.
fn resource(settings: &TraceSettings, service: &str) -> Resource {
    let instance = format!("{:032x}", crate::ids::random_bits());
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
    ]);
    if settings.named { builder.build() } else { builder.with_service_name(service.to_owned()).build() }
}

/// Holds counters where [`register`] finds them without a global.
struct Counting<T>(T);

impl<S: tracing::Subscriber, T: 'static> Layer<S> for Counting<T> {}

/// Registers the counters of lines, and of spans if this process exports any.
pub(crate) fn register(registry: &mut Registry) {
    let counts = tracing::dispatcher::get_default(|dispatch| {
        Some(dispatch.downcast_ref::<Counting<SpanCounts>>()?.0.clone())
    });
    if let Some(counts) = counts {
        counts.register(registry);
    }
    let lost = tracing::dispatcher::get_default(|dispatch| {
        Some(dispatch.downcast_ref::<Counting<LostLines>>()?.0.clone())
    });
    if let Some(lost) = lost {
        registry.register_collector(Box::new(lost));
    }
}

//! The queue of spans in front of the exporter: bounded, with one task that sends batches.
//!
//! The end of a span never waits: a span that finds the queue full is dropped and counted. If the collector
//! is away or refuses, only spans are lost; they are counted, and a line is logged once in a while.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::environment::TraceSettings;

/// The shortest time between two complaints about the collector in the log.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Counters of spans, by outcome.
#[derive(Debug, Clone, Default)]
pub(super) struct SpanCounts(Family<Outcome, Counter>);

impl SpanCounts {
    fn add(&self, outcome: &'static str, spans: usize) {
        self.0.get_or_create(&Outcome { outcome }).inc_by(spans as u64);
    }

    /// Registers the counters.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("mc_trace_spans", "Spans of traces, by what became of them", self.0.clone());
    }

    #[cfg(test)]
    fn get(&self, outcome: &'static str) -> u64 {
        self.0.get_or_create(&Outcome { outcome }).get()
    }
}

/// The entrance of the queue, where ended spans go.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: SpanCounts,
}

/// The exit of the queue, which sends the spans.
#[derive(Debug)]
pub(super) struct Sending<E> {
    spans: mpsc::Receiver<SpanData>,
    exporter: E,
    counts: SpanCounts,
    batch: usize,
    delay: Duration,
    timeout: Duration,
    complaint: Option<Instant>,
}

/// Makes a queue: entrance and exit.
pub(super) fn queue<E>(settings: &TraceSettings, exporter: E, counts: &SpanCounts) -> (Queue, Sending<E>) {
    let (sender, spans) = mpsc::channel(settings.queue);
    let sending = Sending {
        spans,
        exporter,
        counts: counts.clone(),
        batch: settings.batch,
        delay: settings.delay,
        timeout: settings.timeout,
        complaint: None,
    };
    (Queue { spans: sender, counts: counts.clone() }, sending)
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.counts.add("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl<E: SpanExporter> Sending<E> {
    /// Sends spans until told to leave; then sends the waiting spans, and takes no more.
    pub(super) async fn run(&mut self, leaving: &CancellationToken) {
        let mut batch = Vec::new();
        while !leaving.is_cancelled() {
            self.collect(&mut batch, leaving).await;
            self.send(&mut batch).await;
        }
        self.spans.close();
        while self.spans.recv_many(&mut batch, self.batch).await > 0 {
            self.send(&mut batch).await;
        }
    }

    /// Waits until a batch is full, or its first span has waited long enough.
    async fn collect(&mut self, batch: &mut Vec<SpanData>, leaving: &CancellationToken) {
        let mut deadline = None;
        while batch.len() < self.batch {
            let now = Instant::now();
            tokio::select! {
                taken = self.spans.recv_many(batch, self.batch - batch.len()) => {
                    if taken == 0 {
                        // The entrance is gone.
                        return leaving.cancelled().await;
                    }
                    deadline.get_or_insert(now + self.delay);
                }
                () = sleep_until(deadline.unwrap_or(now)), if deadline.is_some() => return,
                () = leaving.cancelled() => return,
            }
        }
    }

    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        let spans = batch.len();
        if spans == 0 {
            return;
        }
        let error = match timeout(self.timeout, self.exporter.export(std::mem::take(batch))).await {
            Ok(Ok(())) => return self.counts.add("exported", spans),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        self.counts.add("failed", spans);
        if self.complaint.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) {
            self.complaint = Some(Instant::now());
            tracing::warn!(
                spans,
                error,
                "traces can't be exported; see mc_trace_spans_total (logged once a minute)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;
    use crate::drain::Drain;
    use crate::telemetry::environment;

    /// Remembers how many spans came at a time; refuses them if it shall.
    #[derive(Debug, Clone, Default)]
    struct Collector {
        batches: Arc<Mutex<Vec<usize>>>,
        refuses: bool,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.batches.lock().unwrap().push(batch.len());
            if self.refuses { Err(OTelSdkError::InternalFailure("no".into())) } else { Ok(()) }
        }
    }

    fn span(flags: TraceFlags) -> SpanData {
        let state = TraceState::default();
        SpanData {
            span_context: SpanContext::new(TraceId::from(1), SpanId::from(1), flags, false, state),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "x".into(),
            start_time: std::time::SystemTime::UNIX_EPOCH,
            end_time: std::time::SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        }
    }

    fn settings() -> TraceSettings {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT".into(), "http://x".into())];
        let settings = environment::read(&variables).unwrap().unwrap();
        TraceSettings { queue: 5, batch: 2, ..settings }
    }

    fn run(drain: &Drain, sending: Sending<Collector>) {
        let state = (sending, drain.token());
        drain.supervise_useful("traces", state, |(sending, leaving)| Box::pin(sending.run(leaving)));
    }

    #[tokio::test(start_paused = true)]
    async fn spans_are_sent_in_batches_and_what_waits_is_sent_when_leaving() {
        let (counts, collector, drain) = (SpanCounts::default(), Collector::default(), Drain::new());
        let (queue, sending) = queue(&settings(), collector.clone(), &counts);
        for _ in 0..6 {
            queue.on_end(span(TraceFlags::SAMPLED));
        }
        queue.on_end(span(TraceFlags::NOT_SAMPLED));
        assert_eq!(counts.get("dropped"), 1, "the queue holds five");
        run(&drain, sending);
        assert_eq!(drain.finish(Duration::from_secs(60)).await, 0);
        assert_eq!(counts.get("exported"), 5);
        assert!(collector.batches.lock().unwrap().iter().all(|size| *size <= 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_collector_refuses_is_counted_and_the_next_is_tried() {
        let counts = SpanCounts::default();
        let collector = Collector { refuses: true, ..Collector::default() };
        let (queue, sending) = queue(&settings(), collector.clone(), &counts);
        let drain = Drain::new();
        run(&drain, sending);
        for sent in 1..=3 {
            queue.on_end(span(TraceFlags::SAMPLED));
            while counts.get("failed") < sent {
                tokio::task::yield_now().await;
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        assert_eq!(drain.finish(Duration::from_secs(60)).await, 0);
        assert_eq!(*collector.batches.lock().unwrap(), [1, 1, 1]);
    }
}

//! Spans of an edge: a delivery, the writes to the sockets behind it, an answer to a publisher, a login.
//!
//! Spans are made only for messages and questions of a sampled trace. A message to all makes as many writes
//! as there are sessions. Only the first few writes become spans; the delivery records how many sessions
//! there were.

use std::sync::atomic::{AtomicU32, Ordering};

use shared::bus::async_nats::HeaderMap;
use shared::trace::{self, TARGET, TraceContext};
use shared::wire::Counts;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// Writes of one message on one edge that become spans.
const MAX_WRITES: u32 = 32;

/// Begins the span of a delivery, the handling of a message from the bus, if its trace is sampled.
pub(crate) fn delivery(headers: Option<&HeaderMap>, bytes: usize) -> Span {
    let Some(context) = sampled(headers) else { return Span::none() };
    let span = info_span!(
        target: TARGET,
        parent: None,
        "edge deliver",
        otel.kind = "consumer",
        messaging.system = trace::SYSTEM,
        messaging.operation.name = "deliver",
        messaging.operation.type = "process",
        messaging.destination.template = shared::subject::LIVE_TEMPLATE,
        messaging.message.body.size = bytes,
        mc.sessions.accepted = Empty,
        mc.sessions.failed = Empty,
    );
    context.adopt(&span);
    span
}

/// Records the counts of a delivery.
pub(crate) fn delivered(span: &Span, counts: Counts) {
    span.record("mc.sessions.accepted", counts.sessions).record("mc.sessions.failed", counts.failed);
}

/// Begins the span of an answer to a publisher's question.
pub(crate) fn answer(headers: Option<&HeaderMap>) -> Span {
    let Some(context) = sampled(headers) else { return Span::none() };
    let span = info_span!(target: TARGET, parent: None, "edge answer", otel.kind = "server");
    context.adopt(&span);
    span
}

/// Begins the span of a login, which begins a trace, since devices send none.
pub(crate) fn login() -> Span {
    info_span!(target: TARGET, parent: None, "login", otel.kind = "server", mc.outcome = Empty)
}

/// Records the outcome of the login whose span is the current one.
pub(crate) fn logged_in(outcome: &'static str) {
    Span::current().record("mc.outcome", outcome);
}

fn sampled(headers: Option<&HeaderMap>) -> Option<TraceContext> {
    trace::is_on().then(|| TraceContext::from_bus(headers)).flatten().filter(TraceContext::is_sampled)
}

/// Makes the spans of the writes of one message.
#[derive(Debug)]
pub(crate) struct Writes {
    delivery: Span,
    left: AtomicU32,
}

impl Writes {
    /// `None`: the trace is not sampled.
    pub(crate) fn of(delivery: &Span) -> Option<Self> {
        TraceContext::of(delivery)?;
        Some(Self { delivery: delivery.clone(), left: AtomicU32::new(MAX_WRITES) })
    }

    /// Begins a write: the message is offered to a session.
    pub(crate) fn begin(&self) -> Option<Write> {
        let less = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        let parent = &self.delivery;
        Some(Write(info_span!(
            target: TARGET,
            parent: parent,
            "socket write",
            otel.kind = "internal",
            mc.outcome = Empty,
        )))
    }
}

/// The span of a write: from the offer to a session until the last byte is with the system. If the write is
/// dropped before, the span says so.
#[derive(Debug)]
pub(crate) struct Write(Span);

impl Write {
    /// Ends the span: the last byte is written.
    pub(crate) fn done(mut self) {
        let span = std::mem::replace(&mut self.0, Span::none());
        span.record("mc.outcome", "written");
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        self.0.record("mc.outcome", "not_written");
    }
}

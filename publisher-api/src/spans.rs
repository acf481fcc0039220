//! Spans of traces: a call, a publish until its counts are known, and the way onto the bus.
//!
//! A trace begins with a call, or goes on if its caller sent `traceparent`. The spans within a call are made
//! only where the trace is sampled.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use shared::subject::{LIVE_TEMPLATE, LOG_TEMPLATE};
use shared::trace::{self, TARGET, TraceContext};
use shared::wire::LiveMessage;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

/// Makes each request a span. The outermost layer of the routes.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    if !trace::is_on() {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (method, route) = (method(request.method()), route.unwrap_or_default());
    let span = info_span!(
        target: TARGET,
        parent: None,
        "call",
        otel.name = %format!("{method} {route}").trim_end(),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    if let Some(parent) = of_caller(request.headers()) {
        parent.adopt(&span);
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

fn of_caller(headers: &HeaderMap) -> Option<TraceContext> {
    let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::parse(get(trace::TRACEPARENT)?, get(trace::TRACESTATE))
}

/// Returns the method as a label, since a caller may write anything for a method.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

/// Makes the span of a call over a publishing WebSocket.
pub(crate) fn frame(parent: Option<TraceContext>) -> Span {
    let span = info_span!(target: TARGET, parent: None, "mesh.publish", otel.kind = "server");
    if let Some(parent) = parent {
        parent.adopt(&span);
    }
    span
}

/// Makes the span of a checked publish, until its counts are known.
pub(crate) fn publish() -> Span {
    if !trace::is_sampled() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "publish",
        otel.kind = "internal",
        mc.sessions.accepted = Empty,
        mc.sessions.failed = Empty,
        mc.complete = Empty,
    )
}

/// Makes the span of a message on its way to the bus.
pub(crate) fn bus(message: &LiveMessage) -> Span {
    if !trace::is_sampled() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "bus publish",
        otel.kind = "producer",
        messaging.system = trace::SYSTEM,
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.template = LIVE_TEMPLATE,
        messaging.message.id = %message.id,
        messaging.message.body.size = message.payload.len(),
    )
}

/// Makes the span of a message on its way into the store, retries included.
pub(crate) fn store(message: &LiveMessage) -> Span {
    if !trace::is_sampled() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "store",
        otel.kind = "producer",
        messaging.system = trace::SYSTEM,
        messaging.operation.name = "store",
        messaging.operation.type = "send",
        messaging.destination.template = LOG_TEMPLATE,
        messaging.message.id = %message.id,
        messaging.message.body.size = message.payload.len(),
        mc.retries = Empty,
        mc.duplicate = Empty,
        otel.status_code = Empty,
    )
}

/// Makes the span of an ask, in the trace of the first of its messages that has a trace.
pub(crate) fn ask(parent: Option<TraceContext>, messages: usize) -> Span {
    let Some(parent) = parent else { return Span::none() };
    let span =
        info_span!(target: TARGET, parent: None, "bus ask", otel.kind = "client", mc.messages = messages);
    parent.adopt(&span);
    span
}

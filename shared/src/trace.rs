//! Spans of traces, and how a trace goes on in another process: `traceparent` and `tracestate` (W3C Trace
//! Context).
//!
//! A root span starts with a call of a publisher or a login. Every other span is made only within a sampled
//! trace: an unsampled one costs the read of one thread-local variable, and nothing where no exporter runs.
//! The context of an unsampled trace is not sent on. Spans hold no token, payload, user or channel.

use std::str::FromStr as _;

use async_nats::HeaderMap;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of spans that go into traces: `tracing::info_span!(target: TARGET, ...)`.
pub const TARGET: &str = "mc::span";
/// The value of `messaging.system` in traces.
pub const SYSTEM: &str = "message_center";
/// The header with the trace, the span and whether the trace is sampled.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what other vendors' systems add to the trace.
pub const TRACESTATE: &str = "tracestate";

/// The longest `tracestate` that is sent on, in bytes: the length that W3C Trace Context asks for.
const MAX_STATE: usize = 512;

/// A span that continues in another process: received from there, or to be sent there.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// Returns the current span, if its trace is sampled.
    pub fn current() -> Option<Self> {
        Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            span.is_sampled().then(|| Self(span.clone()))
        })
    }

    /// Returns a span that is not entered, if its trace is sampled.
    pub fn of(span: &Span) -> Option<Self> {
        if span.is_disabled() { None } else { span.in_scope(Self::current) }
    }

    /// Reads `traceparent` and `tracestate`. An unreadable `traceparent` counts as none, as W3C demands:
    /// tracing must not make a call fail.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let (flags, more) = (parts.next()?, parts.next().is_some());
        let version = hex::<2>(version)?;
        // Later versions may say more behind what is known.
        if version == 0xff || (version == 0 && more) {
            return None;
        }
        let trace = TraceId::from(hex::<32>(trace).filter(|id| *id != 0)?);
        let span = SpanId::from(u64::try_from(hex::<16>(span)?).ok().filter(|id| *id != 0)?);
        let flags = TraceFlags::new(u8::try_from(hex::<2>(flags)?).ok()?) & TraceFlags::SAMPLED;
        let state = tracestate.filter(|state| is_state(state));
        let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
        Some(Self(SpanContext::new(trace, span, flags, true, state)))
    }

    /// Reads the context from the headers of a message on the bus.
    pub fn from_bus(headers: Option<&HeaderMap>) -> Option<Self> {
        let headers = headers?;
        let get = |name: &str| headers.get(name).map(|value| value.as_str());
        Self::parse(get(TRACEPARENT)?, get(TRACESTATE))
    }

    /// Writes the context into the headers of a message on the bus.
    pub fn to_bus(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        if let Some(state) = self.tracestate() {
            headers.insert(TRACESTATE, state);
        }
    }

    /// Returns the value of the header [`TRACEPARENT`].
    pub fn traceparent(&self) -> String {
        let (trace, span) = (self.0.trace_id(), self.0.span_id());
        format!("00-{trace}-{span}-{:02x}", self.0.trace_flags().to_u8())
    }

    /// Returns the value of the header [`TRACESTATE`], if there is one and it is not too long.
    pub fn tracestate(&self) -> Option<String> {
        let state = self.0.trace_state().header();
        (!state.is_empty() && state.len() <= MAX_STATE).then_some(state)
    }

    /// Returns whether the trace is sampled.
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    /// Makes this context the parent of a span that has not been entered yet.
    pub fn adopt(self, span: &Span) {
        if !span.is_disabled() {
            // Fails where no exporter runs; there is no trace then.
            let _ = span.set_parent(Context::new().with_remote_span_context(self.0));
        }
    }
}

/// Returns whether this process makes spans at all.
pub fn is_on() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::INFO)
}

/// Returns whether this code runs in a sampled trace.
pub fn is_sampled() -> bool {
    Context::map_current(|context| context.span().span_context().is_sampled())
}

/// Returns headers with the current trace, if it is sampled.
pub fn bus_headers() -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    TraceContext::current()?.to_bus(&mut headers);
    Some(headers)
}

/// Returns whether a `tracestate` may be sent on: printable pairs, not too long.
fn is_state(state: &str) -> bool {
    let pair = |member: &str| {
        member.trim().split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    state.len() <= MAX_STATE
        && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && state.split(',').all(pair)
}

/// Parses exactly `N` lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<u128> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != N || !text.bytes().all(digit) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_travels_in_the_headers_of_the_bus() {
        let context = TraceContext::parse(PARENT, Some("a=1,b=2")).unwrap();
        assert!(context.is_sampled());
        let mut headers = HeaderMap::new();
        context.to_bus(&mut headers);
        assert_eq!(headers.get(TRACEPARENT).map(|value| value.as_str()), Some(PARENT));
        assert_eq!(headers.get(TRACESTATE).map(|value| value.as_str()), Some("a=1,b=2"));
        assert_eq!(TraceContext::from_bus(Some(&headers)), Some(context));
        assert_eq!(
            (TraceContext::from_bus(None), TraceContext::from_bus(Some(&HeaderMap::new()))),
            (None, None)
        );
    }

    #[test]
    fn what_is_no_traceparent_counts_as_none() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319+-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad:?}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x";
        assert!(TraceContext::parse(later, None).is_some(), "a later version may say more");
        let dull = TraceContext::parse(&PARENT.replace("-01", "-00"), Some("a=1")).unwrap();
        assert!(!dull.is_sampled());
    }

    #[test]
    fn a_tracestate_that_cannot_be_read_is_left_out() {
        let long = format!("a={}", "x".repeat(MAX_STATE));
        for state in ["", "=", "no pair", "a=1,b", "a=\r\nx", long.as_str()] {
            let context = TraceContext::parse(PARENT, Some(state)).unwrap();
            assert_eq!(context.tracestate(), None, "{state:?}");
        }
    }

    #[test]
    fn outside_of_a_trace_there_is_nothing_to_send_on() {
        assert!(TraceContext::current().is_none() && bus_headers().is_none() && !is_sampled());
        assert!(TraceContext::of(&tracing::info_span!(target: TARGET, "x")).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., sampled in prop::bool::ANY) {
            let flags = TraceFlags::default().with_sampled(sampled);
            let (trace, span) = (TraceId::from(trace), SpanId::from(span));
            let context = TraceContext(SpanContext::new(trace, span, flags, true, TraceState::default()));
            prop_assert_eq!(TraceContext::parse(&context.traceparent(), None), Some(context));
        }

        #[test]
        fn nothing_that_comes_breaks_it(parent in ".{0,80}", state in ".{0,80}") {
            TraceContext::parse(&parent, Some(&state));
        }
    }
}

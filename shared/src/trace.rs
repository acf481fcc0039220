//! Spans of traces, and how a trace goes on in another process: `traceparent` and `tracestate` (W3C Trace
//! Context).
//!
//! Roots are made where something begins: a call of a publisher, a login. All else is made only within a
//! trace that is kept, so that what is not sampled costs one look at a thread's variable, and nothing where
//! no exporter runs. A context that nobody keeps is not sent on. Spans hold no token, payload, user or
//! channel.

use std::str::FromStr as _;

use async_nats::HeaderMap;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of spans that go into traces: `tracing::info_span!(target: TARGET, ...)`.
pub const TARGET: &str = "mc::span";
/// What messages are said to travel through, in traces.
pub const SYSTEM: &str = "message_center";
/// The header with the trace, the span and the decision whether they are kept.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what others know of the trace.
pub const TRACESTATE: &str = "tracestate";

/// The longest `tracestate` that is sent on, in bytes; W3C asks for no more.
const MAX_STATE: usize = 512;

/// A span elsewhere that goes on here, or the other way round.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// The span that this code runs in, if its trace is kept.
    pub fn current() -> Option<Self> {
        Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            span.is_sampled().then(|| Self(span.clone()))
        })
    }

    /// A span that is not entered, if its trace is kept.
    pub fn of(span: &Span) -> Option<Self> {
        if span.is_disabled() { None } else { span.in_scope(Self::current) }
    }

    /// Reads `traceparent` and `tracestate`. A `traceparent` that can't be read counts as none, as W3C
    /// demands: what observes must not make a call fail.
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

    /// The same from the headers of a message on the bus.
    pub fn from_bus(headers: Option<&HeaderMap>) -> Option<Self> {
        let headers = headers?;
        let get = |name: &str| headers.get(name).map(|value| value.as_str());
        Self::parse(get(TRACEPARENT)?, get(TRACESTATE))
    }

    /// Writes it into the headers of a message on the bus.
    pub fn to_bus(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        if let Some(state) = self.tracestate() {
            headers.insert(TRACESTATE, state);
        }
    }

    /// The value of the header.
    pub fn traceparent(&self) -> String {
        let (trace, span) = (self.0.trace_id(), self.0.span_id());
        format!("00-{trace}-{span}-{:02x}", self.0.trace_flags().to_u8())
    }

    /// The value of the other header, if there is anything to say in it.
    pub fn tracestate(&self) -> Option<String> {
        let state = self.0.trace_state().header();
        (!state.is_empty() && state.len() <= MAX_STATE).then_some(state)
    }

    /// Whether its trace is kept.
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    /// Makes a span that has not been entered yet go on with this one.
    pub fn adopt(self, span: &Span) {
        if !span.is_disabled() {
            // It fails where no exporter runs, and then there is nothing to go on with.
            let _ = span.set_parent(Context::new().with_remote_span_context(self.0));
        }
    }
}

/// Whether spans are made at all in this process.
pub fn is_on() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::INFO)
}

/// Whether this code runs in a trace that is kept.
pub fn is_sampled() -> bool {
    Context::map_current(|context| context.span().span_context().is_sampled())
}

/// Headers with the trace that this code runs in, if it is kept.
pub fn bus_headers() -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    TraceContext::current()?.to_bus(&mut headers);
    Some(headers)
}

/// Whether this can go on as it is: printable pairs, not too long.
fn is_state(state: &str) -> bool {
    let pair = |member: &str| {
        member.trim().split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    state.len() <= MAX_STATE
        && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && state.split(',').all(pair)
}

/// Exactly `N` lower-case hexadecimal digits.
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

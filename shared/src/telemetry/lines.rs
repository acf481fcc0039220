//! Log lines that name their trace: `trace_id` and `span_id` at their end.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes the line of the inner format, and the ids if there are any.
#[derive(Debug)]
pub(super) struct WithTrace<F> {
    format: F,
    json: bool,
}

impl<F> WithTrace<F> {
    /// `json`: the format writes one object a line.
    pub(super) fn new(format: F, json: bool) -> Self {
        Self { format, json }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let span = Context::map_current(|current| {
            let span = current.span().span_context().clone();
            span.is_valid().then_some(span)
        });
        let Some(span) = span else { return self.format.format_event(context, writer, event) };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&append(&line, &span, self.json))
    }
}

/// Appends the ids of a span to a line, behind its last field.
fn append(line: &str, span: &SpanContext, json: bool) -> String {
    let (trace, id) = (span.trace_id(), span.span_id());
    let line = line.trim_end();
    match line.strip_suffix('}').filter(|_| json) {
        Some(open) => format!("{open},\"trace_id\":\"{trace}\",\"span_id\":\"{id}\"}}\n"),
        None => format!("{line} trace_id={trace} span_id={id}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    #[test]
    fn the_ids_are_fields_of_the_object_or_words_at_the_end() {
        let state = TraceState::default();
        let span =
            SpanContext::new(TraceId::from(0xab), SpanId::from(0xc), TraceFlags::SAMPLED, false, state);
        let json = append("{\"message\":\"x\"}\n", &span, true);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["trace_id"], "000000000000000000000000000000ab");
        assert_eq!(json["span_id"], "000000000000000c");
        assert!(
            append("INFO x {y}\n", &span, false)
                .ends_with("{y} trace_id=000000000000000000000000000000ab span_id=000000000000000c\n")
        );
    }
}

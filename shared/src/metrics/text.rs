//! The two text formats of `/metrics`: Prometheus' own and OpenMetrics.
//!
//! The library writes OpenMetrics. Each family comes out once, however many parts registered it, which both
//! formats demand; in Prometheus' format the name of a counter's family ends in `_total` too.

use std::collections::HashMap;
use std::fmt::Write as _;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus text 0.0.4, which every scraper and promtool read.
    Prometheus,
    /// OpenMetrics 1.0.0, for scrapers that ask for it.
    OpenMetrics,
}

impl Format {
    /// Returns the format for a scraper that sent this `Accept`.
    pub(super) fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    unit: Option<&'a str>,
    samples: Vec<&'a str>,
}

/// Writes the text of the library in this format.
pub(super) fn render(encoded: &str, format: Format) -> String {
    let mut text = String::with_capacity(encoded.len() + encoded.len() / 8);
    for family in families(encoded) {
        // Writing to a string can't fail.
        let _ = match format {
            Format::Prometheus => family.write_prometheus(&mut text),
            Format::OpenMetrics => family.write_open_metrics(&mut text),
        };
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Splits the text into families, in order; samples of a family that was seen before join it.
fn families(encoded: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut places = HashMap::new();
    let mut current = None;
    for line in encoded.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            if let Some(place) = current {
                let family: &mut Family<'_> = &mut families[place];
                family.samples.push(line);
            }
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(keyword), Some(name), rest) =
            (words.next(), words.next(), words.next().unwrap_or_default())
        else {
            continue;
        };
        let place = *places.entry(name).or_insert_with(|| {
            families.push(Family { name, ..Family::default() });
            families.len() - 1
        });
        current = Some(place);
        let family = &mut families[place];
        match keyword {
            "HELP" if family.help.is_empty() => family.help = rest,
            "TYPE" => family.kind = rest,
            "UNIT" => family.unit = Some(rest),
            _ => {}
        }
    }
    families
}

impl Family<'_> {
    fn write_prometheus(&self, text: &mut String) -> std::fmt::Result {
        let suffix = if self.kind == "counter" { "_total" } else { "" };
        let kind = if self.kind == "unknown" { "untyped" } else { self.kind };
        // In this format a quote in a help text stands for itself.
        let help = self.help.replace("\\\"", "\"");
        writeln!(text, "# HELP {}{suffix} {help}", self.name)?;
        writeln!(text, "# TYPE {}{suffix} {kind}", self.name)?;
        self.write_samples(text)
    }

    fn write_open_metrics(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# HELP {} {}", self.name, self.help)?;
        writeln!(text, "# TYPE {} {}", self.name, self.kind)?;
        if let Some(unit) = self.unit {
            writeln!(text, "# UNIT {} {unit}", self.name)?;
        }
        self.write_samples(text)
    }

    fn write_samples(&self, text: &mut String) -> std::fmt::Result {
        self.samples.iter().try_for_each(|sample| writeln!(text, "{sample}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCODED: &str = "# HELP mc_x A \\\"thing\\\".\n# TYPE mc_x counter\nmc_x_total{part=\"a\"} 1\n\
        # HELP mc_y_seconds Time.\n# TYPE mc_y_seconds gauge\n# UNIT mc_y_seconds seconds\nmc_y_seconds 2\n\
        # HELP mc_x A thing.\n# TYPE mc_x counter\nmc_x_total{part=\"b\"} 3\n# EOF\n";

    #[test]
    fn a_family_that_two_parts_registered_is_written_once() {
        assert_eq!(
            render(ENCODED, Format::Prometheus),
            "# HELP mc_x_total A \"thing\".\n# TYPE mc_x_total counter\nmc_x_total{part=\"a\"} 1\n\
             mc_x_total{part=\"b\"} 3\n# HELP mc_y_seconds Time.\n# TYPE mc_y_seconds gauge\nmc_y_seconds 2\n"
        );
        assert_eq!(
            render(ENCODED, Format::OpenMetrics),
            "# HELP mc_x A \\\"thing\\\".\n# TYPE mc_x counter\nmc_x_total{part=\"a\"} 1\nmc_x_total{part=\"b\"} 3\n\
             # HELP mc_y_seconds Time.\n# TYPE mc_y_seconds gauge\n# UNIT mc_y_seconds seconds\nmc_y_seconds 2\n# EOF\n"
        );
    }

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::wanted(prometheus), Format::OpenMetrics);
        for other in ["", "*/*", "text/plain;version=0.0.4", "text/html"] {
            assert_eq!(Format::wanted(other), Format::Prometheus, "{other}");
        }
    }
}

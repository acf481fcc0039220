//! `/metrics`: the metrics of every process, and their text format.
//!
//! Names begin with `mc_` and the part, except the `process_` metrics that all programs share. Labels come
//! from small fixed sets: never a user, a channel, a token or an address.

mod process;
mod text;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::drain::Drain;
use text::Format;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: &'static str,
    part: &'static str,
}

/// Registers the metrics of every process. Called once per process, within its runtime; `part` names the
/// program, and `drain` is one of the drains of the process.
pub fn register_process(registry: &mut Registry, part: &'static str, drain: &Drain) {
    let build = Family::<Build, Gauge>::default();
    build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION"), part }).set(1);
    registry.register("mc_build_info", "Always 1; the labels say which program this is", build);
    crate::telemetry::register(registry);
    drain.register(registry);
    registry.register_collector(Box::new(process::Process::current()));
}

/// Writes all metrics in the format that a scraper with this `Accept` wants: the `Content-Type` and the text.
/// `None`: a metric could not be encoded.
pub fn render(registry: &Registry, accept: &str) -> Option<(&'static str, String)> {
    let mut encoded = String::new();
    prometheus_client::encoding::text::encode(&mut encoded, registry).ok()?;
    let format = Format::wanted(accept);
    Some((format.content_type(), text::render(&encoded, format)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_tells_what_it_is_and_what_it_uses() {
        let mut registry = Registry::default();
        register_process(&mut registry, "edge", &Drain::new());
        let (kind, text) = render(&registry, "*/*").unwrap();
        assert!(kind.starts_with("text/plain; version=0.0.4"));
        let build = concat!("mc_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",part=\"edge\"} 1\n");
        assert!(text.contains(build), "{text}");
        for name in
            ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"]
        {
            let sample = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(!cfg!(target_os = "linux") || sample.is_some(), "{name}\n{text}");
        }
    }
}

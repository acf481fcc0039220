//! The standard `OTEL_*` variables: whether traces are exported, how, and how many.
//!
//! Nothing is exported unless an endpoint is set. For a value that can't be used, the error says what to
//! write instead, and the process does not start. The exporter itself reads what only it needs (headers,
//! time-outs).

use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;

/// The share of traces that are sampled when nobody says how many: few enough to cost nothing that can be
/// measured, and enough to see a trace every few seconds at ten publishes a second.
const DEFAULT_RATIO: f64 = 0.01;
const SAMPLERS: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
    parentbased_traceidratio";

/// The protocol of the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// OTLP over HTTP, as protobuf.
    Http,
    /// OTLP over gRPC.
    #[cfg(feature = "otlp-grpc")]
    Grpc,
}

impl Protocol {
    /// Names the protocol for `value`. `None`: this build has no such protocol.
    fn named(value: &str) -> Option<Self> {
        match value {
            "http/protobuf" => Some(Self::Http),
            #[cfg(feature = "otlp-grpc")]
            "grpc" => Some(Self::Grpc),
            _ => None,
        }
    }
}

/// Tells what to write in place of a protocol that this build does not have.
const PROTOCOLS: &str = if cfg!(feature = "otlp-grpc") {
    "http/protobuf or grpc"
} else {
    "http/protobuf, or take a release, an image or a program built with `--features otlp-grpc`: this one \
     was built without gRPC"
};

/// The settings of the export.
#[derive(Debug, Clone)]
pub(super) struct TraceSettings {
    /// The endpoint, as given.
    pub(super) endpoint: String,
    /// The protocol.
    pub(super) protocol: Protocol,
    /// Which traces are sampled.
    pub(super) sampler: Sampler,
    /// Whether the variables name the service.
    pub(super) named: bool,
    /// PEM file of the authorities that may have signed the collector's certificate.
    pub(super) certificate: Option<String>,
    /// The most spans that wait; further spans are dropped and counted.
    pub(super) queue: usize,
    /// The most spans that are sent at a time.
    pub(super) batch: usize,
    /// How long a span waits for others of its batch.
    pub(super) delay: Duration,
    /// How long sending may take.
    pub(super) timeout: Duration,
}

/// Reads the variables. `None`: no traces.
///
/// # Errors
/// Every unusable value, a line each.
pub(super) fn read(variables: &[(String, String)]) -> Result<Option<TraceSettings>, String> {
    let mut variables = Variables { variables, faults: Vec::new() };
    let settings = variables.settings();
    if variables.faults.is_empty() { Ok(settings) } else { Err(variables.faults.join("\n")) }
}

struct Variables<'a> {
    variables: &'a [(String, String)],
    faults: Vec<String>,
}

impl Variables<'_> {
    /// Returns the first of these variables that is set; an empty value counts as unset.
    fn get(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|wanted| {
            let (_, value) = self.variables.iter().find(|(name, _)| name == wanted)?;
            Some(value.trim()).filter(|value| !value.is_empty()).map(str::to_owned)
        })
    }

    fn settings(&mut self) -> Option<TraceSettings> {
        if self.get(&["OTEL_SDK_DISABLED"]).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        match self.get(&["OTEL_TRACES_EXPORTER"]).as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(other) => self.fault("OTEL_TRACES_EXPORTER", other, "otlp or none"),
        }
        let endpoint = self.get(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])?;
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            self.fault("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint, "a URL like http://collector:4318");
        }
        let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        let protocol = self.get(&names).unwrap_or_else(|| "http/protobuf".to_owned());
        let protocol = Protocol::named(&protocol).unwrap_or_else(|| {
            self.fault("OTEL_EXPORTER_OTLP_PROTOCOL", &protocol, PROTOCOLS);
            Protocol::Http
        });
        let names = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
        if let Some(other) = self.get(&names).filter(|value| value != "none") {
            self.fault("OTEL_EXPORTER_OTLP_COMPRESSION", &other, "none, or leave it out");
        }
        let attributes = self.get(&["OTEL_RESOURCE_ATTRIBUTES"]).unwrap_or_default();
        let named = attributes.split(',').any(|pair| pair.trim().starts_with("service.name="));
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048);
        Some(TraceSettings {
            endpoint,
            protocol,
            sampler: self.sampler(),
            named: named || self.get(&["OTEL_SERVICE_NAME"]).is_some(),
            certificate: self
                .get(&["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]),
            queue,
            batch: self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: Duration::from_millis(self.number("OTEL_BSP_SCHEDULE_DELAY", 5_000) as u64),
            timeout: Duration::from_millis(self.number("OTEL_BSP_EXPORT_TIMEOUT", 30_000) as u64),
        })
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.get(&["OTEL_TRACES_SAMPLER"]);
        let name = name.as_deref().unwrap_or("parentbased_traceidratio");
        let root = match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(self.ratio()),
            _ => {
                self.fault("OTEL_TRACES_SAMPLER", name, &format!("one of {SAMPLERS}"));
                Sampler::AlwaysOff
            }
        };
        if name.starts_with("parentbased_") { Sampler::ParentBased(Box::new(root)) } else { root }
    }

    fn ratio(&mut self) -> f64 {
        let Some(text) = self.get(&["OTEL_TRACES_SAMPLER_ARG"]) else { return DEFAULT_RATIO };
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            Ok(_) | Err(_) => {
                self.fault("OTEL_TRACES_SAMPLER_ARG", &text, "a share between 0 and 1, e.g. 0.01");
                DEFAULT_RATIO
            }
        }
    }

    /// Reads a whole number from 1 to a million.
    fn number(&mut self, name: &str, default: usize) -> usize {
        let Some(text) = self.get(&[name]) else { return default };
        match text.parse() {
            Ok(number @ 1..=1_000_000) => number,
            Ok(_) | Err(_) => {
                self.fault(name, &text, "a whole number from 1 to 1000000");
                default
            }
        }
    }

    fn fault(&mut self, name: &str, value: &str, instead: &str) {
        self.faults.push(format!("{name} is {value:?}; write {instead}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<TraceSettings>, String> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        super::read(&pairs)
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn without_an_endpoint_or_when_disabled_nothing_is_exported() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(read(variables).unwrap().is_none(), "{variables:?}");
        }
    }

    #[test]
    fn an_endpoint_alone_means_http_and_a_small_share_of_traces() {
        let settings = read(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!((settings.protocol, settings.named, settings.queue), (Protocol::Http, false, 2_048));
        assert_eq!(format!("{:?}", settings.sampler), "ParentBased(TraceIdRatioBased(0.01))");
    }

    #[test]
    fn the_variables_for_traces_stand_over_those_for_everything() {
        let settings = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "none of ours"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=x"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.protocol), ("https://traces:4317", Protocol::Http));
        assert_eq!((settings.named, settings.queue, settings.batch), (true, 100, 100));
        assert_eq!(format!("{:?}", settings.sampler), "TraceIdRatioBased(0.5)");
    }

    #[test]
    fn grpc_is_taken_by_a_build_that_has_it_and_else_refused_with_what_to_do() {
        let settings = read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        #[cfg(feature = "otlp-grpc")]
        assert_eq!(settings.unwrap().unwrap().protocol, Protocol::Grpc);
        #[cfg(not(feature = "otlp-grpc"))]
        assert!(settings.unwrap_err().contains("--features otlp-grpc"));
    }

    #[test]
    fn every_value_that_cannot_be_used_is_named() {
        let text = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ])
        .unwrap_err();
        assert_eq!(text.lines().count(), 6, "{text}");
        for (sampler, share) in [("traceidratio", "2"), ("parentbased_traceidratio", "x")] {
            let variables = [ENDPOINT, ("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", share)];
            assert!(read(&variables).unwrap_err().contains("between 0 and 1"));
        }
    }
}

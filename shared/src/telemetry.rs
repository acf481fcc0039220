//! Logs to standard error, as text or JSON. Traces join here once there is an exporter.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{LogConfig, LogFormat, Problems};

/// Checks `[log]`.
pub fn validate(config: &LogConfig, problems: &mut Problems) {
    if let Err(error) = EnvFilter::try_new(&config.filter) {
        problems.add("log.filter", format!("{error}; write e.g. \"info\" or \"info,edge=debug\""));
    }
}

/// Starts logging for this process. Called once, by `main`.
///
/// # Errors
/// Logging was started before.
pub fn start(config: &LogConfig) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(colour).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
}

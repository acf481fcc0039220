//! `message-center bus`: the embedded bus alone, for parts in other processes.

use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use shared::bus::{BusConfig, provide};
use shared::config::{self, LogConfig, Problems};
use shared::drain::Drain;
use shared::health::{self, Health};
use shared::metrics;
use shared::reload::Live;

use crate::settings::on_disk;

/// What the process reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[bus]`
    pub bus: BusConfig,
    /// `[log]`
    pub log: LogConfig,
}

impl Default for Settings {
    fn default() -> Self {
        let bus = on_disk(BusConfig { listen: "127.0.0.1:4222".into(), ..BusConfig::default() });
        Self { bus, log: LogConfig::default() }
    }
}

impl config::Settings for Settings {
    const SERVICE: &'static str = "message-center-bus";

    fn complete(&mut self) {
        self.bus = on_disk(std::mem::take(&mut self.bus));
        if self.bus.listen.is_empty() {
            // A file that serves all parts leaves it empty; a bus that nobody can reach is of no use.
            self.bus.listen = Self::default().bus.listen;
        }
    }

    fn validate(&self, problems: &mut Problems) {
        self.bus.validate(problems);
        shared::telemetry::validate(&self.log, problems);
        problems.check(self.bus.is_embedded(), "bus.url", || {
            "this process is the bus; it can't connect to another (leave bus.url out here)".into()
        });
    }
}

/// Serves the bus until the drain begins.
///
/// # Errors
/// A port is taken.
pub async fn run(live: Live<Settings>, drain: Drain) -> anyhow::Result<()> {
    let settings = live.get();
    let admin = health::bind("bus.admin", settings.bus.admin).await?;
    let (bus_drain, admin_drain) = (drain.beside(), drain.beside());
    let server = provide(&settings.bus, &bus_drain).await.context("the bus")?;
    let (health, mut registry) = (Health::new(), Registry::default());
    metrics::register_process(&mut registry, "bus", &drain);
    server.register(&mut registry);
    live.register(&mut registry);
    server.watch(&health, &admin_drain);
    health::serve(admin, health.clone(), registry, &admin_drain);
    drain.begun().await;
    health.unready("bus", "leaving");
    for (drain, grace) in [(bus_drain, 10), (admin_drain, 1)] {
        drain.finish(Duration::from_secs(grace)).await;
    }
    tracing::info!("the bus has left");
    Ok(())
}

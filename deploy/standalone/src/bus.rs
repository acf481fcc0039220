//! `message-center bus`: the embedded bus alone, for parts in other processes.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, LogConfig, Problems};
use shared::drain::Drain;
use shared::part::{Apart, Frame, ready};
use shared::reload::Live;

use crate::settings::on_disk;

/// The name of the bus in metrics and readiness.
const PART: &str = "bus";
/// How long the bus may take to end, and the admin port after the bus.
const BUS_GRACE: Duration = Duration::from_secs(10);
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// The settings of the process.
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
            // A file that serves all parts leaves bus.listen empty, but a bus without a port is of no use.
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
/// Fails if a port is taken.
pub fn run(live: Live<Settings>, drain: Drain) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        let settings = live.get();
        let apart = Apart { part: PART, admin: ("bus.admin", settings.bus.admin), bus: &settings.bus };
        let frame = Frame::open(apart, &live, &drain).await?;
        let health = frame.health().clone();
        let drains = frame.serve();
        drain.begun().await;
        health.unready(PART, ready::LEAVING);
        drains.bus.finish(BUS_GRACE).await;
        drains.admin.finish(ADMIN_GRACE).await;
        tracing::info!("the bus has left");
        Ok(())
    })
}

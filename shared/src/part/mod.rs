//! The frame of a part: its start and its leave as a process of its own, its readiness, and the proof of its
//! subscriptions.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | [`Host`], on which a part starts; [`run_apart`], the process around one part; [`Frame`], the process without the part |
//! | [`proof`] | whether the subscriptions of a part are active on the present connection |
//! | [`ready`] | the sentences of `/readyz` that all parts share, and the grace of an absence |
//!
//! A process with several parts (`message-center run`) gives each its own [`Host`] and leaves part by part.

pub mod proof;
pub mod ready;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::bus::{self, Bus, BusConfig, BusServer};
use crate::drain::Drain;
use crate::health::{self, Health};
use crate::metrics;
use crate::reload::Live;

/// How long the admin port, or the connection to the bus, may take to end after the part.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// The handles that a part starts on. Several parts of one process share health and registry, never the
/// connection or the drain.
#[derive(Debug)]
pub struct Host<'a> {
    /// The part's own connection to the bus.
    pub bus: Bus,
    /// Where the part says whether it is ready.
    pub health: Health,
    /// Where the part registers its metrics.
    pub registry: &'a mut Registry,
    /// The drain of the part: every task of the part runs on this drain, and the part leaves with it.
    pub drain: Drain,
}

/// The part that a process runs.
#[derive(Debug)]
pub struct Apart<'a> {
    /// The name of the part in logs, metrics and bus connections.
    pub part: &'static str,
    /// The key and the address of the admin port.
    pub admin: (&'static str, SocketAddr),
    /// The bus to connect to, or to embed.
    pub bus: &'a BusConfig,
}

/// How a part leaves.
#[derive(Debug, Clone, Copy)]
pub struct Leave {
    /// How long the tasks of the part may take to end.
    pub grace: Duration,
    /// The warning in the log if tasks did not end in time.
    pub early: &'static str,
}

/// Runs one part as a process of its own until `drain` begins, and leaves.
///
/// Order of the start: bind the admin port, find or embed the bus, connect, start the part, and only then
/// serve the admin port. Order of the leave: the part, the admin port, the bus. So `/readyz` answers and the
/// bus serves for as long as the part is there.
///
/// # Errors
/// The admin port is taken, the bus can't be used, or `start` fails.
pub async fn run_apart<S>(
    apart: Apart<'_>,
    live: &Live<S>,
    drain: Drain,
    leave: Leave,
    start: impl AsyncFnOnce(Host<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let part = apart.part;
    let mut frame = Frame::open(apart, live, &drain).await?;
    let bus = Bus::connect(&frame.server, part, &frame.bus_drain).await.context("the bus")?;
    let (health, registry) = (frame.health.clone(), &mut frame.registry);
    start(Host { bus, health, registry, drain: drain.clone() }).await?;
    let Drains { admin: admin_drain, bus: bus_drain } = frame.serve();
    drain.begun().await;
    let unfinished = drain.finish(leave.grace).await;
    if unfinished > 0 {
        tracing::warn!(unfinished, "{}", leave.early);
    }
    admin_drain.finish(LAST_GRACE).await;
    bus_drain.finish(LAST_GRACE).await;
    Ok(())
}

/// The process around a part: the admin port, the bus, readiness and metrics.
#[derive(Debug)]
pub struct Frame {
    admin: TcpListener,
    server: BusServer,
    health: Health,
    registry: Registry,
    admin_drain: Drain,
    bus_drain: Drain,
}

/// The drains of a [`Frame`], which leave after the part.
#[derive(Debug)]
pub struct Drains {
    /// The drain of the admin port.
    pub admin: Drain,
    /// The drain of the bus and of the connection to it.
    pub bus: Drain,
}

impl Frame {
    /// Binds the admin port, finds or embeds the bus, and registers the metrics of the process.
    ///
    /// # Errors
    /// The admin port is taken, or the bus can't be used.
    pub async fn open<S>(apart: Apart<'_>, live: &Live<S>, drain: &Drain) -> anyhow::Result<Self> {
        let Apart { part, admin: (key, address), bus } = apart;
        let admin = health::bind(key, address).await?;
        let (bus_drain, admin_drain) = (drain.beside(), drain.beside());
        let server = bus::provide_apart(bus, part, &bus_drain).await.context("the bus")?;
        let (health, mut registry) = (Health::new(), Registry::default());
        metrics::register_process(&mut registry, part, drain);
        server.register(&mut registry);
        server.watch(&health, &admin_drain);
        live.register(&mut registry);
        Ok(Self { admin, server, health, registry, admin_drain, bus_drain })
    }

    /// Returns the readiness of the process.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Serves the admin port from now on. Metrics can't be registered any more.
    pub fn serve(self) -> Drains {
        health::serve(self.admin, self.health, self.registry, &self.admin_drain);
        Drains { admin: self.admin_drain, bus: self.bus_drain }
    }
}

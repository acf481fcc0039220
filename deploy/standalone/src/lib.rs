//! Everything in one process: bus, auth-adapter, publisher-api and edge, started and left in order.
//!
//! Nothing here behaves differently from the parts run apart: it starts the same crates, each with its own
//! connection to the bus and its own drain. Without a login URL it adds a demo business system and stays on
//! loopback.

pub mod banner;
pub mod bus;
pub mod demo;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use auth_adapter::AuthAdapter;
use edge::Edge;
use prometheus_client::registry::Registry;
use publisher_api::PublisherApi;
use shared::bus::{Bus, provide};
use shared::drain::Drain;
use shared::health::{self, Health};
use shared::rules::Rules;

pub use settings::{DemoConfig, Settings};

/// How long the bus, the admin port and the demo may take to end; none of them has anything to finish.
const LAST_GRACE: Duration = Duration::from_secs(2);
/// What an edge may need beyond its drain window, to write out what its sessions still have waiting.
const EDGE_GRACE: Duration = Duration::from_secs(5);

/// All parts, running.
#[derive(Debug)]
pub struct Standalone {
    /// Where devices connect.
    pub clients: SocketAddr,
    /// Where back ends publish.
    pub publishing: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin: SocketAddr,
    /// Where the demo business system answers, if it runs.
    pub demo: Option<demo::Demo>,
    /// Path of the WebSocket.
    pub path: String,
    /// Ready once all parts are.
    pub health: Health,
    drains: Drains,
}

/// A drain for each step of leaving, with the time it may take.
#[derive(Debug)]
struct Drains {
    edge: (Drain, Duration),
    publisher: (Drain, Duration),
    auth: (Drain, Duration),
    rest: Drain,
}

impl Standalone {
    /// Binds every port, then starts every part. All that can be known to fail fails here.
    ///
    /// # Errors
    /// A port is taken, or the configuration names something that can't be used.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let (health, mut registry) = (Health::new(), Registry::default());
        let rest = Drain::new();
        let admin = health::bind("edge.admin", settings.edge.admin).await?;
        let rules = Arc::new(Rules::compile(&settings.channels).context("channels")?);
        let (demo, login) = demo::provide(&settings, &rest).await?;

        let server = provide(&settings.bus, &rest).await.context("the bus")?;
        let (edge_drain, publisher_drain, auth_drain) = (Drain::new(), Drain::new(), Drain::new());
        let drains = Drains {
            edge: (edge_drain.clone(), settings.edge.drain_window + EDGE_GRACE),
            publisher: (publisher_drain.clone(), settings.publisher_api.grace),
            auth: (auth_drain.clone(), settings.auth_adapter.grace),
            rest: rest.clone(),
        };

        let bus = Bus::connect(&server, auth_adapter::PART, &rest).await?;
        AuthAdapter::start(login, bus, health.clone(), &mut registry, &auth_drain).await?;
        let bus = Bus::connect(&server, publisher_api::PART, &rest).await?;
        let publisher = PublisherApi::start(
            settings.publisher_api,
            &rules,
            bus,
            health.clone(),
            &mut registry,
            &publisher_drain,
        );
        let publisher = publisher.await?;
        let bus = Bus::connect(&server, edge::PART, &rest).await?;
        let path = settings.edge.path.clone();
        let edge = Edge::start(settings.edge, rules, bus, health.clone(), &mut registry, &edge_drain).await?;

        let address = admin.local_addr().context("the address of the admin port")?;
        health::serve(admin, health.clone(), registry, &rest);
        let (clients, publishing) = (edge.local_addr(), publisher.local_addr());
        Ok(Self { clients, publishing, admin: address, demo, path, health, drains })
    }

    /// Leaves in order: devices are sent away paced while publishing still works, then publishes and token
    /// checks in flight end, and the bus goes last. Returns how many tasks did not end in time.
    pub async fn leave(self) -> usize {
        let Drains { edge, publisher, auth, rest } = self.drains;
        let mut unfinished = 0;
        for (drain, grace) in [edge, publisher, auth, (rest, LAST_GRACE)] {
            unfinished += drain.finish(grace).await;
        }
        unfinished
    }
}

/// Runs everything until the drain begins.
///
/// # Errors
/// See [`Standalone::start`].
pub async fn run(settings: Settings, drain: Drain) -> anyhow::Result<()> {
    let standalone = Standalone::start(settings).await?;
    tokio::select! {
        () = standalone.health.wait_ready() => print!("{}", banner::text(&standalone)),
        () = drain.begun() => {}
    }
    drain.begun().await;
    let unfinished = standalone.leave().await;
    if unfinished > 0 {
        tracing::warn!(unfinished, "left before everything was finished");
    }
    tracing::info!("message center has left");
    Ok(())
}

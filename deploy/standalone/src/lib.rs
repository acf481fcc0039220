//! Everything in one process: bus, auth-adapter, publisher-api and edge, started and left in order.
//!
//! Nothing here behaves differently from the parts run apart: it starts the same crates, each with its own
//! connection to the bus and its own drain. Without a login URL it adds a demo business system and stays on
//! loopback.

pub mod banner;
pub mod bus;
pub mod demo;
pub mod history;
pub mod key;
mod plain_http;
pub mod probe;
pub mod selftest;
mod settings;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use auth_adapter::AuthAdapter;
use edge::Edge;
use prometheus_client::registry::Registry;
use publisher_api::PublisherApi;
use publisher_api::keys::NewKey;
use shared::bus::{Bus, provide};
use shared::drain::Drain;
use shared::health::{self, Health};
use shared::metrics;
use shared::part::Host;
use shared::reload::Live;
use shared::rules::Rules;
use tokio::time::{Instant, timeout};

pub use settings::{DemoConfig, Settings};

/// How long the bus, the admin port and the demo may take to end: a bus that others can reach gives them a second.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// What an edge may need beyond its drain window, to write out what its sessions still have waiting.
const EDGE_GRACE: Duration = Duration::from_secs(5);
/// How long the edge waits for publisher-api to listen, before it starts all the same.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long everything may take to leave, beyond the drain window of the edge.
const TOTAL_GRACE: Duration = Duration::from_secs(10);

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
    /// Which of the ports speak TLS.
    pub tls: Tls,
    /// Path of the WebSocket.
    pub path: String,
    /// Whether publishing needs a key.
    pub keyed: bool,
    /// That key, where it was made for this run: by an exposed demo that nobody gave keys.
    pub demo_key: Option<Arc<NewKey>>,
    /// Where messages are kept, in words.
    pub kept: String,
    /// Ready once all parts are.
    pub health: Health,
    drains: Drains,
}

/// Which ports speak TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tls {
    /// That of devices.
    pub clients: bool,
    /// That of back ends.
    pub publishing: bool,
}

/// A drain for each step of leaving, with the time it may take.
#[derive(Debug)]
struct Drains {
    edge: (Drain, Duration),
    publisher: (Drain, Duration),
    auth: (Drain, Duration),
    /// The bus, the connections to it, the admin port and the demo.
    rest: Drain,
    /// That of the process.
    process: Drain,
    total: Duration,
}

impl Drains {
    fn new(settings: &Settings, process: &Drain) -> Self {
        let window = settings.edge.drain_window;
        Self {
            edge: (process.beside(), window + EDGE_GRACE),
            publisher: (process.beside(), settings.publisher_api.grace),
            auth: (process.beside(), settings.auth_adapter.grace),
            rest: process.beside(),
            process: process.clone(),
            total: window + TOTAL_GRACE,
        }
    }

    /// Finishes one after the other, within the total. Returns how many tasks did not end in time.
    async fn finish(self) -> usize {
        self.process.begin();
        let end = Instant::now() + self.total;
        let mut unfinished = 0;
        for (drain, grace) in [self.edge, self.publisher, self.auth, (self.rest, LAST_GRACE)] {
            let left = end.saturating_duration_since(Instant::now());
            unfinished += drain.finish(grace.min(left)).await;
        }
        unfinished
    }
}

/// What is known once all parts are started.
struct Started {
    clients: SocketAddr,
    publishing: SocketAddr,
    admin: SocketAddr,
    demo: Option<demo::Demo>,
    demo_key: Option<Arc<NewKey>>,
}

impl Standalone {
    /// Binds every port and starts every part. All that can be known to fail fails here, and then nothing is
    /// left running. `process` begins when a task is lost that is needed: then it is time to [leave](Self::leave).
    ///
    /// # Errors
    /// A port is taken, or the configuration names something that can't be used.
    pub async fn start(settings: impl Into<Live<Settings>>, process: &Drain) -> anyhow::Result<Self> {
        let live: Live<Settings> = settings.into();
        let settings = live.get();
        let (health, drains, path) =
            (Health::new(), Drains::new(&settings, process), settings.edge.path.clone());
        let keyed = settings.publisher_api.has_keys();
        let kept = kept(&settings);
        let tls =
            Tls { clients: settings.edge.tls.is_set(), publishing: settings.publisher_api.tls.is_set() };
        match start_parts(live, &health, &drains).await {
            Ok(Started { clients, publishing, admin, demo, demo_key }) => {
                let keyed = keyed || demo_key.is_some();
                Ok(Self {
                    clients,
                    publishing,
                    admin,
                    demo,
                    tls,
                    path,
                    keyed,
                    demo_key,
                    kept,
                    health,
                    drains,
                })
            }
            Err(error) => {
                drains.finish().await;
                Err(error)
            }
        }
    }

    /// Leaves in order: devices are sent away paced while publishing still works, then publishes and token
    /// checks in flight end, and the bus goes last. Returns how many tasks did not end in time.
    pub async fn leave(self) -> usize {
        self.drains.finish().await
    }
}

/// Where messages are kept, in words.
fn kept(settings: &Settings) -> String {
    let store = &settings.bus.store;
    match store.folder() {
        _ if !settings.bus.url.is_empty() => {
            "in the streams of the bus that this process connects to".to_owned()
        }
        None => "in memory: they end with this process".to_owned(),
        Some(folder) => {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            format!("in {}", folder.display())
        }
    }
}

async fn start_parts(live: Live<Settings>, health: &Health, drains: &Drains) -> anyhow::Result<Started> {
    let (rest, mut registry, settings) = (&drains.rest, Registry::default(), live.get());
    live.register(&mut registry);
    let admin = health::bind("edge.admin", settings.edge.admin).await?;
    let rules = Arc::new(Rules::compile(&settings.channels).context("channels")?);
    let (demo, login) = demo::provide(&settings, rest).await?;
    let mut server = provide(&settings.bus, rest).await.context("the bus")?;
    if settings.bus.is_private() {
        server = server.for_one_of_each();
    }
    metrics::register_process(&mut registry, "message-center", rest);
    server.register(&mut registry);
    server.watch(health, rest);

    let bus = Bus::connect(&server, auth_adapter::PART, rest).await?;
    let (ready, drain) = (health.clone(), drains.auth.0.clone());
    AuthAdapter::start(login, Host { bus, health: ready, registry: &mut registry, drain }).await?;

    let bus = Bus::connect(&server, publisher_api::PART, rest).await?;
    let (ready, drain) = (health.clone(), drains.publisher.0.clone());
    let demo_key = demo::key(&settings)?;
    let key = demo_key.clone();
    let publisher =
        live.project(&drain, move |settings| demo::admit(key.as_deref(), settings.publisher_api.clone()));
    let host = Host { bus, health: ready, registry: &mut registry, drain };
    let publisher = PublisherApi::start(publisher, &rules, &settings.history, host).await?;

    // So that the first heartbeat of the edge is heard, and its first client counted.
    let listens = health.wait_ready_part(publisher_api::PART);
    if settings.bus.is_private() && timeout(START_PATIENCE, listens).await.is_err() {
        tracing::warn!(reasons = health.reasons(), "publisher-api is slow to start");
    }

    let bus = Bus::connect(&server, edge::PART, rest).await?;
    let (ready, drain) = (health.clone(), drains.edge.0.clone());
    let edge = live.project(&drain, |settings| settings.edge.clone());
    let host = Host { bus, health: ready, registry: &mut registry, drain };
    let edge = Edge::start(edge, rules, &settings.history, host).await?;

    let (clients, publishing) = (edge.local_addr(), publisher.local_addr());
    let address = admin.local_addr().context("the address of the admin port")?;
    health::serve(admin, health.clone(), registry, rest);
    Ok(Started { clients, publishing, admin: address, demo, demo_key })
}

/// Runs everything until the drain begins.
///
/// # Errors
/// See [`Standalone::start`].
pub async fn run(settings: Live<Settings>, drain: Drain) -> anyhow::Result<()> {
    // Boxed, for it is large and gone once everything runs.
    let standalone = Box::pin(Standalone::start(settings, &drain)).await?;
    tokio::select! {
        () = standalone.health.wait_ready() => {
            // Whoever closed standard output wants to read nothing; that is no reason to stop.
            let _ = std::io::stdout().write_all(banner::text(&standalone).as_bytes());
        }
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

//! Everything in one process: bus, auth-adapter, publisher-api and edge, started and stopped in order.
//!
//! The parts behave here as they do in processes of their own: the process starts the same crates, and gives
//! each its own connection to the bus and its own drain. Without a login URL, a demo business system runs
//! too, and every port stays on loopback.
//!
//! | module | holds |
//! | --- | --- |
//! | `settings` | the whole configuration |
//! | [`bus`] | `message-center bus`, the embedded bus alone |
//! | [`demo`], [`banner`] | the demo business system, and the text that a newcomer reads |
//! | [`tour`] | the channel that this text shows |
//! | [`history`], [`key`], [`login_test`], [`probe`], [`selftest`] | the operator's commands |
//! | `plain_http` | one HTTP request, for `probe` and `selftest` |

pub mod banner;
pub mod bus;
pub mod demo;
pub mod history;
pub mod key;
pub mod login_test;
mod plain_http;
pub mod probe;
pub mod selftest;
mod settings;
pub mod tour;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use auth_adapter::AuthAdapter;
use edge::Edge;
use futures_util::future::BoxFuture;
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
use tour::Example;

/// How long the bus, the admin port and the demo may take to end. An embedded bus that other processes can
/// reach serves them for another second.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// Time beyond the drain window in which an edge writes out the outboxes of its sessions.
const EDGE_GRACE: Duration = Duration::from_secs(5);
/// How long the edge waits for publisher-api to listen. After that the edge starts all the same.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long the whole process may take to leave, beyond the drain window of the edge.
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
    pub needs_key: bool,
    /// The publishing key of an exposed demo without configured keys, made for this run.
    pub demo_key: Option<Arc<NewKey>>,
    /// Where messages are stored, in words.
    pub storage: String,
    /// The names by which devices subscribe, in words.
    pub names: String,
    /// The channel that the tour shows; none if the rules have none to show.
    pub example: Option<Example>,
    /// Readiness of the process: ready once all parts are ready.
    pub health: Health,
    drains: Drains,
}

/// Which ports speak TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tls {
    /// The port of devices.
    pub clients: bool,
    /// The port of back ends.
    pub publishing: bool,
}

/// One step of leaving: the tasks of the step, and how long they may take to end.
#[derive(Debug)]
struct Step {
    drain: Drain,
    grace: Duration,
}

/// The steps of leaving, in their order.
#[derive(Debug)]
struct Drains {
    edge: Step,
    publisher: Step,
    auth: Step,
    /// The bus, the connections to the bus, the admin port and the demo.
    rest: Step,
    /// The drain of the process.
    process: Drain,
    total: Duration,
}

impl Drains {
    fn new(settings: &Settings, process: &Drain) -> Self {
        let window = settings.edge.drain_window;
        let step = |grace| Step { drain: process.beside(), grace };
        Self {
            edge: step(window + EDGE_GRACE),
            publisher: step(settings.publisher_api.grace),
            auth: step(settings.auth_adapter.grace),
            rest: step(LAST_GRACE),
            process: process.clone(),
            total: window + TOTAL_GRACE,
        }
    }

    /// Finishes the steps one after the other, within the total. Returns how many tasks did not end in time.
    async fn finish(self) -> usize {
        self.process.begin();
        let end = Instant::now() + self.total;
        let mut unfinished = 0;
        for Step { drain, grace } in [self.edge, self.publisher, self.auth, self.rest] {
            let left = end.saturating_duration_since(Instant::now());
            unfinished += drain.finish(grace.min(left)).await;
        }
        unfinished
    }
}

/// Addresses, demo and demo key of the started parts.
struct Started {
    clients: SocketAddr,
    publishing: SocketAddr,
    admin: SocketAddr,
    demo: Option<demo::Demo>,
    demo_key: Option<Arc<NewKey>>,
}

impl Standalone {
    /// Binds every port and starts every part. After an error nothing is left running. `process` begins when
    /// a vital task is lost; the caller then [leaves](Self::leave).
    ///
    /// # Errors
    /// Fails if a port is taken, or if the configuration names something that can't be used.
    pub async fn start(settings: impl Into<Live<Settings>>, process: &Drain) -> anyhow::Result<Self> {
        let live: Live<Settings> = settings.into();
        let settings = live.get();
        let (health, drains, path) =
            (Health::new(), Drains::new(&settings, process), settings.edge.path.clone());
        let has_keys = settings.publisher_api.has_keys();
        let (storage, names) = (storage(&settings), tour::names(&settings.channels));
        let rules = Arc::new(Rules::compile(&settings.channels).context("channels")?);
        let example = Example::of(&settings.channels, &rules);
        rules.warn_if_incomplete();
        let tls =
            Tls { clients: settings.edge.tls.is_set(), publishing: settings.publisher_api.tls.is_set() };
        match start_parts(live, rules, &health, &drains).await {
            Ok(Started { clients, publishing, admin, demo, demo_key }) => {
                let needs_key = has_keys || demo_key.is_some();
                Ok(Self {
                    clients,
                    publishing,
                    admin,
                    demo,
                    tls,
                    path,
                    needs_key,
                    demo_key,
                    storage,
                    names,
                    example,
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

    /// Leaves in order: devices are sent away at a bounded pace while publishing still works, then publishes
    /// and token checks in flight end, and the bus goes last. Returns how many tasks did not end in time.
    pub async fn leave(self) -> usize {
        self.drains.finish().await
    }
}

/// Says where messages are stored.
fn storage(settings: &Settings) -> String {
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

async fn start_parts(
    live: Live<Settings>,
    rules: Arc<Rules>,
    health: &Health,
    drains: &Drains,
) -> anyhow::Result<Started> {
    let (rest, mut registry, settings) = (&drains.rest.drain, Registry::default(), live.get());
    live.register(&mut registry);
    let admin = health::bind("edge.admin", settings.edge.admin).await?;
    let (demo, login) = demo::provide(&settings, rest).await?;
    let mut server = provide(&settings.bus, rest).await.context("the bus")?;
    if settings.bus.is_private() {
        server = server.for_one_of_each();
    }
    metrics::register_process(&mut registry, "message-center", rest);
    server.register(&mut registry);
    server.watch(health, rest);

    let bus = Bus::connect(&server, auth_adapter::PART, rest).await?;
    let (ready, drain) = (health.clone(), drains.auth.drain.clone());
    AuthAdapter::start(login, settings.login, Host { bus, health: ready, registry: &mut registry, drain })
        .await?;

    let bus = Bus::connect(&server, publisher_api::PART, rest).await?;
    let (ready, drain) = (health.clone(), drains.publisher.drain.clone());
    let demo_key = demo::key(&settings)?;
    let key = demo_key.clone();
    let publisher =
        live.project(&drain, move |settings| demo::admit(key.as_deref(), settings.publisher_api.clone()));
    let host = Host { bus, health: ready, registry: &mut registry, drain };
    let publisher = PublisherApi::start(publisher, &rules, &settings.history, host).await?;

    // publisher-api listens first, so that it hears the first heartbeat of the edge and counts the first
    // client.
    let listens = health.wait_ready_part(publisher_api::PART);
    if settings.bus.is_private() && timeout(START_PATIENCE, listens).await.is_err() {
        tracing::warn!(reasons = health.reasons(), "publisher-api is slow to start");
    }

    let bus = Bus::connect(&server, edge::PART, rest).await?;
    let (ready, drain) = (health.clone(), drains.edge.drain.clone());
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
pub fn run(settings: Live<Settings>, drain: Drain) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        // Boxed: the future of the start is large, and no longer needed once everything runs.
        let standalone = Box::pin(Standalone::start(settings, &drain)).await?;
        tokio::select! {
            () = standalone.health.wait_ready() => {
                // A closed standard output is no reason to stop: nobody reads there.
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
    })
}

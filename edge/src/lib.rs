//! Holds client sockets: speaks their protocol, delivers to them, and sends them away gently.
//!
//! | module | holds |
//! | --- | --- |
//! | `listener`, `upgrade` | a connection, until it is a WebSocket |
//! | `admission` | whose connection it is, and whether it may begin now |
//! | `transport`, `frame` | the socket: frames in, frames out |
//! | `session` | one client's conversation: `state` decides, `outbox` is what waits for it |
//! | `protocol`, [`code`] | the JSON that clients speak; error and close codes |
//! | `hub` | who is here |
//! | `recovery` | nothing is lost within history: gaps, replays, comparisons with the streams |
//! | `feed`, `backlog` | messages from the bus to sessions, and the counts back; what waits for it |
//! | `authn`, `adapters` | whose token it is, and who is asked about it |
//! | `control` | what publishers ask about users |
//! | `deny`, `denials` | who may not log in for a while; the list of the bus that says so |
//! | `hostile` | what fuzzing runs |
//! | `balance` | moving sessions to edges that have fewer |
//! | `metrics`, `traced` | what is counted; spans of traces |
//! | `announce`, `ready`, `drain` | "I live", whether to get new clients, leaving |
//!
//! It never calls the business system, and keeps nothing that a restart may not lose.

mod adapters;
mod admission;
mod announce;
mod authn;
mod backlog;
mod balance;
pub mod code;
mod config;
mod control;
mod denials;
mod deny;
mod drain;
mod feed;
mod frame;
mod hostile;
mod hub;
mod listener;
mod metrics;
mod protocol;
mod ready;
mod recovery;
mod session;
mod traced;
mod transport;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use shared::bans::Bans;
use shared::bus::{self, Bus};
use shared::drain::Drain;
use shared::faults::Fault;
use shared::health::{self, Health};
use shared::history::{History, HistoryConfig, Role};
use shared::ids::NodeId;
use shared::reload::Live;
use shared::rules::Rules;
use shared::tls::Acceptor;
use shared::wire::EdgeState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use admission::ForwardedHeader;
pub use balance::{BalanceConfig, Movable};
pub use config::{Config, Settings};
pub use hostile::check_bytes;
pub use hub::SessionPolicy;

use admission::Gate;
use announce::Announcer;
use authn::Authn;
use balance::Balancer;
use feed::Feed;
use hub::Hub;
use listener::{Bounds, Port, UnderWay};
use metrics::Metrics;
use ready::Signs;
use recovery::keep::{Keep, KeepLimits};
use recovery::metrics::RecoveryMetrics;
use recovery::sweep::{LEADER_ELECTED, Sweeper};
use session::Env;
use upgrade::Door;

/// How this part is named in logs, readiness and bus connections.
pub const PART: &str = "edge";

/// What an edge may need beyond its drain window: the last sessions read what waits for them, and it says
/// bye.
const LEAVING_GRACE: Duration = Duration::from_secs(5);

/// How long an edge that is being announced lets connections wait rather than refuse them; at least three
/// heartbeats.
const HOLD: Duration = Duration::from_secs(5);

/// What everything in one edge shares. Cheap to clone.
#[derive(Debug, Clone)]
struct Core {
    bus: Bus,
    node: NodeId,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Every task of this edge runs on it.
    drain: Drain,
    /// Cancelled when the last session has left; until then messages are delivered and questions answered.
    gone: CancellationToken,
}

/// A running edge. It leaves with the drain that it was started on.
#[derive(Debug)]
pub struct Edge {
    address: SocketAddr,
    node: NodeId,
    hub: Arc<Hub>,
}

impl Edge {
    /// Binds the port and starts. Takes clients, and is ready as `health` tells, once the publishers know of
    /// it.
    ///
    /// # Errors
    /// The port is taken, or the bus takes no subscription.
    pub async fn start(
        config: impl Into<Live<Config>>,
        rules: Arc<Rules>,
        history: &HistoryConfig,
        bus: Bus,
        health: Health,
        registry: &mut Registry,
        drain: &Drain,
    ) -> anyhow::Result<Self> {
        health.unready(PART, "starting");
        let live: Live<Config> = config.into();
        let config = live.get();
        let tls = live.project(drain, |config| config.tls.clone());
        let tls = Acceptor::new(PART, &tls, "mc_edge", registry, drain).context("edge.tls")?;
        let listener = health::bind("edge.listen", config.listen).await?;
        sockets::bound_send_buffers(&listener).context("the send buffers of the client port")?;
        let address = listener.local_addr().context("the address of the client port")?;
        bus.register(registry, PART);
        let core = Core {
            bus,
            node: NodeId::random(),
            hub: Arc::new(Hub::new(config.places()).that_heals(!config.faults.has(Fault::GapFetch))),
            metrics: Arc::new(Metrics::register(registry)),
            drain: drain.clone(),
            gone: CancellationToken::new(),
        };
        registry.register_collector(Box::new(metrics::Holdings(Arc::clone(&core.hub))));
        let deaf = "the bus takes no subscriptions";
        let keep = Arc::new(keep(&core, &config, history, registry));
        drain.on_panic(recovery::half_changed(&keep));
        let active = Feed::start(&core, Arc::clone(&keep)).await.context(deaf)?;
        let leaders = core.bus.subscribe(LEADER_ELECTED, None, bus::DEADLINE).await.context(deaf)?;
        let sweeper = Sweeper::new(Arc::clone(&keep), active.clone(), leaders, config.sweep_interval);
        // Not begun anew: channels that it was comparing would stay behind.
        core.drain.spawn_vital("edge-sweep", sweeper.run());
        control::Desk::start(&core).await.context(deaf)?;
        let list = Bans::new(&core.bus, history.replicas);
        let denials = denials::Reader::start(&core, list, config.sweep_interval).await.context(deaf)?;
        let phase = Announcer::start(&core, &rules, config.heartbeat, active.clone(), denials.clone());
        let phase = phase.await.context(deaf)?;
        let (bus, crowded) = (core.bus.state(), core.hub.crowded());
        let (history, awake) = (keep.history.state(), core.bus.awake().clone());
        let signs =
            Signs { bus, active: active.clone(), denials, history, phase: phase.subscribe(), crowded, awake };
        let (state, grace) = ((health, signs), config.bus_grace);
        drain.supervise("edge-readiness", state, move |(health, signs)| {
            Box::pin(ready::keep(health, signs, grace))
        });
        let checks = (config.max_token_checks, config.auth_deadline);
        let authn = Authn::start(core.bus.clone(), checks, registry, drain, core.gone.clone());
        let env = env(&config, &core, rules, authn, active, keep);
        let port = port(live, &core, env, (address, tls), phase.subscribe())?;
        // Those who connect meanwhile wait in the backlog of the system.
        let hold = HOLD.max(config.heartbeat * 3);
        let places = UnderWay::new(&port.bounds);
        let state = (listener, Arc::new(port), places, phase.subscribe());
        drain.supervise("edge-listener", state, move |(listener, port, places, phase)| {
            Box::pin(async move {
                announced(phase, hold).await;
                listener::serve(listener, port, places).await;
            })
        });
        Balancer::start(&core, config.balance.clone(), config.heartbeat).await.context(deaf)?;
        drain.spawn_vital("edge-leave", drain::leave(core.clone(), phase, config.drain_window));
        tracing::info!(%address, edge = %core.node, "the edge listens");
        Ok(Self { address, node: core.node, hub: core.hub })
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How this edge is named in answers to publishers.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// How many sessions it holds.
    pub fn sessions(&self) -> usize {
        self.hub.sessions()
    }

    /// How many channels have a session here, and how many users; for tests to show that nothing is left.
    pub fn channels_and_users(&self) -> (usize, usize) {
        self.hub.channels_and_users()
    }
}

/// Waits until this edge may take clients, or leaves; no longer than `patience`.
async fn announced(phase: &mut watch::Receiver<EdgeState>, patience: Duration) {
    let announced = phase.wait_for(|phase| *phase != EdgeState::Starting);
    // Whoever comes later is told why it is refused.
    let _ = tokio::time::timeout(patience, announced).await;
}

/// What is stored, and what is needed to follow it.
fn keep(core: &Core, config: &Config, history: &HistoryConfig, registry: &mut Registry) -> Keep {
    let history = History::open(&core.bus, history, Role::Reader, &core.drain);
    let limits = KeepLimits {
        replays: config.max_replays,
        remembered: config.remembered_messages,
        faults: config.faults.clone(),
    };
    let mut metrics = RecoveryMetrics::register(registry);
    metrics.deliveries = core.metrics.deliveries.clone();
    Keep::new(history, Arc::clone(&core.hub), limits, metrics, core.drain.clone(), core.gone.clone())
}

/// What all sessions share.
fn env(
    config: &Config,
    core: &Core,
    rules: Arc<Rules>,
    authn: Authn,
    active: watch::Receiver<bool>,
    keep: Arc<Keep>,
) -> Env {
    Env {
        rules,
        limits: Arc::new(config.limits()),
        authn,
        active,
        subscribe_deadline: config.subscribe_deadline,
        stalled_after: config.stalled_after,
        leaving: core.drain.token(),
        metrics: Arc::clone(&core.metrics),
        keep,
        awake: core.bus.awake().clone(),
    }
}

/// The client port.
fn port(
    live: Live<Config>,
    core: &Core,
    env: Env,
    (address, tls): (SocketAddr, Option<Acceptor>),
    phase: watch::Receiver<EdgeState>,
) -> anyhow::Result<Port> {
    let config = live.get();
    let terms = config.terms().map_err(anyhow::Error::msg).context("edge")?;
    let door = Door {
        gate: Gate::new(terms, Arc::clone(&core.metrics)),
        told: AtomicBool::new(false),
        address,
        scheme: if tls.is_some() { "wss" } else { "ws" },
        path: config.path.clone(),
        live,
        hub: Arc::clone(&core.hub),
        outbox: config.outbox.as_usize(),
        phase,
    };
    let bounds = Bounds {
        handshakes: config.max_handshakes,
        handshakes_per_address: config.max_handshakes_per_address,
        first_byte: config.first_byte_timeout,
        timeout: config.handshake_timeout,
        max_frame: config.max_frame.as_usize(),
    };
    let (metrics, drain) = (Arc::clone(&core.metrics), core.drain.clone());
    Ok(Port { door, tls, env: Arc::new(env), bounds, metrics, drain })
}

/// Runs this part as a process of its own until the drain begins.
///
/// # Errors
/// A port is taken, or the bus can't be used.
pub async fn run(live: Live<Settings>, drain: Drain) -> anyhow::Result<()> {
    let settings = live.get();
    let config = &settings.edge;
    let rules = Arc::new(Rules::compile(&settings.channels).context("channels")?);
    let admin = health::bind("edge.admin", config.admin).await?;
    let (bus_drain, admin_drain) = (drain.beside(), drain.beside());
    let server = bus::provide_apart(&settings.bus, PART, &bus_drain).await.context("the bus")?;
    let bus = Bus::connect(&server, PART, &bus_drain).await.context("the bus")?;
    let (health, mut registry) = (Health::new(), Registry::default());
    shared::metrics::register_process(&mut registry, PART, &drain);
    server.register(&mut registry);
    server.watch(&health, &admin_drain);
    let grace = config.drain_window + LEAVING_GRACE;
    live.register(&mut registry);
    let config = live.project(&drain, |settings| settings.edge.clone());
    Edge::start(config, rules, &settings.history, bus, health.clone(), &mut registry, &drain).await?;
    health::serve(admin, health, registry, &admin_drain);
    drain.begun().await;
    let unfinished = drain.finish(grace).await;
    if unfinished > 0 {
        tracing::warn!(unfinished, "left before everything was finished");
    }
    admin_drain.finish(Duration::from_secs(1)).await;
    bus_drain.finish(Duration::from_secs(1)).await;
    tracing::info!("the edge has left");
    Ok(())
}

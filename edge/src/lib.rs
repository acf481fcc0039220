//! Holds client sockets: speaks their protocol, delivers to them, and sends them away gently.
//!
//! The modules stand on floors, listed here from the bottom up; a module imports from its own floor and from
//! those below, which `tests/floors.rs` holds.
//!
//! | floor | module | holds |
//! | --- | --- | --- |
//! | words | `protocol`, [`code`] | the JSON that clients speak; error and close codes |
//! | | `frame` | a message as WebSocket bytes, shared by all sessions |
//! | | `metrics`, `spans` | what is counted; spans of traces |
//! | decisions | `session::state`, `balance::plan` | one client's conversation; which sessions move |
//! | | `ban_list`, `refreshes` | the users who are kept out; those whose logins must be renewed |
//! | channel | `session_handle`, `outbox` | what others have of a session; what waits for its client |
//! | | `channel` | one channel: its subscribers, and how far its messages were handled |
//! | doors | `transport` | the socket: frames in, frames out |
//! | | `admission` | the remote address of a connection, and whether it may begin now |
//! | | `authn`, `adapters` | whose token it is; the auth-adapters that are asked |
//! | | `backlog` | messages from the bus that wait for the feed |
//! | hub | `hub`, `node` | the sessions of this edge; what all its tasks share |
//! | recovery | `recovery` | nothing is lost within history: gaps, replays, comparisons with the streams |
//! | session | `session` | the task of one session |
//! | tasks | `upgrade`, `listener`, `config` | a connection, until it is a WebSocket; the settings |
//! | | `feed` | messages from the bus to sessions, and the counts back |
//! | | `control`, `ban_reader` | commands of publishers about users; the list of bans on the bus |
//! | | `balance`, `drain` | moving sessions to edges that have fewer; leaving |
//! | | `announce`, `ready` | "I live"; whether to get new clients |
//! | wiring | `lib.rs`, `fuzz` | starts all of it; what fuzzing runs |
//!
//! An edge never calls the business system, and stores nothing that a restart may not lose.

mod adapters;
mod admission;
mod announce;
mod authn;
mod backlog;
mod balance;
mod ban_list;
mod ban_reader;
mod channel;
pub mod code;
mod config;
mod control;
mod drain;
mod feed;
mod frame;
mod fuzz;
mod hub;
mod listener;
mod metrics;
mod node;
mod outbox;
mod protocol;
mod ready;
mod recovery;
mod refreshes;
mod session;
mod session_handle;
mod spans;
mod transport;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use shared::bans::Bans;
use shared::bus;
use shared::drain::Drain;
use shared::health;
use shared::history::{History, HistoryConfig, Role};
use shared::ids::NodeId;
use shared::part::ready::STARTING;
use shared::part::{self, Apart, Host, Leave};
use shared::reload::Live;
use shared::rules::Rules;
use shared::tls::Acceptor;
use shared::wire::EdgeState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use admission::ForwardedHeader;
pub use balance::{BalanceConfig, Movable};
pub use config::{Config, Settings};
pub use fuzz::check_bytes;
pub use hub::SessionPolicy;
pub use node::PART;

use admission::Gate;
use announce::Announcer;
use authn::{Authn, CheckBounds};
use balance::Balancer;
use feed::Feed;
use hub::Hub;
use hub::gauges::Holdings;
use listener::{Bounds, Port, PortSlots};
use metrics::Metrics;
use node::Node;
use recovery::metrics::RecoveryMetrics;
use recovery::sweep::{LEADER_ELECTED, Sweeper};
use recovery::{Recovery, RecoveryLimits};
use session::Deps;
use upgrade::Door;

/// The time that an edge may need beyond its drain window: the last clients read what waits for them, and the
/// edge says bye.
const LEAVING_GRACE: Duration = Duration::from_secs(5);

/// How long an edge that is being announced lets connections wait rather than refuse them; at least three
/// heartbeats.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(5);

/// A running edge, which leaves with the drain that it was started on.
#[derive(Debug)]
pub struct Edge {
    address: SocketAddr,
    node: NodeId,
    hub: Arc<Hub>,
}

impl Edge {
    /// Binds the port and starts. The edge takes clients once the publishers know of it, and is then ready as
    /// `health` tells.
    ///
    /// # Errors
    /// The port is taken, or the bus takes no subscription.
    pub fn start<'a>(
        config: impl Into<Live<Config>>,
        rules: Arc<Rules>,
        history: &'a HistoryConfig,
        host: Host<'a>,
    ) -> BoxFuture<'a, anyhow::Result<Self>> {
        Self::start_with(config.into(), rules, history, host)
    }

    /// Starts, boxed, so that only this crate compiles the code that it starts.
    fn start_with<'a>(
        live: Live<Config>,
        rules: Arc<Rules>,
        history: &'a HistoryConfig,
        host: Host<'a>,
    ) -> BoxFuture<'a, anyhow::Result<Self>> {
        Box::pin(async move {
            let Host { bus, health, registry, drain } = host;
            health.unready(PART, STARTING);
            let config = live.get();
            let tls = live.project(&drain, |config| config.tls.clone());
            let tls = Acceptor::new(PART, &tls, "mc_edge", registry, &drain).context("edge.tls")?;
            let listener = health::bind("edge.listen", config.listen).await?;
            sockets::bound_send_buffers(&listener).context("the send buffers of the client port")?;
            let address = listener.local_addr().context("the address of the client port")?;
            bus.register(registry, PART);
            let node = Node {
                bus,
                id: NodeId::random(),
                hub: Arc::new(Hub::new(config.session_limits())),
                metrics: Arc::new(Metrics::register(registry)),
                drain: drain.clone(),
                gone: CancellationToken::new(),
            };
            registry.register_collector(Box::new(Holdings(Arc::clone(&node.hub))));
            let refused = "the bus takes no subscriptions";
            let recovery = Arc::new(recovery(&node, &config, history, registry));
            drain.on_panic(recovery.half_changed());
            let active = Feed::start(&node, Arc::clone(&recovery)).await.context(refused)?;
            let leaders = node.bus.subscribe(LEADER_ELECTED, None, bus::DEADLINE).await.context(refused)?;
            let sweeper = Sweeper::new(Arc::clone(&recovery), active.clone(), leaders, config.sweep_interval);
            // The task is not restarted: channels that it was comparing would be left behind.
            node.drain.spawn_vital("edge-sweep", sweeper.run());
            control::ControlResponder::start(&node).await.context(refused)?;
            let list = Bans::new(&node.bus, history.replicas);
            let bans_known =
                ban_reader::Reader::start(&node, list, config.sweep_interval).await.context(refused)?;
            let phase = Announcer::start(&node, &rules, config.heartbeat, active.clone(), bans_known.clone());
            let phase = phase.await.context(refused)?;
            let (bus, crowded) = (node.bus.state(), node.hub.crowded());
            let (history, awake) = (recovery.history_state(), node.bus.awake().clone());
            let (active_now, phase_now) = (active.clone(), phase.subscribe());
            let inputs = ready::Inputs {
                bus,
                active: active_now,
                bans_known,
                history,
                phase: phase_now,
                crowded,
                awake,
            };
            let (state, grace) = ((health, inputs), config.bus_grace);
            drain.supervise("edge-readiness", state, move |(health, inputs)| {
                Box::pin(ready::report(health, inputs, grace))
            });
            let bounds = CheckBounds { at_a_time: config.max_token_checks, deadline: config.auth_deadline };
            let authn = Authn::start(node.bus.clone(), bounds, registry, &drain, node.gone.clone());
            let deps = deps(&config, &node, rules, authn, active, recovery);
            let port = port(live, &node, deps, (address, tls), phase.subscribe())?;
            // Clients that connect meanwhile wait in the backlog of the system.
            let patience = ANNOUNCE_PATIENCE.max(config.heartbeat * 3);
            let slots = PortSlots::new(&port.bounds);
            let state = (listener, Arc::new(port), slots, phase.subscribe());
            drain.supervise("edge-listener", state, move |(listener, port, slots, phase)| {
                Box::pin(async move {
                    announced(phase, patience).await;
                    listener::serve(listener, port, slots).await;
                })
            });
            Balancer::start(&node, config.balance.clone(), config.heartbeat).await.context(refused)?;
            drain.spawn_vital("edge-leave", drain::leave(node.clone(), phase, config.drain_window));
            tracing::info!(%address, edge = %node.id, "the edge listens");
            Ok(Self { address, node: node.id, hub: node.hub })
        })
    }

    /// Returns the address at which clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the id of this edge in answers to publishers.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Returns how many sessions this edge holds.
    pub fn sessions(&self) -> usize {
        self.hub.sessions()
    }

    /// Returns how many channels have a session here, and how many users; for tests to show that nothing is
    /// left.
    pub fn channels_and_users(&self) -> (usize, usize) {
        self.hub.channels_and_users()
    }
}

/// Waits until this edge may take clients, or leaves, for at most `patience`.
async fn announced(phase: &mut watch::Receiver<EdgeState>, patience: Duration) {
    let announced = phase.wait_for(|phase| *phase != EdgeState::Starting);
    // A client that comes later is told why it is refused.
    let _ = tokio::time::timeout(patience, announced).await;
}

/// Opens the streams of history, and starts the tasks that follow them.
fn recovery(node: &Node, config: &Config, history: &HistoryConfig, registry: &mut Registry) -> Recovery {
    let history = History::open(&node.bus, history, Role::Reader, &node.drain);
    let limits = RecoveryLimits {
        replays: config.max_replays,
        remembered: config.remembered_messages,
        faults: config.faults.clone(),
    };
    let mut metrics = RecoveryMetrics::register(registry);
    metrics.deliveries = node.metrics.deliveries.clone();
    Recovery::new(history, Arc::clone(&node.hub), limits, metrics, node.drain.clone(), node.gone.clone())
}

/// Returns the deps that all sessions share.
fn deps(
    config: &Config,
    node: &Node,
    rules: Arc<Rules>,
    authn: Authn,
    active: watch::Receiver<bool>,
    recovery: Arc<Recovery>,
) -> Deps {
    Deps {
        rules,
        limits: Arc::new(config.limits()),
        authn,
        active,
        subscribe_deadline: config.subscribe_deadline,
        stalled_after: config.stalled_after,
        leaving: node.drain.token(),
        metrics: Arc::clone(&node.metrics),
        recovery,
        awake: node.bus.awake().clone(),
    }
}

/// Makes the client port.
fn port(
    live: Live<Config>,
    node: &Node,
    deps: Deps,
    (address, tls): (SocketAddr, Option<Acceptor>),
    phase: watch::Receiver<EdgeState>,
) -> anyhow::Result<Port> {
    let config = live.get();
    let limits = config.gate_limits().map_err(anyhow::Error::msg).context("edge")?;
    let door = Door {
        gate: Gate::new(limits, Arc::clone(&node.metrics)),
        untrusted_logged: AtomicBool::new(false),
        address,
        scheme: if tls.is_some() { "wss" } else { "ws" },
        path: config.path.clone(),
        live,
        hub: Arc::clone(&node.hub),
        outbox: config.outbox.as_usize(),
        phase,
    };
    let bounds = Bounds {
        handshakes: config.max_handshakes,
        handshakes_per_address: config.max_handshakes_per_address,
        first_byte: config.first_byte_timeout,
        timeout: config.handshake_timeout,
        frames: config.frame_limits(),
    };
    let (metrics, drain) = (Arc::clone(&node.metrics), node.drain.clone());
    Ok(Port { door, tls, deps: Arc::new(deps), bounds, metrics, drain })
}

/// Runs this part as a process of its own until the drain begins.
///
/// # Errors
/// A port is taken, or the bus can't be used.
pub fn run(live: Live<Settings>, drain: Drain) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        let settings = live.get();
        let config = &settings.edge;
        let rules = Arc::new(Rules::compile(&settings.channels).context("channels")?);
        rules.warn_if_incomplete();
        let apart = Apart { part: PART, admin: ("edge.admin", config.admin), bus: &settings.bus };
        let grace = config.drain_window + LEAVING_GRACE;
        let leave = Leave { grace, early: "left before everything was finished" };
        part::run_apart(apart, &live, drain, leave, async |host| {
            let config = live.project(&host.drain, |settings| settings.edge.clone());
            Edge::start(config, rules, &settings.history, host).await.map(drop)
        })
        .await?;
        tracing::info!("the edge has left");
        Ok(())
    })
}

//! Any topology of parts inside this process: edges, publisher-apis and auth-adapters over one bus, on free
//! ports.
//!
//! Each part has its own bus connection, readiness and drain, as in a process of its own. A test ends with
//! [`Cluster::end`], which checks that nothing is left: no session in an edge, no task on a drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth_adapter::AuthAdapter;
use edge::Edge;
use prometheus_client::registry::Registry;
use publisher_api::PublisherApi;
use shared::bus::Bus;
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::login::LoginConfig;
use shared::part::Host;
use shared::rules::{RuleConfig, Rules, default_rules};

use crate::bus::{TestBus, server_at};
use crate::business::Business;
use crate::device::Device;
use crate::link::Link;
use crate::publisher::Publisher;
use crate::wait::eventually;

/// Heartbeat interval of the edges; short, because a publisher-api becomes ready only after a whole interval.
pub const HEARTBEAT: Duration = Duration::from_millis(50);
/// How long an edge lets a device be silent.
const SILENCE: Duration = Duration::from_secs(600);
/// How long a part may take to leave.
const GRACE: Duration = Duration::from_secs(10);

/// A channel rule without history.
pub fn rule(name: &str, channel: &str, login: bool) -> RuleConfig {
    RuleConfig { name: name.into(), channel: channel.into(), login, history: false, member: None }
}

/// Settings of the topology to start.
#[derive(Debug)]
pub struct Plan {
    edges: usize,
    publishers: usize,
    adapters: usize,
    rules: Vec<RuleConfig>,
    edge: edge::Config,
    publisher: publisher_api::Config,
    adapter: auth_adapter::Config,
    history: HistoryConfig,
    bus: Option<SocketAddr>,
}

/// One running part.
#[derive(Debug)]
struct Part<T> {
    part: T,
    health: Health,
    drain: Drain,
    bus_drain: Drain,
    link: Link,
}

/// A running topology.
#[derive(Debug)]
pub struct Cluster {
    edges: Vec<Part<Edge>>,
    publishers: Vec<Part<PublisherApi>>,
    adapters: Vec<Part<AuthAdapter>>,
    bus: SocketAddr,
    /// `None` if the bus runs elsewhere.
    embedded: Option<TestBus>,
    plan: Plan,
    /// The business system that checks the tokens.
    pub business: Business,
    ended: bool,
}

impl Plan {
    /// Starts `count` edges instead of one.
    #[must_use]
    pub fn edges(mut self, count: usize) -> Self {
        self.edges = count;
        self
    }

    /// Starts `count` publisher-apis instead of one.
    #[must_use]
    pub fn publishers(mut self, count: usize) -> Self {
        self.publishers = count;
        self
    }

    /// Starts `count` auth-adapters instead of one.
    #[must_use]
    pub fn adapters(mut self, count: usize) -> Self {
        self.adapters = count;
        self
    }

    /// Replaces the default channel rules.
    #[must_use]
    pub fn rules(mut self, rules: Vec<RuleConfig>) -> Self {
        self.rules = rules;
        self
    }

    /// Changes the configuration of the edges.
    #[must_use]
    pub fn edge(mut self, change: impl FnOnce(&mut edge::Config)) -> Self {
        change(&mut self.edge);
        self
    }

    /// Changes the configuration of the publisher-apis.
    #[must_use]
    pub fn publisher(mut self, change: impl FnOnce(&mut publisher_api::Config)) -> Self {
        change(&mut self.publisher);
        self
    }

    /// Changes the configuration of the auth-adapters.
    #[must_use]
    pub fn adapter(mut self, change: impl FnOnce(&mut auth_adapter::Config)) -> Self {
        change(&mut self.adapter);
        self
    }

    /// Changes the configuration of the history.
    #[must_use]
    pub fn history(mut self, change: impl FnOnce(&mut HistoryConfig)) -> Self {
        change(&mut self.history);
        self
    }

    /// Uses a bus that runs elsewhere instead of the embedded one.
    #[must_use]
    pub fn over(mut self, bus: SocketAddr) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Starts all parts and waits until every part is ready.
    ///
    /// # Panics
    /// A part does not start.
    pub async fn start(self) -> Cluster {
        let cluster = Box::pin(self.launch()).await;
        cluster.ready().await;
        cluster
    }

    /// Starts all parts, without waiting until they are ready.
    ///
    /// # Panics
    /// A part does not start.
    pub async fn launch(mut self) -> Cluster {
        let business = Business::start().await;
        self.adapter.url = business.url();
        let (bus, embedded) = match self.bus {
            Some(address) => (address, None),
            None => {
                let embedded = TestBus::start().await;
                (embedded.address(), Some(embedded))
            }
        };
        let (edges, publishers, adapters) = (self.edges, self.publishers, self.adapters);
        let mut cluster = Cluster {
            edges: Vec::new(),
            publishers: Vec::new(),
            adapters: Vec::new(),
            bus,
            embedded,
            plan: self,
            business,
            ended: false,
        };
        for _ in 0..adapters {
            cluster.add_adapter().await;
        }
        for _ in 0..publishers {
            cluster.add_publisher().await;
        }
        for _ in 0..edges {
            cluster.add_edge().await;
        }
        cluster
    }
}

impl Cluster {
    /// One of each part, with the default settings.
    pub fn plan() -> Plan {
        let any: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 0));
        Plan {
            edges: 1,
            publishers: 1,
            adapters: 1,
            rules: default_rules(),
            // A test reads its devices late, so they answer pings late.
            edge: edge::Config {
                listen: any,
                heartbeat: HEARTBEAT,
                silence: SILENCE,
                ..edge::Config::default()
            },
            publisher: publisher_api::Config {
                listen: any,
                heartbeat: HEARTBEAT,
                // On a busy machine a late answer or heartbeat must not make an edge look frozen.
                answer_deadline: Duration::from_secs(30),
                silent_after: Duration::from_secs(30),
                ..publisher_api::Config::default()
            },
            adapter: auth_adapter::Config::default(),
            history: HistoryConfig::default(),
            bus: None,
        }
    }

    /// Starts one of each part and waits until they are ready.
    pub async fn start() -> Self {
        Self::plan().start().await
    }

    /// Adds an edge; it gets the highest index.
    ///
    /// # Panics
    /// The edge does not start.
    pub async fn add_edge(&mut self) {
        let (rules, config) = (Arc::new(self.rules()), self.plan.edge.clone());
        let history = self.plan.history.clone();
        let part = start(self.bus, edge::PART, async |host| Edge::start(config, rules, &history, host).await);
        self.edges.push(part.await);
    }

    /// Adds a publisher-api; it gets the highest index.
    ///
    /// # Panics
    /// The publisher-api does not start.
    pub async fn add_publisher(&mut self) {
        let (rules, config) = (self.rules(), self.plan.publisher.clone());
        let history = self.plan.history.clone();
        let part = start(self.bus, publisher_api::PART, async |host| {
            PublisherApi::start(config, &rules, &history, host).await
        });
        self.publishers.push(part.await);
    }

    /// Adds an auth-adapter; it gets the highest index.
    ///
    /// # Panics
    /// The auth-adapter does not start.
    pub async fn add_adapter(&mut self) {
        let config = self.plan.adapter.clone();
        let part = start(self.bus, auth_adapter::PART, async |host| {
            AuthAdapter::start(config, LoginConfig::default(), host).await
        });
        self.adapters.push(part.await);
    }

    fn rules(&self) -> Rules {
        Rules::compile(&self.plan.rules).expect("the test's rules are good")
    }

    /// Waits until every part is ready.
    ///
    /// # Panics
    /// A part does not become ready.
    pub async fn ready(&self) {
        for health in self.healths() {
            eventually("every part is ready", async || health.is_ready()).await;
        }
    }

    fn healths(&self) -> impl Iterator<Item = &Health> {
        let edges = self.edges.iter().map(|part| &part.health);
        let publishers = self.publishers.iter().map(|part| &part.health);
        edges.chain(publishers).chain(self.adapters.iter().map(|part| &part.health))
    }

    /// The client address of this edge.
    pub fn edge(&self, index: usize) -> SocketAddr {
        self.edges[index].part.local_addr()
    }

    /// Why this edge is not ready; empty when it is.
    pub fn edge_reasons(&self, index: usize) -> String {
        self.edges[index].health.reasons()
    }

    /// Why this publisher-api is not ready; empty when it is.
    pub fn publisher_reasons(&self, index: usize) -> String {
        self.publishers[index].health.reasons()
    }

    /// The address of the bus.
    pub fn bus(&self) -> SocketAddr {
        self.bus
    }

    /// The link between this edge and the bus.
    pub fn edge_link(&self, index: usize) -> &Link {
        &self.edges[index].link
    }

    /// The link between this publisher-api and the bus.
    pub fn publisher_link(&self, index: usize) -> &Link {
        &self.publishers[index].link
    }

    /// A back end of this publisher-api.
    pub fn publisher(&self, index: usize) -> Publisher {
        Publisher::of(self.publisher_address(index))
    }

    /// The publishing address of this publisher-api.
    pub fn publisher_address(&self, index: usize) -> SocketAddr {
        self.publishers[index].part.local_addr()
    }

    /// Sessions in all edges.
    pub fn sessions(&self) -> usize {
        self.edges.iter().map(|part| part.part.sessions()).sum()
    }

    /// A device on this edge.
    pub async fn connect(&self, edge: usize) -> Device {
        Device::connect(self.edge(edge)).await
    }

    /// A device on this edge that has logged in.
    pub async fn login(&self, edge: usize, token: &str) -> Device {
        Device::login(self.edge(edge), token).await
    }

    /// A device on this edge that has logged in and subscribed to `@user`.
    pub async fn online(&self, edge: usize, token: &str) -> Device {
        Device::online(self.edge(edge), token).await
    }

    /// Stops the embedded bus.
    ///
    /// # Panics
    /// The bus does not end.
    pub async fn stop_bus(&mut self) {
        self.embedded.as_ref().expect("the bus is embedded").stop().await;
    }

    /// Starts the embedded bus again at the same address.
    ///
    /// # Panics
    /// The bus does not start.
    pub async fn restart_bus(&mut self) {
        self.embedded.as_mut().expect("the bus is embedded").restart().await;
    }

    /// Asks an edge to leave, without waiting.
    pub fn drain_edge(&self, index: usize) {
        self.edges[index].drain.begin();
    }

    /// Waits until an edge that was asked to leave has ended, and removes it.
    ///
    /// # Panics
    /// The edge does not end.
    pub async fn remove_edge(&mut self, index: usize) {
        let edge = self.edges.remove(index);
        edge.leave("edge", Duration::from_secs(30)).await;
    }

    /// Ends everything in order and checks that nothing is left.
    ///
    /// # Panics
    /// A session or a task is left.
    pub async fn end(mut self) {
        eventually("all sessions have ended", async || self.sessions() == 0).await;
        for edge in &self.edges {
            assert_eq!(edge.part.channels_and_users(), (0, 0), "channels and users are left behind");
        }
        for edge in self.edges.drain(..) {
            edge.leave("edge", GRACE).await;
        }
        for publisher in self.publishers.drain(..) {
            publisher.leave("publisher-api", GRACE).await;
        }
        for adapter in self.adapters.drain(..) {
            adapter.leave("auth-adapter", GRACE).await;
        }
        if let Some(bus) = self.embedded.take() {
            bus.stop().await;
        }
        self.business.stop().await;
        self.ended = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for drain in self.edges.iter().flat_map(|part| [&part.drain, &part.bus_drain]) {
            drain.begin();
        }
        for drain in self.publishers.iter().flat_map(|part| [&part.drain, &part.bus_drain]) {
            drain.begin();
        }
        for drain in self.adapters.iter().flat_map(|part| [&part.drain, &part.bus_drain]) {
            drain.begin();
        }
        assert!(self.ended || std::thread::panicking(), "a test ends its cluster with Cluster::end");
    }
}

impl<T> Part<T> {
    async fn leave(self, name: &str, grace: Duration) {
        assert_eq!(self.drain.finish(grace).await, 0, "the {name} left tasks behind");
        drop(self.part);
        assert_eq!(
            self.bus_drain.finish(GRACE).await,
            0,
            "the bus connection of the {name} left tasks behind"
        );
        self.link.stop().await;
    }
}

/// Starts a part with a connection to the bus of its own, over a link of its own.
async fn start<T>(
    bus: SocketAddr,
    name: &'static str,
    start: impl AsyncFnOnce(Host<'_>) -> anyhow::Result<T>,
) -> Part<T> {
    let (drain, health) = (Drain::new(), Health::new());
    let bus_drain = drain.beside();
    let link = Link::to(bus).await;
    let bus = Bus::connect(&server_at(link.address()).await, name, &bus_drain).await;
    let bus = bus.expect("the address is one");
    let mut registry = Registry::default();
    let host = Host { bus, health: health.clone(), registry: &mut registry, drain: drain.clone() };
    let part = start(host).await;
    let part = part.unwrap_or_else(|error| panic!("the {name} does not start: {error:#}"));
    Part { part, health, drain, bus_drain, link }
}

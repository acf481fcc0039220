//! The parts as processes of the real binary, any number of each, over any kind of bus.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::business::Business;
use crate::device::Device;
use crate::nats::NatsServer;
use crate::program::{Launch, Program};
use crate::publisher::Publisher;
use crate::raw;
use crate::wait::eventually;

/// The server of the bus.
#[derive(Debug, Clone)]
pub enum Over {
    /// `message-center bus`.
    Bus,
    /// The embedded bus of the first publisher-api.
    Publisher,
    /// The real nats-server, from this binary.
    NatsServer(PathBuf),
    /// A bus that runs elsewhere, at these addresses; see `bus.url`.
    Url(String),
}

/// Settings of the processes to start.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    over: Over,
    edges: usize,
    publishers: usize,
    adapters: usize,
    settings: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

/// A part as a process.
#[derive(Debug)]
pub struct Member {
    /// The process.
    pub program: Program,
    /// The address for clients. An auth-adapter has none; that of a bus is the bus itself.
    pub address: Option<SocketAddr>,
    /// Its admin port.
    pub admin: SocketAddr,
}

/// All processes.
#[derive(Debug)]
pub struct Fleet {
    /// `message-center bus`, with [`Over::Bus`].
    pub bus: Option<Member>,
    /// The real nats-server, with [`Over::NatsServer`].
    pub nats: Option<NatsServer>,
    /// The edges.
    pub edges: Vec<Member>,
    /// The publisher-apis.
    pub publishers: Vec<Member>,
    /// The auth-adapters.
    pub adapters: Vec<Member>,
    /// The business system that checks the tokens.
    pub business: Business,
    bus_url: String,
    plan: FleetPlan,
}

impl FleetPlan {
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

    /// Sets a configuration key for every process.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Sets an environment variable for every process.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts all parts and waits until every part is ready.
    ///
    /// # Panics
    /// A part does not start.
    pub async fn start(self) -> Fleet {
        let business = Business::start().await;
        let (mut bus, mut nats, mut publishers) = (None, None, Vec::new());
        let bus_url = match &self.over {
            Over::Bus => {
                let launch = Launch::of("bus").argument("--bus-listen").argument("127.0.0.1:0");
                let member = Member::start(launch, "bus", Some("the embedded bus listens")).await;
                let url = nats_url(member.address.expect("a bus listens"));
                bus = Some(member);
                url
            }
            Over::Publisher => {
                let launch = self.launch("publisher-api").argument("--bus-listen").argument("127.0.0.1:0");
                let mut member = Member::start(launch, "publisher_api", Some("publisher-api listens")).await;
                let address = member.program.address("the embedded bus listens").await;
                publishers.push(member);
                nats_url(address)
            }
            Over::NatsServer(binary) => {
                let server = NatsServer::start(binary).await;
                let url = nats_url(server.address());
                nats = Some(server);
                url
            }
            Over::Url(url) => url.clone(),
        };
        let (edges, adapters) = (Vec::new(), Vec::new());
        let mut fleet = Fleet { bus, nats, edges, publishers, adapters, business, bus_url, plan: self };
        while fleet.adapters.len() < fleet.plan.adapters {
            fleet.add_adapter().await;
        }
        while fleet.publishers.len() < fleet.plan.publishers {
            fleet.add_publisher().await;
        }
        while fleet.edges.len() < fleet.plan.edges {
            fleet.add_edge().await;
        }
        fleet.ready().await;
        fleet
    }

    fn launch(&self, part: &str) -> Launch {
        let launch = Launch::of(part)
            .set("edge.listen", "127.0.0.1:0")
            .set("publisher_api.listen", "127.0.0.1:0")
            // nats-server reserves this much on each node.
            .set("history.max_bytes", "256MiB")
            .set("edge.heartbeat", "50ms")
            // A test reads its devices late, so they answer pings late.
            .set("edge.silence", "10m")
            .set("publisher_api.heartbeat", "50ms");
        let launch = self.settings.iter().fold(launch, |launch, (key, value)| launch.set(key, value));
        self.variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value))
    }
}

fn nats_url(address: SocketAddr) -> String {
    format!("nats://{address}")
}

impl Member {
    /// Starts a part whose admin port is `<section>.admin`, and reads its addresses from its log.
    ///
    /// # Panics
    /// The part does not start.
    pub async fn start(launch: Launch, section: &str, listens: Option<&str>) -> Self {
        let mut program = launch.set(&format!("{section}.admin"), "127.0.0.1:0").start();
        let admin = program.address("the admin port listens").await;
        let address = match listens {
            Some(message) => Some(program.address(message).await),
            None => None,
        };
        Self { program, address, admin }
    }

    /// `/readyz`: the status, and the reasons unless the status is 200.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = raw::get(self.admin, "/readyz").await;
        (answer.status, answer.body)
    }

    /// Waits until the part is ready.
    ///
    /// # Panics
    /// The part does not become ready.
    pub async fn ready(&self) {
        eventually("the part is ready", async || self.readiness().await.0 == 200).await;
    }

    /// Waits until the part is not ready and names this reason.
    ///
    /// # Panics
    /// The part stays ready, or names another reason.
    pub async fn unready(&self, reason: &str) {
        let what = format!("the part is not ready because of: {reason}");
        eventually(&what, async || {
            let (status, reasons) = self.readiness().await;
            status == 503 && reasons.contains(reason)
        })
        .await;
    }
}

impl Fleet {
    /// One of each part.
    pub fn plan(over: Over) -> FleetPlan {
        FleetPlan { over, edges: 1, publishers: 1, adapters: 1, settings: Vec::new(), variables: Vec::new() }
    }

    fn launch(&self, part: &str) -> Launch {
        self.plan.launch(part).argument("--bus-url").argument(&self.bus_url)
    }

    /// Adds an edge, without waiting until it is ready.
    pub async fn add_edge(&mut self) {
        self.edges.push(Member::start(self.launch("edge"), "edge", Some("edge listens")).await);
    }

    /// Adds a publisher-api, without waiting until it is ready.
    pub async fn add_publisher(&mut self) {
        let launch = self.launch("publisher-api");
        self.publishers.push(Member::start(launch, "publisher_api", Some("publisher-api listens")).await);
    }

    /// Adds an auth-adapter, without waiting until it is ready.
    pub async fn add_adapter(&mut self) {
        let launch = self.launch("auth-adapter").argument("--auth-url").argument(&self.business.url());
        self.adapters.push(Member::start(launch, "auth_adapter", None).await);
    }

    /// Waits until every part is ready.
    pub async fn ready(&self) {
        for member in self.edges.iter().chain(&self.publishers).chain(&self.adapters) {
            member.ready().await;
        }
    }

    /// The address of the bus, if there is exactly one.
    ///
    /// # Panics
    /// The bus has several addresses.
    pub fn bus_address(&self) -> SocketAddr {
        let address = self.bus_url.strip_prefix("nats://").and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("{} is not one address", self.bus_url))
    }

    /// The client address of this edge.
    ///
    /// # Panics
    /// There is no such edge.
    pub fn edge(&self, index: usize) -> SocketAddr {
        self.edges[index].address.expect("edges listen")
    }

    /// A device on this edge that has logged in and subscribed to `@user`.
    pub async fn online(&self, edge: usize, token: &str) -> Device {
        Device::online(self.edge(edge), token).await
    }

    /// A back end of this publisher-api.
    ///
    /// # Panics
    /// There is no such publisher-api.
    pub fn publisher(&self, index: usize) -> Publisher {
        Publisher::of(self.publishers[index].address.expect("publisher-apis listen"))
    }

    /// Accepts errors in the log of every process, because the test breaks something.
    pub fn expect_errors(&mut self) {
        let members = self.edges.iter_mut().chain(&mut self.publishers).chain(&mut self.adapters);
        for member in members.chain(&mut self.bus) {
            member.program.expect_errors();
        }
    }

    /// Asks every process to leave, and expects exit code 0 of each.
    pub async fn end(mut self) {
        // The process that embeds the bus leaves last.
        let members =
            self.edges.drain(..).chain(self.adapters.drain(..)).chain(self.publishers.drain(..).rev());
        for member in members.chain(self.bus.take()) {
            member.program.end().await;
        }
        if let Some(nats) = self.nats.take() {
            nats.stop().await;
        }
        self.business.stop().await;
    }
}

//! The processes of a case: a bus, an auth-adapter, edges and publisher-apis; each can be killed and started
//! again.
//!
//! Clients reach edges and publisher-apis through links, so that a part that restarts on another port keeps
//! its address, as behind a load balancer.

use std::net::SocketAddr;
use std::path::PathBuf;

use harness::business::Business;
use harness::fleet::Member;
use harness::link::Link;
use harness::ports;
use harness::program::Launch;
use tempfile::TempDir;

use crate::nodes::Nodes;

/// Number of edges.
pub(crate) const EDGES: usize = 2;
/// Number of publisher-apis.
pub(crate) const PUBLISHERS: usize = 2;
/// The stream whose leader is killed.
pub(crate) const STREAM: &str = "MC_LOG_0";

/// The program of each part; `None`: the one under test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    pub(crate) edge: Option<PathBuf>,
    pub(crate) publisher: Option<PathBuf>,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) bus: Option<PathBuf>,
}

impl Programs {
    /// The same program for all parts.
    pub(crate) fn all(program: Option<PathBuf>) -> Self {
        Self { edge: program.clone(), publisher: program.clone(), adapter: program.clone(), bus: program }
    }
}

/// The bus of a case, which stores the messages.
#[derive(Debug)]
pub(crate) enum CaseBus {
    /// `message-center bus` with a data folder.
    Embedded {
        /// `None` while the bus is killed.
        member: Option<Box<Member>>,
        address: SocketAddr,
        folder: TempDir,
        /// `None`: the program under test.
        program: Option<PathBuf>,
    },
    /// nats-server: one node, or three.
    Nodes(Nodes),
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) bus: CaseBus,
    pub(crate) edges: Vec<Member>,
    pub(crate) publishers: Vec<Member>,
    adapter: Vec<Member>,
    /// The link of each edge to the bus; none over several nodes, since an edge connects to another node by
    /// itself.
    pub(crate) to_bus: Vec<Link>,
    /// The link of clients to each edge.
    pub(crate) to_edges: Vec<Link>,
    /// The link of callers to each publisher-api.
    pub(crate) to_publishers: Vec<Link>,
    business: Business,
    settings: Vec<(String, String)>,
    /// The programs for further starts.
    pub(crate) programs: Programs,
}

impl Stage {
    /// Starts all parts over this running bus.
    pub(crate) async fn start(bus: CaseBus, settings: &[(&str, &str)], programs: Programs) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut stage = Self {
            bus,
            edges: Vec::new(),
            publishers: Vec::new(),
            adapter: Vec::new(),
            to_bus: Vec::new(),
            to_edges: Vec::new(),
            to_publishers: Vec::new(),
            business: Business::start().await,
            settings: settings.iter().map(own).collect(),
            programs,
        };
        stage.adapter.push(stage.adapter().await);
        for _ in 0..PUBLISHERS {
            let publisher = stage.publisher().await;
            stage.to_publishers.push(Link::to(address(&publisher)).await);
            stage.publishers.push(publisher);
        }
        for index in 0..EDGES {
            if let Some(bus) = stage.bus.address() {
                stage.to_bus.push(Link::to(bus).await);
            }
            let edge = stage.edge(index).await;
            stage.to_edges.push(Link::to(address(&edge)).await);
            stage.edges.push(edge);
        }
        for member in stage.edges.iter().chain(&stage.publishers).chain(&stage.adapter) {
            member.ready().await;
        }
        stage
    }

    fn launch(&self, part: &str, program: Option<&PathBuf>) -> Launch {
        self.launch_over(&self.bus.url(), part, program)
    }

    fn launch_over(&self, bus: &str, part: &str, program: Option<&PathBuf>) -> Launch {
        let launch = of(part, program).argument("--bus-url").argument(bus);
        let replicas = if self.bus.is_cluster() { "3" } else { "1" };
        let mut launch = launch
            .set("edge.listen", "127.0.0.1:0")
            .set("publisher_api.listen", "127.0.0.1:0")
            .set("edge.heartbeat", "200ms")
            .set("publisher_api.heartbeat", "200ms")
            .set("edge.drain_window", "3s")
            .set("history.per_channel", "20000")
            // nats-server reserves this much on each node.
            .set("history.max_bytes", "512MiB")
            .set("history.duplicate_window", "5m")
            .set("history.replicas", replicas);
        for (key, value) in &self.settings {
            launch = launch.set(key, value);
        }
        launch
    }

    async fn edge(&self, index: usize) -> Member {
        let way = self.to_bus.get(index).map(|link| format!("nats://{}", link.address()));
        let bus = way.unwrap_or_else(|| self.bus.url());
        let launch = self.launch_over(&bus, "edge", self.programs.edge.as_ref());
        Member::start(launch, "edge", Some("edge listens")).await
    }

    async fn publisher(&self) -> Member {
        let launch = self.launch("publisher-api", self.programs.publisher.as_ref());
        Member::start(launch, "publisher_api", Some("publisher-api listens")).await
    }

    async fn adapter(&self) -> Member {
        let launch = self.launch("auth-adapter", self.programs.adapter.as_ref());
        let launch = launch.argument("--auth-url").argument(&self.business.url());
        Member::start(launch, "auth_adapter", None).await
    }

    /// Kills an edge, as `kill -9` does.
    pub(crate) async fn kill_edge(&mut self, index: usize) {
        self.edges[index].program.kill().await;
    }

    /// Starts an edge in place of a killed one.
    pub(crate) async fn restart_edge(&mut self, index: usize) {
        self.edges[index] = self.edge(index).await;
        self.edges[index].ready().await;
        self.to_edges[index].lead_to(address(&self.edges[index]));
    }

    /// Replaces an edge as a rolling update does: starts the new one, then asks the old one to leave.
    pub(crate) async fn replace_edge(&mut self, index: usize) {
        let fresh = self.edge(index).await;
        fresh.ready().await;
        self.to_edges[index].lead_to(address(&fresh));
        leave(std::mem::replace(&mut self.edges[index], fresh)).await;
    }

    /// Replaces a publisher-api in the same way.
    pub(crate) async fn replace_publisher(&mut self, index: usize) {
        let fresh = self.publisher().await;
        fresh.ready().await;
        self.to_publishers[index].lead_to(address(&fresh));
        leave(std::mem::replace(&mut self.publishers[index], fresh)).await;
    }

    /// Replaces the auth-adapter in the same way.
    pub(crate) async fn replace_adapter(&mut self) {
        let fresh = self.adapter().await;
        fresh.ready().await;
        leave(std::mem::replace(&mut self.adapter[0], fresh)).await;
    }

    /// Asks the embedded bus to leave, then starts another on the same data.
    pub(crate) async fn replace_bus(&mut self) {
        let program = self.programs.bus.clone();
        let CaseBus::Embedded { member, program: of, .. } = &mut self.bus else {
            panic!("nats-server is no part of ours")
        };
        leave(*member.take().expect("the bus runs")).await;
        *of = program;
        self.bus.restart().await;
    }

    /// Kills a publisher-api, as `kill -9` does.
    pub(crate) async fn kill_publisher(&mut self, index: usize) {
        self.publishers[index].program.kill().await;
    }

    /// Starts a publisher-api in place of a killed one.
    pub(crate) async fn restart_publisher(&mut self, index: usize) {
        self.publishers[index] = self.publisher().await;
        self.publishers[index].ready().await;
        self.to_publishers[index].lead_to(address(&self.publishers[index]));
    }

    /// Warnings of the running parts and of the nats-servers.
    pub(crate) fn warnings(&self) -> String {
        let mut text = String::new();
        let members = self.edges.iter().chain(&self.publishers).chain(&self.adapter);
        for (index, member) in members.enumerate() {
            let log = member.program.stderr();
            let grave = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
            for line in grave.take(100) {
                text += &format!("{index}: {line}\n");
            }
        }
        if let CaseBus::Nodes(nodes) = &self.bus {
            text += &nodes.warnings();
        }
        text
    }

    /// Asks all processes to leave, and waits for their ends.
    pub(crate) async fn end(mut self) {
        let members = self.edges.drain(..).chain(self.adapter.drain(..)).chain(self.publishers.drain(..));
        for member in members {
            leave(member).await;
        }
        self.bus.stop().await;
        let links = self.to_bus.drain(..).chain(self.to_edges.drain(..)).chain(self.to_publishers.drain(..));
        for link in links {
            link.stop().await;
        }
        self.business.stop().await;
    }
}

impl CaseBus {
    /// Starts the embedded bus as a process, on a port that stays the same.
    pub(crate) async fn embedded(program: Option<PathBuf>) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let [address] = ports::lasting();
        let mut bus = Self::Embedded { member: None, address, folder, program };
        bus.restart().await;
        bus
    }

    /// The URL for the parts.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Embedded { address, .. } => format!("nats://{address}"),
            Self::Nodes(nodes) => nodes.url(),
        }
    }

    /// The address of the bus, if there is only one.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Embedded { address, .. } => Some(*address),
            Self::Nodes(nodes) => nodes.only(),
        }
    }

    fn is_cluster(&self) -> bool {
        matches!(self, Self::Nodes(nodes) if nodes.count() > 1)
    }

    /// Kills the bus, or the only node, as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        match self {
            Self::Embedded { member, .. } => {
                let mut member = member.take().expect("the bus runs");
                member.program.kill().await;
            }
            Self::Nodes(nodes) => nodes.kill(0).await,
        }
    }

    /// Starts the bus again on its data.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Embedded { member, address, folder, program } => {
                let launch = of("bus", program.as_ref())
                    .argument("--bus-listen")
                    .argument(&address.to_string())
                    .argument("--data")
                    .argument(&folder.path().display().to_string())
                    // The harness would keep streams in memory.
                    .variable("MC_BUS__STORE__SYNC", "strict");
                let bus = Member::start(launch, "bus", Some("the embedded bus listens")).await;
                *member = Some(Box::new(bus));
            }
            Self::Nodes(nodes) => nodes.restart(0).await,
        }
    }

    /// The nodes of a cluster.
    pub(crate) fn nodes(&mut self) -> &mut Nodes {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Embedded { .. } => panic!("the embedded bus has no nodes"),
        }
    }

    pub(crate) async fn stop(self) {
        match self {
            Self::Embedded { member, .. } => {
                if let Some(member) = member {
                    leave(*member).await;
                }
            }
            Self::Nodes(nodes) => nodes.stop().await,
        }
    }
}

fn of(part: &str, program: Option<&PathBuf>) -> Launch {
    let launch = Launch::of(part);
    program.into_iter().fold(launch, |launch, program| launch.program(program))
}

/// Asks a part to leave, and waits for its end. Errors in its log are expected, since the case disturbed it.
async fn leave(mut member: Member) {
    member.program.expect_errors();
    member.program.end().await;
}

fn address(member: &Member) -> SocketAddr {
    member.address.expect("it listens")
}

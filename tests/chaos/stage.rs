//! The processes of a case: a bus, an auth-adapter, edges and publisher-apis, each of which can be killed and brought back.
//!
//! Clients reach edges and publishers through links, so that a part that comes back on another port is where it was, as
//! behind a load balancer.

use std::net::SocketAddr;
use std::path::PathBuf;

use harness::business::Business;
use harness::fleet::Member;
use harness::link::Link;
use harness::ports;
use harness::program::Launch;
use tempfile::TempDir;

use crate::nodes::Nodes;

/// Edges of every case.
pub(crate) const EDGES: usize = 2;
/// Publisher-apis of every case.
pub(crate) const PUBLISHERS: usize = 2;
/// The stream whose leader is killed.
pub(crate) const STREAM: &str = "MC_LOG_0";

/// The program that each part is started from. None: the one under test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    pub(crate) edge: Option<PathBuf>,
    pub(crate) publisher: Option<PathBuf>,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) bus: Option<PathBuf>,
}

impl Programs {
    /// All of them from this one.
    pub(crate) fn all(program: Option<PathBuf>) -> Self {
        Self { edge: program.clone(), publisher: program.clone(), adapter: program.clone(), bus: program }
    }
}

/// Who keeps the messages.
#[derive(Debug)]
pub(crate) enum Keeper {
    /// `message-center bus` with a data folder.
    Bus {
        /// None while it is killed.
        member: Option<Box<Member>>,
        address: SocketAddr,
        folder: TempDir,
        /// None: the one under test.
        program: Option<PathBuf>,
    },
    /// nats-server: one, or three.
    Nodes(Nodes),
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) keeper: Keeper,
    pub(crate) edges: Vec<Member>,
    pub(crate) publishers: Vec<Member>,
    adapter: Vec<Member>,
    /// The way of each edge to the bus; none to one of several nodes, of which an edge takes another.
    pub(crate) to_bus: Vec<Link>,
    /// The way of clients to each edge.
    pub(crate) to_edges: Vec<Link>,
    /// The way of callers to each publisher-api.
    pub(crate) to_publishers: Vec<Link>,
    business: Business,
    settings: Vec<(String, String)>,
    /// What is started from now on.
    pub(crate) programs: Programs,
}

impl Stage {
    /// Starts all of it over this bus, which runs already.
    pub(crate) async fn start(keeper: Keeper, settings: &[(&str, &str)], programs: Programs) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut stage = Self {
            keeper,
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
            if let Some(bus) = stage.keeper.address() {
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
        self.launch_over(&self.keeper.url(), part, program)
    }

    fn launch_over(&self, bus: &str, part: &str, program: Option<&PathBuf>) -> Launch {
        let launch = of(part, program).argument("--bus-url").argument(bus);
        let replicas = if self.keeper.is_cluster() { "3" } else { "1" };
        let mut launch = launch
            .set("edge.listen", "127.0.0.1:0")
            .set("publisher_api.listen", "127.0.0.1:0")
            .set("edge.heartbeat", "200ms")
            .set("publisher_api.heartbeat", "200ms")
            .set("edge.drain_window", "3s")
            .set("history.per_channel", "20000")
            // nats-server wants all of it to be free, on each node.
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
        let bus = way.unwrap_or_else(|| self.keeper.url());
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

    /// `kill -9` of an edge.
    pub(crate) async fn kill_edge(&mut self, index: usize) {
        self.edges[index].program.kill().await;
    }

    /// Another edge in the place of a killed one.
    pub(crate) async fn restart_edge(&mut self, index: usize) {
        self.edges[index] = self.edge(index).await;
        self.edges[index].ready().await;
        self.to_edges[index].lead_to(address(&self.edges[index]));
    }

    /// Another edge in the place of one that is asked to leave: new ones first, as a rolling update does.
    pub(crate) async fn replace_edge(&mut self, index: usize) {
        let fresh = self.edge(index).await;
        fresh.ready().await;
        self.to_edges[index].lead_to(address(&fresh));
        leave(std::mem::replace(&mut self.edges[index], fresh)).await;
    }

    /// Another publisher-api in the place of one that is asked to leave, in the same way.
    pub(crate) async fn replace_publisher(&mut self, index: usize) {
        let fresh = self.publisher().await;
        fresh.ready().await;
        self.to_publishers[index].lead_to(address(&fresh));
        leave(std::mem::replace(&mut self.publishers[index], fresh)).await;
    }

    /// Another auth-adapter in the place of one that is asked to leave, in the same way.
    pub(crate) async fn replace_adapter(&mut self) {
        let fresh = self.adapter().await;
        fresh.ready().await;
        leave(std::mem::replace(&mut self.adapter[0], fresh)).await;
    }

    /// Asks the embedded bus to leave, and starts another one on its data.
    pub(crate) async fn replace_bus(&mut self) {
        let program = self.programs.bus.clone();
        let Keeper::Bus { member, program: of, .. } = &mut self.keeper else {
            panic!("nats-server is no part of ours")
        };
        leave(*member.take().expect("the bus runs")).await;
        *of = program;
        self.keeper.restart().await;
    }

    /// `kill -9` of a publisher-api.
    pub(crate) async fn kill_publisher(&mut self, index: usize) {
        self.publishers[index].program.kill().await;
    }

    /// Another publisher-api in the place of a killed one.
    pub(crate) async fn restart_publisher(&mut self, index: usize) {
        self.publishers[index] = self.publisher().await;
        self.publishers[index].ready().await;
        self.to_publishers[index].lead_to(address(&self.publishers[index]));
    }

    /// What the parts that run now warned of, and the servers.
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
        if let Keeper::Nodes(nodes) = &self.keeper {
            text += &nodes.warnings();
        }
        text
    }

    /// Asks all to leave and expects that they do.
    pub(crate) async fn end(mut self) {
        let members = self.edges.drain(..).chain(self.adapter.drain(..)).chain(self.publishers.drain(..));
        for member in members {
            leave(member).await;
        }
        self.keeper.stop().await;
        let links = self.to_bus.drain(..).chain(self.to_edges.drain(..)).chain(self.to_publishers.drain(..));
        for link in links {
            link.stop().await;
        }
        self.business.stop().await;
    }
}

impl Keeper {
    /// The embedded bus as a process, on a port that it keeps.
    pub(crate) async fn bus(program: Option<PathBuf>) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let [address] = ports::lasting();
        let mut keeper = Self::Bus { member: None, address, folder, program };
        keeper.restart().await;
        keeper
    }

    /// Where parts find it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Bus { address, .. } => format!("nats://{address}"),
            Self::Nodes(nodes) => nodes.url(),
        }
    }

    /// The only place where it listens, if there is only one.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Bus { address, .. } => Some(*address),
            Self::Nodes(nodes) => nodes.only(),
        }
    }

    fn is_cluster(&self) -> bool {
        matches!(self, Self::Nodes(nodes) if nodes.count() > 1)
    }

    /// `kill -9` of the bus, or of the only node.
    pub(crate) async fn kill(&mut self) {
        match self {
            Self::Bus { member, .. } => {
                let mut member = member.take().expect("the bus runs");
                member.program.kill().await;
            }
            Self::Nodes(nodes) => nodes.kill(0).await,
        }
    }

    /// Starts it again on what it had stored.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Bus { member, address, folder, program } => {
                let launch = of("bus", program.as_ref())
                    .argument("--bus-listen")
                    .argument(&address.to_string())
                    .argument("--data")
                    .argument(&folder.path().display().to_string())
                    // The harness asks for memory otherwise.
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
            Self::Bus { .. } => panic!("the embedded bus has no nodes"),
        }
    }

    pub(crate) async fn stop(self) {
        match self {
            Self::Bus { member, .. } => {
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

/// Asks a part to leave, and waits until it has; what it complained about was done to it.
async fn leave(mut member: Member) {
    member.program.expect_errors();
    member.program.end().await;
}

fn address(member: &Member) -> SocketAddr {
    member.address.expect("it listens")
}

//! Real nats-servers whose streams write through to the disk: one, or three whose routes can be cut.
//!
//! A restarted node keeps its ports and its store. Every route goes through links of its own, one per
//! direction in which it may be opened, so that a route can break while all clients and all other routes stay
//! connected.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use harness::link::Link;
use harness::nats::{NatsProcess, log_of, streams_in};
use harness::ports;
use harness::wait::until;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::clock::pass;

/// How long the server may take to name a leader.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a node may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(90);
/// The largest number of nodes.
const MOST: usize = 3;
const LOOK: Duration = Duration::from_millis(200);

/// The servers.
#[derive(Debug)]
pub(crate) struct Nodes {
    binary: PathBuf,
    folder: TempDir,
    clients: Vec<SocketAddr>,
    routes: Vec<SocketAddr>,
    /// `links[i][j]`: the address at which node i finds node j.
    links: Vec<Vec<Link>>,
    /// One bound port per node on which nobody listens. Each node announces this port as its own, so that the
    /// other nodes find it only through the links. A refused connection is not repeated; an accepted and
    /// broken one would be, at once.
    nowhere: Vec<TcpSocket>,
    processes: Vec<Option<NatsProcess>>,
}

impl Nodes {
    /// Starts one node, or three.
    pub(crate) async fn start(binary: PathBuf, count: usize) -> Self {
        let ports = ports::lasting::<{ 2 * MOST }>();
        let (clients, routes) = (ports[..count].to_vec(), ports[MOST..][..count].to_vec());
        let mut links = Vec::new();
        for _ in 0..count {
            let mut row = Vec::new();
            for route in &routes {
                row.push(Link::to(*route).await);
            }
            links.push(row);
        }
        let folder = TempDir::new().expect("there is room for a folder");
        let processes = (0..count).map(|_| None).collect();
        let nowhere = (0..count).map(|_| nowhere()).collect();
        let mut nodes = Self { binary, folder, clients, routes, links, nowhere, processes };
        for index in 0..count {
            nodes.restart(index).await;
        }
        nodes
    }

    /// The URL for clients, with every node.
    pub(crate) fn url(&self) -> String {
        self.clients.iter().map(|client| format!("nats://{client}")).collect::<Vec<_>>().join(",")
    }

    /// The address for clients, if there is one node.
    pub(crate) fn only(&self) -> Option<SocketAddr> {
        if let [client] = self.clients[..] { Some(client) } else { None }
    }

    /// Number of nodes.
    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    /// Kills a node, as `kill -9` does.
    pub(crate) async fn kill(&mut self, index: usize) {
        let process = self.processes[index].take().expect("the node runs");
        process.kill().await.expect("nats-server can be killed");
    }

    /// Starts a node on its ports and its store, and waits until the node listens.
    pub(crate) async fn restart(&mut self, index: usize) {
        let config = self.config(index);
        let node = NatsProcess::start(&self.binary, self.folder.path(), &format!("n{index}"), &config).await;
        self.processes[index] = Some(node.expect("nats-server starts"));
    }

    /// Breaks the route between two nodes; both keep their routes to the third.
    pub(crate) fn break_route(&self, one: usize, other: usize) {
        self.links[one][other].cut();
        self.links[other][one].cut();
    }

    /// Lets two nodes find each other again.
    pub(crate) fn heal_route(&self, one: usize, other: usize) {
        self.links[one][other].heal();
        self.links[other][one].heal();
    }

    /// The node that leads a stream; waits until one does.
    pub(crate) async fn leader(&self, stream: &str) -> usize {
        let servers: Vec<String> = self.clients.iter().map(|client| format!("nats://{client}")).collect();
        let client = async_nats::connect(servers).await.expect("a node takes clients");
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        until("the stream has a leader", async || {
            let asked = client.request(subject.clone(), bytes::Bytes::new());
            let answer = tokio::time::timeout(ANSWER, asked).await.ok()?.ok()?;
            let info: Value = serde_json::from_slice(&answer.payload).ok()?;
            info["cluster"]["leader"].as_str()?.strip_prefix('n')?.parse().ok()
        })
        .await
    }

    /// Waits until every node has the whole stream. With the routes up again, a returning node may still ask
    /// the leader several times, some seconds apart ("Expected first catchup entry to be a snapshot and
    /// peerstate, will retry").
    pub(crate) async fn whole(&self, stream: &str) {
        let client = async_nats::connect(self.url().split(',').collect::<Vec<_>>()).await;
        let client = client.expect("a node takes clients");
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let whole = async {
            while !is_whole(&client, &subject, self.clients.len()).await {
                pass(LOOK).await;
            }
        };
        let whole = tokio::time::timeout(CATCH_UP, whole).await;
        assert!(whole.is_ok(), "waited {CATCH_UP:?} in vain: all copies of the stream are current");
    }

    /// Kills the nodes that still run.
    pub(crate) async fn stop(mut self) {
        for index in 0..self.processes.len() {
            if self.processes[index].is_some() {
                self.kill(index).await;
            }
        }
    }

    fn config(&self, index: usize) -> String {
        let store = self.folder.path().join(format!("n{index}"));
        let mut config =
            format!("server_name: n{index}\nlisten: \"{}\"\n{}", self.clients[index], streams_in(&store));
        if self.clients.len() > 1 {
            let peers = self.links[index].iter().enumerate().filter(|(peer, _)| *peer != index);
            let routes: Vec<_> =
                peers.map(|(_, link)| format!("\"nats-route://{}\"", link.address())).collect();
            let nowhere = self.nowhere[index].local_addr().expect("it is bound");
            config += &format!(
                "cluster {{ name: mc, listen: \"{}\", advertise: \"{nowhere}\", routes: [{}] }}\n",
                self.routes[index],
                routes.join(", ")
            );
        }
        config
    }

    /// Warnings of the servers, without those about lost and restored routes.
    pub(crate) fn warnings(&self) -> String {
        let mut text = String::new();
        for index in 0..self.clients.len() {
            let log = log_of(self.folder.path(), &format!("n{index}"));
            let grave = log.lines().filter(|line| !line.contains(" [INF] ") || line.contains("leader"));
            for line in grave.filter(|line| !line.contains("connect to route")).take(100) {
                text += &format!("n{index}: {line}\n");
            }
        }
        text
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in 0..self.clients.len() {
                let text = log_of(self.folder.path(), &format!("n{index}"));
                let last: Vec<_> = text.lines().rev().take(60).collect();
                eprintln!("---- nats-server n{index}, the last lines first:\n{}", last.join("\n"));
            }
        }
    }
}

async fn is_whole(client: &async_nats::Client, subject: &str, nodes: usize) -> bool {
    let asked = client.request(subject.to_owned(), bytes::Bytes::new());
    let Ok(Ok(answer)) = tokio::time::timeout(ANSWER, asked).await else { return false };
    let info: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
    let replicas = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
    replicas.len() + 1 == nodes
        && replicas.iter().all(|replica| replica["current"] == true && replica["offline"] != true)
}

fn nowhere() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("there is room for a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has free ports");
    socket
}

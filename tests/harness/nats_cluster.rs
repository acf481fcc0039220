//! A cluster of three real nats-servers on loopback; each node can be killed and started again.
//!
//! Clients and routes need a password and a TLS certificate of an authority that only this cluster has. A
//! node keeps its ports, so that others find it again, and its streams, which are written through to the
//! disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::certificate::{Authority, Certificate};
use crate::nats::{NatsProcess, log_of, streams_in};
use crate::ports;

/// The user that clients log in as.
pub const USER: &str = "message-center";
/// The password of [`USER`].
pub const PASSWORD: &str = "a password: \"quoted\"";

const NODES: usize = 3;

/// Three nodes.
#[derive(Debug)]
pub struct NatsCluster {
    binary: PathBuf,
    nodes: Vec<Node>,
    /// Addresses of the nodes for each other. Every node is told all of them, as JetStream requires.
    routes: [SocketAddr; NODES],
    server: Certificate,
    /// A certificate for clients.
    pub client: Certificate,
    /// The authority behind the certificates of clients and servers.
    pub authority: Authority,
    folder: TempDir,
}

#[derive(Debug)]
struct Node {
    client: SocketAddr,
    /// `None` while the node is killed.
    process: Option<NatsProcess>,
}

impl NatsCluster {
    /// Starts the nodes and waits until all of them listen.
    ///
    /// # Panics
    /// A node does not listen.
    pub async fn start(binary: &Path) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let authority = Authority::new(folder.path(), "authority");
        let (server, client) = (authority.issue("server"), authority.issue("client"));
        let (binary, nodes, routes) = (binary.to_owned(), Vec::new(), ports::lasting());
        let mut cluster = Self { binary, nodes, routes, server, client, authority, folder };
        for (index, client) in ports::lasting::<NODES>().into_iter().enumerate() {
            let node = cluster.launch(index, client).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    /// The URL for clients: the addresses of all nodes, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("tls://{}", node.client)).collect();
        urls.join(",")
    }

    /// Kills a node and waits for its end.
    ///
    /// # Panics
    /// The node does not run, or does not end.
    pub async fn kill(&mut self, index: usize) {
        let process = self.nodes[index].process.take().expect("the node runs");
        process.kill().await.expect("nats-server can be killed");
    }

    /// Starts a killed node again and waits until the node listens.
    ///
    /// # Panics
    /// The node does not listen.
    pub async fn restart(&mut self, index: usize) {
        let Node { client, .. } = self.nodes[index];
        self.nodes[index] = self.launch(index, client).await;
    }

    /// Kills the nodes that still run.
    pub async fn stop(mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].process.is_some() {
                self.kill(index).await;
            }
        }
    }

    async fn launch(&self, index: usize, client: SocketAddr) -> Node {
        let (name, config) = (format!("n{index}"), self.config(index, client));
        let process = NatsProcess::start(&self.binary, self.folder.path(), &name, &config).await;
        Node { client, process: Some(process.expect("a node of nats-server starts")) }
    }

    fn config(&self, index: usize, client: SocketAddr) -> String {
        let routes: Vec<_> =
            self.routes.iter().map(|route| format!("\"nats-route://route:between@{route}\"")).collect();
        let tls = format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, timeout: 10 }}",
            self.server.cert, self.server.key, self.authority.file
        );
        format!(
            "server_name: n{index}\nhost: 127.0.0.1\nport: {}\n{tls}\n\
             authorization {{ user: {USER:?}, password: {PASSWORD:?}, timeout: 10 }}\n\
             {}\
             cluster {{\n  name: mc\n  host: 127.0.0.1\n  port: {}\n  {tls}\n  routes: [{}]\n  \
             authorization {{ user: route, password: between, timeout: 10 }}\n}}\n",
            client.port(),
            streams_in(&self.folder.path().join(format!("n{index}"))),
            self.routes[index].port(),
            routes.join(", "),
        )
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in 0..self.nodes.len() {
                eprintln!("---- nats-server n{index}:\n{}", log_of(self.folder.path(), &format!("n{index}")));
            }
        }
    }
}

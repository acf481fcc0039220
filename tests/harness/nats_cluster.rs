//! A cluster of three real nats-servers on loopback; each node can be killed and started again.
//!
//! Clients and routes need a password and a TLS certificate of an authority that only this cluster has. A
//! node keeps its ports, so that others find it again, and its streams, which are written through to the
//! disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::certificate::{Authority, Certificate};
use crate::ports;
use crate::wait::{soon, until};

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
    /// The process; `None` while the node is killed.
    child: Option<Child>,
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
        let mut child = self.nodes[index].child.take().expect("the node runs");
        soon("nats-server ends", child.kill()).await.expect("it can be killed");
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
            if self.nodes[index].child.is_some() {
                self.kill(index).await;
            }
        }
    }

    async fn launch(&self, index: usize, client: SocketAddr) -> Node {
        let file = self.folder.path().join(format!("n{index}.conf"));
        std::fs::write(&file, self.config(index, client)).expect("there is room for a file");
        let log = std::fs::File::create(self.log(index)).expect("there is room for a log");
        let mut child = Command::new(&self.binary)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server can be started");
        let id = child.id().expect("it has just begun");
        let ports = self.folder.path().join(format!("nats-server_{id}.ports"));
        let client = until("a node of nats-server listens", async || {
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "nats-server ended: {}", self.log_text(index));
            let ports: Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            address(&ports["nats"][0])
        })
        .await;
        Node { client, child: Some(child) }
    }

    fn config(&self, index: usize, client: SocketAddr) -> String {
        let folder = self.folder.path().display();
        let routes: Vec<_> =
            self.routes.iter().map(|route| format!("\"nats-route://route:between@{route}\"")).collect();
        let tls = format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, timeout: 10 }}",
            self.server.cert, self.server.key, self.authority.file
        );
        format!(
            "server_name: n{index}\nhost: 127.0.0.1\nport: {}\nports_file_dir: \"{folder}\"\n{tls}\n\
             authorization {{ user: {USER:?}, password: {PASSWORD:?}, timeout: 10 }}\n\
             jetstream {{ store_dir: {:?}, sync_interval: always, max_file: 100GB }}\n\
             cluster {{\n  name: mc\n  host: 127.0.0.1\n  port: {}\n  {tls}\n  routes: [{}]\n  \
             authorization {{ user: route, password: between, timeout: 10 }}\n}}\n",
            client.port(),
            self.folder.path().join(format!("n{index}")),
            self.routes[index].port(),
            routes.join(", "),
        )
    }

    fn log(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("n{index}.log"))
    }

    fn log_text(&self, index: usize) -> String {
        std::fs::read_to_string(self.log(index)).unwrap_or_default()
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in 0..self.nodes.len() {
                eprintln!("---- nats-server n{index}:\n{}", self.log_text(index));
            }
        }
    }
}

/// The address of a URL in a ports file, such as `nats://127.0.0.1:4222`, whatever the scheme.
fn address(url: &Value) -> Option<SocketAddr> {
    url.as_str()?.split_once("://")?.1.parse().ok()
}

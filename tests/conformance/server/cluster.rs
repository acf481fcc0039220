//! Three real nats-servers that hold a replica of every stream each.
//!
//! When [`Cluster::start`] returns, the three have found each other, and a stream with three replicas can be
//! made. They use no TLS and no passwords; the tests of the product cover both.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use harness::ports;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Settings;
use super::process::Process;
use crate::fixture::within;
use crate::raw::RawClient;

/// Number of nodes, and so of replicas.
pub(crate) const NODES: usize = 3;
/// Far above the second or two that the start takes, because the machine may be busy.
const READY: Duration = Duration::from_secs(60);

/// The processes.
pub(crate) struct Cluster {
    /// The processes; `None` for a killed node.
    nodes: Vec<Option<Process>>,
    addresses: Vec<SocketAddr>,
    /// The folders of the streams, deleted with the cluster.
    _stores: Vec<Arc<TempDir>>,
}

impl Cluster {
    /// Starts the nodes and waits until they form a cluster.
    pub(crate) async fn start(binary: &Path, settings: &Settings) -> anyhow::Result<Self> {
        // Each node must know all routes before the first one starts.
        let routes = ports::lasting::<NODES>();
        let mut cluster = Self { nodes: Vec::new(), addresses: Vec::new(), _stores: Vec::new() };
        for (index, route) in routes.iter().enumerate() {
            let store = Arc::new(TempDir::new()?);
            let settings = Settings { store: Some(store.clone()), ..settings.clone() };
            let others: Vec<_> = routes.iter().map(|route| format!("\"nats-route://{route}\"")).collect();
            let more = format!(
                "server_name: n{index}\ncluster {{\n  name: mc\n  listen: \"{route}\"\n  routes: [{}]\n}}\n",
                others.join(", "),
            );
            let (node, address) = Process::start(binary, &settings, &more).await?;
            cluster.nodes.push(Some(node));
            cluster.addresses.push(address);
            cluster._stores.push(store);
        }
        within(READY, "the cluster to keep streams", cluster.ready()).await?;
        Ok(cluster)
    }

    /// The client address of each node, in the order of their names.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Kills a node.
    pub(crate) async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let node = self.nodes[index].take().context("this node was ended before")?;
        node.stop().await
    }

    /// Kills all nodes.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await?;
        }
        Ok(())
    }

    /// Returns once a stream with three replicas can be made over each node.
    async fn ready(&self) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(Duration::from_millis(50));
        for (index, address) in self.addresses.iter().enumerate() {
            let mut client = RawClient::connect(*address).await?;
            client.send("SUB ready 1\r\n").await?;
            let name = format!("READY{index}");
            let config = json!({"name": name, "storage": "memory", "num_replicas": NODES}).to_string();
            loop {
                poll.tick().await;
                let answer = ask(&mut client, &format!("$JS.API.STREAM.CREATE.{name}"), &config).await?;
                if answer["config"].is_object() {
                    break;
                }
            }
            let answer = ask(&mut client, &format!("$JS.API.STREAM.DELETE.{name}"), "").await?;
            if answer["success"] != true {
                bail!("a stream made to see whether that works cannot be deleted: {answer}");
            }
        }
        Ok(())
    }
}

/// The answer of the API; null without an answer.
async fn ask(client: &mut RawClient, subject: &str, body: &str) -> anyhow::Result<Value> {
    client.send(format!("PUB {subject} ready {}\r\n{body}\r\n", body.len())).await?;
    let answer = client.message_within(Duration::from_secs(10)).await?;
    Ok(answer.and_then(|answer| serde_json::from_slice(&answer.payload).ok()).unwrap_or(Value::Null))
}

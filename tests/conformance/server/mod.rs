//! One interface to all kinds of servers. A server listens on a free port of loopback, and stops on drop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::tools::Tools;

mod cluster;
mod embedded;
mod process;

/// The token of servers with [`Access::Token`].
pub(crate) const TOKEN: &str = "open-sesame-7";
/// The user of servers with [`Access::Password`].
pub(crate) const USER: &str = "edge";
/// The password of servers with [`Access::Password`].
pub(crate) const PASSWORD: &str = "pa55-w0rd";

/// Implementation of a server.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The embedded bus, inside this process.
    Embedded,
    /// The real nats-server, from this binary.
    NatsServer(PathBuf),
    /// A cluster of three real nats-servers, from this binary.
    NatsCluster(PathBuf),
}

impl Kind {
    /// The kinds that can run here: nats-server only with tools.
    pub(crate) fn available(tools: Option<&Tools>) -> Vec<Self> {
        let mut kinds = vec![Self::Embedded];
        kinds.extend(tools.map(|tools| Self::NatsServer(tools.nats_server.clone())));
        kinds
    }

    /// The kinds for the cases of streams, a cluster included.
    pub(crate) fn with_streams(tools: Option<&Tools>) -> Vec<Self> {
        let mut kinds = Self::available(tools);
        kinds.extend(tools.map(|tools| Self::NatsCluster(tools.nats_server.clone())));
        kinds
    }

    /// Number of replicas of each stream over a server of this kind.
    pub(crate) fn replicas(&self) -> usize {
        match self {
            Self::Embedded | Self::NatsServer(_) => 1,
            Self::NatsCluster(_) => cluster::NODES,
        }
    }

    /// The name in the full names of cases.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded-bus",
            Self::NatsServer(_) => "nats-server",
            Self::NatsCluster(_) => "nats-cluster",
        }
    }

    /// Whether this is the embedded bus.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }
}

/// Clients that may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone.
    #[default]
    Open,
    /// Clients with [`TOKEN`].
    Token,
    /// Clients with [`USER`] and [`PASSWORD`].
    Password,
}

/// The settings that cases vary.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    /// Size limit of a payload in bytes, headers included.
    pub(crate) max_payload: usize,
    /// Bytes that may wait for one connection before the server cuts it off.
    pub(crate) max_pending: usize,
    /// The port; 0 for a free one.
    pub(crate) port: u16,
    pub(crate) max_connections: usize,
    /// Limit per connection; 0 for none.
    pub(crate) max_subscriptions: usize,
    /// Silence before a PING; two may go unanswered.
    pub(crate) ping_interval: Duration,
    /// How long a socket may accept no bytes while some wait for it.
    pub(crate) write_deadline: Duration,
    /// How long a connection may take to present credentials.
    pub(crate) auth_timeout: Duration,
    /// How long the embedded bus still serves after [`Server::leave`]; nats-server does for 10 s.
    pub(crate) lame_duck: Duration,
    /// Folder of the streams, which a restart finds again; `None`: no streams.
    pub(crate) store: Option<Arc<TempDir>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access: Access::Open,
            max_payload: 1 << 20,
            max_pending: 64 << 20,
            port: 0,
            max_connections: 65_536,
            max_subscriptions: 0,
            ping_interval: Duration::from_secs(120),
            write_deadline: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(2),
            lame_duck: Duration::ZERO,
            store: None,
        }
    }
}

impl Settings {
    /// The defaults with these credentials.
    pub(crate) fn with_access(access: Access) -> Self {
        Self { access, ..Self::default() }
    }

    /// The defaults with streams in a folder of their own.
    pub(crate) fn with_streams() -> anyhow::Result<Self> {
        Ok(Self { store: Some(Arc::new(TempDir::new()?)), ..Self::default() })
    }
}

enum Running {
    Embedded(embedded::Embedded),
    Process(Box<process::Process>),
    Cluster(cluster::Cluster),
}

/// A running server.
pub(crate) struct Server {
    kind: Kind,
    settings: Settings,
    address: SocketAddr,
    running: Running,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub(crate) async fn start(kind: &Kind, settings: Settings) -> anyhow::Result<Self> {
        let (running, address) = match kind {
            Kind::Embedded => {
                let (server, address) = embedded::Embedded::start(&settings).await?;
                (Running::Embedded(server), address)
            }
            Kind::NatsServer(binary) => {
                let (server, address) = process::Process::start(binary, &settings, "").await?;
                (Running::Process(Box::new(server)), address)
            }
            Kind::NatsCluster(binary) => {
                let server = cluster::Cluster::start(binary, &settings).await?;
                let address = server.addresses()[0];
                (Running::Cluster(server), address)
            }
        };
        Ok(Self { kind: kind.clone(), settings, address, running })
    }

    /// The address for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of each node, that of [`Self::address`] first. The nodes are named `n0`, `n1` and so on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.running {
            Running::Embedded(_) | Running::Process(_) => vec![self.address],
            Running::Cluster(server) => server.addresses(),
        }
    }

    /// Kills a node of a cluster.
    pub(crate) async fn kill_node(&mut self, index: usize) -> anyhow::Result<()> {
        match &mut self.running {
            Running::Embedded(_) | Running::Process(_) => anyhow::bail!("only a cluster has nodes"),
            Running::Cluster(server) => server.kill(index).await,
        }
    }

    /// The URL for clients, without credentials.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Begins the lame duck mode: the server ends once its clients have gone.
    pub(crate) fn leave(&self) -> anyhow::Result<()> {
        match &self.running {
            Running::Embedded(server) => server.leave(),
            Running::Process(server) => server.leave()?,
            Running::Cluster(_) => anyhow::bail!("only a single server leaves"),
        }
        Ok(())
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        match self.running {
            Running::Embedded(server) => server.stop().await,
            Running::Process(server) => server.stop().await,
            Running::Cluster(server) => server.stop().await,
        }
    }

    /// Stops the server and starts a new one at the same address.
    pub(crate) async fn restart(self) -> anyhow::Result<Self> {
        let (kind, settings) =
            (self.kind.clone(), Settings { port: self.address.port(), ..self.settings.clone() });
        self.stop().await?;
        Self::start(&kind, settings).await
    }
}

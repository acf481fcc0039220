//! The servers behind one face. A server listens on loopback, on a free port, and is gone when dropped.

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

/// Which implementation.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Ours, inside this process.
    Embedded,
    /// The real one: its binary.
    NatsServer(PathBuf),
    /// Three of the real one, with every stream on all of them: its binary.
    NatsCluster(PathBuf),
}

impl Kind {
    /// The kinds that can be run here: nats-server only with tools.
    pub(crate) fn available(tools: Option<&Tools>) -> Vec<Self> {
        let mut kinds = vec![Self::Embedded];
        kinds.extend(tools.map(|tools| Self::NatsServer(tools.nats_server.clone())));
        kinds
    }

    /// The kinds that the cases of streams run over: a cluster as well.
    pub(crate) fn with_streams(tools: Option<&Tools>) -> Vec<Self> {
        let mut kinds = Self::available(tools);
        kinds.extend(tools.map(|tools| Self::NatsCluster(tools.nats_server.clone())));
        kinds
    }

    /// How many copies of a stream a server of this kind keeps.
    pub(crate) fn replicas(&self) -> usize {
        match self {
            Self::Embedded | Self::NatsServer(_) => 1,
            Self::NatsCluster(_) => cluster::NODES,
        }
    }

    /// As it stands in names of cases.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded-bus",
            Self::NatsServer(_) => "nats-server",
            Self::NatsCluster(_) => "nats-cluster",
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }
}

/// Who may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone.
    #[default]
    Open,
    /// Who has [`TOKEN`].
    Token,
    /// Who has [`USER`] and [`PASSWORD`].
    Password,
}

/// What cases vary.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    /// Bytes of the largest payload, headers included.
    pub(crate) max_payload: usize,
    /// Bytes that may wait for one connection before it is cut off.
    pub(crate) max_pending: usize,
    /// 0 for a free one.
    pub(crate) port: u16,
    pub(crate) max_connections: usize,
    /// Per connection; 0 for no limit.
    pub(crate) max_subscriptions: usize,
    /// Silence before a PING; two unanswered ones are allowed.
    pub(crate) ping_interval: Duration,
    /// How long a socket may take nothing while something waits for it.
    pub(crate) write_deadline: Duration,
    /// How long a connection may take to present credentials.
    pub(crate) auth_timeout: Duration,
    /// How long the embedded bus serves on after [`Server::leave`]; nats-server does for 10 s.
    pub(crate) lame_duck: Duration,
    /// Where streams are kept, also over a restart; none: the server has no streams.
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
    /// The defaults, for those who have these credentials.
    pub(crate) fn with_access(access: Access) -> Self {
        Self { access, ..Self::default() }
    }

    /// The defaults, with streams in a folder of their own.
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
    /// Starts one and waits until it listens.
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

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where each node of it listens, the one of [`Self::address`] first. A node `n` calls itself `n0`, `n1` and so on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.running {
            Running::Embedded(_) | Running::Process(_) => vec![self.address],
            Running::Cluster(server) => server.addresses(),
        }
    }

    /// Ends a node of a cluster at once.
    pub(crate) async fn kill_node(&mut self, index: usize) -> anyhow::Result<()> {
        match &mut self.running {
            Running::Embedded(_) | Running::Process(_) => anyhow::bail!("only a cluster has nodes"),
            Running::Cluster(server) => server.kill(index).await,
        }
    }

    /// Its address as clients write it, without credentials.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Tells it to end as soon as its clients have gone.
    pub(crate) fn leave(&self) -> anyhow::Result<()> {
        match &self.running {
            Running::Embedded(server) => server.leave(),
            Running::Process(server) => server.leave()?,
            Running::Cluster(_) => anyhow::bail!("only a single server leaves"),
        }
        Ok(())
    }

    /// Stops it and waits until it is gone.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        match self.running {
            Running::Embedded(server) => server.stop().await,
            Running::Process(server) => server.stop().await,
            Running::Cluster(server) => server.stop().await,
        }
    }

    /// Stops it and starts a new one at the same address.
    pub(crate) async fn restart(self) -> anyhow::Result<Self> {
        let (kind, settings) =
            (self.kind.clone(), Settings { port: self.address.port(), ..self.settings.clone() });
        self.stop().await?;
        Self::start(&kind, settings).await
    }
}

//! The embedded bus inside this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use embedded_bus::{
    Config, Credentials, DiskConfig, EmbeddedBus, ServeError, Storage, StreamsConfig, SyncMode,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Access, PASSWORD, Settings, TOKEN, USER};

const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// One bus and the task that serves it.
pub(crate) struct Embedded {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Embedded {
    /// Binds and serves.
    pub(crate) async fn start(settings: &Settings) -> anyhow::Result<(Self, SocketAddr)> {
        let bus = EmbeddedBus::bind(Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port)),
            credentials: match settings.access {
                Access::Open => Credentials::None,
                Access::Token => Credentials::Token(TOKEN.to_owned()),
                Access::Password => {
                    Credentials::UserPassword { user: USER.to_owned(), password: PASSWORD.to_owned() }
                }
            },
            max_payload: settings.max_payload,
            max_pending_bytes: settings.max_pending,
            max_connections: settings.max_connections,
            max_subscriptions: settings.max_subscriptions,
            ping_interval: settings.ping_interval,
            max_pings_out: 2,
            auth_timeout: settings.auth_timeout,
            write_deadline: settings.write_deadline,
            lame_duck: settings.lame_duck,
            streams: settings.store.as_ref().map(|folder| StreamsConfig {
                storage: Storage::Disk(DiskConfig {
                    path: folder.path().to_owned(),
                    sync: SyncMode::Strict,
                    max_bytes: 1 << 30,
                }),
                ..StreamsConfig::default()
            }),
            ..Config::default()
        })
        .await?;
        let address = bus.local_addr();
        let cancel = CancellationToken::new();
        let (tracker, stop) = (TaskTracker::new(), cancel.clone());
        let task = tracker.spawn(bus.serve(stop));
        Ok((Self { cancel, task }, address))
    }

    /// Begins the lame duck mode.
    pub(crate) fn leave(&self) {
        self.cancel.cancel();
    }

    /// Cancels the bus and waits for its end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.cancel.cancel();
        tokio::time::timeout(STOP_DEADLINE, &mut self.task)
            .await
            .context("the embedded bus does not end when cancelled")?
            .context("the embedded bus panicked")?
            .context("the embedded bus ended by itself")
    }
}

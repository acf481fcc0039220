//! The real nats-server as a process of its own, killed when dropped.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use harness::nats::NatsProcess;
use tempfile::TempDir;

use super::{Access, PASSWORD, Settings, TOKEN, USER};

/// One process and the folder it writes to.
pub(crate) struct Process {
    nats: NatsProcess,
    _folder: TempDir,
}

impl Process {
    /// Starts `binary` with `more` in its configuration, and waits until the server listens.
    pub(crate) async fn start(
        binary: &Path,
        settings: &Settings,
        more: &str,
    ) -> anyhow::Result<(Self, SocketAddr)> {
        let folder = TempDir::new()?;
        let config = configuration(settings) + more;
        let nats = NatsProcess::start(binary, folder.path(), "server", &config).await?;
        let address = nats.address();
        Ok((Self { nats, _folder: folder }, address))
    }

    /// Sends the signal for "lame duck mode".
    pub(crate) fn leave(&self) -> anyhow::Result<()> {
        self.nats.signal("USR2")
    }

    /// Kills the server: cases need only that connections break and the port is free.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.nats.kill().await
    }
}

fn configuration(settings: &Settings) -> String {
    let port = if settings.port == 0 { "-1".to_owned() } else { settings.port.to_string() };
    let mut text = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: {}\nmax_pending: {}\n\
         max_connections: {}\nmax_subscriptions: {}\nping_interval: \"{}ms\"\nping_max: 2\n\
         write_deadline: \"{}ms\"\n",
        settings.max_payload,
        settings.max_pending,
        settings.max_connections,
        settings.max_subscriptions,
        settings.ping_interval.as_millis(),
        settings.write_deadline.as_millis(),
    );
    if let Some(store) = &settings.store {
        writeln!(
            text,
            "jetstream {{ store_dir: \"{}\", max_mem: 256MB, max_file: 1GB }}",
            store.path().display()
        )
        .expect("a String takes any text");
    }
    let authorization = match settings.access {
        Access::Open => return text,
        Access::Token => format!("token: \"{TOKEN}\""),
        Access::Password => format!("user: \"{USER}\", password: \"{PASSWORD}\""),
    };
    let timeout = settings.auth_timeout.as_secs_f64();
    writeln!(text, "authorization {{ {authorization}, timeout: {timeout} }}")
        .expect("a String takes any text");
    text
}

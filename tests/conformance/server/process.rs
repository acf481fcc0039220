//! The real nats-server as a process of its own, killed when dropped.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Access, PASSWORD, Settings, TOKEN, USER};

const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// One process and the folder it writes to.
pub(crate) struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts `binary` with `more` in its configuration, and waits until its ports file names the port.
    pub(crate) async fn start(
        binary: &Path,
        settings: &Settings,
        more: &str,
    ) -> anyhow::Result<(Self, SocketAddr)> {
        let folder = TempDir::new()?;
        let config = folder.path().join("server.conf");
        std::fs::write(&config, configuration(settings, folder.path()) + more)?;
        let log = std::fs::File::create(folder.path().join("server.log"))?;
        let child = Command::new(binary)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut process = Self { child, folder };
        let address = process.listening().await?;
        Ok((process, address))
    }

    async fn listening(&mut self) -> anyhow::Result<SocketAddr> {
        let id = self.child.id().context("nats-server ended at once")?;
        let file = self.folder.path().join(format!("nats-server_{id}.ports"));
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        let began = tokio::time::Instant::now();
        loop {
            poll.tick().await;
            if let Some(address) = ports(&file) {
                return Ok(address);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START_DEADLINE {
                let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
                bail!(
                    "nats-server does not listen after {:?} (exit status {ended:?}): {log}",
                    began.elapsed()
                );
            }
        }
    }

    /// Sends the signal for "lame duck mode".
    pub(crate) fn leave(&self) -> anyhow::Result<()> {
        let id = self.child.id().context("nats-server has ended")?.to_string();
        let status = std::process::Command::new("kill").args(["-USR2", &id]).status()?;
        ensure!(status.success(), "nats-server can't be signalled: {status}");
        Ok(())
    }

    /// Kills the server: cases need only that connections break and the port is free.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(STOP_DEADLINE, self.child.kill()).await;
        ensure!(matches!(ended, Ok(Ok(()))), "nats-server cannot be killed: {ended:?}");
        Ok(())
    }
}

/// The client address in a ports file; `None` until the file is complete.
fn ports(file: &Path) -> Option<SocketAddr> {
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.strip_prefix("nats://")?.parse().ok()
}

fn configuration(settings: &Settings, folder: &Path) -> String {
    let port = if settings.port == 0 { "-1".to_owned() } else { settings.port.to_string() };
    let mut text = format!(
        "listen: \"127.0.0.1:{port}\"\nports_file_dir: \"{}\"\nmax_payload: {}\nmax_pending: {}\n\
         max_connections: {}\nmax_subscriptions: {}\nping_interval: \"{}ms\"\nping_max: 2\n\
         write_deadline: \"{}ms\"\n",
        folder.display(),
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

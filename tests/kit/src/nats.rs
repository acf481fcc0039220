//! The real nats-server: as a bare process, and as a server with streams that can be killed and come back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};

use crate::wait::DEADLINE;

/// Interval between two looks at the ports file.
const POLL: Duration = Duration::from_millis(10);

/// A nats-server process, killed on drop.
#[derive(Debug)]
pub struct NatsProcess {
    child: Child,
    address: SocketAddr,
}

impl NatsProcess {
    /// Starts `binary` with this configuration, and waits until its ports file names the address for clients.
    /// Its files in `folder` are `<name>.conf` and `<name>.log`.
    ///
    /// # Errors
    /// The process cannot be started, ends, or does not listen within [`DEADLINE`].
    pub async fn start(binary: &Path, folder: &Path, name: &str, config: &str) -> anyhow::Result<Self> {
        let file = folder.join(format!("{name}.conf"));
        std::fs::write(&file, format!("ports_file_dir: {folder:?}\n{config}"))?;
        let log = std::fs::File::options().create(true).append(true).open(log_file(folder, name))?;
        let mut child = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let id = child.id().context("nats-server ended at once")?;
        let ports = folder.join(format!("nats-server_{id}.ports"));
        let (began, mut poll) = (Instant::now(), interval(POLL));
        let address = loop {
            poll.tick().await;
            if let Some(address) = client_address(&ports) {
                break address;
            }
            let ended = child.try_wait()?;
            if ended.is_some() || began.elapsed() > DEADLINE {
                let (time, log) = (began.elapsed(), log_of(folder, name));
                bail!("nats-server does not listen after {time:?} (exit status {ended:?}): {log}");
            }
        };
        Ok(Self { child, address })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a signal by name: `TERM`, `USR2`.
    ///
    /// # Errors
    /// The process has ended, or the system refuses.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.id().context("nats-server has ended")?;
        // `kill` is a shell builtin on every system.
        let kill = format!("kill -{name} {id}");
        let status = std::process::Command::new("sh").arg("-c").arg(kill).status()?;
        ensure!(status.success(), "nats-server cannot be signalled: {status}");
        Ok(())
    }

    /// Kills the process and waits for its end.
    ///
    /// # Errors
    /// The process does not end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        timeout(DEADLINE, self.child.kill()).await.context("nats-server does not end")??;
        Ok(())
    }

    /// Asks the process to leave, and waits for its end.
    ///
    /// # Errors
    /// The process does not end.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        timeout(DEADLINE, self.child.wait()).await.context("nats-server does not end")??;
        Ok(())
    }
}

/// The log of the processes of this name in `folder`; it goes on after a restart.
pub fn log_of(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(log_file(folder, name)).unwrap_or_default()
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// The address in a ports file, such as `nats://127.0.0.1:4222`, whatever the scheme; `None` until the file
/// is complete.
fn client_address(file: &Path) -> Option<SocketAddr> {
    let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.split_once("://")?.1.parse().ok()
}

/// The line of a configuration that turns on streams in `folder`, written through to the disk.
///
/// A stream reserves its `max_bytes`, so the limit is set high: the free space of the disk is not under test.
pub fn streams_in(folder: &Path) -> String {
    format!("jetstream {{ store_dir: {folder:?}, sync_interval: always, max_file: 100GB }}\n")
}

/// The name of the only process in the folder of a [`NatsServer`].
const NAME: &str = "nats";

/// A nats-server with streams. It keeps its address and its streams while it is away.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    process: Option<NatsProcess>,
}

impl NatsServer {
    /// Starts `binary` on a free port, and waits until the server listens.
    ///
    /// # Panics
    /// The server does not listen.
    pub async fn start(binary: &Path) -> Self {
        let folder = TempDir::new().expect("there is space for a folder");
        let [address] = crate::ports::lasting();
        let mut server = Self { binary: binary.to_owned(), folder, address, process: None };
        server.restart().await;
        server
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// The folder of the streams.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("streams")
    }

    /// Whether the server runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the server and waits for its end.
    ///
    /// # Panics
    /// The server does not run, or does not end.
    pub async fn kill(&mut self) {
        let process = self.process.take().expect("nats-server runs");
        process.kill().await.expect("nats-server can be killed");
    }

    /// Asks the server to leave, and waits for its end.
    ///
    /// # Panics
    /// The server does not run, or does not end.
    pub async fn leave(&mut self) {
        let process = self.process.take().expect("nats-server runs");
        process.leave().await.expect("nats-server leaves");
    }

    /// Starts a server that is away, and waits until it listens.
    ///
    /// # Panics
    /// The server does not listen.
    pub async fn restart(&mut self) {
        let config = format!("listen: \"{}\"\n{}", self.address, streams_in(&self.data()));
        let process = NatsProcess::start(&self.binary, self.folder.path(), NAME, &config).await;
        self.process = Some(process.expect("nats-server starts"));
    }

    /// Kills the server, if it runs.
    pub async fn stop(mut self) {
        if self.is_running() {
            self.kill().await;
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- nats-server:\n{}", log_of(self.folder.path(), NAME));
        }
    }
}

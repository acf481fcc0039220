//! The real nats-server as a process on a free port, killed on drop.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::wait::{soon, until};

/// A running nats-server.
#[derive(Debug)]
pub struct NatsServer {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl NatsServer {
    /// Starts `binary` with streams that write through to the disk, and waits until it listens.
    ///
    /// # Panics
    /// The server does not listen.
    pub async fn start(binary: &Path) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("there is room for a log");
        let config = folder.path().join("nats.conf");
        let store = folder.path().join("streams");
        // A stream reserves its `max_bytes`, so the limit is set high: the free space of the disk is not
        // under test.
        let streams =
            format!("jetstream {{ store_dir: {store:?}, sync_interval: always, max_file: 100GB }}\n");
        std::fs::write(&config, streams).expect("there is room for a file");
        let mut child = Command::new(binary)
            .args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"])
            .arg(folder.path())
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server can be started");
        let ports =
            folder.path().join(format!("nats-server_{}.ports", child.id().expect("it has just begun")));
        let address = until("nats-server listens", async || {
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "nats-server ended: {}", log_of(&folder));
            let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            ports["nats"][0].as_str()?.strip_prefix("nats://")?.parse().ok()
        })
        .await;
        Self { address, child, folder }
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the server and waits for its end.
    ///
    /// # Panics
    /// The server does not end.
    pub async fn stop(mut self) {
        soon("nats-server ends", self.child.kill()).await.expect("it can be killed");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- nats-server:\n{}", log_of(&self.folder));
        }
    }
}

fn log_of(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

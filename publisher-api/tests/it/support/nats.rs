//! The real nats-server, which can be killed and comes back at the same place with what it has stored.

use std::path::PathBuf;
use std::process::Stdio;

use shared::bus::{self, BusConfig, BusServer};
use shared::drain::Drain;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::eventually;

/// A nats-server with streams that are written through to the disk.
pub(crate) struct Nats {
    pub(crate) server: BusServer,
    binary: PathBuf,
    port: u16,
    folder: TempDir,
    child: Child,
}

impl Nats {
    /// `None`: this run has no nats-server, which was said.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let Some(binary) = std::env::var_os("MC_TEST_NATS_SERVER").map(PathBuf::from) else {
            eprintln!("left to a run with MC_TEST_NATS_SERVER: {test}");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let store = folder.path().join("streams");
        let config = format!("jetstream {{ store_dir: {store:?}, sync_interval: always }}\n");
        std::fs::write(folder.path().join("nats.conf"), config).unwrap();
        let (mut child, port) = (launch(&binary, &folder, "-1"), std::cell::Cell::new(0));
        let ports = folder.path().join(format!("nats-server_{}.ports", child.id().unwrap()));
        eventually("nats-server listens", || {
            assert!(child.try_wait().unwrap().is_none(), "nats-server ended");
            let Ok(text) = std::fs::read(&ports) else { return false };
            let Ok(ports) = serde_json::from_slice::<serde_json::Value>(&text) else { return false };
            let url = ports["nats"][0].as_str().unwrap_or_default();
            port.set(url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0));
            port.get() > 0
        })
        .await;
        let port = port.get();
        let config = BusConfig { url: format!("nats://127.0.0.1:{port}"), ..BusConfig::default() };
        let server = bus::provide(&config, &Drain::new()).await.unwrap();
        Some(Self { server, binary, port, folder, child })
    }

    /// Kills it, without a word to anybody.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Brings it back.
    pub(crate) fn restart(&mut self) {
        self.child = launch(&self.binary, &self.folder, &self.port.to_string());
    }
}

fn launch(binary: &PathBuf, folder: &TempDir, port: &str) -> Child {
    Command::new(binary)
        .args(["--addr", "127.0.0.1", "--port", port, "--ports_file_dir"])
        .arg(folder.path())
        .arg("--config")
        .arg(folder.path().join("nats.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

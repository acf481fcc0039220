//! TLS on both ports, with a client by others.

use std::path::Path;

use harness::certificate::Authority;
use harness::cluster::Cluster;
use harness::tools;
use harness::wait::soon;
use tempfile::TempDir;
use tokio::process::Command;

#[tokio::test]
async fn a_device_and_a_back_end_in_python_speak_tls_with_the_ports_themselves() {
    let Some(python) = tools::find("MC_TEST_PYTHON", "TLS on both ports") else { return };
    let folder = TempDir::new().expect("there is room for a folder");
    let authority = Authority::new(folder.path(), "authority");
    let (edge, publisher) = (authority.issue("edge"), authority.issue("publisher"));
    let cluster = Cluster::plan()
        .edge(|config| (config.tls.cert, config.tls.key) = (edge.cert, edge.key))
        .publisher(|config| (config.tls.cert, config.tls.key) = (publisher.cert, publisher.key))
        .start()
        .await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/through_proxy.py");
    let ports = [cluster.edge(0), cluster.publisher_address(0)].map(|address| address.port());
    let client = Command::new(python)
        .arg(script)
        .args(ports.map(|port| format!("localhost:{port}")))
        .arg(&authority.file)
        .args(["user-1001", "1001"])
        .kill_on_drop(true)
        .status();
    let status = soon("the Python client ends", client).await.expect("Python can be started");
    assert!(status.success(), "{status}");
    cluster.end().await;
}

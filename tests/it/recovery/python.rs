//! A client in another language, written from the documentation alone, recovers through a kill of everything.

use std::path::Path;
use std::process::Stdio;

use harness::alone::Alone;
use harness::device::PATH;
use harness::tools;
use harness::wait::soon;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn a_python_client_reconnects_with_its_last_id_and_misses_nothing() {
    let Some(python) = tools::find("MC_TEST_PYTHON", "a device in Python that recovers") else { return };
    let mut alone = Alone::start().await;
    let mut client = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/recover.py"))
        .arg("user-1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python can be started");
    let mut addresses = client.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut line = async || {
        let line = soon("a line of the Python client", lines.next_line()).await.expect("it is text");
        line.expect("the Python client goes on")
    };
    let address = |alone: &Alone| format!("ws://{}{PATH}\n", alone.edge());
    addresses.write_all(address(&alone).as_bytes()).await.expect("the client reads");
    assert_eq!(line().await, "subscribed");
    alone.publish(1, 1..=3).await;
    for number in 1..=3 {
        assert_eq!(line().await, format!("message {number}"));
    }
    alone.kill().await;
    assert_eq!(line().await, "gone");
    alone.start_again(&[]).await;
    alone.publish(0, 4..=6).await;
    addresses.write_all(address(&alone).as_bytes()).await.expect("the client reads");
    assert_eq!(line().await, "recovered");
    for number in 4..=6 {
        assert_eq!(line().await, format!("message {number}"));
    }
    alone.publish(1, [7]).await;
    assert_eq!(line().await, "message 7");
    drop(addresses);
    // The client leaves when it gets no further address; it asks for one after each connection has ended.
    alone.kill().await;
    assert_eq!(line().await, "gone");
    assert!(soon("the Python client ends", client.wait()).await.expect("it is our child").success());
    alone.business.stop().await;
}

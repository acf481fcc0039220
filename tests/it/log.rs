//! A log that nobody reads, and the amount of log that an outage causes.

use std::net::SocketAddr;
use std::process::Stdio;

use harness::alone::Alone;
use harness::device::Device;
use harness::program::binary;
use harness::publisher::Publisher;
use harness::raw;
use harness::wait::{eventually, soon};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// Starts all parts in one process that logs much; the test holds its standard error.
fn start() -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut command = Command::new(binary());
    command.arg("run").env_clear().env("MC_LOG__FORMAT", "json").env("MC_BUS__STORE__SYNC", "memory");
    for key in ["edge.listen", "edge.admin", "publisher_api.listen", "demo.listen"] {
        command.arg("--set").arg(format!("{key}=127.0.0.1:0"));
    }
    command.arg("--set").arg("log.filter=trace");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program can be started");
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    (child, lines)
}

/// Reads up to the lines that name the addresses, and no further.
async fn addresses<const N: usize>(
    lines: &mut Lines<BufReader<ChildStderr>>,
    messages: [&str; N],
) -> [SocketAddr; N] {
    let mut found = [None; N];
    while found.contains(&None) {
        let line = soon("a line", lines.next_line()).await.expect("it is text").expect("it still runs");
        let line: Value = serde_json::from_str(&line).expect("a line is JSON");
        for (found, message) in found.iter_mut().zip(messages) {
            if line["message"] == message {
                *found = line["address"].as_str().and_then(|address| address.parse().ok());
            }
        }
    }
    found.map(|address| address.expect("it was found"))
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let (mut child, mut lines) = start();
    let messages = ["the edge listens", "publisher-api listens", "the admin port listens"];
    let [edge, publishing, admin] = addresses(&mut lines, messages).await;
    eventually("it is ready", async || raw::get(admin, "/readyz").await.status == 200).await;
    let mut device = Device::online(edge, "user-1").await;
    let publisher = Publisher::of(publishing);
    // Nobody reads the log from here on. The process logs far more than the pipe and the queue hold.
    let mut number = 0;
    eventually("lines are dropped", async || {
        for _ in 0..20 {
            number += 1;
            publisher.publish_to(1, "user:1", &number.to_string()).await;
            device.expect_text(&number.to_string()).await;
        }
        raw::metric(admin, "mc_log_lines_lost_total", "").await > 0.0
    })
    .await;
    // Everything continues.
    Device::online(edge, "user-2").await.close().await;
    publisher.publish_to(1, "user:1", "still here").await;
    device.expect_text("still here").await;
    assert_eq!(raw::get(admin, "/livez").await.status, 200);
    device.close().await;
    let id = child.id().expect("it still runs");
    let killed = Command::new("sh").arg("-c").arg(format!("kill -TERM {id}")).status().await;
    assert!(killed.is_ok_and(|status| status.success()));
    let status = soon("it leaves", child.wait()).await.expect("it is our child");
    assert!(status.success(), "{status}");
    drop(lines);
}

#[tokio::test]
async fn an_outage_is_a_few_lines_and_not_one_for_each_login() {
    let alone = Alone::plan().set("auth_adapter.url", "http://127.0.0.1:1/check").start().await;
    for login in 0..200 {
        let mut device = Device::connect(alone.edge()).await;
        device.send(&format!("{{\"op\":\"auth\",\"token\":\"user-{login}\"}}")).await;
        device.expect_error(3).await;
    }
    let lines = alone.program.stderr();
    let complaints =
        lines.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).count();
    // In ten seconds one line of the edge and one of the adapter, and the changes of the circuit breaker.
    assert!((2..=30).contains(&complaints), "{complaints} lines\n{lines}");
    alone.end().await;
}

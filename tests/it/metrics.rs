//! `/metrics` of every part, as a scraper and an operator see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;

use harness::device::Device;
use harness::fleet::{Fleet, Over};
use harness::wait::{eventually, soon};
use harness::{raw, tools};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const DOCS: &str = include_str!("../../deploy/docs/metrics.md");

/// Causes every event that counts in the usual course of things, and some others.
async fn exercise(fleet: &Fleet) {
    let mut device = fleet.online(0, "user-1").await;
    fleet.publisher(0).publish_to(1, "user:1", "hello").await;
    device.expect_text("hello").await;
    device.send(r#"{"op":"nothing"}"#).await;
    let mut stranger = Device::connect(fleet.edge(0)).await;
    stranger.send(r#"{"op":"auth","token":"of nobody"}"#).await;
    stranger.expect_error(2).await;
    stranger.expect_close(4401).await;
    let no_socket = raw::get(fleet.edge(0), "/elsewhere").await;
    assert_ne!(no_socket.status, 200);
    fleet.publisher(0).post("no JSON").await.expect_error(200, 101);
    let mut socket =
        harness::publisher::PublishingSocket::connect(fleet.publishers[0].address.expect("it listens")).await;
    socket.publish(&1.into(), "user:1", "again").await;
    assert_eq!(socket.answer().await["r"]["s"], 1);
    device.close().await;
    let edge = fleet.edges[0].admin;
    let closed = async || raw::metric(edge, "mc_edge_sessions_closed_total", "by_client").await == 1.0;
    eventually("the session's end is counted", closed).await;
    socket.close().await;
}

fn admin_ports(fleet: &Fleet) -> Vec<(&'static str, SocketAddr)> {
    let parts =
        [("edge", &fleet.edges), ("publisher-api", &fleet.publishers), ("auth-adapter", &fleet.adapters)];
    let parts = parts.iter().flat_map(|(part, members)| members.iter().map(|member| (*part, member.admin)));
    parts.chain(fleet.bus.iter().map(|bus| ("bus", bus.admin))).collect()
}

/// The type of each metric family in Prometheus text.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// The type of each metric with a row in the documentation.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.filter_map(|(name, rest)| Some((name, rest.split(" | ").next()?))).collect()
}

#[tokio::test]
async fn every_metric_of_every_part_has_its_row_in_the_documentation() {
    let fleet = Fleet::plan(Over::Bus).start().await;
    exercise(&fleet).await;
    let documented = documented();
    for (part, admin) in admin_ports(&fleet) {
        let text = raw::get(admin, "/metrics").await.body;
        let build = format!("mc_build_info{{version=\"{}\",part=\"{part}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
        for (name, kind) in types(&text) {
            assert_eq!(documented.get(name), Some(&kind), "{name} of {part} in deploy/docs/metrics.md");
        }
    }
    let edge = fleet.edges[0].admin;
    for (name, label, count) in [
        ("mc_edge_logins_total", "unknown", 1.0),
        ("mc_edge_deliveries_total", "accepted", 2.0),
        ("mc_edge_login_duration_seconds_count", "", 2.0),
        ("mc_edge_refusals_total", "", 1.0),
        ("mc_bus_connected", "part=\"edge\"", 1.0),
    ] {
        assert_eq!(raw::metric(edge, name, label).await, count, "{name} {label}");
    }
    let publisher = fleet.publishers[0].admin;
    for (name, label, count) in [
        ("mc_publisher_messages_total", "", 2.0),
        ("mc_publisher_message_bytes_total", "", 10.0),
        ("mc_publisher_receipts_total", "complete=\"true\"", 2.0),
        ("mc_publisher_receipt_duration_seconds_count", "", 2.0),
        ("mc_publisher_publish_duration_seconds_count", "", 2.0),
    ] {
        assert_eq!(raw::metric(publisher, name, label).await, count, "{name} {label}");
    }
    fleet.end().await;
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let fleet = Fleet::plan(Over::Bus).start().await;
    let admin = fleet.edges[0].admin;
    let plain = raw::get(admin, "/metrics").await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!plain.body.contains("# EOF"));
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\
         Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2\r\n\r\n"
    );
    let open = raw::exchange(admin, request.as_bytes()).await;
    let kind = open.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(open.body.ends_with("# EOF\n"));
    fleet.end().await;
}

#[tokio::test]
async fn promtool_finds_no_fault_with_any_part() {
    let Some(promtool) = tools::find("MC_TEST_PROMTOOL", "promtool_finds_no_fault_with_any_part") else {
        return;
    };
    let fleet = Fleet::plan(Over::Bus).start().await;
    exercise(&fleet).await;
    for (part, admin) in admin_ports(&fleet) {
        let text = raw::get(admin, "/metrics").await.body;
        let mut check = Command::new(&promtool);
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = check.kill_on_drop(true).spawn().expect("promtool can be started");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(text.as_bytes()).await.expect("promtool reads");
        drop(stdin);
        let output = soon("promtool ends", child.wait_with_output()).await.expect("promtool ends");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{part}: {}", String::from_utf8_lossy(&said));
    }
    fleet.end().await;
}

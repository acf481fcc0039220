//! The load tool as an operator runs it: a small run in every mode, and its messages when something is wrong.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use harness::cluster::Cluster;
use harness::device::Received;
use harness::fleet::{Fleet, Over};
use harness::program::binary;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Bound of a run: up to seven processes start, wait for heartbeats and publish for a second, on a busy
/// machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// Exit code and output of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn start(line: &str) -> Child {
    let mut command = Command::new(binary());
    command.arg("bench").args(line.split_whitespace()).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("the program can be started")
}

async fn end(tool: Child) -> Ran {
    let output =
        timeout(DEADLINE, tool.wait_with_output()).await.expect("the tool ends").expect("it is our child");
    let text = |bytes| String::from_utf8(bytes).expect("the tool writes UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn bench(line: &str) -> Ran {
    end(start(line)).await
}

const LONG: &str =
    "--sessions 50 --processes 2 --ramp 0 --idle 0s --rate 200 --duration 60s --settle 2s --json -";
const SMALL: &str =
    "--sessions 50 --processes 2 --ramp 0 --idle 0s --rate 200 --in-flight 8 --duration 1s --json -";

/// Runs the tool and expects success; returns the accepted publishes and the deliveries.
async fn good(line: &str) -> (u64, u64) {
    let ran = bench(&format!("{SMALL} {line}")).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = ran.report();
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {report:#}"))
    };
    assert_eq!((number("/version"), number("/sessions/open")), (1, 50), "{report:#}");
    for wrong in ["lost", "duplicates", "reordered", "foreign"] {
        assert_eq!(number(&format!("/delivery/{wrong}")), 0, "{wrong} in {report:#}");
    }
    let (accepted, received) = (number("/publishing/accepted"), number("/delivery/received"));
    // On a busy machine an edge may report its counts too late: then the answer says so, and counts less.
    let (counted, incomplete) = (number("/publishing/counted"), number("/publishing/incomplete"));
    assert!(
        counted == received || (incomplete > 0 && counted < received),
        "what was counted arrived: {report:#}"
    );
    assert_eq!(number("/publishing/answer/count"), accepted);
    assert_eq!(number("/delivery/latency/count"), received);
    assert!(number("/delivery/latency/max_us") > 0 && number("/sessions/login/count") == 50, "{report:#}");
    if std::path::Path::new("/proc/self/stat").exists() {
        assert!(report["server"]["cpu_seconds_per_million_deliveries"].is_number(), "{report:#}");
        assert!(report["server"]["resident_bytes_per_idle_session"].is_number(), "{report:#}");
    }
    assert!(
        ran.stderr.contains("publish to delivery"),
        "the table goes where the JSON does not: {}",
        ran.stderr
    );
    (accepted, received)
}

#[tokio::test]
async fn an_open_loop_over_http_reaches_each_users_sessions_once() {
    let (accepted, received) = good("--spawn standalone --users 25").await;
    assert_eq!((accepted, received), (200, 400), "each user has two sessions");
}

#[tokio::test]
async fn an_open_loop_over_websocket_reaches_all_sessions_of_parts_run_apart() {
    let (accepted, received) = good("--spawn apart --via ws --fanout broadcast").await;
    assert_eq!((accepted, received), (200, 200 * 50));
}

#[tokio::test]
async fn a_closed_loop_over_http_publishes_as_fast_as_it_is_answered() {
    let (accepted, received) = good("--spawn apart --mode closed --users 1 --payload 1000").await;
    assert!(accepted > 8, "more than once each: {accepted}");
    assert_eq!(received, accepted * 50);
}

#[tokio::test]
async fn a_closed_loop_over_websocket_publishes_as_fast_as_it_is_answered() {
    let (accepted, received) = good("--spawn standalone --mode closed --via ws").await;
    assert!(accepted > 8 && received == accepted, "{accepted}, {received}");
}

#[tokio::test]
async fn sessions_with_ids_receive_stored_messages_once_and_in_order() {
    for store in ["memory", "strict", "relaxed"] {
        let (accepted, received) = good(&format!("--spawn standalone --store {store} --recover")).await;
        assert_eq!((accepted, received), (200, 200), "{store}");
    }
    let (accepted, received) =
        good("--spawn apart --store memory --recover --via ws --fanout broadcast").await;
    assert_eq!((accepted, received), (200, 200 * 50));
}

/// The flags for a server that already runs.
fn server(edge: SocketAddr, publisher: SocketAddr) -> String {
    let pid = std::process::id();
    format!("--url ws://{edge}/message-center --publish http://{publisher} --pid {pid}")
}

#[tokio::test]
async fn a_server_that_runs_already_is_measured_by_its_process() {
    let cluster = Cluster::start().await;
    let flags = server(cluster.edge(0), cluster.publisher_address(0));
    let (accepted, received) = good(&flags).await;
    assert_eq!((accepted, received), (200, 200));

    let ran = bench(&format!("{SMALL} {flags} --fanout broadcast")).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("needs a rule") && ran.stderr.contains("@broadcast"), "{ran:?}");

    let ran = bench(&format!("{SMALL} {flags} --token-template stranger-{{uid}}")).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("does not know these tokens"), "{ran:?}");
    cluster.end().await;
}

#[tokio::test]
async fn where_no_server_is_the_tool_says_so() {
    let ran = bench("--url ws://127.0.0.1:1/ --sessions 4 --json -").await;
    assert_eq!(ran.code, Some(69), "{ran:?}");
    assert!(ran.stderr.contains("Is a message center there?"), "{ran:?}");
    let ran = bench("--pid 4294967295").await;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    assert!(ran.stderr.contains("no such process"), "{ran:?}");
    let ran = bench("--sessions 1000000 --processes 1").await;
    assert!(ran.code == Some(64) && ran.stderr.contains("--processes"), "{ran:?}");
}

/// Starts a fleet, and a tool that would publish to the fleet for a minute.
async fn publishing() -> (Fleet, Child) {
    let fleet = Fleet::plan(Over::Bus).start().await;
    let mut witness = fleet.online(0, "user-1").await;
    let flags = server(fleet.edge(0), fleet.publishers[0].address.expect("publishers listen"));
    let tool = start(&format!("{LONG} {flags}"));
    let heard = witness.next().await;
    assert!(matches!(&heard, Received::Text(text) if text.starts_with("mcb1 ")), "{heard:?}");
    (fleet, tool)
}

#[tokio::test]
async fn a_signal_ends_a_run_early_with_a_report() {
    let (fleet, tool) = publishing().await;
    let pid = tool.id().expect("it runs");
    let killed = Command::new("sh").arg("-c").arg(format!("kill -INT {pid}")).status().await.unwrap();
    assert!(killed.success());
    let ran = end(tool).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = ran.report();
    assert_eq!(
        (&report["stopped_early"], &report["faults"]),
        (&Value::from(true), &Value::from(Vec::<Value>::new()))
    );
    assert!(report["delivery"]["received"].as_u64().is_some_and(|received| received > 0), "{report:#}");
    fleet.end().await;
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_run_with_a_report_that_says_so() {
    let (mut fleet, tool) = publishing().await;
    fleet.expect_errors();
    fleet.edges.remove(0).program.kill().await;
    let ran = end(tool).await;
    assert_eq!(ran.code, Some(69), "{ran:?}");
    let report = ran.report();
    let faults = report["faults"].to_string();
    assert!(faults.contains("the server went away") && faults.contains("50 sessions ended"), "{report:#}");
    fleet.end().await;
}

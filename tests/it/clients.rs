//! Clients by others: Python's websockets, and a page in a real browser.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use axum::response::Html;
use harness::cluster::Cluster;
use harness::fleet::{Fleet, Over};
use harness::link::Link;
use harness::tools;
use harness::wait::{eventually, soon};
use shared::drain::Drain;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// The text published to every client.
const MESSAGE: &str = "{\"event\":\"@user\",\"data\":{\"msg\":\"Grüße, \u{1f30d}\"}}";

#[tokio::test]
async fn a_python_client_logs_in_subscribes_and_receives() {
    let Some(python) = tools::find("MC_TEST_PYTHON", "a device in Python") else { return };
    let cluster = Cluster::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/device.py");
    let mut client = Command::new(python)
        .arg(script)
        .arg(format!("ws://{}{}", cluster.edge(0), harness::device::PATH))
        .arg("user-1001")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python can be started");
    let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut line = async || soon("a line of the Python client", lines.next_line()).await.expect("it is text");
    assert_eq!(line().await.as_deref(), Some("subscribed"));
    cluster.publisher(0).publish_to(1, "user:1001", MESSAGE).await;
    assert_eq!(line().await, Some(format!("received {MESSAGE}")));
    let status = soon("the Python client ends", client.wait()).await.expect("it is our child");
    assert!(status.success(), "{status}");
    cluster.end().await;
}

#[tokio::test]
async fn a_page_from_another_origin_logs_in_subscribes_and_receives_in_a_real_browser() {
    let Some(chromium) = tools::find("MC_TEST_CHROMIUM", "a page in a real browser") else { return };
    let cluster = Cluster::start().await;
    let (reports, drain) = (Reports::default(), Drain::new());
    let page = include_str!("../clients/device.html");
    let page = serve_page(page, cluster.edge(0), reports.clone(), &drain).await;
    let profile = tempfile::TempDir::new().expect("there is room for a folder");
    let mut browser = browse(&chromium, profile.path(), &page);
    eventually("the page has subscribed", async || reports.has("subscribed")).await;
    cluster.publisher(0).publish_to(1, "user:1001", MESSAGE).await;
    eventually("the page has received", async || reports.has(&format!("received {MESSAGE}"))).await;
    soon("the browser ends", browser.kill()).await.expect("it can be killed");
    assert_eq!(drain.finish(harness::wait::DEADLINE).await, 0);
    cluster.end().await;
}

#[tokio::test]
async fn the_sample_client_misses_nothing_through_breaks_a_drain_and_a_killed_edge() {
    let Some(chromium) = tools::find("MC_TEST_CHROMIUM", "the sample client in a real browser") else {
        return;
    };
    let mut fleet = Fleet::plan(Over::Bus).edges(3).set("edge.drain_window", "4s").start().await;
    fleet.expect_errors();
    let publisher = fleet.publisher(0);
    // The load balancer before the edges.
    let balancer = Link::to(fleet.edge(0)).await;
    let (reports, drain) = (Reports::default(), Drain::new());
    let page = include_str!("../clients/recovering.html");
    let page = serve_page(page, balancer.address(), reports.clone(), &drain).await;
    let profile = tempfile::TempDir::new().expect("there is room for a folder");
    let mut browser = browse(&chromium, profile.path(), &page);
    let publish = async |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            let answer = publisher.publish("user:1001", &number.to_string()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    eventually("the page has begun", async || reports.has("begun")).await;
    publish(1..=3).await;
    eventually("the page has received", async || reports.has("3")).await;

    // A break: the page comes back to another edge, which has the messages it missed.
    balancer.cut();
    publish(4..=6).await;
    balancer.lead_to(fleet.edge(1));
    balancer.heal();
    eventually("the page has recovered", async || reports.has("6")).await;

    // The network stops without a close: the page notices, and tries again.
    balancer.stall();
    publish(7..=9).await;
    let before = balancer.connections();
    eventually("the page opens another socket", async || balancer.connections() > before).await;
    balancer.heal();
    eventually("the page has recovered", async || reports.has("9")).await;

    // The edge leaves: the page is told, and opens the next socket before the old one ends.
    balancer.lead_to(fleet.edge(2));
    let mut leaving = fleet.edges.remove(1);
    leaving.program.signal("TERM").await;
    let mut number = 10;
    while leaving.program.is_running() {
        publish(number..=number).await;
        number += 1;
    }
    leaving.program.expect_success().await;

    // kill -9 while messages are in flight.
    balancer.lead_to(fleet.edge(0));
    publish(number..=number + 20).await;
    fleet.edges[1].program.kill().await;
    publish(number + 21..=number + 40).await;
    let last = number + 40;
    eventually("the page has everything", async || reports.has(&last.to_string())).await;
    let expected = std::iter::once("begun".to_owned()).chain((1..=last).map(|number| number.to_string()));
    assert_eq!(reports.all(), expected.collect::<Vec<_>>());

    soon("the browser ends", browser.kill()).await.expect("it can be killed");
    assert_eq!(drain.finish(harness::wait::DEADLINE).await, 0);
    balancer.stop().await;
    fleet.edges.remove(1);
    fleet.end().await;
}

/// Drives the sample client without a server, so that the test can hold each step.
#[tokio::test]
async fn the_sample_client_waits_for_its_users_handlers_and_takes_a_no_for_a_no() {
    let Some(node) = tools::find("MC_TEST_NODE", "the sample client in Node") else { return };
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new(node)
        .arg(tests.join("clients/recovering_faults.mjs"))
        .arg(tests.join("../deploy/samples/recovering-client.mjs"))
        .kill_on_drop(true)
        .output();
    let output = soon("the script ends", run).await.expect("Node can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn browse(chromium: &Path, profile: &Path, page: &str) -> Child {
    Command::new(chromium)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(page)
        .env("HOME", profile)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the browser can be started")
}

/// The reports of the page to its own server.
#[derive(Debug, Clone, Default)]
struct Reports(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Reports {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    fn has(&self, text: &str) -> bool {
        self.0.lock().expect("nobody panics with it").iter().any(|report| report == text)
    }
}

/// Serves the page at an origin of its own, and receives its reports.
async fn serve_page(page: &str, edge: SocketAddr, reports: Reports, drain: &Drain) -> String {
    let address = format!("ws://{edge}{}", harness::device::PATH);
    let page = page.replace("{{address}}", &address);
    let client = include_str!("../../deploy/samples/recovering-client.mjs");
    let script = axum::routing::get(async move || ([("content-type", "text/javascript")], client));
    let report = axum::routing::post(async move |body: String| {
        reports.0.lock().expect("nobody panics with it").push(body);
    });
    let router = axum::Router::new()
        .route("/", axum::routing::get(async move || Html(page.clone())))
        .route("/recovering-client.mjs", script)
        .route("/report", report);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let origin = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let leaving = drain.token();
    drain.spawn("reports", async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
    });
    origin
}

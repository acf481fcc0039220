//! Clients that others wrote: Python's websockets, and a page in a real browser.

use std::path::Path;
use std::process::Stdio;

use axum::response::Html;
use harness::cluster::Cluster;
use harness::tools;
use harness::wait::{eventually, soon};
use shared::drain::Drain;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

/// What is published to every client.
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
    let page = serve_page(&cluster, reports.clone(), &drain).await;
    let profile = tempfile::TempDir::new().expect("there is room for a folder");
    let mut browser = Command::new(chromium)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(page)
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the browser can be started");
    eventually("the page has subscribed", async || reports.has("subscribed")).await;
    cluster.publisher(0).publish_to(1, "user:1001", MESSAGE).await;
    eventually("the page has received", async || reports.has(&format!("received {MESSAGE}"))).await;
    soon("the browser ends", browser.kill()).await.expect("it can be killed");
    assert_eq!(drain.finish(harness::wait::DEADLINE).await, 0);
    cluster.end().await;
}

/// What the page has told its own server.
#[derive(Debug, Clone, Default)]
struct Reports(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Reports {
    fn has(&self, text: &str) -> bool {
        self.0.lock().expect("nobody panics with it").iter().any(|report| report == text)
    }
}

/// Serves the page at an origin of its own, and takes what it reports.
async fn serve_page(cluster: &Cluster, reports: Reports, drain: &Drain) -> String {
    let address = format!("ws://{}{}", cluster.edge(0), harness::device::PATH);
    let page = include_str!("../clients/device.html").replace("{{address}}", &address);
    let report = axum::routing::post(async move |body: String| {
        reports.0.lock().expect("nobody panics with it").push(body);
    });
    let router = axum::Router::new()
        .route("/", axum::routing::get(async move || Html(page.clone())))
        .route("/report", report);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let origin = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let leaving = drain.token();
    drain.spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
    });
    origin
}

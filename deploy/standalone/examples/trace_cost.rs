//! Measures what traces cost: processor time of the whole product in one process, without an exporter, with
//! the default share of traces, and with all traces.
//!
//! `cargo run --release -p standalone --example trace_cost [PUBLISHES]` (100,000 by default). Each
//! measurement runs in a child process, three times in turn. The parent process holds the collector, the
//! publisher and the devices. Every publish goes to ten sessions.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::{SinkExt as _, StreamExt as _};
use shared::config::{self, LogConfig};
use shared::drain::Drain;
use shared::telemetry;
use standalone::{Settings, Standalone};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const PUBLISHES: usize = 100_000;
const SESSIONS: usize = 10;
const ROUNDS: usize = 3;
/// The most publishes without an answer; fewer than a session's outbox holds.
const WINDOW: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve().await,
        Some(number) => measure(number.parse().context("the argument is the number of publishes")?).await,
        None => measure(PUBLISHES).await,
    }
}

async fn measure(publishes: usize) -> anyhow::Result<()> {
    let (drain, listener) = (Drain::new(), TcpListener::bind("127.0.0.1:0").await?);
    let endpoint = format!("http://{}", listener.local_addr()?);
    let leaving = drain.token();
    drain.spawn("collector", async move {
        let router = Router::new().route("/v1/traces", post(async || StatusCode::OK));
        let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
    });
    let settings =
        [("no exporter", None), ("0.01 of traces (the default)", Some("0.01")), ("all traces", Some("1"))];
    for round in 1..=ROUNDS {
        for (name, share) in settings {
            let product = Product::start(share, &endpoint)?;
            product.publish(publishes / 10).await?;
            let began = product.processor_seconds()?;
            product.publish(publishes).await?;
            let took = product.processor_seconds()? - began;
            println!(
                "round {round}, {name}: {took:.2} s for {publishes} publishes to {SESSIONS} sessions each, \
                 {:.1} s a million publishes",
                took * 1e6 / publishes as f64
            );
        }
    }
    drain.finish(Duration::from_secs(5)).await;
    Ok(())
}

/// The product in a process of its own.
struct Product {
    process: Child,
    clients: SocketAddr,
    publishing: SocketAddr,
}

impl Product {
    fn start(share: Option<&str>, endpoint: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(share) = share {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_TRACES_SAMPLER_ARG", share);
        }
        let mut process = command.spawn()?;
        let mut says = BufReader::new(process.stdout.take().context("its output")?).lines();
        let mut address = || anyhow::Ok(says.next().context("it ended")??.parse()?);
        Ok(Self { clients: address()?, publishing: address()?, process })
    }

    async fn publish(&self, publishes: usize) -> anyhow::Result<()> {
        let readers = Drain::new();
        for _ in 0..SESSIONS {
            let mut device = connect(self.clients, "message-center").await?;
            for op in [r#"{"op":"auth","token":"user-1001"}"#, r#"{"op":"subscribe","channel":"@user"}"#] {
                device.send(Message::from(op)).await?;
                let answer = device.next().await.context("the device's connection ended")??;
                ensure!(answer.to_text()? == r#"{"result":true}"#, "{answer}");
            }
            readers.spawn("reader", async move {
                let mut left = publishes;
                while left > 0
                    && let Some(Ok(frame)) = device.next().await
                {
                    left -= usize::from(frame.is_text());
                }
            });
        }
        let (mut calls, mut answers) = connect(self.publishing, "ws/v1").await?.split();
        let call =
            r#"{"m":"mesh.publish","p":{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{}}"},"i":1}"#;
        let mut sent = 0;
        for answered in 0..publishes {
            while sent < publishes && sent - answered < WINDOW {
                calls.feed(Message::from(call)).await?;
                sent += 1;
            }
            calls.flush().await?;
            let answer = answers.next().await.context("the publisher's connection ended")??;
            ensure!(answer.to_text()?.starts_with(r#"{"E":null"#), "{answer}");
        }
        let left = readers.finish(Duration::from_secs(60)).await;
        ensure!(left == 0, "{left} devices wait for messages");
        Ok(())
    }

    /// Returns user and system time in seconds; the kernel counts hundredths.
    fn processor_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("the name of the process")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / 100.0)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // The child may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn connect(address: SocketAddr, path: &str) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(tokio_tungstenite::client_async(format!("ws://localhost:{}/{path}", address.port()), stream).await?.0)
}

/// Runs the child: everything in one process, until the parent kills it.
async fn serve() -> anyhow::Result<()> {
    let log = LogConfig { filter: "warn".into(), ..LogConfig::default() };
    let _telemetry = telemetry::start(&log, "cost", &config::variables("OTEL_"))?;
    let mut settings = Settings::default();
    settings.bus.store.sync = shared::bus::Sync::Memory;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (settings.edge.listen, settings.edge.admin, settings.publisher_api.listen) = (any, any, any);
    settings.demo.listen = any;
    let standalone = Standalone::start(settings, &Drain::new()).await?;
    standalone.health.wait_ready().await;
    println!("{}\n{}", standalone.clients, standalone.publishing);
    std::io::stdout().flush()?;
    std::future::pending().await
}

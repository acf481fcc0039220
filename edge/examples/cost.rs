//! Measures what a session and a delivery cost: resident bytes per idle session, and processor time per
//! million deliveries.
//!
//! `cargo run --release -p edge --example cost [SESSIONS [tls]]` (default 5,000, without TLS; the limit of
//! open files must be above that). The edge runs in this process, with its bus. The devices are bare sockets
//! in a child process, so that only the server's costs are measured here. Each device logs in and subscribes
//! to its user's channel and to one that all devices share.
//!
//! `cargo run --release -p edge --example cost slow [SESSIONS]` (default 200) measures the memory of messages
//! that wait for devices that read nothing, by the metric and by resident bytes. Each device is sent messages
//! of 20 bytes of its own until its outbox is nearly full.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use edge::{Config, Edge};
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::ids::{Channel, MessageIds};
use shared::part::Host;
use shared::rules::{RuleConfig, Rules, default_rules};
use shared::subject;
use shared::wire::{Ask, Envelope as _, Kind, LiveMessage, Login, Verdict, VerifyReply, VerifyRequest};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

const SESSIONS: usize = 5_000;
const SLOW: usize = 200;
const DELIVERIES: usize = 1_000_000;
const PAYLOAD: &[u8] = &[b'x'; 100];
/// A payload of that length has two bytes of header.
const FRAME: usize = PAYLOAD.len() + 2;
/// Messages between two checks whether the edge keeps up.
const STEP: usize = 500;
const WAIT: Duration = Duration::from_secs(60);
const YES: &[u8] = b"\x81\x0f{\"result\":true}";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["devices", edge, number] => Box::pin(devices(edge.parse()?, number.parse()?, None)).await,
        ["devices", edge, number, authority] => {
            Box::pin(devices(edge.parse()?, number.parse()?, Some(Path::new(authority)))).await
        }
        ["slow-devices", edge, number] => slow_devices(edge.parse()?, number.parse()?).await,
        ["slow"] => measure_slow(SLOW).await,
        ["slow", sessions] => measure_slow(sessions.parse().context("a number of sessions")?).await,
        [] => measure(SESSIONS, None).await,
        [sessions] => measure(sessions.parse().context("a number of sessions")?, None).await,
        [sessions, "tls"] => {
            let site = TempDir::new()?;
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            std::fs::write(site.path().join("cert"), pair.cert.pem())?;
            std::fs::write(site.path().join("key"), pair.signing_key.serialize_pem())?;
            measure(sessions.parse().context("a number of sessions")?, Some(site.path())).await
        }
        _ => anyhow::bail!("usage: cost [SESSIONS [tls]] | slow [SESSIONS]"),
    }
}

/// Measures sessions and deliveries; over TLS if there is a folder with `cert` and `key`.
async fn measure(sessions: usize, site: Option<&Path>) -> anyhow::Result<()> {
    let (drain, rest) = (Drain::new(), Drain::new());
    let server = bus::provide(&BusConfig::default(), &rest).await?;
    let bus = Bus::connect(&server, "cost", &rest).await?;
    bus.connected(WAIT).await?;
    serve_tokens(&bus, &rest).await?;
    let edge = start(&server, site, &mut Registry::default(), &rest, &drain).await?;

    // A first round, so that one-time allocations do not count as a session's.
    drop(Devices::start(edge.local_addr(), 100, site)?);
    tokio::time::timeout(WAIT, async {
        while edge.sessions() > 0 {
            tokio::task::yield_now().await
        }
    })
    .await?;
    let before = resident_bytes()?;
    let mut devices = Devices::start(edge.local_addr(), sessions, site)?;
    ensure!(edge.sessions() == sessions, "{} of {sessions} sessions", edge.sessions());
    let after = resident_bytes()?;
    println!("{sessions} idle sessions: {} bytes resident each", (after - before) / sessions);

    let ids = MessageIds::random();
    let broadcasts = DELIVERIES / sessions;
    let took = deliver(&bus, &ids, &mut devices, broadcasts, sessions, |_| "broadcast".to_owned()).await?;
    println!("{DELIVERIES} deliveries of {broadcasts} messages to all: {took:.2} s of processor time");
    let single = DELIVERIES / 5;
    let took = deliver(&bus, &ids, &mut devices, single, 1, |n| format!("user:u{}", n % sessions)).await?;
    println!(
        "{single} messages to one session each: {took:.2} s, so {:.2} s a million (bus included)",
        took * 5.0
    );
    println!("resident after that: {} bytes a session", (resident_bytes()? - before) / sessions);

    drop(devices);
    drain.finish(WAIT).await;
    rest.finish(WAIT).await;
    Ok(())
}

/// Measures the memory of messages that wait for devices that read nothing.
async fn measure_slow(sessions: usize) -> anyhow::Result<()> {
    let (drain, rest, mut registry) = (Drain::new(), Drain::new(), Registry::default());
    let server = bus::provide(&BusConfig::default(), &rest).await?;
    let bus = Bus::connect(&server, "cost", &rest).await?;
    bus.connected(WAIT).await?;
    serve_tokens(&bus, &rest).await?;
    let edge = start(&server, None, &mut registry, &rest, &drain).await?;
    let arguments = ["slow-devices".to_owned(), edge.local_addr().to_string(), sessions.to_string()];
    let devices = Devices::run(&arguments)?;
    ensure!(edge.sessions() == sessions, "{} of {sessions} sessions", edge.sessions());
    // First come as many messages without subscribers as an edge remembers the counts of.
    let (ids, remembered) = (MessageIds::random(), Config::default().remembered_messages);
    for _ in 0..=remembered / sessions {
        publish_to_each(&bus, &ids, sessions, "nobody").await?;
    }
    let before = resident_bytes()?;
    let nearly = Config::default().outbox.as_usize() * 9 / 10;
    for round in 1.. {
        publish_to_each(&bus, &ids, sessions, "user").await?;
        if round % 50 == 0 && metric(&registry, "mc_edge_outbox_largest_bytes")? > nearly {
            break;
        }
    }
    let (told, took) = (metric(&registry, "mc_edge_outbox_bytes")?, resident_bytes()? - before);
    let frames = metric(&registry, "mc_edge_outbox_messages")?;
    println!("{frames} messages of 20 bytes wait for {sessions} sessions, {} bytes on the wire", frames * 22);
    println!("the metric says {told} bytes, resident are {took}: {:.2}", told as f64 / took as f64);
    drop(devices);
    drain.finish(WAIT).await;
    rest.finish(WAIT).await;
    Ok(())
}

/// Publishes a small message to each of so many channels, and waits until all are handled.
async fn publish_to_each(bus: &Bus, ids: &MessageIds, number: usize, kind: &str) -> anyhow::Result<()> {
    let mut last = ids.next();
    for device in 0..number {
        last = ids.next();
        let payload = Bytes::from_static(&PAYLOAD[..20]);
        let message = LiveMessage { id: last, kind: Kind::Text, payload };
        let subject = subject::live(&Channel::parse(&format!("{kind}:u{device}"))?, 1);
        bus.publish(subject, None, Some(message.headers()), message.payload).await?;
    }
    bus.request(subject::ASK, Ask { v: 1, ids: vec![last], stored: vec![] }.encode(), WAIT).await?;
    Ok(())
}

fn metric(registry: &Registry, name: &str) -> anyhow::Result<usize> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).context("a metric")?;
    Ok(line.parse()?)
}

async fn start(
    server: &bus::BusServer,
    site: Option<&Path>,
    registry: &mut Registry,
    rest: &Drain,
    drain: &Drain,
) -> anyhow::Result<Edge> {
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        // Connections are admitted as fast as they come.
        connections_per_second: 0,
        // Bytes are counted, so no ping may come in between.
        ping_interval: Duration::from_secs(3_600),
        silence: Duration::from_secs(7_200),
        stalled_after: Duration::from_secs(7_200),
        ..Config::default()
    };
    if let Some(site) = site {
        (config.tls.cert, config.tls.key) = (site.join("cert"), site.join("key"));
    }
    let mut rules = default_rules();
    let (name, channel) = ("@broadcast".into(), "broadcast".into());
    rules.push(RuleConfig { name, channel, login: false, history: false, member: None });
    let bus = Bus::connect(server, edge::PART, rest).await?;
    let (health, rules) = (Health::new(), Arc::new(Rules::compile(&rules)?));
    let host = Host { bus, health: health.clone(), registry, drain: drain.clone() };
    let edge = Edge::start(config, rules, &HistoryConfig::default(), host).await?;
    tokio::time::timeout(WAIT, health.wait_ready()).await?;
    Ok(edge)
}

/// Answers token checks: each token is the name of its user.
async fn serve_tokens(bus: &Bus, rest: &Drain) -> anyhow::Result<()> {
    let mut questions = bus.subscribe(subject::VERIFY, None, WAIT).await?;
    let (bus, leaving) = (bus.clone(), rest.token());
    rest.spawn("auth-adapter", async move {
        let answer = async {
            while let Some(question) = questions.next().await {
                let (Ok(request), Some(reply)) = (VerifyRequest::decode(&question.payload), question.reply)
                else {
                    continue;
                };
                let verdict = Verdict::Known(Login::of(request.token));
                let answer = VerifyReply { v: 1, verdict }.encode();
                if let Err(error) = bus.publish(reply, None, None, answer).await {
                    eprintln!("a login is not answered: {error}");
                }
            }
        };
        tokio::select! { () = answer => {}, () = leaving.cancelled() => {} }
    });
    Ok(())
}

/// Publishes so many messages, each for so many sessions. Returns the processor time until all have arrived.
async fn deliver(
    bus: &Bus,
    ids: &MessageIds,
    devices: &mut Devices,
    messages: usize,
    sessions: usize,
    channel: impl Fn(usize) -> String,
) -> anyhow::Result<f64> {
    let began = processor_seconds()?;
    for number in 0..messages {
        let id = ids.next();
        let message = LiveMessage { id, kind: Kind::Text, payload: Bytes::from_static(PAYLOAD) };
        let subject = subject::live(&Channel::parse(&channel(number))?, 1);
        bus.publish(subject, None, Some(message.headers()), message.payload).await?;
        if number % STEP == STEP - 1 {
            bus.request(subject::ASK, Ask { v: 1, ids: vec![id], stored: vec![] }.encode(), WAIT).await?;
        }
    }
    devices.expect(messages * sessions * FRAME)?;
    Ok(processor_seconds()? - began)
}

fn resident_bytes() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// Returns user and system time of this process; the kernel counts in hundredths of a second.
fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("the name of the process")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// The child process.
struct Devices {
    process: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Devices {
    /// Starts the child, and returns once all its devices are subscribed.
    fn start(edge: SocketAddr, number: usize, site: Option<&Path>) -> anyhow::Result<Self> {
        let mut arguments = vec!["devices".to_owned(), edge.to_string(), number.to_string()];
        arguments.extend(site.map(|site| site.join("cert").display().to_string()));
        Self::run(&arguments)
    }

    fn run(arguments: &[String]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let says = BufReader::new(process.stdout.take().context("its output")?);
        let mut devices = Self { process, says };
        devices.hear()?;
        Ok(devices)
    }

    /// Waits until so many bytes more have arrived at all devices together.
    fn expect(&mut self, bytes: usize) -> anyhow::Result<()> {
        let mut input = self.process.stdin.as_ref().context("its input")?;
        writeln!(input, "{bytes}")?;
        self.hear()
    }

    fn hear(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        ensure!(self.says.read_line(&mut line)? > 0, "the devices ended");
        Ok(())
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // The child may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the child: connects all devices and says so; then says whenever as many bytes have come as it is told
/// to expect.
async fn devices(edge: SocketAddr, number: usize, authority: Option<&Path>) -> anyhow::Result<()> {
    let (arrived, mut total) = tokio::sync::watch::channel(0_usize);
    let arrived = Arc::new(arrived);
    let tls = authority.map(connector).transpose()?;
    let tasks = TaskTracker::new();
    for device in 0..number {
        let stream = TcpStream::connect(edge).await?;
        let arrived = Arc::clone(&arrived);
        match &tls {
            None => {
                let stream = subscribed(stream, edge, device).await?;
                tasks.spawn(listen(stream, arrived));
            }
            Some(tls) => {
                let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
                let stream = subscribed(stream, edge, device).await?;
                tasks.spawn(Box::pin(listen(stream, arrived)));
            }
        }
    }
    println!("subscribed");
    let mut expected = 0;
    let mut order = String::new();
    // This blocks one thread of the runtime; the devices are read by the others meanwhile.
    while std::io::stdin().read_line(&mut order)? > 0 {
        expected += order.trim().parse::<usize>()?;
        order.clear();
        total.wait_for(|total| *total >= expected).await?;
        println!("arrived");
    }
    Ok(())
}

/// Runs the child whose devices read nothing once they are subscribed, and have small buffers for what comes.
async fn slow_devices(edge: SocketAddr, number: usize) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    for device in 0..number {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4_096)?;
        streams.push(subscribed(socket.connect(edge).await?, edge, device).await?);
    }
    println!("subscribed");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn connector(authority: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// Counts the bytes that come.
async fn listen(mut stream: impl AsyncRead + Unpin, arrived: Arc<tokio::sync::watch::Sender<usize>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        arrived.send_modify(|total| *total += bytes);
    }
}

/// Shakes hands, logs in and subscribes.
async fn subscribed<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    edge: SocketAddr,
    device: usize,
) -> anyhow::Result<S> {
    let request = format!(
        "GET /message-center HTTP/1.1\r\nHost: {edge}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    for op in [
        format!(r#"{{"op":"auth","token":"u{device}"}}"#),
        r#"{"op":"subscribe","channel":"@user"}"#.to_owned(),
        r#"{"op":"subscribe","channel":"@broadcast"}"#.to_owned(),
    ] {
        // A mask of zeros leaves the text as it is.
        let mut frame = vec![0x81, 0x80 | u8::try_from(op.len())?, 0, 0, 0, 0];
        frame.extend_from_slice(op.as_bytes());
        stream.write_all(&frame).await?;
        let mut answer = [0; YES.len()];
        stream.read_exact(&mut answer).await?;
        ensure!(answer == YES, "{}", String::from_utf8_lossy(&answer));
    }
    Ok(stream)
}

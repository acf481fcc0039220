//! What a session and a delivery cost: resident bytes per idle session, processor time per million deliveries.
//!
//! `cargo run --release -p edge --example cost [SESSIONS]` (5,000 unless said otherwise; the limit of open files must be
//! above that). The edge runs in this process, with its bus; the devices are bare sockets in a child process, so that
//! what is measured here is the server's. Each device logs in and subscribes to its user's channel and to one that all
//! have.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use edge::{Config, Edge};
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use shared::health::Health;
use shared::ids::{Channel, MessageIds};
use shared::rules::{RuleConfig, Rules, default_rules};
use shared::subject;
use shared::wire::{Ask, Envelope as _, Kind, LiveMessage, Verdict, VerifyReply, VerifyRequest};
use tokio::io::AsyncReadExt as _;
use tokio_util::task::TaskTracker;

const SESSIONS: usize = 5_000;
const DELIVERIES: usize = 1_000_000;
const PAYLOAD: &[u8] = &[b'x'; 100];
/// A payload of that length has two bytes of header.
const FRAME: usize = PAYLOAD.len() + 2;
/// Messages between two looks whether the edge keeps up.
const STEP: usize = 500;
const WAIT: Duration = Duration::from_secs(60);
const YES: &[u8] = b"\x81\x0f{\"result\":true}";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("devices") => {
            let edge = arguments.next().context("an address")?.parse()?;
            devices(edge, arguments.next().context("a number")?.parse()?).await
        }
        Some(sessions) => measure(sessions.parse().context("a number of sessions")?).await,
        None => measure(SESSIONS).await,
    }
}

async fn measure(sessions: usize) -> anyhow::Result<()> {
    let (drain, rest) = (Drain::new(), Drain::new());
    let server = bus::provide(&BusConfig::default(), &rest).await?;
    let bus = Bus::connect(&server, "cost", &rest).await?;
    bus.connected(WAIT).await?;
    serve_tokens(&bus, &rest).await?;
    let edge = start(&server, &rest, &drain).await?;

    // A first round, so that what is allocated once is not counted as a session's.
    drop(Devices::start(edge.local_addr(), 100)?);
    tokio::time::timeout(WAIT, async {
        while edge.sessions() > 0 {
            tokio::task::yield_now().await
        }
    })
    .await?;
    let before = resident_bytes()?;
    let mut devices = Devices::start(edge.local_addr(), sessions)?;
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

async fn start(server: &bus::BusServer, rest: &Drain, drain: &Drain) -> anyhow::Result<Edge> {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        // Bytes are counted, and a ping has some.
        ping_interval: Duration::from_secs(3_600),
        silence: Duration::from_secs(7_200),
        ..Config::default()
    };
    let mut rules = default_rules();
    let (name, channel) = ("@broadcast".into(), "broadcast".into());
    rules.push(RuleConfig { name, channel, login: false, history: false });
    let bus = Bus::connect(server, edge::PART, rest).await?;
    let (health, rules) = (Health::new(), Arc::new(Rules::compile(&rules)?));
    let edge = Edge::start(config, rules, bus, health.clone(), &mut Registry::default(), drain).await?;
    tokio::time::timeout(WAIT, health.wait_ready()).await?;
    Ok(edge)
}

/// Says of each token that it is the name of its user.
async fn serve_tokens(bus: &Bus, rest: &Drain) -> anyhow::Result<()> {
    let mut questions = bus.subscribe(subject::VERIFY, None, WAIT).await?;
    let (bus, leaving) = (bus.clone(), rest.token());
    rest.spawn(async move {
        let answer = async {
            while let Some(question) = questions.next().await {
                let (Ok(request), Some(reply)) = (VerifyRequest::decode(&question.payload), question.reply)
                else {
                    continue;
                };
                let verdict = Verdict::Known { uid: request.token, expires_in_ms: None };
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

/// Publishes so many messages, each for so many sessions, and gives the processor time until all have arrived.
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
            bus.request(subject::ASK, Ask { v: 1, ids: vec![id] }.encode(), WAIT).await?;
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

/// User and system time of this process; the kernel counts in hundredths.
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
    /// Starts it, and returns when all its devices are subscribed.
    fn start(edge: SocketAddr, number: usize) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["devices", &edge.to_string(), &number.to_string()])
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
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child: connects, says so, and then says whenever as many bytes as it is told have come.
async fn devices(edge: SocketAddr, number: usize) -> anyhow::Result<()> {
    let (arrived, mut total) = tokio::sync::watch::channel(0_usize);
    let arrived = Arc::new(arrived);
    let tasks = TaskTracker::new();
    for device in 0..number {
        let stream = subscribed(edge, device)?;
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::TcpStream::from_std(stream)?;
        let arrived = Arc::clone(&arrived);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                arrived.send_modify(|total| *total += bytes);
            }
        });
    }
    println!("subscribed");
    let mut expected = 0;
    let mut order = String::new();
    // Blocks one thread of the runtime; the devices are read by the others meanwhile.
    while std::io::stdin().read_line(&mut order)? > 0 {
        expected += order.trim().parse::<usize>()?;
        order.clear();
        total.wait_for(|total| *total >= expected).await?;
        println!("arrived");
    }
    Ok(())
}

/// A socket that has shaken hands, logged in and subscribed.
fn subscribed(edge: SocketAddr, device: usize) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(edge)?;
    write!(
        stream,
        "GET /message-center HTTP/1.1\r\nHost: {edge}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
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
        stream.write_all(&frame)?;
        let mut answer = [0; YES.len()];
        stream.read_exact(&mut answer)?;
        ensure!(answer == YES, "{}", String::from_utf8_lossy(&answer));
    }
    Ok(stream)
}

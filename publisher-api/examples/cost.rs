//! What a publish costs on this machine: bus, publisher-api and one edge in one process, over real sockets.
//!
//! `cargo run --release -p publisher-api --example cost -- 200000`

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use prometheus_client::registry::Registry;
use publisher_api::{Config, PublisherApi};
use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::ids::MessageId;
use shared::part::Host;
use shared::rules::{Rules, default_rules};
use shared::subject::{self, Live};
use shared::wire::{Answer, Ask, Counts, EdgeState, Envelope as _, Heartbeat, LiveMessage};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let publishes: usize = match std::env::args().nth(1) {
        Some(number) => number.parse().context("the argument is the number of publishes")?,
        None => 100_000,
    };
    let drain = Drain::new();
    let server = bus::provide(&BusConfig::default(), &drain).await?;
    let edge = Bus::connect(&server, "edge", &drain).await?;
    edge.connected(PATIENCE).await?;
    serve_edge(edge, &drain).await?;

    let (health, mut registry) = (Health::new(), Registry::default());
    let bus = Bus::connect(&server, "publisher-api", &drain).await?;
    let config = Config { listen: "127.0.0.1:0".parse()?, ..Config::default() };
    let rules = Rules::compile(&default_rules())?;
    let history = HistoryConfig::default();
    let host = Host { bus, health: health.clone(), registry: &mut registry, drain: drain.clone() };
    let api = PublisherApi::start(config, &rules, &history, host).await?;
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while !health.is_ready() {
        look.tick().await;
    }

    let url = format!("ws://localhost:{}/ws/v1", api.local_addr().port());
    let stream = TcpStream::connect(api.local_addr()).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await?;
    let (mut calls, mut answers) = socket.split();
    let call = r#"{"m":"mesh.publish","p":{"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001}}"},"i":1}"#;

    let mut one_by_one = Vec::with_capacity(1_000);
    for _ in 0..1_000 {
        let began = Instant::now();
        calls.send(Message::from(call)).await?;
        expect(answers.next().await)?;
        one_by_one.push(began.elapsed());
    }
    one_by_one.sort();
    println!("one after the other: p50 {:?}, p99 {:?}", one_by_one[500], one_by_one[990]);

    let began = Instant::now();
    let send = async {
        for _ in 0..publishes {
            calls.feed(Message::from(call)).await?;
        }
        calls.flush().await?;
        anyhow::Ok(())
    };
    let receive = async {
        for _ in 0..publishes {
            expect(answers.next().await)?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(send, receive)?;
    let took = began.elapsed();
    println!(
        "{publishes} over one socket, exact counts: {took:?}, {:.0}/s",
        publishes as f64 / took.as_secs_f64()
    );
    timeout(PATIENCE, drain.finish(PATIENCE)).await?;
    Ok(())
}

fn expect(answer: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) -> anyhow::Result<()> {
    let answer = answer.context("the socket ended")??;
    anyhow::ensure!(answer.to_text()? == r#"{"E":null,"r":{"s":1,"f":0},"i":1}"#, "unexpected: {answer}");
    Ok(())
}

/// An edge with one session on every channel.
async fn serve_edge(bus: Bus, drain: &Drain) -> anyhow::Result<()> {
    let mut feed = bus.subscribe(subject::LIVE_ALL, None, bus::DEADLINE).await?;
    bus.barrier(bus::DEADLINE).await?;
    let leaving = drain.token();
    drain.spawn("edge", async move {
        let heartbeat = Heartbeat {
            v: 1,
            edge: "cost".into(),
            state: EdgeState::Serving,
            sessions: 1,
            rules: String::new(),
        };
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        let mut seen: HashMap<MessageId, Counts> = HashMap::new();
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    let _ = bus.publish(subject::HEARTBEAT, None, None, heartbeat.encode()).await;
                }
                Some(message) = feed.next() => match subject::parse_live(&message.subject) {
                    Some(Live::Message { .. }) => {
                        if let Ok(live) = LiveMessage::decode(message.headers.as_ref(), message.payload) {
                            seen.insert(live.id, Counts { sessions: 1, failed: 0 });
                        }
                    }
                    Some(Live::Ask) => if let (Ok(ask), Some(reply)) = (Ask::decode(&message.payload), message.reply) {
                        let counts = ask.ids.iter().map(|id| seen.remove(id)).collect();
                        let answer = Answer { v: 1, edge: "cost".into(), counts, stored: vec![] };
                        let _ = bus.publish(reply, None, None, answer.encode()).await;
                    },
                    None => {}
                },
                () = leaving.cancelled() => return,
            }
        }
    });
    Ok(())
}

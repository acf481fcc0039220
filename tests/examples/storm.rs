//! Measures what a storm of returning devices costs the messages of the devices that stayed.
//!
//! Thousands of recovering devices go online and away; messages are published for each while they are away.
//! Then all return at once, while messages go to a few devices that never left. Prints the latencies of those
//! messages before and during the storm.
//!
//! ```sh
//! MC_BIN=target/release/message-center cargo run --release -p tests --example storm -- 5000
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use harness::alone::{Alone, AlonePlan};
use harness::device::Device;
use harness::publisher::PublishingSocket;
use serde_json::json;
use shared::drain::Drain;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Devices that stay online.
const STAYING: u64 = 50;
/// The first user id of the devices that stay.
const FIRST_STAYING: u64 = 1_000_000;
/// Messages for each returning device.
const NEWS: u64 = 10;
/// Live messages per second.
const RATE: u64 = 200;
/// Length of the calm phase.
const CALM: Duration = Duration::from_secs(10);
/// Longest duration of a storm.
const STORM: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let devices = std::env::args().nth(1).map_or(Ok(5_000), |count| count.parse());
    let devices: u64 = devices.context("the argument is how many devices come back, e.g. 5000")?;
    let alone = raised(Alone::plan()).start().await;
    let drain = Drain::new();
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    for user in FIRST_STAYING..FIRST_STAYING + STAYING {
        let (device, _) = Device::back(alone.edge(), &format!("user-{user}"), "").await;
        drain.spawn("device", stay(device, Arc::clone(&latencies), began, drain.clone()));
    }
    let ids = go_online(&alone, devices).await;
    eprintln!("{devices} devices were online and are gone; there is news for each");
    let publisher = alone.publisher();
    for number in 0..NEWS {
        for user in 1..=devices {
            let answer = publisher.publish(&format!("user:{user}"), &format!("news {number}")).await;
            anyhow::ensure!(answer.counts().is_some(), "{answer:?}");
        }
    }

    let calm = CancellationToken::new();
    let live = live(&alone, began, &calm);
    let wait = async {
        tokio::time::sleep(CALM).await;
        calm.cancel();
    };
    let (sent, ()) = tokio::join!(live, wait);
    report("in the calm", sent?, &latencies);

    let over = CancellationToken::new();
    let storm = async {
        let storm = Instant::now();
        let (took, most) = tokio::join!(come_back(&alone, ids, &over), most_replays(&alone, &over));
        (took, storm.elapsed(), most)
    };
    let ((mut took, lasted, most), sent) = tokio::join!(storm, self::live(&alone, began, &over));
    report("in the storm", sent?, &latencies);
    took.sort_unstable();
    println!(
        "{devices} devices came back within {:.1} s, each with {NEWS} messages: half within {:.2} s; \
         at most {most} replays at once",
        lasted.as_secs_f64(),
        percentile(&took, 50.0).as_secs_f64(),
    );
    println!("closed for being slow: {}", alone.metric("mc_edge_sessions_closed_total", "4503").await);
    anyhow::ensure!(drain.finish(Duration::from_secs(10)).await == 0, "devices are left");
    alone.end().await;
    Ok(())
}

/// Raises the limits that a storm from one address would reach before the edge's own.
fn raised(plan: AlonePlan) -> AlonePlan {
    plan.set("edge.max_handshakes", 65_536)
        .set("edge.connections_per_second", 0)
        .set("edge.connections_per_second_per_address", 0)
        .set("edge.sessions_per_address", 0)
        .set("auth_adapter.max_waiting", 65_536)
        .set("edge.drain_window", "1s")
}

/// Brings all devices online for a moment; returns each device's position.
async fn go_online(alone: &Alone, devices: u64) -> Vec<(u64, String)> {
    let online = futures_util::stream::iter(1..=devices).map(async |user| {
        let (device, recovery) = Device::back(alone.edge(), &format!("user-{user}"), "").await;
        drop(device);
        (user, recovery.id)
    });
    online.buffer_unordered(64).collect().await
}

/// Lets all devices return at once; returns how long each took to receive its messages.
async fn come_back(alone: &Alone, ids: Vec<(u64, String)>, over: &CancellationToken) -> Vec<Duration> {
    let began = Instant::now();
    let back = ids.into_iter().map(async |(user, id)| {
        let mut device = Device::recovered(alone.edge(), &format!("user-{user}"), &id).await;
        device.expect_messages((0..NEWS).map(|number| format!("news {number}"))).await;
        (device, began.elapsed())
    });
    let back = tokio::time::timeout(STORM, futures_util::future::join_all(back)).await;
    over.cancel();
    let (devices, took): (Vec<_>, Vec<_>) = back.expect("the storm ends").into_iter().unzip();
    drop(devices);
    took
}

/// The largest number of replays in progress.
async fn most_replays(alone: &Alone, over: &CancellationToken) -> f64 {
    let mut most = 0.0_f64;
    let mut looks = interval(Duration::from_millis(50));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !over.is_cancelled() {
        looks.tick().await;
        most = most.max(alone.metric("mc_edge_replays", "").await);
    }
    most
}

/// Publishes at a constant rate to the devices that stay, whatever the answers; returns the number of
/// messages.
async fn live(alone: &Alone, began: Instant, over: &CancellationToken) -> anyhow::Result<u64> {
    let mut socket = PublishingSocket::connect(alone.publisher_address()).await;
    let mut ticks = interval(Duration::from_micros(1_000_000 / RATE));
    let (mut sent, mut answered) = (0, 0);
    while !over.is_cancelled() || answered < sent {
        tokio::select! {
            _ = ticks.tick(), if !over.is_cancelled() => {
                let user = FIRST_STAYING + sent % STAYING;
                let text = began.elapsed().as_nanos().to_string();
                socket.publish(&json!(sent), &format!("user:{user}"), &text).await;
                sent += 1;
            }
            answer = socket.answer(), if answered < sent => {
                anyhow::ensure!(answer["E"].is_null(), "{answer}");
                answered += 1;
            }
        }
    }
    socket.close().await;
    Ok(sent)
}

/// A device that stays, and notes the age of each message on arrival.
async fn stay(mut device: Device, latencies: Arc<Mutex<Vec<Duration>>>, began: Instant, drain: Drain) {
    loop {
        tokio::select! {
            message = device.next_quietly() => {
                let Some(message) = message else { return };
                let Ok(sent) = message.text.parse::<u64>() else { continue };
                let age = began.elapsed().saturating_sub(Duration::from_nanos(sent));
                latencies.lock().unwrap_or_else(PoisonError::into_inner).push(age);
            }
            () = drain.begun() => return,
        }
    }
}

/// Prints the figures of a phase, and clears them.
fn report(phase: &str, sent: u64, latencies: &Mutex<Vec<Duration>>) {
    let mut all = std::mem::take(&mut *latencies.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_unstable();
    println!(
        "{phase}: {sent} live messages, {} came; p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        all.len(),
        percentile(&all, 50.0).as_secs_f64() * 1e3,
        percentile(&all, 99.0).as_secs_f64() * 1e3,
        percentile(&all, 100.0).as_secs_f64() * 1e3,
    );
}

fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    // The index is at most the length of the list.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and its length")]
    let at = (last as f64 * percent / 100.0).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

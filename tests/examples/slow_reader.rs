//! A device that reads 50 KB a second recovers 20 MB without being closed; prints the progress.
//!
//! ```sh
//! MC_BIN=target/release/message-center cargo run --release -p tests --example slow_reader -- 50 20
//! ```

use std::time::{Duration, Instant};

use anyhow::Context as _;
use harness::alone::Alone;
use harness::device::Device;
use harness::link::Link;
use tokio::time::interval;

const KB: u64 = 1_000;
const MESSAGE: u64 = 50 * KB;
/// How often per second the link lets bytes pass.
const STEPS: u64 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = |usual| arguments.next().unwrap_or(Ok(usual)).context("usage: KB-A-SECOND MEGABYTES");
    let (pace, megabytes) = (next(50)? * KB, next(20)?);
    let messages = megabytes * KB * KB / MESSAGE;
    let alone = Alone::plan().set("history.per_channel", messages + 1_000).start().await;
    let (device, begin) = alone.begin().await;
    device.close().await;
    let publisher = alone.publisher();
    for number in 0..messages {
        let text = format!("{number:>8} {}", "x".repeat(usize::try_from(MESSAGE)?));
        let answer = publisher.publish("user:1", &text).await;
        anyhow::ensure!(answer.counts().is_some(), "{answer:?}");
    }
    let link = Link::to(alone.edge()).await;
    let began = Instant::now();
    let mut device = Device::recovered(link.address(), "user-1", &begin).await;
    let mut taken = 0;
    let mut steps = interval(Duration::from_millis(1_000 / STEPS));
    // This live message comes after the replay.
    alone.publish(1, [0]).await;
    while taken < messages {
        tokio::select! {
            _ = steps.tick() => link.limit(pace / STEPS),
            message = device.next_quietly() => {
                let message = message.context("the edge closed a slow reader")?;
                anyhow::ensure!(message.text.starts_with(&format!("{taken:>8} ")), "not in order at {taken}");
                taken += 1;
                if taken % 40 == 0 {
                    eprintln!("{taken} of {messages} after {:.0} s", began.elapsed().as_secs_f64());
                }
            }
        }
    }
    link.heal();
    device.expect_message("0").await;
    println!(
        "{megabytes} MB in {messages} messages at {} KB/s: recovered in {:.0} s, in order and whole, then live",
        pace / KB,
        began.elapsed().as_secs_f64(),
    );
    device.close().await;
    link.stop().await;
    alone.end().await;
    Ok(())
}

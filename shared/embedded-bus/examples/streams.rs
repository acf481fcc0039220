//! The cost of a stored message: `cargo run --release -p embedded-bus --example streams`.
//!
//! Publishes 200 bytes to one of 100,000 subjects, without and with live copies, through async-nats over a
//! loopback socket in this one process: one at a time, and a thousand in flight. Then fills a stream and
//! prints the memory of the process per message and per subject. Memory is read from /proc, so the example is
//! for Linux.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use embedded_bus::{Config, EmbeddedBus, StreamsConfig};
use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SUBJECTS: usize = 100_000;
const PAYLOAD: usize = 200;

/// Bytes of memory that this process has in use.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0
}

async fn make(client: &async_nats::Client, name: &str, copies: &str) -> Result<(), Failure> {
    let config = format!(
        r#"{{"name":"{name}","subjects":["{name}.>"],"max_msgs_per_subject":100,"duplicate_window":20000000000{copies}}}"#
    );
    let answer = client.request(format!("$JS.API.STREAM.CREATE.{name}"), config.into()).await?;
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) }
}

/// Publishes `count` messages, `window` at a time in flight, each to the next of `subjects`. Returns messages
/// per second.
async fn publish(
    client: &async_nats::Client,
    name: &str,
    count: usize,
    window: usize,
    subjects: usize,
) -> Result<f64, Failure> {
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let begun = Instant::now();
    let failed = stream::iter(0..count)
        .map(|number| client.request(format!("{name}.user.{:06}", number % subjects), payload.clone()))
        .buffer_unordered(window)
        .filter(|answer| std::future::ready(answer.is_err()))
        .count()
        .await;
    if failed > 0 {
        return Err(format!("{failed} messages were not acknowledged").into());
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let streams = Some(StreamsConfig::default());
    let bus =
        EmbeddedBus::bind(Config { listen: "127.0.0.1:0".parse()?, streams, ..Config::default() }).await?;
    let (address, shutdown, tasks) =
        (bus.local_addr(), CancellationToken::new(), Arc::new(TaskTracker::new()));
    tasks.spawn(bus.serve(shutdown.clone()));
    let client = async_nats::connect(format!("nats://{address}")).await?;

    for (name, copies) in [("plain", ""), ("copied", r#","republish":{"src":"copied.>","dest":"live.>"}"#)] {
        make(&client, name, copies).await?;
        let one = publish(&client, name, 20_000, 1, SUBJECTS).await?;
        let many = publish(&client, name, 200_000, 1000, SUBJECTS).await?;
        println!("{name}: {one:.0} messages/s one at a time, {many:.0} messages/s with 1000 in flight");
    }

    make(&client, "filled", "").await?;
    let empty = memory();
    publish(&client, "filled", SUBJECTS, 1000, SUBJECTS).await?;
    let with_subjects = memory();
    publish(&client, "filled", 9 * SUBJECTS, 1000, SUBJECTS).await?;
    let full = memory();
    println!(
        "{:.0} bytes for a subject with one message, {:.0} for each further message, {PAYLOAD} of them payload",
        (with_subjects - empty) / SUBJECTS as f64,
        (full - with_subjects) / (9 * SUBJECTS) as f64
    );
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

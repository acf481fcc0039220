//! The cost of the store: `cargo run --release -p embedded-bus --example store_cost [folder]`.
//!
//! Publishes to streams through async-nats over a loopback socket in this one process: on the disk, strict
//! and relaxed, and in memory; one at a time, and a thousand in flight. Then stores a million messages to
//! 100,000 subjects and starts the bus anew, once after a clean end and once as after `kill -9`, on a copy of
//! the folder that was made while the bus ran.
//!
//! Memory is read from /proc, so the example is for Linux. The folder decides which disk is measured; it must
//! not exist.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use embedded_bus::{Config, DiskConfig, EmbeddedBus, ServeError, Stats, Storage, StreamsConfig, SyncMode};
use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SUBJECTS: usize = 100_000;
const MESSAGES: usize = 1_000_000;
const PAYLOAD: usize = 200;

/// Bytes of memory that this process has in use.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0
}

struct Running {
    stats: Stats,
    client: async_nats::Client,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    async fn start(storage: Storage) -> Result<Self, Failure> {
        let streams = Some(StreamsConfig { storage, ..StreamsConfig::default() });
        let bus = EmbeddedBus::bind(Config { listen: "127.0.0.1:0".parse()?, streams, ..Config::default() });
        let bus = bus.await?;
        let (address, stats, shutdown) = (bus.local_addr(), bus.stats(), CancellationToken::new());
        let task = TaskTracker::new().spawn(bus.serve(shutdown.clone()));
        let client = async_nats::connect(format!("nats://{address}")).await?;
        Ok(Self { stats, client, shutdown, task })
    }

    async fn make(&self) -> Result<(), Failure> {
        let config =
            r#"{"name":"S","subjects":["s.>"],"max_msgs_per_subject":1000,"duplicate_window":1000000000}"#;
        let answer = self.client.request("$JS.API.STREAM.CREATE.S", config.into()).await?;
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) }
    }

    /// Publishes `count` messages, `window` at a time in flight. Returns messages per second.
    async fn publish(&self, count: usize, window: usize) -> Result<f64, Failure> {
        let payload = Bytes::from(vec![b'x'; PAYLOAD]);
        let begun = Instant::now();
        let answers = stream::iter(0..count)
            .map(|number| self.client.request(format!("s.user.{:06}", number % SUBJECTS), payload.clone()))
            .buffer_unordered(window);
        let refused = |answer: &Result<async_nats::Message, _>| {
            answer.as_ref().map_or(true, |answer| answer.payload.windows(7).any(|part| part == b"\"error\""))
        };
        let failed = answers.filter(|answer| std::future::ready(refused(answer))).count().await;
        if failed > 0 {
            return Err(format!("{failed} messages were not stored").into());
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    async fn end(self) -> Result<(), Failure> {
        self.shutdown.cancel();
        Ok(self.task.await??)
    }
}

fn disk(path: &Path, sync: SyncMode) -> Storage {
    Storage::Disk(DiskConfig { path: path.to_owned(), sync, max_bytes: 10 << 30 })
}

async fn publishing(folder: &Path) -> Result<(), Failure> {
    let settings = [
        ("strict", disk(&folder.join("strict"), SyncMode::Strict)),
        ("relaxed", disk(&folder.join("relaxed"), SyncMode::Relaxed)),
        ("memory", Storage::Memory),
    ];
    for (name, storage) in settings {
        let bus = Running::start(storage).await?;
        bus.make().await?;
        let one = bus.publish(2_000, 1).await?;
        let many = bus.publish(200_000, 1000).await?;
        // The figures are updated at ticks.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (store, all) = (bus.stats.store(), bus.stats.snapshot());
        let commits = all.stream_stored as f64 / all.stream_commits.max(1) as f64;
        let sync = store.sync_micros as f64 / store.syncs.max(1) as f64 / 1000.0;
        println!(
            "{name}: {one:.0} messages/s one at a time, {many:.0} messages/s with 1000 in flight; {commits:.0} messages a \
             commit, {} syncs of {sync:.2} ms",
            store.syncs
        );
        bus.end().await?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let to = to.join(name);
        if entry.is_dir() {
            copy(&entry, &to)?;
        } else {
            std::fs::copy(&entry, &to)?;
        }
    }
    Ok(())
}

/// Starts on the stored messages, and prints the cost.
async fn restart(what: &str, folder: &Path) -> Result<(), Failure> {
    let (before, begun) = (memory(), Instant::now());
    let bus = Running::start(disk(folder, SyncMode::Strict)).await?;
    let (took, after) = (begun.elapsed(), memory());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = bus.stats.streams().first().map_or(0, |stream| stream.messages);
    println!(
        "start after {what}: {:.2} s for {found} messages; memory {:.0} MiB more, {:.0} bytes a message",
        took.as_secs_f64(),
        (after - before) / 1_048_576.0,
        (after - before) / found.max(1) as f64
    );
    bus.end().await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("store-cost"), PathBuf::from);
    // Run again by itself with one more argument, the example starts on the stored messages, in a process
    // that has measured nothing else.
    if let Some(what) = std::env::args().nth(2) {
        return restart(&what, &folder).await;
    }
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    publishing(&folder).await?;

    let filled = folder.join("filled");
    let bus = Running::start(disk(&filled, SyncMode::Strict)).await?;
    bus.make().await?;
    let empty = memory();
    bus.publish(SUBJECTS, 1000).await?;
    let with_subjects = memory();
    bus.publish(MESSAGES - SUBJECTS, 1000).await?;
    let full = memory();
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!(
        "{:.0} bytes of memory for a subject with one message, {:.0} for each further message; {:.0} bytes of the disk a \
         message, {PAYLOAD} of them payload",
        (with_subjects - empty) / SUBJECTS as f64,
        (full - with_subjects) / (MESSAGES - SUBJECTS) as f64,
        bus.stats.store().bytes as f64 / MESSAGES as f64
    );
    // The copy is what a killed process leaves.
    let killed = folder.join("killed");
    copy(&filled, &killed)?;
    bus.end().await?;
    for (what, folder) in [("a clean end", &filled), ("kill -9", &killed)] {
        let own = std::env::current_exe()?;
        std::process::Command::new(own).arg(folder).arg(what).status()?;
    }
    Ok(std::fs::remove_dir_all(&folder)?)
}

//! The memory that streams take, compared with the estimate that is bounded. Reads /proc, so it is for Linux.

#![cfg(target_os = "linux")]

mod support;

use std::fmt::Write as _;

use embedded_bus::{Config, DiskConfig, Storage, StreamsConfig, SyncMode};
use support::{Raw, Server};

/// Numbers so large that the rest of the process's memory does not show.
const CHANNELS: usize = 150_000;
const MESSAGES: usize = 400_000;
const IDS: usize = 300_000;
/// Messages in flight, few so that waiting ones take little memory.
const CHUNK: usize = 2_000;

/// Bytes of memory that this process has in use.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of kB") * 1024.0
}

struct Filling {
    server: Server,
    client: Raw,
    stored: u64,
}

impl Filling {
    async fn start(storage: Storage) -> Self {
        let streams = Some(StreamsConfig { storage, ..StreamsConfig::default() });
        let server = Server::with(Config { streams, ..Config::default() }).await;
        let client = server.raw().await;
        let mut this = Self { server, client, stored: 0 };
        // Allocations that are made only once come before the measurement.
        this.fill("WARM", 10 * CHUNK, |number| (format!("WARM.{}", number % 10), None)).await;
        this
    }

    /// Publishes to a new stream. Returns the growth of the memory and of the estimate.
    async fn fill(
        &mut self,
        name: &str,
        count: usize,
        message: impl Fn(usize) -> (String, Option<String>),
    ) -> (f64, f64) {
        let config = format!(
            r#"{{"name":"{name}","subjects":["{name}.>"],"max_msgs_per_subject":1000,"duplicate_window":600000000000}}"#
        );
        let create = format!("PUB $JS.API.STREAM.CREATE.{name} {}\r\n{config}\r\n", config.len());
        self.client.send(create).await;
        self.client.sync("").await;
        let (before, counted) = (resident(), self.counted().await);
        for begin in (0..count).step_by(CHUNK) {
            let mut text = String::new();
            for number in begin..begin + CHUNK {
                let (subject, id) = message(number);
                match id {
                    None => write!(text, "PUB {subject} 1\r\nx\r\n"),
                    Some(id) => {
                        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
                        let (head, all) = (headers.len(), headers.len() + 1);
                        write!(text, "HPUB {subject} {head} {all}\r\n{headers}x\r\n")
                    }
                }
                .expect("a text takes everything");
            }
            self.client.send(text).await;
            self.client.sync("").await;
            self.stored += CHUNK as u64;
            let stored = self.stored;
            self.server.until(|stats| stats.stream_stored == stored).await;
        }
        (resident() - before, self.counted().await - counted)
    }

    /// Returns the estimate, once it includes everything that was stored.
    async fn counted(&self) -> f64 {
        let mut last = u64::MAX;
        let began = std::time::Instant::now();
        loop {
            assert!(began.elapsed() < support::DEADLINE, "the estimate does not come to rest");
            let all: u64 = self.server.stats.streams().iter().map(|stream| stream.last_seq).sum();
            let bytes = self.server.stats.memory().bytes;
            if all == self.stored && bytes == last {
                return bytes as f64;
            }
            last = bytes;
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
    }
}

/// What takes memory beside the bytes of a message.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Channels,
    Messages,
    Ids,
}

const KINDS: [Kind; 3] = [Kind::Channels, Kind::Messages, Kind::Ids];

/// Fills a bus with one kind. Prints bytes each, real and counted, for [`measured_alone`].
async fn measure(storage: Storage, kind: Kind) {
    let mut filling = Filling::start(storage).await;
    let (count, (real, counted)) = match kind {
        Kind::Channels => {
            (CHANNELS, filling.fill("CHANNELS", CHANNELS, |n| (format!("CHANNELS.user.{n:07}"), None)).await)
        }
        Kind::Messages => {
            (MESSAGES, filling.fill("MESSAGES", MESSAGES, |n| (format!("MESSAGES.{}", n % 600), None)).await)
        }
        Kind::Ids => {
            let with_id = |n| (format!("IDS.{}", n % 10), Some(format!("id-{n:016}")));
            (IDS, filling.fill("IDS", IDS, with_id).await)
        }
    };
    println!("measured {} {}", real / count as f64, counted / count as f64);
    filling.server.stop().await;
}

/// Measures in a process of its own: memory that an earlier filling freed stays with the allocator, and a
/// later one would grow into it unseen. Returns bytes each, real and counted.
fn measured_alone(storage: &str, kind: Kind) -> (f64, f64) {
    let program = std::env::current_exe().expect("the path of this test");
    let mut command = std::process::Command::new(program);
    command.args(["--exact", "the_memory_that_is_counted_is_what_is_taken", "--nocapture"]);
    // One arena: how much of several is in use depends on which thread comes first.
    command.env("MALLOC_ARENA_MAX", "1").env(FILLING, format!("{storage} {kind:?}"));
    let output = command.output().expect("this test starts once more");
    assert!(output.status.success(), "{storage}, {kind:?}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split_once("measured ").map(|(_, rest)| rest.lines().next().unwrap_or_default());
    let numbers: Vec<f64> = numbers.unwrap_or_default().split(' ').flat_map(str::parse).collect();
    let [real, counted] = numbers[..] else { panic!("{storage}, {kind:?}: {output:?}") };
    (real, counted)
}

/// Set in the processes that [`measured_alone`] starts: the storage and the kind.
const FILLING: &str = "MC_TEST_FILLING";

/// Does in one process what `filling` says.
async fn fill_alone(filling: &str) {
    let (storage, kind) = filling.split_once(' ').expect("storage and kind");
    let kind = KINDS.into_iter().find(|known| format!("{known:?}") == kind).expect("a kind");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let disk = DiskConfig { path, sync: SyncMode::Relaxed, max_bytes: 1 << 30 };
    measure(if storage == "disk" { Storage::Disk(disk) } else { Storage::Memory }, kind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "no configuration: this test tells itself what to fill")]
async fn the_memory_that_is_counted_is_what_is_taken() {
    if let Ok(filling) = std::env::var(FILLING) {
        return fill_alone(&filling).await;
    }
    let mut wrong = Vec::new();
    for storage in ["disk", "memory"] {
        for kind in KINDS {
            let (real, counted) = measured_alone(storage, kind);
            let figures = format!("{storage}, {kind:?}: {real:.0} bytes each, counted as {counted:.0}");
            println!("{figures}");
            if !(0.75..1.25).contains(&(counted / real)) {
                wrong.push(figures);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

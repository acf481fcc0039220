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
        loop {
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

/// Returns the filled bus, so that no memory of it is used again for another one.
async fn compare(what: &str, storage: Storage) -> Filling {
    let mut filling = Filling::start(storage).await;
    let channels =
        filling.fill("CHANNELS", CHANNELS, |number| (format!("CHANNELS.user.{number:07}"), None)).await;
    let messages =
        filling.fill("MESSAGES", MESSAGES, |number| (format!("MESSAGES.{}", number % 600), None)).await;
    let with_id = |number| (format!("IDS.{}", number % 10), Some(format!("id-{number:016}")));
    let ids = filling.fill("IDS", IDS, with_id).await;
    let growths = [("channels", CHANNELS, channels), ("messages", MESSAGES, messages), ("ids", IDS, ids)];
    for (kind, count, (real, counted)) in growths {
        let each = |bytes: f64| bytes / count as f64;
        println!("{what}, {kind}: {:.0} bytes each, counted as {:.0}", each(real), each(counted));
    }
    for (kind, _, (real, counted)) in growths {
        assert!((0.75..1.25).contains(&(counted / real)), "{what}, {kind}: {counted} for {real}");
    }
    filling
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_that_is_counted_is_what_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let on_disk =
        compare("disk", Storage::Disk(DiskConfig { path, sync: SyncMode::Relaxed, max_bytes: 1 << 30 }))
            .await;
    let in_memory = compare("memory", Storage::Memory).await;
    on_disk.server.stop().await;
    in_memory.server.stop().await;
}

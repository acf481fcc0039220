//! The cost of a delivered message: `cargo run --release -p embedded-bus --example fanout`.
//!
//! Publishes to one subscriber and then to a hundred, over loopback sockets in this one process, and prints
//! the CPU time of the whole process per delivered message. That includes the share of the raw clients, which
//! only copy bytes, and of the kernel for both ends. CPU time is read from /proc, so the example is for
//! Linux.

use std::time::{Duration, Instant};

use embedded_bus::{Config, EmbeddedBus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const PAYLOAD: usize = 128;
const DELIVERIES: usize = 2_000_000;

/// CPU time that this process has used so far, user and kernel.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field may hold blanks, but ends with the last parenthesis. A tick is a hundredth of a
    // second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

async fn connect(bus: std::net::SocketAddr, then: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(bus).await?;
    stream.write_all(format!("CONNECT {{\"verbose\":false}}\r\n{then}PING\r\n").as_bytes()).await?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"PONG\r\n") {
        stream.read_buf(&mut seen).await?;
    }
    Ok(stream)
}

/// Publishes until `subscribers` together have received [`DELIVERIES`] messages.
async fn measure(bus: std::net::SocketAddr, subscribers: usize) -> std::io::Result<()> {
    let message = format!("PUB fanout {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD));
    let delivered = format!("MSG fanout 1 {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD)).len();
    let messages = DELIVERIES / subscribers;
    let tasks = TaskTracker::new();
    let mut receiving = Vec::new();
    for _ in 0..subscribers {
        let mut stream = connect(bus, "SUB fanout 1\r\n").await?;
        receiving.push(tasks.spawn(async move {
            let (mut left, mut buffer) = (delivered * messages, vec![0; 256 << 10]);
            while left > 0 {
                left -= match stream.read(&mut buffer).await? {
                    0 => {
                        return Err(std::io::Error::other(
                            "a subscriber was cut off, the figures mean nothing",
                        ));
                    }
                    count => count,
                };
            }
            Ok::<_, std::io::Error>(())
        }));
    }
    let mut publisher = connect(bus, "").await?;
    let chunk = message.repeat(100);
    let (cpu, wall) = (cpu_time(), Instant::now());
    for _ in 0..messages / 100 {
        publisher.write_all(chunk.as_bytes()).await?;
    }
    for task in receiving {
        task.await??;
    }
    let (cpu, wall) = (cpu_time() - cpu, wall.elapsed());
    println!(
        "1 -> {subscribers:3}: {:.2} us CPU per delivered message, {:.0} delivered per second",
        cpu.as_secs_f64() * 1e6 / DELIVERIES as f64,
        DELIVERIES as f64 / wall.as_secs_f64(),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = EmbeddedBus::bind(Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() }).await?;
    let (address, stats, shutdown) = (bus.local_addr(), bus.stats(), CancellationToken::new());
    let serving = TaskTracker::new().spawn(bus.serve(shutdown.clone()));
    for subscribers in [1, 100] {
        measure(address, subscribers).await?;
    }
    shutdown.cancel();
    serving.await??;
    println!("{:#?}", stats.snapshot());
    Ok(())
}

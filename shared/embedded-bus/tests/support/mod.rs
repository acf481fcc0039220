//! A bus on a free port, and a client that speaks the protocol byte by byte.

#![expect(dead_code, unreachable_pub, reason = "each test binary uses its own part of this module")]

use std::net::SocketAddr;
use std::time::Duration;

use embedded_bus::{Config, EmbeddedBus, ServeError, Snapshot, Stats};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// No step takes that long unless something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A CONNECT as async-nats sends it.
pub const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";

/// A bus that serves.
pub struct Server {
    pub address: SocketAddr,
    pub stats: Stats,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    /// Starts a bus on a free port, unless `config` names a port.
    pub async fn with(mut config: Config) -> Self {
        if config.listen == Config::default().listen {
            config.listen.set_port(0);
        }
        let bus = EmbeddedBus::bind(config).await.expect("a free port");
        let (address, stats, shutdown) = (bus.local_addr(), bus.stats(), CancellationToken::new());
        let task = TaskTracker::new().spawn(bus.serve(shutdown.clone()));
        Self { address, stats, shutdown, task }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("connected")
    }

    pub async fn raw(&self) -> Raw {
        let mut raw = Raw::open(self.address).await;
        raw.send(CONNECT).await;
        raw.sync("").await;
        raw
    }

    /// Waits until the counters are as wanted.
    pub async fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        let seen = timeout(DEADLINE, async {
            while !wanted(&self.stats.snapshot()) {
                tick.tick().await;
            }
        });
        assert!(seen.await.is_ok(), "in vain: {:?}", self.stats.snapshot());
        self.stats.snapshot()
    }

    /// Checks that the bus still serves, and that no connection and no subscription was left behind.
    pub async fn expect_healthy(&self) {
        let mut probe = self.raw().await;
        probe.send("SUB still.alive 1\r\nPUB still.alive 2\r\nhi\r\n").await;
        probe.sync("MSG still.alive 1 2\r\nhi\r\n").await;
        drop(probe);
        self.until(|stats| stats.connections == 0 && stats.subscriptions == 0).await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task)
            .await
            .expect("the bus did not end")
            .expect("the bus panicked")
            .expect("it was told");
        assert_eq!((self.stats.snapshot().connections, self.stats.snapshot().subscriptions), (0, 0));
    }
}

/// A client without a library.
pub struct Raw {
    pub stream: TcpStream,
    pub info: String,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        let mut raw = Self { stream, info: String::new() };
        raw.info = raw.until("\r\n").await;
        assert!(raw.info.starts_with("INFO {"), "{}", raw.info);
        raw
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        timeout(DEADLINE, self.stream.write_all(text.as_ref()))
            .await
            .expect("the bus takes nothing")
            .expect("sent");
    }

    /// Returns everything up to and including `end`.
    pub async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let byte = timeout(DEADLINE, self.stream.read_u8()).await;
            let byte = byte
                .unwrap_or_else(|_| panic!("{end:?} is missing after {:?}", String::from_utf8_lossy(&seen)));
            seen.push(
                byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&seen))),
            );
        }
        String::from_utf8(seen).expect("text")
    }

    /// Sends PING and checks the bytes before its PONG.
    pub async fn sync(&mut self, expected: &str) {
        self.send("PING\r\n").await;
        self.expect(&format!("{expected}PONG\r\n")).await;
    }

    /// Checks the next bytes.
    pub async fn expect(&mut self, expected: &str) {
        let mut seen = vec![0; expected.len()];
        let read = timeout(DEADLINE, self.stream.read_exact(&mut seen)).await;
        assert!(matches!(read, Ok(Ok(_))), "{expected:?} did not come: {:?}", String::from_utf8_lossy(&seen));
        assert_eq!(String::from_utf8_lossy(&seen), expected);
    }

    /// Returns everything until the connection is closed.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        loop {
            match timeout(DEADLINE, self.stream.read_buf(&mut seen)).await.expect("it is not closed") {
                Ok(1..) => {}
                Ok(0) | Err(_) => return seen,
            }
        }
    }

    /// Checks that the bus says this error and closes.
    pub async fn expect_end(&mut self, error: &str) {
        let rest = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&rest), format!("-ERR '{error}'\r\n"));
    }
}

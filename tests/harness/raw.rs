//! Bare TCP: for half-open and slow clients, for printed commands byte by byte, and for admin ports.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::soon;

/// A connection without a protocol.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status; 0 without an answer.
    pub status: u16,
    /// Status line and headers, as received.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// The connection is refused.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a TCP connection", TcpStream::connect(address)).await;
        Self { stream: stream.unwrap_or_else(|error| panic!("connect to {address}: {error}")) }
    }

    /// Wraps an open connection.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Writes `byte` at this interval until the other side takes no more.
    ///
    /// # Panics
    /// The other side does not cut the connection.
    pub async fn trickle(&mut self, byte: u8, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        let trickle = async {
            while self.stream.write_all(&[byte]).await.is_ok() {
                ticks.tick().await;
            }
        };
        soon("the peer cuts off who sends a byte at a time", trickle).await;
    }

    /// Writes, whether or not the other side still reads.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("bytes are written", self.stream.write_all(bytes)).await;
    }

    /// Reads until the other side closes, at most 1 MiB.
    ///
    /// # Panics
    /// The other side does not close.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            // A reset is an end, too.
            while let Ok(count @ 1..) = self.stream.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..count]);
                assert!(bytes.len() < 1 << 20, "the peer does not stop");
            }
        };
        soon("the peer closes", read).await;
        bytes
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Panics
    /// Fewer bytes come.
    pub async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon("bytes come", self.stream.read_exact(&mut bytes)).await.expect("the connection stands");
        bytes
    }
}

/// Sends `request`, and reads the answer until the other side closes.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> HttpAnswer {
    let mut raw = Raw::connect(address).await;
    raw.write(request).await;
    HttpAnswer::parse(&raw.read_to_end().await)
}

/// `GET path` of an admin port or another HTTP server.
pub async fn get(address: SocketAddr, path: &str) -> HttpAnswer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

/// The value of a metric, summed over the series whose line contains `label`; an empty `label` means all.
pub async fn metric(admin: SocketAddr, name: &str, label: &str) -> f64 {
    crate::metrics::sum(&get(admin, "/metrics").await.body, name, label)
}

impl HttpAnswer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

//! A NATS connection without a client library, so that the messages in flight when the bus dies are known
//! exactly.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use harness::wait::soon;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A received message.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) subject: String,
    pub(super) headers: String,
    pub(super) payload: String,
}

impl Came {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A connection that subscribes to `_I.>`.
pub(super) struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection to the bus", TcpStream::connect(address)).await;
        let mut wire = Self { stream: BufReader::new(stream.expect("the bus listens")) };
        wire.send(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _I.> 1\r\n")
            .await;
        wire
    }

    /// Returns whether the bytes could be written.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).await.is_ok()
    }

    /// Publishes with a message id and the reply subject `_I.<reply>`. Returns whether the bytes could be
    /// written.
    pub(super) async fn publish(&mut self, subject: &str, reply: &str, id: &str, payload: &str) -> bool {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let (head, all) = (headers.len(), headers.len() + payload.len());
        self.send(format!("HPUB {subject} _I.{reply} {head} {all}\r\n{headers}{payload}\r\n").as_bytes())
            .await
    }

    /// The next message; `None`: the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Came> {
        loop {
            let mut line = String::new();
            if !matches!(self.stream.read_line(&mut line).await, Ok(1..)) {
                return None;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let number =
                |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).expect("a size");
            let (head, all) = match words.first().copied().unwrap_or_default() {
                "MSG" => (0, number(words.len() - 1)),
                "HMSG" => (number(words.len() - 2), number(words.len() - 1)),
                "PING" => {
                    self.send(b"PONG\r\n").await;
                    continue;
                }
                other => {
                    assert!(matches!(other, "INFO" | "PONG" | "+OK"), "the bus says {line}");
                    continue;
                }
            };
            let mut body = vec![0; all + 2];
            if self.stream.read_exact(&mut body).await.is_err() {
                return None;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Some(Came {
                subject: words.get(1).copied().unwrap_or_default().to_owned(),
                headers: text(&body[..head]),
                payload: text(&body[head..all]),
            });
        }
    }

    async fn expect(&mut self) -> Came {
        soon("the bus answers", self.next()).await.expect("the connection stands")
    }

    /// The answer of the stream API to a call.
    pub(super) async fn ask(&mut self, call: &str, body: &str) -> Value {
        self.send(format!("PUB $JS.API.{call} _I.call {}\r\n{body}\r\n", body.len()).as_bytes()).await;
        serde_json::from_str(&self.expect().await.payload).expect("JSON")
    }

    /// Publishes, and waits for the acknowledgement.
    pub(super) async fn store(&mut self, subject: &str, id: &str, payload: &str) -> Value {
        assert!(self.publish(subject, "one", id, payload).await, "the bus takes it");
        serde_json::from_str(&self.expect().await.payload).expect("JSON")
    }

    /// All messages of the stream `S`: message ids and payloads by sequence.
    pub(super) async fn all(&mut self) -> BTreeMap<u64, (String, String)> {
        let mut found = BTreeMap::new();
        let mut from = 1;
        loop {
            let body = format!(r#"{{"seq":{from},"batch":1000}}"#);
            self.send(format!("PUB $JS.API.DIRECT.GET.S _I.get {}\r\n{body}\r\n", body.len()).as_bytes())
                .await;
            loop {
                let came = self.expect().await;
                if came.headers.starts_with("NATS/1.0 204") {
                    break;
                }
                if came.headers.starts_with("NATS/1.0 404") {
                    return found;
                }
                let seq = came.header("Nats-Sequence").and_then(|seq| seq.parse().ok());
                let seq: u64 = seq.unwrap_or_else(|| panic!("no sequence: {came:?}"));
                let id = came.header("Nats-Msg-Id").unwrap_or_default().to_owned();
                assert!(found.insert(seq, (id, came.payload)).is_none(), "{seq} twice");
                from = seq + 1;
            }
        }
    }
}

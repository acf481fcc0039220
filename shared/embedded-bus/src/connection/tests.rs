//! A connection on one end of a pipe, with a paused clock: its timers, its end, and the gauges.

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf};

use super::*;
use crate::{Config, Credentials};

/// A client on one end of a pipe; the connection under test is on the other.
struct Client {
    bus: Arc<Bus>,
    lines: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

impl Client {
    async fn open(bus: &Arc<Bus>) -> Self {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (reader, writer) = tokio::io::split(far);
        let id = bus.stats.snapshot().connections_accepted + 1;
        add(&bus.stats.counters().connections, 1);
        add(&bus.stats.counters().connections_accepted, 1);
        bus.tasks.spawn(serve(Arc::clone(bus), id, "127.0.0.1".to_owned(), reader, writer));
        let (reader, writer) = tokio::io::split(near);
        let mut client = Self { bus: Arc::clone(bus), lines: BufReader::new(reader), writer };
        assert!(client.line().await.unwrap().starts_with("INFO {"));
        client
    }

    async fn connected(bus: &Arc<Bus>) -> Self {
        let mut client = Self::open(bus).await;
        client.send("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n").await;
        client
    }

    async fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.unwrap();
    }

    /// Returns the next line; `None` once the connection is closed.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let deadline = Duration::from_secs(3600);
        let read =
            timeout(deadline, self.lines.read_line(&mut line)).await.expect("nothing came within an hour");
        (read.unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line().await.as_deref(), Some(*line));
        }
    }

    async fn expect_end(&mut self, error: &str) {
        assert_eq!(self.line().await, Some(format!("-ERR '{error}'")));
        assert_eq!(self.line().await, None);
    }
}

fn bus(config: Config) -> Arc<Bus> {
    Arc::new(Bus::new(config, 4222))
}

fn locked() -> Arc<Bus> {
    bus(Config { credentials: Credentials::Token("secret".to_owned()), ..Config::default() })
}

/// Waits for the connections' tasks to end.
async fn ended(bus: &Bus) {
    bus.tasks.close();
    timeout(Duration::from_secs(10), bus.tasks.wait()).await.expect("a task of a connection did not end");
    assert_eq!((bus.stats.snapshot().connections, bus.stats.snapshot().subscriptions), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_is_closed_in_time() {
    let bus = locked();
    let start = Instant::now();
    let mut client = Client::open(&bus).await;
    client.send("CONN").await;
    client.expect_end("Authentication Timeout").await;
    assert_eq!(start.elapsed().as_secs(), 2);
    ended(&bus).await;
    assert_eq!(bus.stats.snapshot().authorization_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_logged_in_has_no_deadline_any_more() {
    let bus = locked();
    let mut client = Client::open(&bus).await;
    let start = Instant::now();
    client.send("CONNECT {\"auth_token\":\"secret\",\"verbose\":false}\r\n").await;
    client.expect(&["PING"]).await;
    // The first interval saw the CONNECT, the second was silent.
    assert_eq!(start.elapsed().as_secs(), 2 * 10);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_then_closed_as_stale() {
    let bus = bus(Config::default());
    let mut client = Client::connected(&bus).await;
    let start = Instant::now();
    // The first interval saw the CONNECT.
    client.expect(&["PING", "PING"]).await;
    client.expect_end("Stale Connection").await;
    assert_eq!(start.elapsed().as_secs(), 4 * 10);
    ended(&bus).await;
    assert_eq!(bus.stats.snapshot().stale_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let bus = bus(Config::default());
    let mut client = Client::connected(&bus).await;
    for _ in 0..10 {
        client.expect(&["PING"]).await;
        client.send("PONG\r\n").await;
    }
    client.send("PING\r\n").await;
    client.expect(&["PONG"]).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_tells_flushes_and_closes() {
    let bus = bus(Config::default());
    let (mut one, mut two) = (Client::connected(&bus).await, Client::connected(&bus).await);
    two.send("SUB a 1\r\nPING\r\n").await;
    two.expect(&["PONG"]).await;
    one.send("PUB a 5\r\nhello\r\nPING\r\n").await;
    one.expect(&["PONG"]).await;
    bus.leaving.cancel();
    two.expect(&["MSG a 1 5", "hello"]).await;
    for client in [&mut one, &mut two] {
        let info = client.line().await.unwrap();
        assert!(info.starts_with("INFO {") && info.contains("\"ldm\":true"), "{info}");
    }
    // A client that was told of the end is served on.
    one.send("PUB a 5\r\nworld\r\nPING\r\n").await;
    one.expect(&["PONG"]).await;
    bus.stop.cancel();
    bus.readers.close();
    bus.readers.wait().await;
    bus.flush.cancel();
    two.expect(&["MSG a 1 5", "world"]).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.line().await, None);
    }
    ended(&bus).await;
    assert_eq!(bus.stats.snapshot().messages_discarded, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_subscribed_ends_with_it() {
    let bus = bus(Config::default());
    let mut client = Client::connected(&bus).await;
    client.send("SUB a 1\r\nSUB b.* q 2\r\nSUB > 3\r\nUNSUB 1\r\nPING\r\n").await;
    client.expect(&["PONG"]).await;
    assert_eq!(client.bus.stats.snapshot().subscriptions, 2);
    drop(client);
    ended(&bus).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_connection_only_and_keeps_the_books() {
    let bus = bus(Config::default());
    add(&bus.stats.counters().connections, 1);
    let bomb = bus.tasks.spawn(serve(Arc::clone(&bus), 99, String::new(), Bomb(None), tokio::io::sink()));
    assert!(bomb.await.unwrap_err().is_panic());
    assert_eq!((bus.stats.snapshot().connection_panics, bus.broken.is_cancelled()), (1, false));
    let mut client = Client::connected(&bus).await;
    client.send("PING\r\n").await;
    client.expect(&["PONG"]).await;
    drop(client);
    ended(&bus).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_amid_a_change_of_the_subscriptions_ends_the_bus() {
    let bus = bus(Config::default());
    add(&bus.stats.counters().connections, 1);
    let bomb = Bomb(Some(Arc::clone(&bus)));
    let bomb = bus.tasks.spawn(serve(Arc::clone(&bus), 99, String::new(), bomb, tokio::io::sink()));
    bus.broken.cancelled().await;
    assert!(bomb.await.unwrap_err().is_panic());
    ended(&bus).await;
}

/// A socket that panics when it is read, while it changes the subscriptions of a bus if it has one.
struct Bomb(Option<Arc<Bus>>);

impl AsyncRead for Bomb {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let _changing = self.0.as_ref().map(|bus| bus.router_mut());
        panic!("on purpose")
    }
}

#[tokio::test(start_paused = true)]
async fn operations_before_connect_are_refused_where_credentials_are_required() {
    for text in ["PING\r\n", "SUB > 1\r\n", "PUB a 999999999\r\n", "x", "INFO {}\r\n"] {
        let bus = locked();
        let mut client = Client::open(&bus).await;
        client.send(text).await;
        client.expect_end("Authorization Violation").await;
        ended(&bus).await;
    }
}

//! A proxy between one part and its bus that understands just enough NATS to drop chosen frames.
//!
//! A TCP [`link`](crate::link) can only stop everything. Dropping one live copy of a message, as a route
//! between servers may, or the answer to one publish, needs to know where frames begin. Frames that no rule
//! chooses pass byte for byte and in order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::drain::Drain;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Largest frame, in bytes; a larger one means broken framing.
const MOST_BYTES: usize = 16 << 20;

/// A frame shown to a rule.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The control line without its end, e.g. `HMSG mc.live.0.user:1 1 20 25` or `SUB mc.live.> 1`.
    pub line: &'a str,
    /// Headers and payload; empty for a frame without them.
    pub body: &'a [u8],
}

/// Decides whether a frame is dropped.
type Rule = Box<dyn FnMut(Frame<'_>) -> bool + Send>;

/// A proxy on a port of its own.
#[derive(Debug)]
pub struct BusProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    drain: Drain,
}

struct Shared {
    target: SocketAddr,
    rule: Mutex<Rule>,
    swallowed: watch::Sender<usize>,
    /// Counts up to break every connection.
    broken: watch::Sender<u64>,
    /// Whether subscriptions of clients wait.
    held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).finish_non_exhaustive()
    }
}

impl BusProxy {
    /// Opens a proxy to the bus at `target`; at first every frame passes.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            target,
            rule: Mutex::new(Box::new(|_| false)),
            swallowed: watch::Sender::new(0),
            broken: watch::Sender::new(0),
            held: watch::Sender::new(false),
            waiting: watch::Sender::new(0),
        });
        let drain = Drain::new();
        let (all, tasks) = (Arc::clone(&shared), drain.clone());
        drain.spawn("bus-proxy", async move {
            let accept = async {
                while let Ok((client, _)) = listener.accept().await {
                    tasks.spawn("bus-proxy", carry(client, Arc::clone(&all), tasks.clone()));
                }
            };
            tokio::select! { () = accept => {}, () = tasks.begun() => {} }
        });
        Self { address, shared, drain }
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows every further message from the bus to `rule`, and drops the message if `rule` returns true.
    pub fn swallow(&self, rule: impl FnMut(Frame<'_>) -> bool + Send + 'static) {
        *self.shared.rule() = Box::new(rule);
    }

    /// Messages dropped so far.
    pub fn swallowed(&self) -> usize {
        *self.shared.swallowed.borrow()
    }

    /// Breaks every connection; new connections are accepted.
    pub fn sever(&self) {
        self.shared.broken.send_modify(|times| *times += 1);
    }

    /// Holds further subscriptions to messages back, while all else passes, until [`BusProxy::release`].
    pub fn hold_subscriptions(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets the held subscriptions pass.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Subscriptions held back now.
    pub fn waiting(&self) -> usize {
        *self.shared.waiting.borrow()
    }

    /// Stops the proxy, and waits for its tasks.
    ///
    /// # Panics
    /// A task does not end.
    pub async fn stop(self) {
        let left = self.drain.finish(Duration::from_secs(5)).await;
        assert_eq!(left, 0, "the proxy still carries");
    }
}

impl Drop for BusProxy {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

impl Shared {
    fn rule(&self) -> MutexGuard<'_, Rule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>, drain: Drain) {
    let mut broken = shared.broken.subscribe();
    let Ok(server) = TcpStream::connect(shared.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = down(server_in, client_out, &shared) => {}
        () = up(client_in, server_out, &shared) => {}
        _ = broken.changed() => {}
        () = drain.begun() => {}
    }
}

/// Carries frames from the bus to the part, except those that the rule drops.
async fn down(from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut from = BufReader::new(from);
    let mut frame = Vec::new();
    while let Some(line) = read_frame(&mut from, &mut frame).await {
        let is_message = frame.starts_with(b"MSG ") || frame.starts_with(b"HMSG ");
        let text = String::from_utf8_lossy(&frame[..line]).into_owned();
        let whole = Frame { line: text.trim_end(), body: &frame[line..] };
        if is_message && (shared.rule())(whole) {
            shared.swallowed.send_modify(|count| *count += 1);
            continue;
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Carries frames from the part to the bus. Held subscriptions to messages wait, and so does the ping that
/// proves them, since a bus takes frames in order; all other frames overtake both.
async fn up(from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut from = BufReader::new(from);
    let (mut frame, mut kept) = (Vec::new(), Vec::new());
    let mut held = shared.held.subscribe();
    loop {
        let line = {
            // Pinned over all rounds: a half-read frame must not be lost.
            let mut reading = std::pin::pin!(read_frame(&mut from, &mut frame));
            loop {
                let released = tokio::select! {
                    line = &mut reading => break line,
                    released = held.wait_for(|held| !held), if !kept.is_empty() => released.is_ok(),
                };
                let subscriptions = std::mem::take(&mut kept);
                if !released || to.write_all(&subscriptions).await.is_err() {
                    return;
                }
                shared.waiting.send_replace(0);
            }
        };
        if line.is_none() {
            return;
        }
        let waits = frame.starts_with(b"SUB mc.live.") || frame.starts_with(b"PUB mc.void.");
        if waits && *held.borrow() {
            kept.extend_from_slice(&frame);
            shared.waiting.send_modify(|count| *count += 1);
        } else if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Reads a control line and its payload; returns the length of the line. Not cancel-safe.
async fn read_frame(from: &mut BufReader<OwnedReadHalf>, frame: &mut Vec<u8>) -> Option<usize> {
    frame.clear();
    from.read_until(b'\n', frame).await.ok().filter(|count| *count > 0)?;
    let line = frame.len();
    let size = payload(&String::from_utf8_lossy(frame))?;
    if size > 0 {
        frame.resize(line + size, 0);
        from.read_exact(&mut frame[line..]).await.ok()?;
    }
    Some(line)
}

/// Number of bytes that follow a control line, line end included; 0 for a line without payload.
fn payload(line: &str) -> Option<usize> {
    let mut words = line.split_ascii_whitespace();
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    if !matches!(verb.as_str(), "MSG" | "HMSG" | "PUB" | "HPUB") {
        return Some(0);
    }
    let size: usize = words.last()?.parse().ok()?;
    (size <= MOST_BYTES).then_some(size + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_line_is_known_from_its_last_number() {
        for (line, bytes) in [
            ("PING\r\n", Some(0)),
            ("INFO {\"max_payload\":5}\r\n", Some(0)),
            ("SUB mc.live.> 7\r\n", Some(0)),
            ("MSG mc.live.0.user:1 1 5\r\n", Some(7)),
            ("MSG mc.live.0.user:1 1 reply 5\r\n", Some(7)),
            ("HMSG mc.live.0.user:1 1 12 20\r\n", Some(22)),
            ("PUB mc.ask _INBOX.1 0\r\n", Some(2)),
            ("HPUB mc.log.0.user:1 _INBOX.1 12 20\r\n", Some(22)),
            ("MSG mc.live.0.user:1 1 x\r\n", None),
            ("PUB mc.ask 99999999999\r\n", None),
        ] {
            assert_eq!(payload(line), bytes, "{line:?}");
        }
    }
}

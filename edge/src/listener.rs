//! The client port: accepts connections, bounds the handshakes under way, and makes sessions of connections
//! that upgrade.
//!
//! A connection holds a slot until it has upgraded or failed, and has a deadline however it behaves. One
//! address may hold a limited number of slots. Once all slots are taken, the address with the most yields one
//! to each of the others. A client that sends nothing yields its slot to the next client of its own address
//! as well. If there is no slot, the client is told so in a few bytes; if there are too many clients even for
//! that, the connection is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::drain::Drain;
use shared::gauge::GaugeGuard;
use shared::tls::{Acceptor, Stream};
use sockets::{Claim, NoSlot, Slot, Slots};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::admission::TooMany;
use crate::metrics::{Metrics, Refusal};
use crate::session::{self, Deps};
use crate::transport::{FrameLimits, Transport};
use crate::upgrade::{Door, Remote, Upgraded};

/// How long a client may take to read a refusal.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read of a request that is refused unread.
const REFUSED_BYTES: u64 = 16 << 10;
/// The pause when the system can't accept, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of the port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Handshakes under way at a time.
    pub(crate) handshakes: usize,
    /// Handshakes of one address under way at a time; 0: no limit.
    pub(crate) handshakes_per_address: usize,
    /// The time for the first byte.
    pub(crate) first_byte: Duration,
    /// The time for a whole handshake.
    pub(crate) timeout: Duration,
    /// Bytes in one frame from a client.
    pub(crate) frames: FrameLimits,
}

/// The deps of a connection.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) door: Door,
    pub(crate) tls: Option<Acceptor>,
    pub(crate) deps: Arc<Deps>,
    pub(crate) bounds: Bounds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
}

/// The slots of handshakes and of refusals.
#[derive(Debug)]
pub(crate) struct PortSlots {
    handshakes: Arc<Slots>,
    /// Slots for refusals that are being sent.
    refusals: Arc<Slots>,
}

impl PortSlots {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let slots = || Arc::new(Slots::new(bounds.handshakes, bounds.handshakes_per_address));
        Self { handshakes: slots(), refusals: slots() }
    }
}

/// Accepts connections until the drain begins; then the port is closed.
pub(crate) async fn serve(listener: &TcpListener, port: &Arc<Port>, slots: &PortSlots) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = port.drain.begun() => return,
        };
        match accepted {
            Ok((stream, address)) => port.take(stream, address, slots),
            Err(error) => {
                port.metrics.refused(Refusal::Accept);
                tracing::warn!(%error, "can't accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Port {
    /// Begins a handshake or refuses it, and waits for neither.
    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, slots: &PortSlots) {
        match self.admit(address, &slots.handshakes) {
            Ok((remote, slot)) => {
                let port = Arc::clone(self);
                self.drain.spawn("edge-handshake", async move { port.welcome(stream, remote, slot).await });
            }
            Err(too_many) => self.refuse(stream, address, too_many, slots),
        }
    }

    /// Admits a connection. The gate comes first, so that an address pays for refused connections, too.
    /// Clients of a proxy enter the gate once the proxy has named them; until then their slots are not taken
    /// away from the proxy.
    fn admit(&self, address: SocketAddr, slots: &Arc<Slots>) -> Result<(Remote, Slot), TooMany> {
        let gate = &self.door.gate;
        let (remote, slot) = match gate.visitor_at(address.ip()) {
            None => (Remote::Proxy(address.ip()), slots.take(address.ip().into(), false, Claim::Firm)),
            Some(visitor) => {
                gate.enter(visitor, Instant::now())?;
                let (source, limited) = (visitor.source(), visitor.is_limited());
                (Remote::Client(visitor), slots.take(source, limited, Claim::Silent))
            }
        };
        let slot = slot.map_err(|none| {
            let refusal = match none {
                NoSlot::Full => Refusal::Busy,
                NoSlot::Source => Refusal::AddressHandshakes,
            };
            TooMany::new(refusal, Duration::ZERO)
        });
        Ok((remote, slot?))
    }

    async fn welcome(&self, stream: TcpStream, remote: Remote, slot: Slot) {
        let _held = GaugeGuard::new(&self.metrics.handshakes);
        // Messages are small and must not wait; without this option they would.
        if stream.set_nodelay(true).is_err() {
            return self.metrics.refused(Refusal::Broken);
        }
        let upgraded = tokio::select! {
            upgraded = timeout(self.bounds.timeout, self.shake(stream, remote, &slot)) => {
                upgraded.unwrap_or(Err(Refusal::Slow))
            }
            () = slot.lost() => Err(Refusal::Displaced),
            () = self.drain.begun() => Err(Refusal::Leaving),
        };
        match upgraded {
            Ok(Upgraded { stream, head, member, visitor }) => {
                tracing::debug!(session = member.id(), address = %visitor.address, "a session from there");
                let transport = Transport::new(stream, &head, self.bounds.frames);
                let session = session::run(transport, member, visitor.source(), Arc::clone(&self.deps));
                self.drain.spawn("edge-session", session);
            }
            Err(refusal) => {
                tracing::debug!(?remote, ?refusal, "a connection became no session");
                self.metrics.refused(refusal);
            }
        }
    }

    /// Performs the whole handshake: the first byte, the client's turn, TLS, HTTP.
    async fn shake(&self, stream: TcpStream, remote: Remote, slot: &Slot) -> Result<Upgraded, Refusal> {
        match timeout(self.bounds.first_byte, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Err(Refusal::Broken),
            Err(_) => return Err(Refusal::Silent),
        }
        if let Remote::Client(_) = remote {
            // From here on this edge makes the client wait.
            slot.claim(Claim::Idle);
            match self.door.gate.turn(Instant::now()) {
                Ok(wait) if wait.is_zero() => {}
                Ok(wait) => sleep(wait).await,
                Err(too_many) => {
                    if self.tls.is_none() {
                        send_refusal(stream, too_many).await;
                    }
                    return Err(too_many.refusal);
                }
            }
        }
        let stream = self.secured(stream).await.ok_or(Refusal::Broken)?;
        self.door.handshake(stream, remote, slot).await
    }

    /// Returns the connection, with TLS if this port speaks it. None: the client's TLS failed.
    async fn secured(&self, stream: TcpStream) -> Option<Stream> {
        match &self.tls {
            None => Some(stream.into()),
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => Some(stream),
                Err(error) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    None
                }
            },
        }
    }

    /// Sends a refusal without reading the request. Sends nothing if too many refusals are under way, or with
    /// TLS: an answer would need the handshake that the refusal saves.
    fn refuse(&self, stream: TcpStream, address: SocketAddr, too_many: TooMany, slots: &PortSlots) {
        if self.tls.is_some() {
            return self.metrics.refused(too_many.refusal);
        }
        match slots.refusals.take(address.ip().into(), true, Claim::Idle) {
            Ok(slot) => {
                self.metrics.refused(too_many.refusal);
                self.drain.spawn("edge-refusal", async move {
                    tokio::select! { () = send_refusal(stream, too_many) => {}, () = slot.lost() => {} }
                });
            }
            Err(_) => self.metrics.refused(Refusal::Flood),
        }
    }
}

/// Writes a refusal to the client.
async fn send_refusal(mut stream: TcpStream, too_many: TooMany) {
    let sending = async {
        stream.write_all(answer(too_many).as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would discard the answer.
        let mut rest = stream.take(REFUSED_BYTES);
        let mut request = [0; 512];
        while rest.read(&mut request).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // The client may be gone already, or slow.
    let _ = timeout(REFUSAL_PATIENCE, sending).await;
}

fn answer(too_many: TooMany) -> String {
    let (status, text) = too_many.response();
    format!(
        "HTTP/1.1 {status}\r\nRetry-After: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        too_many.retry_after,
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_http_answer_with_its_length() {
        for (refusal, status) in
            [(Refusal::Busy, "503 Service Unavailable"), (Refusal::AddressRate, "429 Too Many Requests")]
        {
            let text = answer(TooMany { refusal, retry_after: 7 });
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\nRetry-After: 7\r\n")), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert!(body.ends_with("later.\n"), "{body}");
        }
    }
}

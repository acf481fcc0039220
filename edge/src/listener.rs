//! The client port: takes connections, bounds what is under way, and makes sessions of those that upgrade.
//!
//! A connection costs a place until it has upgraded or failed, and has a deadline for it however it behaves. When there is
//! no place it is told so in a few bytes; when there are too many even for that, it is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::drain::Drain;
use shared::held::Held;
use shared::tls::{Acceptor, Stream};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::admission::TooMany;
use crate::metrics::{Metrics, Refusal};
use crate::session::{self, Env};
use crate::transport::Transport;
use crate::upgrade::{Door, Peer, Upgraded};

/// How long it may take to read a refusal.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
/// The pause when the system can't accept, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the system may hold of what was sent to one client and is not taken yet, in bytes; Linux adds as much for its own.
///
/// Left to itself it grows to megabytes, and says that it takes more only once a third of that is free: a client at 50 KB/s
/// then looks for longer than `edge.stalled_after` as if it took nothing. It is memory, too, that nobody counts.
const SEND_BUFFER: usize = 128 << 10;

/// Bounds what the system holds for each client of this listener.
///
/// # Errors
/// The system refuses.
pub(crate) fn bound_send_buffers(listener: &TcpListener) -> std::io::Result<()> {
    // Connections inherit it.
    SockRef::from(listener).set_send_buffer_size(SEND_BUFFER)
}

/// The bounds of the port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Handshakes at a time.
    pub(crate) handshakes: usize,
    /// For a whole handshake.
    pub(crate) timeout: Duration,
    /// Bytes in one frame from a client.
    pub(crate) max_frame: usize,
}

/// Everything that a connection needs.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) door: Door,
    pub(crate) tls: Option<Acceptor>,
    pub(crate) env: Arc<Env>,
    pub(crate) bounds: Bounds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
}

/// What may be under way.
struct Places {
    handshakes: Arc<Semaphore>,
    /// Refusals that are being told.
    refusals: Arc<Semaphore>,
}

/// Takes connections until the drain begins; then the port is closed.
pub(crate) async fn serve(listener: TcpListener, port: Arc<Port>) {
    let places = || Arc::new(Semaphore::new(port.bounds.handshakes));
    let places = Places { handshakes: places(), refusals: places() };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = port.drain.begun() => return,
        };
        match accepted {
            Ok((stream, address)) => port.take(stream, address, &places),
            Err(error) => {
                port.metrics.refused(Refusal::Accept);
                tracing::warn!(%error, "can't accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Port {
    /// Begins a handshake, or refuses it; without waiting for either.
    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, places: &Places) {
        let Ok(place) = Arc::clone(&places.handshakes).try_acquire_owned() else {
            return self.refuse(stream, TooMany::new(Refusal::Busy, Duration::ZERO), places);
        };
        // A proxy's clients enter when it has told who they are.
        let (peer, wait) = match self.door.gate.peer(address.ip()) {
            None => (Peer::Proxy(address.ip()), Duration::ZERO),
            Some(visitor) => match self.door.gate.enter(visitor, Instant::now()) {
                Ok(wait) => (Peer::Client(visitor), wait),
                Err(too_many) => return self.refuse(stream, too_many, places),
            },
        };
        let port = Arc::clone(self);
        self.drain.spawn(async move { port.welcome(stream, peer, wait, place).await });
    }

    async fn welcome(&self, stream: TcpStream, peer: Peer, wait: Duration, _place: OwnedSemaphorePermit) {
        let _held = Held::new(&self.metrics.handshakes);
        // Messages are small and wait for nothing; without it they would.
        if stream.set_nodelay(true).is_err() {
            return self.metrics.refused(Refusal::Broken);
        }
        let handshake = timeout(self.bounds.timeout, async {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            let stream = self.secured(stream).await.ok_or(Refusal::Broken)?;
            self.door.handshake(stream, peer).await
        });
        let upgraded = tokio::select! {
            upgraded = handshake => upgraded.unwrap_or(Err(Refusal::Slow)),
            () = self.drain.begun() => Err(Refusal::Leaving),
        };
        match upgraded {
            Ok(Upgraded { stream, head, member, visitor }) => {
                tracing::debug!(session = member.id(), address = %visitor.address, "a session from there");
                let transport = Transport::new(stream, &head, self.bounds.max_frame);
                self.drain.spawn(session::run(transport, member, Arc::clone(&self.env)));
            }
            Err(refusal) => {
                tracing::debug!(?peer, ?refusal, "a connection became no session");
                self.metrics.refused(refusal);
            }
        }
    }

    /// The connection, with TLS if this port speaks it. None: the client doesn't.
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

    /// Says why not, without reading the request first; if there are too many even for that, says nothing. With TLS it
    /// says nothing either, since that would cost the very handshake that is saved.
    fn refuse(&self, stream: TcpStream, too_many: TooMany, places: &Places) {
        if self.tls.is_some() {
            return self.metrics.refused(too_many.refusal);
        }
        match Arc::clone(&places.refusals).try_acquire_owned() {
            Ok(place) => {
                self.metrics.refused(too_many.refusal);
                self.drain.spawn(tell(stream, too_many, place));
            }
            Err(_) => self.metrics.refused(Refusal::Flood),
        }
    }
}

/// Writes a refusal.
async fn tell(mut stream: TcpStream, too_many: TooMany, _place: OwnedSemaphorePermit) {
    let told = async {
        stream.write_all(answer(too_many).as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would take the answer back.
        let mut request = [0; 512];
        while stream.read(&mut request).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // It may be gone already, or slow.
    let _ = timeout(REFUSAL_PATIENCE, told).await;
}

fn answer(too_many: TooMany) -> String {
    let (status, text) = too_many.told();
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

    #[tokio::test]
    async fn the_system_holds_a_bounded_part_of_what_a_client_does_not_take() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        bound_send_buffers(&listener).unwrap();
        let (client, server) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (_client, (server, _)) = (client.unwrap(), server.unwrap());
        // Linux says what it uses, its own part included.
        let bytes = SockRef::from(&server).send_buffer_size().unwrap();
        assert!((SEND_BUFFER..=2 * SEND_BUFFER).contains(&bytes), "{bytes}");
    }

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

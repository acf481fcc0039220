//! The client port: takes connections, bounds what is under way, and makes sessions of those that upgrade.
//!
//! A connection costs a place until it has upgraded or failed, and has a deadline for it however it behaves. When there is
//! no place it is told so in a few bytes; when there are too many even for that, it is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use shared::drain::Drain;
use shared::held::Held;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::metrics::{Metrics, Refusal};
use crate::session::{self, Env};
use crate::transport::Transport;
use crate::upgrade::{Door, Upgraded};

/// What a client hears when there is no place for its handshake.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
    Content-Length: 44\r\nConnection: close\r\n\r\nToo many handshakes: come back in a second.\n";
/// How long it may take to read that.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
/// The pause when the system can't accept, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    pub(crate) env: Arc<Env>,
    pub(crate) bounds: Bounds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
}

/// Takes connections until the drain begins; then the port is closed.
pub(crate) async fn serve(listener: TcpListener, port: Arc<Port>) {
    let places = Arc::new(Semaphore::new(port.bounds.handshakes));
    let refusing = Arc::new(Semaphore::new(port.bounds.handshakes));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = port.drain.begun() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                port.metrics.refused(Refusal::Accept);
                tracing::warn!(%error, "can't accept connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let port = Arc::clone(&port);
            port.drain.clone().spawn(async move { port.welcome(stream, place).await });
        } else if let Ok(place) = Arc::clone(&refusing).try_acquire_owned() {
            port.metrics.refused(Refusal::Busy);
            port.drain.spawn(refuse(stream, place));
        } else {
            port.metrics.refused(Refusal::Flood);
        }
    }
}

impl Port {
    async fn welcome(&self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        let _held = Held::new(&self.metrics.handshakes);
        // Messages are small and wait for nothing; without it they would.
        if stream.set_nodelay(true).is_err() {
            return self.metrics.refused(Refusal::Broken);
        }
        let handshake = timeout(self.bounds.timeout, self.door.handshake(stream));
        let upgraded = tokio::select! {
            upgraded = handshake => upgraded.unwrap_or(Err(Refusal::Slow)),
            () = self.drain.begun() => Err(Refusal::Leaving),
        };
        match upgraded {
            Ok(Upgraded { stream, head, member }) => {
                let transport = Transport::new(stream, &head, self.bounds.max_frame);
                self.drain.spawn(session::run(transport, member, Arc::clone(&self.env)));
            }
            Err(refusal) => self.metrics.refused(refusal),
        }
    }
}

/// Says that there is no place, without reading the request first.
async fn refuse(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    let told = async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would take the answer back.
        let mut request = [0; 512];
        while stream.read(&mut request).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // It may be gone already, or slow.
    let _ = timeout(BUSY_PATIENCE, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_its_length() {
        let text = std::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}

//! A TCP link between two parts that can stall, go deaf, cut and heal, and limit the bytes that pass.
//!
//! Bytes that arrive while the link stalls wait: none is lost, none is reordered. A deaf link drops bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use shared::drain::Drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::wait::DEADLINE;

/// The directions that the link lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// Everything.
    Open,
    /// Everything to the target; bytes from the target are dropped.
    Deaf,
    /// Nothing; connections stay open.
    Stalled,
    /// Nothing; connections are broken, new ones included.
    Cut,
}

/// The state of a link.
#[derive(Debug, Clone, Copy)]
struct Switch {
    passage: Passage,
    /// Cuts so far: a connection that sees the state only after the link has healed must still break.
    cuts: u64,
}

/// A proxy on a port of its own.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    drain: Drain,
}

#[derive(Debug)]
struct Shared {
    switch: watch::Sender<Switch>,
    target: watch::Sender<SocketAddr>,
    /// Bytes that may still pass from the target to the client before the link stalls.
    allowance: watch::Sender<u64>,
    connections: watch::Sender<usize>,
}

impl Link {
    /// Opens a link to `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            switch: watch::Sender::new(Switch { passage: Passage::Open, cuts: 0 }),
            target: watch::Sender::new(target),
            allowance: watch::Sender::new(u64::MAX),
            connections: watch::Sender::new(0),
        });
        let drain = Drain::new();
        let (links, tasks) = (Arc::clone(&shared), drain.clone());
        drain.spawn("link", async move {
            let accept = async {
                while let Ok((client, _)) = listener.accept().await {
                    tasks.spawn("link", carry(client, Arc::clone(&links), tasks.clone()));
                }
            };
            tokio::select! { () = accept => {}, () = tasks.begun() => {} }
        });
        Self { address, shared, drain }
    }

    /// The address that the link listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops all bytes; both ends see an open connection.
    pub fn stall(&self) {
        self.set(Passage::Stalled);
    }

    /// Drops every byte from the target; both ends see an open connection.
    pub fn deafen(&self) {
        self.set(Passage::Deaf);
    }

    /// Breaks every connection, and every new connection.
    pub fn cut(&self) {
        self.set(Passage::Cut);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.shared.allowance.send_replace(u64::MAX);
        self.set(Passage::Open);
    }

    fn set(&self, passage: Passage) {
        self.shared.switch.send_modify(|switch| {
            switch.passage = passage;
            switch.cuts += u64::from(passage == Passage::Cut);
        });
    }

    /// Lets this many more bytes pass from the target, then none until [`Link::heal`].
    pub fn limit(&self, bytes: u64) {
        self.shared.allowance.send_replace(bytes);
    }

    /// Waits until the bytes of [`Link::limit`] have passed.
    pub async fn used_up(&self) {
        // The sender lives as long as the link, so this wait ends.
        let _ = self.shared.allowance.subscribe().wait_for(|bytes| *bytes == 0).await;
    }

    /// Leads new connections to another address.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Stops the link, and waits for its tasks.
    ///
    /// # Panics
    /// A task does not end.
    pub async fn stop(self) {
        let left = self.drain.finish(DEADLINE).await;
        assert_eq!(left, 0, "the link still carries");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>, drain: Drain) {
    let target = *shared.target.borrow();
    let Switch { passage, cuts } = *shared.switch.borrow();
    if passage == Passage::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Bytes travel at once, as without a link.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    shared.connections.send_modify(|count| *count += 1);
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let mut switch = shared.switch.subscribe();
    let both = async {
        tokio::join!(
            pump(client_in, server_out, &shared, Way::Up),
            pump(server_in, client_out, &shared, Way::Down)
        )
    };
    tokio::select! {
        _ = both => {}
        _ = switch.wait_for(|switch| switch.cuts != cuts) => {}
        () = drain.begun() => {}
    }
    shared.connections.send_modify(|count| *count -= 1);
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// Carries one direction until its source ends, then ends the other side.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, way: Way) {
    let mut buffer = vec![0; 16 * 1024];
    let (mut switch, mut allowance) = (shared.switch.subscribe(), shared.allowance.subscribe());
    let passes = |switch: &Switch| matches!(switch.passage, Passage::Open | Passage::Deaf);
    loop {
        if switch.wait_for(passes).await.is_err() {
            return;
        }
        let most = match way {
            Way::Up => buffer.len(),
            Way::Down => {
                let Ok(allowed) = allowance.wait_for(|bytes| *bytes > 0).await.map(|bytes| *bytes) else {
                    return;
                };
                usize::try_from(allowed).unwrap_or(usize::MAX).min(buffer.len())
            }
        };
        let count = match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        // The link may have stalled while the read waited.
        let Ok(passage) = switch.wait_for(passes).await.map(|switch| switch.passage) else { return };
        if way == Way::Down {
            shared.allowance.send_modify(|bytes| *bytes = bytes.saturating_sub(count as u64));
            if passage == Passage::Deaf {
                continue;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

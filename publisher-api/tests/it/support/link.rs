//! A connection to the bus that loses what the bus says, and breaks, when a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;

use shared::drain::Drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Open,
    /// Loses what comes from the bus.
    Deaf,
    /// Ends every connection, and takes no other.
    Cut,
}

/// A link to a bus.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    /// The mode, and how often it was cut: a connection that sleeps through a cut still sees that there was
    /// one.
    mode: Arc<watch::Sender<(Mode, u32)>>,
    drain: Drain,
}

impl Link {
    pub(crate) async fn to(bus: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        let mode = Arc::new(watch::Sender::new((Mode::Open, 0)));
        let (modes, tasks) = (Arc::clone(&mode), drain.clone());
        drain.spawn("link", async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (client, _) = accepted.unwrap();
                        tasks.spawn("link", pass(client, bus, modes.subscribe(), tasks.clone()));
                    }
                    () = tasks.begun() => return,
                }
            }
        });
        Self { address, mode, drain }
    }

    pub(crate) fn set(&self, mode: Mode) {
        let cut = u32::from(mode == Mode::Cut);
        self.mode.send_modify(|(now, cuts)| (*now, *cuts) = (mode, *cuts + cut));
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.drain.finish(super::PATIENCE).await, 0, "the link ends");
    }
}

async fn pass(mut client: TcpStream, bus: SocketAddr, mut mode: watch::Receiver<(Mode, u32)>, drain: Drain) {
    let cuts = mode.borrow().1;
    let Ok(mut server) = TcpStream::connect(bus).await else { return };
    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    while !matches!(*mode.borrow_and_update(), (now, seen) if now == Mode::Cut || seen != cuts) {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(bytes) if bytes > 0 && server.write_all(&up[..bytes]).await.is_ok() => {}
                Ok(_) | Err(_) => return,
            },
            read = server.read(&mut down) => match read {
                Ok(bytes) if bytes > 0 => {
                    if mode.borrow().0 == Mode::Open && client.write_all(&down[..bytes]).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            },
            _ = mode.changed() => {}
            () = drain.begun() => return,
        }
    }
}

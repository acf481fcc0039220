//! Listens, lets connections in, and ends them all.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::config::Config;
use crate::connection;
use crate::error::{BindError, ServeError};
use crate::stats::{Stats, add};
use crate::stream_worker::StreamWorker;
use crate::wire::encode;

/// How long to wait after an accept that failed, at first and at most.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long the end may take: for what is being read, for what waits to be stored, and for what has to be written. All
/// are over sooner: by the deadlines of the connections themselves, and by the bound of the streams' queue.
const STOP_READING: Duration = Duration::from_secs(1);
const STOP_STORING: Duration = Duration::from_secs(10);
const STOP_WRITING: Duration = Duration::from_secs(5);

/// A bus that listens. It serves while [`EmbeddedBus::serve`] runs.
#[derive(Debug)]
pub struct EmbeddedBus {
    listener: TcpListener,
    address: SocketAddr,
    bus: Arc<Bus>,
    streams: Option<StreamWorker>,
}

impl EmbeddedBus {
    /// Takes the port and reads the streams that are kept. Clients that connect from now on wait until
    /// [`EmbeddedBus::serve`] is called.
    ///
    /// # Errors
    /// If a setting makes no sense, the address can't be listened on, or the streams can't be read. The text says what
    /// to do.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        config.check()?;
        let failed = |error| BindError::from_io(config.listen, error);
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let bus = Arc::new(Bus::new(config, address.port()));
        let streams = StreamWorker::start(&bus).await?;
        Ok(Self { listener, address, bus, streams })
    }

    /// Where it listens, with the port it got if it asked for 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle on its counters.
    pub fn stats(&self) -> Stats {
        self.bus.stats.clone()
    }

    /// Serves until `shutdown` is cancelled, and returns once every connection has ended: each is told by an INFO with
    /// `ldm`, is served for [`Config::lame_duck`] unless all go sooner, gets what waits for it, and is closed. After
    /// `lame_duck` that takes a few seconds at most. Dropping the future instead ends
    /// the connections without waiting for them.
    ///
    /// # Errors
    /// It ended, in the same way, before it was told to: something panicked that it can't go on without.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self { listener, address, bus, streams } = self;
        // Only matter if this future is dropped.
        let _ends = (bus.stop.clone().drop_guard(), bus.flush.clone().drop_guard());
        tracing::info!(%address, "bus listens");
        let streams_ended = streams.as_ref().map(StreamWorker::ended).unwrap_or_default();
        let served = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            () = bus.broken.cancelled() => Err(ServeError::Subscriptions),
            () = streams_ended.cancelled() => Err(ServeError::Streams),
            never = accept(&listener, &bus) => match never {},
        };
        drop(listener);
        bus.readers.close();
        bus.tasks.close();
        bus.leaving.cancel();
        if timeout(bus.config.lame_duck, bus.readers.wait()).await.is_err() && !bus.config.lame_duck.is_zero()
        {
            tracing::info!(tasks = bus.tasks.len(), "connections of the bus did not leave by themselves");
        }
        bus.stop.cancel();
        if timeout(STOP_READING, bus.readers.wait()).await.is_err() {
            tracing::warn!("a connection was still publishing when the bus ended");
        }
        // Nobody publishes any more: what waits is stored and acknowledged before the connections are flushed.
        if let Some(streams) = streams
            && timeout(STOP_STORING, streams.end()).await.is_err()
        {
            tracing::error!("the streams did not end in time; what was not acknowledged may not be stored");
        }
        bus.flush.cancel();
        if timeout(STOP_WRITING, bus.tasks.wait()).await.is_err() {
            tracing::error!(tasks = bus.tasks.len(), "connections of the bus did not end in time");
        }
        tracing::info!(%address, "bus ended");
        served
    }

    /// Makes the thread of the streams panic, for a test to see what that leads to. A released program does not.
    #[doc(hidden)]
    pub fn streams_panic(&self) -> impl FnOnce() + Send + use<> {
        let queue = self.bus.stream_queue.clone();
        move || queue.iter().for_each(|queue| queue.panic())
    }
}

/// Lets connections in, for ever.
async fn accept(listener: &TcpListener, bus: &Arc<Bus>) -> Infallible {
    let mut retry = FIRST_RETRY;
    let mut id = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                retry = FIRST_RETRY;
                id += 1;
                admit(bus, id, stream, peer);
            }
            // Most often there are no file descriptors left. Those who are connected go on.
            Err(error) => {
                add(&bus.stats.counters().accept_errors, 1);
                tracing::warn!(%error, retry_ms = retry.as_millis() as u64, "can't accept a connection");
                sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

fn admit(bus: &Arc<Bus>, id: u64, stream: TcpStream, peer: SocketAddr) {
    let counters = bus.stats.counters();
    let open = counters.connections.load(std::sync::atomic::Ordering::Relaxed);
    if open >= bus.config.max_connections as u64 {
        add(&counters.connections_refused, 1);
        tracing::debug!(%peer, open, "connection refused, there are too many");
        refuse(stream);
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "connection was gone at once");
        return;
    }
    add(&counters.connections, 1);
    add(&counters.connections_accepted, 1);
    let (reader, writer) = stream.into_split();
    let serving =
        connection::serve(Arc::clone(bus), id, peer.ip().to_canonical().to_string(), reader, writer);
    bus.tasks.spawn(serving);
}

/// Says why and closes. A new socket takes these few bytes at once; one that does not is closed without them.
fn refuse(stream: TcpStream) {
    let said = stream.into_std().and_then(|mut stream| {
        io::Write::write_all(&mut stream, &encode::error("maximum connections exceeded"))
    });
    if let Err(error) = said {
        tracing::debug!(%error, "could not tell a refused connection why");
    }
}

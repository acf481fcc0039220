//! The server: listens, admits connections, and ends them all.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
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

/// Pause after an accept that failed, at first and at most.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Bounds on each stage of the end: reading, storing what waits, writing. All end sooner, by the deadlines of
/// the connections and by the bound of the streams' queue.
const STOP_READING: Duration = Duration::from_secs(1);
const STOP_STORING: Duration = Duration::from_secs(10);
const STOP_WRITING: Duration = Duration::from_secs(5);

/// A bus that listens. [`EmbeddedBus::serve`] serves its clients.
#[derive(Debug)]
pub struct EmbeddedBus {
    listener: TcpListener,
    address: SocketAddr,
    bus: Arc<Bus>,
    streams: Option<StreamWorker>,
}

impl EmbeddedBus {
    /// Binds the port and opens the stored streams. Clients that connect from now on wait until
    /// [`EmbeddedBus::serve`] runs.
    ///
    /// # Errors
    /// Fails if a setting makes no sense, the address can't be listened on, or the streams can't be opened.
    /// The text of the error says what to do.
    ///
    /// ```
    /// use embedded_bus::{BindError, Config, EmbeddedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let config = Config { listen: taken.local_addr()?, ..Config::default() };
    /// let error = EmbeddedBus::bind(config).await.expect_err("the port is taken");
    /// assert!(matches!(error, BindError::PortTaken(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        config.check()?;
        let failed = |error| BindError::from_io(config.listen, error);
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let bus = Arc::new(Bus::new(config, address.port()));
        let streams = StreamWorker::start(&bus).await?;
        Ok(Self { listener, address, bus, streams })
    }

    /// The address that the bus listens on, with the real port if [`Config::listen`] asked for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns a handle on the counters.
    pub fn stats(&self) -> Stats {
        self.bus.stats.clone()
    }

    /// Serves clients until `shutdown` is cancelled, and returns once every connection has ended.
    ///
    /// At the end each connection is told by an INFO with `ldm`, and is served for [`Config::lame_duck`], or
    /// less if all clients leave sooner. Then its pending output is written and it is closed, which takes a
    /// few seconds at most. Dropping the future ends the connections without waiting for them.
    ///
    /// # Errors
    /// Fails if a panic left the bus unable to go on. The bus then ends in the same way, before it was told
    /// to.
    pub fn serve(
        self,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>> {
        // Boxed, so that only this crate compiles the code that it starts.
        Box::pin(async move {
            let Self { listener, address, bus, streams } = self;
            // Takes effect only if this future is dropped.
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
            if timeout(bus.config.lame_duck, bus.readers.wait()).await.is_err()
                && !bus.config.lame_duck.is_zero()
            {
                tracing::info!(tasks = bus.tasks.len(), "connections of the bus did not leave by themselves");
            }
            bus.stop.cancel();
            if timeout(STOP_READING, bus.readers.wait()).await.is_err() {
                tracing::warn!("a connection was still publishing when the bus ended");
            }
            // No client publishes any more, so all queued messages are stored and acknowledged before the
            // connections are flushed.
            if let Some(streams) = streams
                && timeout(STOP_STORING, streams.end()).await.is_err()
            {
                tracing::error!(
                    "the streams did not end in time; what was not acknowledged may not be stored"
                );
            }
            bus.flush.cancel();
            if timeout(STOP_WRITING, bus.tasks.wait()).await.is_err() {
                tracing::error!(tasks = bus.tasks.len(), "connections of the bus did not end in time");
            }
            tracing::info!(%address, "bus ended");
            served
        })
    }

    /// Returns a function that makes the stream worker panic, for a test of the consequences. It does nothing
    /// in a release build.
    #[doc(hidden)]
    pub fn streams_panic(&self) -> impl FnOnce() + Send + use<> {
        let queue = self.bus.stream_queue.clone();
        move || queue.iter().for_each(|queue| queue.panic())
    }
}

/// Admits connections, for ever.
async fn accept(listener: &TcpListener, bus: &Arc<Bus>) -> Infallible {
    let mut retry = FIRST_RETRY;
    let mut id = 0;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                retry = FIRST_RETRY;
                id += 1;
                admit(bus, id, stream, remote);
            }
            // Most often the process has no file descriptors left. Open connections go on.
            Err(error) => {
                add(&bus.stats.counters().accept_errors, 1);
                tracing::warn!(%error, retry_ms = retry.as_millis() as u64, "can't accept a connection");
                sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

fn admit(bus: &Arc<Bus>, id: u64, stream: TcpStream, remote: SocketAddr) {
    let counters = bus.stats.counters();
    let open = counters.connections.load(std::sync::atomic::Ordering::Relaxed);
    if open >= bus.config.max_connections as u64 {
        add(&counters.connections_refused, 1);
        tracing::debug!(peer = %remote, open, "connection refused, there are too many");
        refuse(stream);
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = %remote, %error, "connection was gone at once");
        return;
    }
    add(&counters.connections, 1);
    add(&counters.connections_accepted, 1);
    let (reader, writer) = stream.into_split();
    let serving =
        connection::serve(Arc::clone(bus), id, remote.ip().to_canonical().to_string(), reader, writer);
    bus.tasks.spawn(serving);
}

/// Tells a refused client why, and closes the socket. A new socket takes these few bytes at once; if it does
/// not, it is closed without them.
fn refuse(stream: TcpStream) {
    let said = stream.into_std().and_then(|mut stream| {
        io::Write::write_all(&mut stream, &encode::error("maximum connections exceeded"))
    });
    if let Err(error) = said {
        tracing::debug!(%error, "could not tell a refused connection why");
    }
}

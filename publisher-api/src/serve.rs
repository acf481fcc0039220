//! Accepts connections and serves HTTP on them.
//!
//! There are never more connections than slots, in all and from one address; others wait in the backlog of
//! the system. Once all slots are taken, the address that has the most yields an idle connection to a
//! newcomer from another address. A connection that asked for nothing of use yet also yields to the next from
//! its own address: behind a proxy all connections have one address. Every connection has a deadline for its
//! first byte, for the head of its next request, and for taking some of its answer. When the drain begins,
//! the port is closed, then connections without a whole request, and the others once their request is
//! answered.

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use shared::drain::Drain;
use shared::gauge::GaugeGuard;
use shared::tls::{Acceptor, Stream};
use sockets::{Claim, Patient, Slot, Slots};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::metrics::{Loss, Metrics};

/// The pause after the system could give no connection (mostly: too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last answer of a connection may take to be written when this part leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    /// The same from one address. 0: no limit.
    pub(crate) per_address: usize,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) head_timeout: Duration,
    /// How long a caller may take nothing of what is written to it.
    pub(crate) write_timeout: Duration,
}

/// Serves until the drain begins.
pub(crate) fn start(
    listener: TcpListener,
    tls: Option<Acceptor>,
    router: Router,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    drain: &Drain,
) {
    let slots = Arc::new(Slots::new(bounds.connections, bounds.per_address));
    let state = (listener, tls, router, metrics, slots, drain.clone());
    drain.supervise("publisher-listener", state, move |(listener, tls, router, metrics, slots, drain)| {
        Box::pin(async move {
            tokio::select! {
                never = accept(listener, tls, router, bounds, metrics, slots, drain) => match never {},
                () = drain.begun() => {}
            }
        })
    });
}

async fn accept(
    listener: &TcpListener,
    tls: &Option<Acceptor>,
    router: &Router,
    bounds: Bounds,
    metrics: &Arc<Metrics>,
    slots: &Arc<Slots>,
    drain: &Drain,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(slot) = slots.wait(address.ip().into()).await else {
                    metrics.lost(Loss::AddressConnections);
                    continue;
                };
                let tls = tls.clone();
                let served =
                    serve(stream, tls, router.clone(), bounds, Arc::clone(metrics), slot, drain.clone());
                drain.spawn("publisher-connection", served);
            }
            Err(error) => {
                metrics.lost(Loss::Connection);
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Acceptor>,
    router: Router,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    slot: Slot,
    drain: Drain,
) {
    let taken = Arc::new(Taken { slot, _gauge: GaugeGuard::new(&metrics.connections) });
    let serving = converse(stream, tls, router, bounds, Arc::clone(&metrics), Arc::clone(&taken), drain);
    tokio::select! {
        () = serving => {}
        () = taken.slot.lost() => metrics.lost(Loss::Displaced),
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<Acceptor>,
    router: Router,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    taken: Arc<Taken>,
    drain: Drain,
) {
    // Answers are small and whole; without it the second of two in a row may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let opened = tokio::select! {
        opened = open(stream, tls, bounds, &taken.slot) => opened,
        // Nothing was asked yet.
        () = drain.begun() => return metrics.lost(Loss::Connection),
    };
    let stream = match opened {
        Ok(stream) => Patient::new(stream, bounds.write_timeout),
        Err(loss) => return metrics.lost(loss),
    };
    let requests = TaskTracker::new();
    let service = Counted {
        inner: TowerToHyperService::new(router),
        requests: requests.clone(),
        drain: drain.clone(),
        taken,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_BYTES)
        // A caller that closes its sending side behind a whole request is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            requests.close();
            tokio::select! {
                served = connection.as_mut() => served,
                // hyper waits for the rest of a head that was begun, or never was.
                () = answered(&requests) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        metrics.lost(loss(&error));
        tracing::debug!(%error, "a connection ended early");
    }
}

fn loss(error: &hyper::Error) -> Loss {
    let written = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    if written.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
        Loss::SlowReader
    } else if error.is_timeout() {
        Loss::SlowHead
    } else {
        Loss::Connection
    }
}

/// Waits until the client has said something, and does the TLS handshake if this port speaks TLS.
async fn open(stream: TcpStream, tls: Option<Acceptor>, bounds: Bounds, slot: &Slot) -> Result<Stream, Loss> {
    match timeout(bounds.first_byte_timeout, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return Err(Loss::Connection),
        Err(_) => return Err(Loss::Silent),
    }
    slot.claim(Claim::Begun);
    let Some(tls) = tls else { return Ok(stream.into()) };
    match timeout(bounds.head_timeout, tls.accept(stream)).await {
        Ok(shaken) => shaken.map_err(|_| Loss::Connection),
        Err(_) => Err(Loss::SlowHead),
    }
}

/// Resolves when all requests have their answers, and the answers had time to be written.
async fn answered(requests: &TaskTracker) {
    requests.wait().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// The slot of a connection, and its share of the gauge.
#[derive(Debug)]
struct Taken {
    slot: Slot,
    _gauge: GaugeGuard,
}

/// Counts the requests of a connection that are being answered, and finishes each of them even if its caller
/// goes: a request accepted by half would be neither sent nor refused.
#[derive(Clone)]
struct Counted {
    inner: TowerToHyperService<Router>,
    requests: TaskTracker,
    drain: Drain,
    /// Held until the connection's last request is finished, and not taken away while a request is being
    /// answered.
    taken: Arc<Taken>,
}

impl Service<Request<Incoming>> for Counted {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (answer, counted) = (self.inner.call(request), self.requests.token());
        let (finished, answered) = oneshot::channel();
        let (taken, held) = (Arc::clone(&self.taken), Arc::clone(&self.taken));
        taken.slot.claim(Claim::Firm);
        self.drain.spawn("publisher-request", async move {
            let _held = (counted, held);
            // Nobody may be there any more.
            let _ = finished.send(answer.await);
        });
        Box::pin(async move {
            let answer = answered.await;
            let answer = answer.unwrap_or_else(|_| Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()));
            // A caller without a key, or with a request for nothing that exists, has no better claim than a
            // caller that asks for nothing.
            let of_use = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
            taken.slot.claim(if of_use { Claim::Idle } else { Claim::Begun });
            answer
        })
    }
}

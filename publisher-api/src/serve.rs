//! Accepts connections and serves HTTP on them.
//!
//! There are never more than the places allow, in all and from one address; others wait in the backlog of the
//! system. Once all are taken, the address that has the most yields an idle one to a newcomer from another.
//! Whoever asked for nothing of use yet yields to the next from its own address as well: behind a proxy all
//! have one. Every connection has a deadline for its first byte, for the head of its next request, and for
//! taking some of its answer. When the drain begins, the port is closed, connections without a whole request
//! are closed, and the others after its answer.

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

/// The pause after the system could not give a connection (too many open files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last answer of a connection may take to be written when this part leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Room for the head of a request.
const HEAD_BYTES: usize = 16 << 10;

/// What connections are bound by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    /// From one address; 0: no limit.
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
    let places = Arc::new(Slots::new(bounds.connections, bounds.per_address));
    let state = (listener, tls, router, metrics, places, drain.clone());
    drain.supervise("publisher-listener", state, move |(listener, tls, router, metrics, places, drain)| {
        Box::pin(async move {
            tokio::select! {
                never = accept(listener, tls, router, bounds, metrics, places, drain) => match never {},
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
    places: &Arc<Slots>,
    drain: &Drain,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(place) = places.wait(address.ip().into()).await else {
                    metrics.lost(Loss::AddressConnections);
                    continue;
                };
                let tls = tls.clone();
                let served =
                    serve(stream, tls, router.clone(), bounds, Arc::clone(metrics), place, drain.clone());
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
    place: Slot,
    drain: Drain,
) {
    let seat = Arc::new(Seat { place, _counted: GaugeGuard::new(&metrics.connections) });
    let serving = converse(stream, tls, router, bounds, Arc::clone(&metrics), Arc::clone(&seat), drain);
    tokio::select! {
        () = serving => {}
        () = seat.place.lost() => metrics.lost(Loss::Displaced),
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<Acceptor>,
    router: Router,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    seat: Arc<Seat>,
    drain: Drain,
) {
    // Answers are small and whole; without it the second of two in a row may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let opened = tokio::select! {
        opened = open(stream, tls, bounds, &seat.place) => opened,
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
        seat,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_BYTES)
        // Who closes its sending side behind a whole request is answered.
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

/// The connection once its client has said something, and after its TLS handshake if this port speaks TLS.
async fn open(
    stream: TcpStream,
    tls: Option<Acceptor>,
    bounds: Bounds,
    place: &Slot,
) -> Result<Stream, Loss> {
    match timeout(bounds.first_byte_timeout, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return Err(Loss::Connection),
        Err(_) => return Err(Loss::Silent),
    }
    place.claim(Claim::Begun);
    let Some(tls) = tls else { return Ok(stream.into()) };
    match timeout(bounds.head_timeout, tls.accept(stream)).await {
        Ok(shaken) => shaken.map_err(|_| Loss::Connection),
        Err(_) => Err(Loss::SlowHead),
    }
}

/// Resolves when all requests have their answers and those had time to be written.
async fn answered(requests: &TaskTracker) {
    requests.wait().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// What a connection takes.
#[derive(Debug)]
struct Seat {
    place: Slot,
    _counted: GaugeGuard,
}

/// Tells how many requests of a connection are being answered, and finishes each of them even if its caller
/// goes: what was accepted by half would be neither sent nor refused.
#[derive(Clone)]
struct Counted {
    inner: TowerToHyperService<Router>,
    requests: TaskTracker,
    drain: Drain,
    /// Taken until the connection's last request is finished, and not taken away while one is being answered.
    seat: Arc<Seat>,
}

impl Service<Request<Incoming>> for Counted {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (answer, counted) = (self.inner.call(request), self.requests.token());
        let (finished, answered) = oneshot::channel();
        let (seat, held) = (Arc::clone(&self.seat), Arc::clone(&self.seat));
        seat.place.claim(Claim::Firm);
        self.drain.spawn("publisher-request", async move {
            let _held = (counted, held);
            // Nobody may be there any more.
            let _ = finished.send(answer.await);
        });
        Box::pin(async move {
            let answer = answered.await;
            let answer = answer.unwrap_or_else(|_| Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()));
            // Whoever has no key, or asks for what there is not, has no better claim than one who asks for
            // nothing.
            let of_use = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
            seat.place.claim(if of_use { Claim::Idle } else { Claim::Begun });
            answer
        })
    }
}

//! HTTP up to the WebSocket upgrade: one request, and either 101 or an answer that says what to do.
//!
//! hyper reads the request and is gone after it: the bare stream is left, and the session's entry in the hub,
//! which was made before the 101 was sent. The caller bounds the time.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use shared::handshake::{self, Fault};
use shared::host;
use shared::reload::Live;
use shared::tls::Stream;
use shared::wire::EdgeState;
use sockets::Slot;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::admission::{Gate, TooMany, Visitor};
use crate::config::Config;
use crate::hub::Hub;
use crate::hub::member::Member;
use crate::metrics::Refusal;

/// How long a client should wait before it asks a full edge again.
const FULL_PAUSE: Duration = Duration::from_secs(5);
/// The largest request head.
const MAX_HEAD: usize = 16 << 10;

type Answer = Response<Full<Bytes>>;

/// Lets clients in.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) gate: Gate,
    /// Whether the log already names proxies that are not trusted.
    pub(crate) untrusted_logged: AtomicBool,
    pub(crate) address: SocketAddr,
    /// `ws` or `wss`.
    pub(crate) scheme: &'static str,
    pub(crate) path: String,
    /// The settings: the web pages that may connect are looked up at each handshake.
    pub(crate) live: Live<Config>,
    pub(crate) hub: Arc<Hub>,
    /// The bytes that a session's outbox holds.
    pub(crate) outbox: usize,
    pub(crate) phase: watch::Receiver<EdgeState>,
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    /// Bytes that came right behind the request.
    pub(crate) head: Bytes,
    pub(crate) member: Member,
    pub(crate) visitor: Visitor,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Remote {
    /// A client that has entered the gate.
    Client(Visitor),
    /// A trusted proxy, which will name the client.
    Proxy(IpAddr),
}

/// The result of an admitted request.
type Admitted = (OnUpgrade, Member, Visitor);

/// A refusal, and the answer that tells the client.
struct Refused {
    refusal: Refusal,
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    text: String,
}

impl Door {
    /// Serves one request on a new connection.
    ///
    /// # Errors
    /// Why the connection did not become a WebSocket; the client was told if that was possible.
    pub(crate) async fn handshake(
        &self,
        stream: Stream,
        remote: Remote,
        slot: &Slot,
    ) -> Result<Upgraded, Refusal> {
        let admitted: Mutex<Result<Admitted, Refusal>> = Mutex::new(Err(Refusal::Broken));
        let result = &admitted;
        let service = service_fn(|mut request: Request<Incoming>| async move {
            let (answer, outcome) = match self.admit(&request, remote, slot).await {
                Ok((answer, member, visitor)) => {
                    (answer, Ok((hyper::upgrade::on(&mut request), member, visitor)))
                }
                Err(refused) => (refused.answer(), Err(refused.refusal)),
            };
            *result.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            Ok::<_, Infallible>(answer)
        });
        let mut http = http1::Builder::new();
        // A client that closes its sending side behind a whole request is still answered.
        http.max_buf_size(MAX_HEAD).half_close(true);
        let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        let admitted = admitted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (upgrade, member, visitor) = admitted?;
        if let Err(error) = served {
            tracing::debug!(%error, "a handshake broke");
            return Err(Refusal::Broken);
        }
        let (stream, head) = bare(upgrade).await.ok_or(Refusal::Broken)?;
        Ok(Upgraded { stream, head, member, visitor })
    }

    async fn admit(
        &self,
        request: &Request<Incoming>,
        remote: Remote,
        slot: &Slot,
    ) -> Result<(Answer, Member, Visitor), Refused> {
        let visitor = self.visitor(request.headers(), remote, slot).await?;
        let key = self.check(request)?;
        let phase = *self.phase.borrow();
        match phase {
            EdgeState::Serving => {}
            EdgeState::Starting => {
                let text = "This edge is starting: come back in a second.\n";
                return Err(Refused::busy(Refusal::Starting, text));
            }
            EdgeState::Draining | EdgeState::Bye => {
                let text = "This edge is leaving: connect to another.\n";
                return Err(Refused::busy(Refusal::Leaving, text));
            }
        }
        let slot_of_address = self.gate.session_slot(visitor)?;
        let Some(mut member) = self.hub.admit(self.outbox) else {
            return Err(TooMany::new(Refusal::Full, FULL_PAUSE).into());
        };
        member.set_address_slot(slot_of_address);
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
        Ok((answer, member, visitor))
    }

    /// Returns the visitor whose connection this is. A client that comes through a proxy enters the gate
    /// here, takes over the slot, and waits for its turn.
    async fn visitor(&self, headers: &HeaderMap, remote: Remote, slot: &Slot) -> Result<Visitor, Refused> {
        let proxy = match remote {
            Remote::Proxy(proxy) => proxy,
            Remote::Client(visitor) => {
                if self.gate.is_forwarded(headers) {
                    self.log_untrusted(visitor);
                }
                return Ok(visitor);
            }
        };
        let visitor = self.gate.behind(proxy, headers);
        self.gate.enter(visitor, Instant::now())?;
        self.gate.attribute(slot, visitor)?;
        let wait = self.gate.turn(Instant::now())?;
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(visitor)
    }

    /// Logs once that a request names another address: either a client invents one, or a proxy is missing in
    /// the configuration.
    fn log_untrusted(&self, remote: Visitor) {
        self.gate.count_ignored();
        if !self.untrusted_logged.swap(true, Ordering::Relaxed) {
            let remote = remote.address;
            tracing::warn!(%remote, "told of another address, and is not believed; if it is your proxy, \
                add it to edge.trusted_proxies, or its clients share the limits of one address");
        }
    }

    /// Checks that this is a WebSocket handshake for this edge. Returns the `Sec-WebSocket-Accept` that
    /// proves it was understood.
    fn check(&self, request: &Request<Incoming>) -> Result<HeaderValue, Refused> {
        let headers = request.headers();
        if let Err(status) = host::named(request) {
            let text = "There must be one header Host, which names this edge as you reach it.\n".to_owned();
            return Err(Refused::no_handshake(status, None, text));
        }
        if request.uri().path() != self.path {
            let text = format!("Nothing is here. The WebSocket is at {}\n", self.url(headers));
            return Err(Refused::no_handshake(StatusCode::NOT_FOUND, None, text));
        }
        let key = handshake::check(request).map_err(|fault| self.no_handshake(fault, headers))?;
        let proof = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
        let proof = proof.map_err(|_| self.no_handshake(Fault::Key, headers))?;
        self.check_origin(headers)?;
        Ok(proof)
    }

    fn no_handshake(&self, fault: Fault, headers: &HeaderMap) -> Refused {
        let (status, header) = match fault {
            Fault::Method => (StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, "GET"))),
            Fault::NoUpgrade | Fault::HttpVersion => {
                (StatusCode::UPGRADE_REQUIRED, Some((UPGRADE, "websocket")))
            }
            Fault::Version => (StatusCode::UPGRADE_REQUIRED, Some((SEC_WEBSOCKET_VERSION, "13"))),
            Fault::Key | Fault::Body => (StatusCode::BAD_REQUEST, None),
        };
        let text = format!("No handshake: {fault}. The WebSocket is at {}\n", self.url(headers));
        Refused::no_handshake(status, header, text)
    }

    /// Checks the page that connects. Browsers always name it; a client that names none is no browser.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let config = self.live.get();
        let is_listed = |origin: &HeaderValue| config.origins.iter().any(|listed| origin == listed.as_str());
        if config.origins.is_empty() || headers.get_all(ORIGIN).iter().all(is_listed) {
            return Ok(());
        }
        Err(Refused {
            refusal: Refusal::Origin,
            status: StatusCode::FORBIDDEN,
            header: None,
            text: "Pages of this origin may not connect: add it to edge.origins if they should.\n".to_owned(),
        })
    }

    fn url(&self, headers: &HeaderMap) -> String {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.map_or_else(|| self.address.to_string(), str::to_owned);
        format!("{}://{host}{}", self.scheme, self.path)
    }
}

impl Refused {
    fn no_handshake(status: StatusCode, header: Option<(HeaderName, &'static str)>, text: String) -> Self {
        let header = header.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Self { refusal: Refusal::NotAHandshake, status, header, text }
    }

    fn busy(refusal: Refusal, text: &str) -> Self {
        let header = Some((RETRY_AFTER, HeaderValue::from_static("1")));
        Self { refusal, status: StatusCode::SERVICE_UNAVAILABLE, header, text: text.to_owned() }
    }

    fn answer(&self) -> Answer {
        let mut answer = Response::new(Full::from(self.text.clone()));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        // Each connection serves one request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some((name, value)) = &self.header {
            headers.insert(name, value.clone());
        }
        answer
    }
}

impl From<TooMany> for Refused {
    fn from(too_many: TooMany) -> Self {
        let (status, text) = too_many.response();
        let header = Some((RETRY_AFTER, too_many.retry_after.into()));
        Self { refusal: too_many.refusal, status, header, text: text.to_owned() }
    }
}

/// Returns the stream without hyper around it, and the bytes that hyper had read beyond the request.
async fn bare(upgrade: OnUpgrade) -> Option<(Stream, Bytes)> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

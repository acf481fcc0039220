//! `/livez`, `/readyz` and `/metrics` on the admin port, and the pages of the parts.
//!
//! `/livez` shows that the process answers, and depends on nothing. `/readyz` is 200 only while no part gives
//! a reason against readiness. Its body holds the reasons, and notes for the operator, which are no reasons.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use sockets::{Claim, Patient, Slot, Slots};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::drain::Drain;
use crate::host;
use crate::pages::Pages;

/// The most connections at a time. Beyond, the address with the most yields a slot to a newcomer, also of the
/// same address; but never the slot of a connection that is being answered.
const MAX_CONNECTIONS: usize = 256;
/// How long a caller may take to send the head of a request, and to take some of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The answer to a request with another host.
const BAD_HOST: &str = "The header Host must name this port as you reach it: 127.0.0.1, [::1] or localhost where it is on loopback.\n";
/// How long an answer under way may take when the process leaves.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Reasons why a process should get no new work. Cheap to clone; parts of one process share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Reasons by part. Locked only for a map operation.
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
    /// Notes by part. Locked only for a map operation.
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
    /// Rung at each change, for [`Health::wait_ready`].
    changed: Arc<Notify>,
    /// The pages of the parts on the admin port.
    pages: Pages,
}

impl Health {
    /// Makes a readiness without reasons against it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `part` is not ready, and why. Replaces an earlier reason.
    pub fn unready(&self, part: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self.lock().insert(part, reason.clone());
        if before.as_deref() != Some(&reason) {
            tracing::info!(part, reason, "not ready");
        }
    }

    /// Notes that `part` is ready.
    pub fn ready(&self, part: &'static str) {
        if self.lock().remove(part).is_some() {
            tracing::info!(part, "ready");
            self.changed.notify_waiters();
        }
    }

    /// Sets what an operator should know of `part`, which goes on working. `None` removes the note.
    pub fn note(&self, part: &'static str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => drop(notes.insert(part, note)),
            None => drop(notes.remove(part)),
        }
    }

    /// Returns the notes, a line each.
    pub fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|(part, note)| format!("{part}: {note}\n")).collect()
    }

    /// Returns the pages of the parts on the admin port.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Waits until every part is ready.
    pub async fn wait_ready(&self) {
        self.wait_until(BTreeMap::is_empty).await;
    }

    async fn wait_until(&self, holds: impl Fn(&BTreeMap<&'static str, String>) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listening begins before looking, so that no change falls between the two.
            changed.as_mut().enable();
            if holds(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until this part is ready.
    pub async fn wait_ready_part(&self, part: &'static str) {
        self.wait_until(|reasons| !reasons.contains_key(part)).await;
    }

    /// Returns whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns the reasons, a line each; empty when ready.
    pub fn reasons(&self) -> String {
        self.lock().iter().map(|(part, reason)| format!("{part}: {reason}\n")).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Admin {
    health: Health,
    registry: Registry,
    /// Tells whether the process leaves because a needed task was lost.
    drain: Drain,
}

/// Serves the admin port until the drain ends.
pub fn serve(listener: TcpListener, health: Health, registry: Registry, drain: &Drain) {
    let admin = Arc::new(Admin { health, registry, drain: drain.clone() });
    let on_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let mut router = axum::Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(get(page));
    if cfg!(debug_assertions) {
        router = router.route("/debug/tasks", get(tasks)).route("/debug/tasks/{name}/panic", post(kill));
    }
    let router =
        router.with_state(admin).layer(middleware::from_fn(move |request: Request, next: Next| async move {
            match host::check(&request, on_loopback) {
                Ok(()) => next.run(request).await,
                Err(status) => (status, BAD_HOST).into_response(),
            }
        }));
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "the admin port listens");
    }
    let state = (listener, router, drain.clone());
    drain.supervise("admin-port", state, |(listener, router, drain)| {
        Box::pin(accept(listener, router, drain))
    });
}

/// Accepts connections until the drain begins, a bounded number at a time; others wait in the backlog of the
/// system.
async fn accept(listener: &TcpListener, router: &axum::Router, drain: &Drain) {
    let slots = Arc::new(Slots::new(MAX_CONNECTIONS, 0));
    loop {
        let next = async {
            let (stream, address) = listener.accept().await?;
            Ok::<_, std::io::Error>((stream, slots.wait(address.ip().into()).await))
        };
        let accepted = tokio::select! {
            next = next => next,
            () = drain.begun() => return,
        };
        match accepted {
            Ok((stream, Ok(slot))) => {
                drain.spawn("admin-connection", answer(stream, router.clone(), slot, drain.clone()));
            }
            Ok((_, Err(none))) => tracing::debug!(?none, "the admin port has no place for a connection"),
            Err(error) => {
                tracing::warn!(%error, "the admin port could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, router: axum::Router, slot: Slot, drain: Drain) {
    let stream = Patient::new(stream, PATIENCE);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        slot.claim(Claim::Firm);
        let answer = router.call(request);
        async {
            let answer = answer.await;
            slot.claim(Claim::Begun);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        // A caller that closes its sending side behind a whole request is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = slot.lost() => return tracing::debug!("a connection to the admin port yields to another"),
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin port ended early");
    }
}

/// Binds a port; `key` names its setting.
///
/// # Errors
/// The address is taken or is not an address of this machine. The error says what to do.
pub async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            anyhow::anyhow!(
                "{key}: port {} of {} is taken; stop the other program, or set {key} to another address",
                address.port(),
                address.ip()
            )
        } else {
            anyhow::anyhow!("{key}: can't listen on {address}: {error}")
        }
    })
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (mut reasons, notes) = (admin.health.reasons(), admin.health.notes());
    if let Some(failure) = admin.drain.failure() {
        reasons = format!("{failure}\n{reasons}");
    }
    if reasons.is_empty() {
        (StatusCode::OK, format!("ok\n{notes}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons + &notes)
    }
}

/// Shows the page of a part.
async fn page(State(admin): State<Arc<Admin>>, uri: Uri) -> Response {
    match admin.health.pages.make(uri.path()) {
        Some(page) => axum::Json(page).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Lists the tasks that a test can end, a line each. Not in a released program.
async fn tasks(State(admin): State<Arc<Admin>>) -> String {
    admin.drain.mortals().iter().map(|name| format!("{name}\n")).collect()
}

/// Makes a task panic. Not in a released program.
async fn kill(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> StatusCode {
    if admin.drain.kill(&name) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let accept = accept.to_owned();
    // Rendering reads files of the system, which may block.
    let render = move || crate::metrics::render(&admin.registry, &accept);
    match tokio::task::spawn_blocking(render).await.ok().flatten() {
        Some((content_type, text)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "a metric can't be written\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_half_a_request_gives_its_place_back() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = bind("admin", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        serve(listener, Health::new(), Registry::default(), &drain);
        let mut half = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
            half.push(stream);
        }
        let mut whole = TcpStream::connect(address).await.unwrap();
        whole.write_all(LIVEZ).await.unwrap();
        let mut answer = String::new();
        whole.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        drop(half);
        assert_eq!(drain.finish(PATIENCE).await, 0);
    }

    const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_waiting_not_even_behind_its_own_address() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = bind("admin", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), Drain::new());
        serve(listener, Health::new(), Registry::default(), &drain);
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 50 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut whole = TcpStream::connect(address).await.unwrap();
        whole.write_all(LIVEZ).await.unwrap();
        let mut answer = String::new();
        let read = timeout(PATIENCE / 2, whole.read_to_string(&mut answer)).await;
        assert!(read.is_ok() && answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(silent);
        assert_eq!(drain.finish(PATIENCE).await, 0);
    }

    #[tokio::test]
    async fn a_process_that_leaves_for_want_of_a_task_is_not_ready_and_says_why() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = bind("admin", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (address, process) = (listener.local_addr().unwrap(), Drain::new());
        let admin = process.beside();
        serve(listener, Health::new(), Registry::default(), &admin);
        process.spawn_vital("feed", async {});
        process.begun().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"feed\" returned"), "{answer}");
        assert_eq!(admin.finish(PATIENCE).await, 0);
    }

    #[test]
    fn ready_means_that_no_part_has_a_reason_against_it() {
        let health = Health::new();
        assert!(health.is_ready());
        health.unready("edge", "the bus is gone");
        health.unready("publisher-api", "starting");
        assert_eq!(health.reasons(), "edge: the bus is gone\npublisher-api: starting\n");
        health.ready("edge");
        assert!(!health.is_ready());
        health.note("bus store", Some("nearly full".to_owned()));
        health.ready("publisher-api");
        assert!(health.is_ready(), "a note is no reason");
        assert_eq!(health.notes(), "bus store: nearly full\n");
        health.note("bus store", None);
        assert_eq!(health.notes(), "");
    }
}

//! A business system that checks tokens, and can be slow, wrong or gone.
//!
//! `user-<uid>` is a token of that user from the start. "Slow" means that calls wait at a gate until the test
//! opens it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use shared::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ports;
use crate::wait::DEADLINE;

/// The path of token checks.
const PATH: &str = "/websocket_auth";
/// The path that redirects lead to.
const ELSEWHERE: &str = "/elsewhere";

/// How calls are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// As the contract says.
    Honest,
    /// This status and this body.
    Says(u16, String),
    /// This status, and `Retry-After` with this many seconds.
    ComeBackIn(u16, u64),
    /// 200 and a body without end.
    Endless,
    /// A redirect to a page that accepts every token.
    Redirects,
    /// This script for tokens with this prefix, honest answers for all others.
    StumblesOver(&'static str, Box<Self>),
}

/// A running business system.
#[derive(Debug)]
pub struct Business {
    address: SocketAddr,
    shared: Arc<Shared>,
    drain: Drain,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<BusinessState>,
    /// False: calls wait.
    gate: watch::Sender<bool>,
}

#[derive(Debug)]
struct BusinessState {
    script: Script,
    tokens: HashMap<String, Value>,
    calls: Vec<Call>,
    redirected: usize,
    in_flight: usize,
    most_in_flight: usize,
}

/// A received call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The token, if the body was valid JSON.
    pub token: Option<String>,
    /// The body.
    pub body: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl Business {
    /// Starts a business system on a free port.
    pub async fn start() -> Self {
        let [address] = ports::lasting();
        let listener = TcpListener::bind(address).await.expect("it was free a moment ago");
        let state = BusinessState {
            script: Script::Honest,
            tokens: HashMap::new(),
            calls: Vec::new(),
            redirected: 0,
            in_flight: 0,
            most_in_flight: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), gate: watch::Sender::new(true) });
        let drain = Drain::new();
        serve(listener, Arc::clone(&shared), &drain);
        Self { address, shared, drain }
    }

    /// The value for `auth_adapter.url`.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// The address of the business system.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how further calls are answered.
    pub fn follow(&self, script: Script) {
        self.shared.lock().script = script;
    }

    /// Answers further calls with 200 and this body.
    pub fn say(&self, body: &Value) {
        self.follow(Script::Says(200, body.to_string()));
    }

    /// Makes a token known, with exactly this answer.
    pub fn add_token(&self, token: &str, answer: Value) {
        self.shared.lock().tokens.insert(token.to_owned(), answer);
    }

    /// Holds further calls until [`Business::open`].
    pub fn hold(&self) {
        self.shared.gate.send_replace(false);
    }

    /// Lets the held calls and all further calls pass.
    pub fn open(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Calls so far, held calls included.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// The number of calls so far, held calls included.
    pub fn call_count(&self) -> usize {
        self.shared.lock().calls.len()
    }

    /// The number of calls so far with this token.
    pub fn calls_for(&self, token: &str) -> usize {
        self.shared.lock().calls.iter().filter(|call| call.token.as_deref() == Some(token)).count()
    }

    /// The number of calls that followed [`Script::Redirects`].
    pub fn redirected(&self) -> usize {
        self.shared.lock().redirected
    }

    /// The number of calls in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight
    }

    /// The most calls that were in flight at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.lock().most_in_flight
    }

    /// Stops the business system: connections are refused.
    ///
    /// # Panics
    /// A call does not end.
    pub async fn stop(&self) {
        self.open();
        let left = self.drain.finish(DEADLINE).await;
        assert_eq!(left, 0, "the business system still runs");
    }

    /// Starts the business system again at the same address, after [`Business::stop`].
    ///
    /// # Panics
    /// Another program took the port.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("nobody took the port meanwhile");
        self.drain = Drain::new();
        serve(listener, Arc::clone(&self.shared), &self.drain);
    }
}

impl Drop for Business {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>, drain: &Drain) {
    let router = axum::Router::new()
        .route(PATH, axum::routing::post(check))
        .route(ELSEWHERE, axum::routing::any(elsewhere))
        .with_state(shared);
    let leaving = drain.token();
    drain.spawn("business-system", async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
    });
}

/// Counts a call while it is in flight, even if its caller hangs up.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

async fn check(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    let token =
        serde_json::from_str::<Value>(&body).ok().and_then(|body| body["token"].as_str().map(str::to_owned));
    {
        let mut state = shared.lock();
        state.calls.push(Call { token: token.clone(), body, headers });
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
    }
    let _in_flight = InFlight(Arc::clone(&shared));
    let mut gate = shared.gate.subscribe();
    // A gate whose sender is gone is open.
    let _ = gate.wait_for(|open| *open).await;
    let state = shared.lock();
    let token = token.unwrap_or_default();
    match &state.script {
        Script::StumblesOver(prefix, script) if token.starts_with(prefix) => say(script, &state, &token),
        Script::StumblesOver(..) => say(&Script::Honest, &state, &token),
        script @ (Script::Honest
        | Script::Says(..)
        | Script::ComeBackIn(..)
        | Script::Endless
        | Script::Redirects) => say(script, &state, &token),
    }
}

fn say(script: &Script, state: &BusinessState, token: &str) -> Response {
    let status = |code: u16| StatusCode::from_u16(code).expect("tests name valid statuses");
    match script {
        Script::Honest | Script::StumblesOver(..) => honest(state, token),
        Script::Says(code, body) => (status(*code), body.clone()).into_response(),
        Script::ComeBackIn(code, seconds) => {
            (status(*code), [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Script::Endless => {
            let chunk = Bytes::from(vec![b' '; 8 << 10]);
            let chunks = stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            Body::from_stream(chunks).into_response()
        }
        Script::Redirects => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, ELSEWHERE)]).into_response()
        }
    }
}

async fn elsewhere(State(shared): State<Arc<Shared>>) -> Response {
    shared.lock().redirected += 1;
    axum::Json(json!({ "uid": 1 })).into_response()
}

fn honest(state: &BusinessState, token: &str) -> Response {
    let known = state.tokens.get(token).cloned().or_else(|| {
        let uid = token.strip_prefix("user-").filter(|uid| !uid.is_empty())?;
        Some(uid.parse::<u64>().map_or_else(|_| json!({ "uid": uid }), |uid| json!({ "uid": uid })))
    });
    axum::Json(known.unwrap_or_else(|| json!({ "error": "no such token" }))).into_response()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BusinessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

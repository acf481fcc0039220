//! A business system that checks tokens, and can be slow, wrong or gone.
//!
//! `user-<uid>` is a token of that user from the start. Slow means held at a gate until the test opens it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use shared::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ports;

/// Where tokens are checked.
const PATH: &str = "/websocket_auth";

/// How it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// With this status and no body.
    Status(u16),
    /// 200 and something that is no JSON.
    Rubbish,
    /// 200 and more bytes than anyone wants.
    Huge,
    /// A redirect to itself.
    Redirect,
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
    /// Closed: calls wait.
    gate: watch::Sender<bool>,
}

#[derive(Debug)]
struct BusinessState {
    mood: Mood,
    tokens: HashMap<String, Value>,
    calls: Vec<Call>,
    in_flight: usize,
    most_in_flight: usize,
}

/// One call, as it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// The token in it, if it was the JSON that it should be.
    pub token: Option<String>,
    /// The body.
    pub body: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl Business {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let [address] = ports::lasting();
        let listener = TcpListener::bind(address).await.expect("it was free a moment ago");
        let state = BusinessState {
            mood: Mood::Well,
            tokens: HashMap::new(),
            calls: Vec::new(),
            in_flight: 0,
            most_in_flight: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), gate: watch::Sender::new(true) });
        let drain = Drain::new();
        serve(listener, Arc::clone(&shared), &drain);
        Self { address, shared, drain }
    }

    /// What parts take as `auth_adapter.url`.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Makes it answer in another way from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.lock().mood = mood;
    }

    /// Makes a token known, with exactly this answer.
    pub fn add_token(&self, token: &str, answer: Value) {
        self.shared.lock().tokens.insert(token.to_owned(), answer);
    }

    /// From now on calls wait until [`Business::open`].
    pub fn hold(&self) {
        self.shared.gate.send_replace(false);
    }

    /// Lets all calls go that wait, and all that come.
    pub fn open(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Calls so far, those that still wait included.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Calls so far for one token.
    pub fn calls_for(&self, token: &str) -> usize {
        self.shared.lock().calls.iter().filter(|call| call.token.as_deref() == Some(token)).count()
    }

    /// The most calls that were under way at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.lock().most_in_flight
    }

    /// Ends it: connections are refused from now on.
    pub async fn stop(&self) {
        self.open();
        let left = self.drain.finish(Duration::from_secs(5)).await;
        assert_eq!(left, 0, "the business system still runs");
    }

    /// Starts it again at the same address after [`Business::stop`].
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
    let router = axum::Router::new().route(PATH, axum::routing::post(check)).with_state(shared);
    let leaving = drain.token();
    drain.spawn("business-system", async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
    });
}

/// Counts a call while it is under way, also one whose caller hangs up.
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
    // It is open once the sender is gone.
    let _ = gate.wait_for(|open| *open).await;
    let state = shared.lock();
    match &state.mood {
        Mood::Well => answer(&state, &token.unwrap_or_default()),
        Mood::Status(status) => {
            StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
        Mood::Rubbish => "<html>Welcome to our shop!".into_response(),
        Mood::Huge => format!("{{\"uid\":1,\"more\":\"{}\"}}", "x".repeat(1 << 20)).into_response(),
        Mood::Redirect => (StatusCode::FOUND, [(header::LOCATION, PATH)]).into_response(),
    }
}

fn answer(state: &BusinessState, token: &str) -> Response {
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

//! A business system that answers as the test says: slow, wrong or gone, and counts how it is called.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use shared::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{PATIENCE, Shared};

/// How it answers from now on.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// `user-<uid>` is a token of that user; everything else is refused.
    Honest,
    /// This status and this body.
    Says(u16, String),
    /// This status and the wish not to be asked again for so many seconds.
    ComeBackIn(u16, u64),
    /// 200 and bytes without end.
    Endless,
    /// A redirect to a page that would say yes.
    Redirects,
    /// This answer to tokens that begin so; honest to all others.
    StumblesOver(&'static str, Box<Script>),
}

/// One call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Seen {
    calls: Vec<Call>,
    redirected: usize,
    under_way: usize,
    most_under_way: usize,
}

#[derive(Debug, Clone)]
struct Inside {
    script: Shared<Script>,
    seen: Shared<Seen>,
    open: watch::Receiver<bool>,
}

/// A running one.
pub(crate) struct Business {
    address: SocketAddr,
    inside: Inside,
    gate: watch::Sender<bool>,
    drain: Drain,
}

impl Business {
    pub(crate) async fn start() -> Self {
        let (gate, open) = watch::channel(true);
        let inside = Inside { script: Arc::new(Mutex::new(Script::Honest)), seen: Arc::default(), open };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .route("/check", axum::routing::post(check))
            .route("/elsewhere", axum::routing::any(elsewhere))
            .with_state(inside.clone());
        let drain = Drain::new();
        let leaving = drain.token();
        drain.spawn("business-system", async move {
            let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
        });
        Self { address, inside, gate, drain }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/check", self.address)
    }

    pub(crate) fn follow(&self, script: Script) {
        *self.inside.script.lock().unwrap() = script;
    }

    /// Answers 200 with this body.
    pub(crate) fn say(&self, body: &Value) {
        self.follow(Script::Says(200, body.to_string()));
    }

    /// Calls wait from now on.
    pub(crate) fn hold(&self) {
        self.gate.send_replace(false);
    }

    /// Lets the calls go that wait, and all that come.
    pub(crate) fn open(&self) {
        self.gate.send_replace(true);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.inside.seen.lock().unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen().calls.len()
    }

    pub(crate) fn last_call(&self) -> Call {
        self.seen().calls.last().unwrap().clone()
    }

    /// How often each token came.
    pub(crate) fn calls_by_token(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for call in &self.seen().calls {
            *count.entry(token_of(&call.body)).or_default() += 1;
        }
        count
    }

    pub(crate) fn redirected(&self) -> usize {
        self.seen().redirected
    }

    pub(crate) fn under_way(&self) -> usize {
        self.seen().under_way
    }

    pub(crate) fn most_under_way(&self) -> usize {
        self.seen().most_under_way
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; connections are refused from now on.
    pub(crate) async fn stop(&self) {
        self.open();
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "the business system still runs");
    }
}

/// Counts a call while it is under way, also one whose caller hangs up.
struct UnderWay(Shared<Seen>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap().under_way -= 1;
    }
}

fn token_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["token"].as_str().unwrap_or_default().to_owned()
}

async fn check(State(inside): State<Inside>, headers: HeaderMap, body: String) -> Response {
    let token = token_of(&body);
    {
        let mut seen = inside.seen.lock().unwrap();
        seen.calls.push(Call { headers, body });
        seen.under_way += 1;
        seen.most_under_way = seen.most_under_way.max(seen.under_way);
    }
    let _under_way = UnderWay(Arc::clone(&inside.seen));
    let mut open = inside.open.clone();
    let _ = open.wait_for(|open| *open).await;
    let script = inside.script.lock().unwrap().clone();
    let script = if let Script::StumblesOver(prefix, answer) = script {
        if token.starts_with(prefix) { *answer } else { Script::Honest }
    } else {
        script
    };
    match script {
        Script::Honest | Script::StumblesOver(..) => match token.strip_prefix("user-") {
            Some(uid) => axum::Json(json!({ "uid": uid })).into_response(),
            None => StatusCode::UNAUTHORIZED.into_response(),
        },
        Script::Says(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Script::ComeBackIn(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, seconds.to_string())])
                .into_response()
        }
        Script::Endless => {
            let chunk = Bytes::from(vec![b' '; 8 << 10]);
            Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())))
                .into_response()
        }
        Script::Redirects => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response()
        }
    }
}

async fn elsewhere(State(inside): State<Inside>) -> Response {
    inside.seen.lock().unwrap().redirected += 1;
    axum::Json(json!({ "uid": 1 })).into_response()
}

//! The route table, and what holds for every request.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use shared::drain::Drain;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::connmix::{http, ws};
use crate::error::Refusal;
use crate::guard::Guard;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::publisher::Publisher;
use crate::traced;

/// Path of the publishing call.
pub(crate) const PUBLISH_PATH: &str = "/v1/mesh/publish";
/// Path of the publishing socket.
pub(crate) const SOCKET_PATH: &str = "/ws/v1";

/// What requests need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) publisher: Publisher,
    pub(crate) config: Arc<Config>,
    pub(crate) guard: Guard,
    pub(crate) keys: Arc<Keys>,
    pub(crate) metrics: Arc<Metrics>,
    /// One permit a WebSocket.
    pub(crate) sockets: Arc<Semaphore>,
    pub(crate) drain: Drain,
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let publish = post(http::publish).fallback(|state| refuse_method(state, PUBLISH_PATH, "POST"));
    let socket = get(ws::upgrade).fallback(|state| refuse_method(state, SOCKET_PATH, "GET"));
    Router::new()
        .route(PUBLISH_PATH, publish)
        .route(SOCKET_PATH, socket)
        .fallback(|State(app): State<Arc<App>>| async move { http::refuse(&app, Refusal::UnknownPath) })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .layer(middleware::from_fn(traced::request))
        .with_state(app)
}

async fn refuse_method(State(app): State<Arc<App>>, path: &'static str, allowed: &'static str) -> Response {
    http::refuse(&app, Refusal::Method { path, allowed })
}

/// Lets in whom neither origin nor host nor key speaks against. Handlers find the [`crate::keys::Caller`] in the
/// extensions of the request.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let checked = app.guard.check(request.uri(), request.headers());
    match checked.and_then(|()| app.keys.caller(request.headers())) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            tracing::debug!(%refusal, "refused a request");
            let (head, body) = request.into_parts();
            http::discard(&app, &head.headers, body).await;
            http::refuse(&app, refusal)
        }
    }
}

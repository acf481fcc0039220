//! The route table, and what holds for every request.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use shared::drain::Drain;

use crate::config::Config;
use crate::connmix::{self, http, ws};
use crate::control::Control;
use crate::error::Refusal;
use crate::guard::Guard;
use crate::idempotency::Idempotency;
use crate::keys::{Caller, Keys};
use crate::metrics::Metrics;
use crate::native::{self, channels, openapi, publish, users};
use crate::publisher::Publisher;
use crate::shares::Shares;
use crate::spans;

/// Path of the publishing call.
pub(crate) const PUBLISH_PATH: &str = "/v1/mesh/publish";
/// Path of a call of the original that is not offered.
const SEND_PATH: &str = "/v1/mesh/send";
/// Path of the publishing socket.
pub(crate) const SOCKET_PATH: &str = "/ws/v1";

/// What requests need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) publisher: Publisher,
    pub(crate) control: Control,
    pub(crate) keyed: Idempotency,
    pub(crate) config: Arc<Config>,
    pub(crate) guard: Guard,
    pub(crate) keys: Arc<Keys>,
    pub(crate) metrics: Arc<Metrics>,
    /// One place a WebSocket.
    pub(crate) sockets: Arc<Shares>,
    /// What `/openapi.json` answers.
    pub(crate) openapi: Bytes,
    pub(crate) drain: Drain,
}

/// A path, the methods that it takes, and who answers it.
type Route = (&'static str, &'static str, MethodRouter<Arc<App>>);

/// Every route there is.
fn routes() -> [Route; 9] {
    [
        (PUBLISH_PATH, "POST", post(http::publish)),
        (SOCKET_PATH, "GET", get(ws::upgrade)),
        ("/v1/publish", "POST", post(publish::publish)),
        ("/v1/publish/batch", "POST", post(publish::batch)),
        ("/v1/users/{uid}/sessions", "GET", get(users::sessions)),
        ("/v1/users/sessions", "POST", post(users::sessions_of_many)),
        ("/v1/users/{uid}/disconnect", "POST", post(users::disconnect)),
        ("/v1/channels/{channel}/messages", "GET, DELETE", get(channels::messages).delete(channels::erase)),
        ("/openapi.json", "GET", get(openapi::serve)),
    ]
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, (path, method, handler)| {
        router.route(path, handler.fallback(move |state, uri| refuse_method(state, uri, path, method)))
    });
    let unknown = |State(app): State<Arc<App>>, uri: Uri| async move {
        let refusal = if uri.path() == SEND_PATH { connmix::no_send() } else { Refusal::UnknownPath };
        refuse(&app, uri.path(), refusal)
    };
    router
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .layer(middleware::from_fn(spans::request))
        .with_state(app)
}

async fn refuse_method(
    State(app): State<Arc<App>>,
    uri: Uri,
    path: &'static str,
    allowed: &'static str,
) -> Response {
    refuse(&app, uri.path(), Refusal::Method { path, allowed: allowed.into() })
}

/// Refuses a request that no call was made by, in the words of those who use this path.
fn refuse(app: &App, path: &str, refusal: Refusal) -> Response {
    if native::is_native(path) { native::refuse(app, &refusal) } else { http::refuse(app, refusal) }
}

/// Lets in whom neither origin nor host nor key speaks against. Handlers find the [`Caller`] in
/// the extensions of the request.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let checked = app.guard.check(&request);
    match checked.and_then(|()| Caller::of(&app.keys, request.headers())) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            tracing::debug!(%refusal, "refused a request");
            let (head, body) = request.into_parts();
            http::discard(&app, &head.headers, body);
            refuse(&app, head.uri.path(), refusal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket is no call that OpenAPI could describe.
    #[test]
    fn the_description_has_exactly_the_routes() {
        let document = openapi::document();
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                described.push((path.clone(), method.to_uppercase()));
            }
        }
        let there = routes().into_iter().filter(|(path, ..)| *path != SOCKET_PATH);
        let of = |(path, methods, _): Route| {
            methods.split(", ").map(|method| (path.to_owned(), method.to_owned())).collect::<Vec<_>>()
        };
        let mut there: Vec<_> = there.flat_map(of).collect();
        there.sort();
        described.sort();
        assert_eq!(described, there);
    }
}

//! The route table: one row a call. The router, the answers to requests without a call, and `/openapi.json`
//! are all made from these rows.
//!
//! A new call is a handler, its answer types, and a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};

use crate::app::App;
use crate::connmix;
use crate::error::{Problem, Refusal};
use crate::http::Description;
use crate::keys::Caller;
use crate::native::{self, channels, openapi, publish, users};
use crate::scope::Scope;
use crate::spans;

/// How callers speak, and how they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Refusals are codes. Requests to unknown paths are answered so as well.
    Connmix,
    /// Refusals are problems (RFC 9457).
    Native,
}

/// The method of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Delete,
}

/// A check of a request before the scope of its key.
type Check = fn(&Request) -> Result<(), Refusal>;

/// One call: where it is, who may make it, who answers it, and what it may answer.
pub(crate) struct Row {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    handler: MethodRouter<Arc<App>>,
    pub(crate) dialect: Dialect,
    /// The scope that a key needs. `None`: any valid key may make this call.
    scope: Option<Scope>,
    /// The check that comes before the scope, if there is one.
    check: Option<Check>,
    /// The problems that a native call may answer besides [`ANYWHERE`].
    pub(crate) problems: &'static [&'static [Problem]],
    /// The description. `None`: OpenAPI can't describe the call.
    pub(crate) describe: Option<fn() -> Description>,
}

/// Problems that every native call may answer.
pub(crate) const ANYWHERE: &[Problem] =
    &[Problem::InvalidKey, Problem::ForbiddenOrigin, Problem::ForbiddenHost, Problem::MethodNotAllowed];
/// Problems of calls that have a body.
const BODY: &[Problem] = &[
    Problem::InvalidJson,
    Problem::InvalidRequest,
    Problem::RequestTimeout,
    Problem::TooLarge,
    Problem::UnsupportedMediaType,
];
/// Problems of calls that need a scope, a channel and the bus.
const WORK: &[Problem] =
    &[Problem::MissingScope, Problem::ForbiddenChannel, Problem::TooManyInFlight, Problem::Unavailable];
const PUBLISHING: &[Problem] = &[
    Problem::InvalidUser,
    Problem::InvalidChannel,
    Problem::RateLimited,
    Problem::IdempotencyUnavailable,
    Problem::IdempotencyKeyReused,
    Problem::StoreFull,
];
const HISTORY: &[Problem] = &[Problem::InvalidChannel, Problem::NoHistory];
const PAGE: &[Problem] = &[Problem::InvalidRequest, Problem::HistoryNotWhole];
const USER: &[Problem] = &[Problem::InvalidUser];
const FULL: &[Problem] = &[Problem::StoreFull];

/// Makes the row of a native call. The attribute `utoipa::path` of its handler describes the call.
macro_rules! native {
    ($method:ident $path:literal, $module:ident::$handler:ident, $scope:ident, $problems:expr) => {{
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($module::$handler))]
        struct Described;
        let describe = || Description::of(&<Described as utoipa::OpenApi>::openapi());
        native_row(Method::$method, $path, $module::$handler, Some(Scope::$scope), $problems, describe)
    }};
}

/// Every call there is.
pub(crate) fn table() -> [Row; 11] {
    let handshake: Check = connmix::ws::check_handshake;
    [
        connmix_row(Method::Post, "/v1/mesh/publish", connmix::http::publish, None, Some(connmix::describe)),
        connmix_row(Method::Get, "/ws/v1", connmix::ws::upgrade, Some(handshake), None),
        native!(Post "/v1/publish", publish::publish, Publish, &[BODY, WORK, PUBLISHING]),
        native!(Post "/v1/publish/batch", publish::batch, Publish, &[BODY, WORK, PUBLISHING]),
        native!(Get "/v1/users/{uid}/sessions", users::sessions, Read, &[WORK, USER]),
        native!(Post "/v1/users/sessions", users::sessions_of_many, Read, &[BODY, WORK]),
        native!(Post "/v1/users/{uid}/disconnect", users::disconnect, Disconnect, &[BODY, WORK, USER]),
        native!(Post "/v1/users/{uid}/refresh", users::refresh, Disconnect, &[WORK, USER]),
        native!(Get "/v1/channels/{channel}/messages", channels::messages, Read, &[WORK, HISTORY, PAGE]),
        native!(Delete "/v1/channels/{channel}/messages", channels::erase, Admin, &[WORK, HISTORY, FULL]),
        native_row(Method::Get, "/openapi.json", openapi::serve, None, &[], openapi::describe),
    ]
}

fn native_row<T: 'static>(
    method: Method,
    path: &'static str,
    handler: impl Handler<T, Arc<App>>,
    scope: Option<Scope>,
    problems: &'static [&'static [Problem]],
    describe: fn() -> Description,
) -> Row {
    let (handler, describe) = (on(method.filter(), handler), Some(describe));
    Row { method, path, handler, dialect: Dialect::Native, scope, check: None, problems, describe }
}

/// Makes the row of a call of connmix, all of which publish. Their descriptions name their codes.
fn connmix_row<T: 'static>(
    method: Method,
    path: &'static str,
    handler: impl Handler<T, Arc<App>>,
    check: Option<Check>,
    describe: Option<fn() -> Description>,
) -> Row {
    let (handler, scope) = (on(method.filter(), handler), Some(Scope::Publish));
    Row { method, path, handler, dialect: Dialect::Connmix, scope, check, problems: &[], describe }
}

/// Makes the router of all calls.
pub(crate) fn router(app: Arc<App>) -> Router {
    let table = table();
    let refuser = Refuser::new(Arc::clone(&app), &table);
    let mut methods: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
    for row in &table {
        methods.entry(row.path).or_default().push(row.method.name());
    }
    let mut router = Router::new();
    for row in table {
        let permit =
            Permit { app: Arc::clone(&app), dialect: row.dialect, scope: row.scope, check: row.check };
        let mut call = row.handler.route_layer(middleware::from_fn_with_state(permit, permit_call));
        // The first row of a path answers the methods that the path does not take.
        if let Some(methods) = methods.remove(row.path) {
            let (refuser, path, allowed) = (refuser.clone(), row.path, Arc::from(methods.join(", ")));
            call = call.fallback(async move |uri: Uri| {
                refuser.refuse(uri.path(), Refusal::Method { path, allowed })
            });
        }
        router = router.route(row.path, call);
    }
    let unknown = refuser.clone();
    router
        .fallback(async move |uri: Uri| unknown.refuse(uri.path(), connmix::unknown_path(uri.path())))
        .layer(middleware::from_fn_with_state(refuser, admit))
        .layer(middleware::from_fn(spans::request))
        .with_state(app)
}

/// Answers requests for which no call is made, in the dialect of their path.
#[derive(Clone)]
struct Refuser {
    app: Arc<App>,
    /// Where native calls are: the first two segments of their paths.
    native: Arc<[&'static str]>,
}

impl Refuser {
    fn new(app: Arc<App>, table: &[Row]) -> Self {
        let native = table.iter().filter(|row| row.dialect == Dialect::Native).map(|row| root(row.path));
        Self { app, native: native.collect() }
    }

    /// Returns the dialect of a caller that asks for this path, whether the path exists or not.
    fn dialect(&self, path: &str) -> Dialect {
        let is_below = |root: &&str| {
            path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if self.native.iter().any(is_below) { Dialect::Native } else { Dialect::Connmix }
    }

    fn refuse(&self, path: &str, refusal: Refusal) -> Response {
        self.dialect(path).refuse(&self.app, refusal)
    }
}

/// The first two segments of a path.
fn root(path: &'static str) -> &'static str {
    path.match_indices('/').nth(2).map_or(path, |(end, _)| &path[..end])
}

impl Dialect {
    fn refuse(self, app: &App, refusal: Refusal) -> Response {
        match self {
            Self::Connmix => connmix::http::refuse(app, refusal),
            Self::Native => native::refuse(app, &refusal),
        }
    }
}

/// Admits requests whose origin, host and key are all accepted. Handlers find the [`Caller`] in the
/// extensions of the request.
async fn admit(State(refuser): State<Refuser>, mut request: Request, next: Next) -> Response {
    let app = &refuser.app;
    let checked = app.guard.check(&request);
    match checked.and_then(|()| Caller::of(&app.keys, request.headers())) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            tracing::debug!(%refusal, "refused a request");
            let (head, body) = request.into_parts();
            app.bodies.discard(&head.headers, body);
            refuser.refuse(head.uri.path(), refusal)
        }
    }
}

/// The check of a request that a row demands before its handler.
#[derive(Clone)]
struct Permit {
    app: Arc<App>,
    dialect: Dialect,
    scope: Option<Scope>,
    check: Option<Check>,
}

impl Permit {
    fn check(&self, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        self.check.map_or(Ok(()), |check| check(request))?;
        self.scope.map_or(Ok(()), |scope| caller.require(scope))
    }
}

/// Lets a request to its handler if the row permits that.
async fn permit_call(
    State(permit): State<Permit>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match permit.check(&request, &caller) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let (head, body) = request.into_parts();
            permit.app.bodies.discard(&head.headers, body);
            permit.dialect.refuse(&permit.app, refusal)
        }
    }
}

impl Method {
    /// The name, as in the header `Allow`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No handler checks a scope, so a wrong word in the table would open a call.
    #[test]
    fn each_call_needs_the_scope_that_the_manual_says() {
        let needs: Vec<String> =
            table().iter().map(|row| format!("{} {} {:?}", row.method.name(), row.path, row.scope)).collect();
        assert_eq!(
            needs,
            [
                "POST /v1/mesh/publish Some(Publish)",
                "GET /ws/v1 Some(Publish)",
                "POST /v1/publish Some(Publish)",
                "POST /v1/publish/batch Some(Publish)",
                "GET /v1/users/{uid}/sessions Some(Read)",
                "POST /v1/users/sessions Some(Read)",
                "POST /v1/users/{uid}/disconnect Some(Disconnect)",
                "POST /v1/users/{uid}/refresh Some(Disconnect)",
                "GET /v1/channels/{channel}/messages Some(Read)",
                "DELETE /v1/channels/{channel}/messages Some(Admin)",
                "GET /openapi.json None",
            ]
        );
    }
}

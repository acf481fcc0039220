//! Stand-ins for business systems of common frameworks, each with the answers of its original.
//!
//! `good-<uid>` is a token of that user; every other token is bad.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use shared::clock;
use shared::drain::Drain;
use tokio::net::TcpListener;

use crate::wait::DEADLINE;

/// Fields of a form or of a query.
type Fields = std::collections::BTreeMap<String, String>;

/// A server with all stand-ins.
#[derive(Debug)]
pub struct Frameworks {
    address: SocketAddr,
    calls: Calls,
    drain: Drain,
}

/// The tokens that were asked about.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Frameworks {
    /// Starts the stand-ins on a free port.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let (calls, drain) = (Calls::default(), Drain::new());
        let router = axum::Router::new()
            .route("/websocket_auth", post(own))
            .route("/admin-api/system/oauth2/check-token", post(common_result))
            .route("/profile", post(common_profile))
            .route("/api/user", get(laravel))
            .route("/realms/shop/protocol/openid-connect/token/introspect", post(introspect))
            .route("/query", get(query))
            .with_state(calls.clone());
        let leaving = drain.token();
        drain.spawn("frameworks", async move {
            let _ = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned()).await;
        });
        Self { address, calls, drain }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The tokens that were asked about so far.
    pub fn tokens(&self) -> Vec<String> {
        self.calls.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the stand-ins.
    ///
    /// # Panics
    /// A call does not end.
    pub async fn stop(self) {
        assert_eq!(self.drain.finish(DEADLINE).await, 0, "the stand-ins still run");
    }
}

impl Drop for Frameworks {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

impl Calls {
    /// Notes the call, and returns the user of the token.
    fn user(&self, token: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(token.to_owned());
        token.strip_prefix("good-").map(str::to_owned)
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
}

/// Returns a field of a form, which is written like a query.
fn field(form: &str, name: &str) -> String {
    let fields =
        format!("/?{form}").parse::<Uri>().ok().and_then(|uri| Query::<Fields>::try_from_uri(&uri).ok());
    fields.and_then(|Query(mut fields)| fields.remove(name)).unwrap_or_default()
}

fn has_client(headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Basic "))
}

/// An endpoint that was made for message center.
async fn own(State(calls): State<Calls>, Json(body): Json<Value>) -> Response {
    match calls.user(body["token"].as_str().unwrap_or_default()) {
        Some(uid) => Json(json!({ "uid": uid })).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// The `check-token` of ruoyi-vue-pro: the client's credentials, and the token as a form. The answer repeats
/// the token.
async fn common_result(State(calls): State<Calls>, headers: HeaderMap, body: String) -> Response {
    if !has_client(&headers) {
        return Json(json!({ "code": 400, "data": null, "msg": "client_id missing" })).into_response();
    }
    let token = field(&body, "token");
    let answer = match calls.user(&token) {
        Some(uid) => json!({
            "code": 0,
            "data": { "user_id": uid, "user_type": 2, "tenant_id": 1, "access_token": token },
            "msg": "",
        }),
        None => json!({ "code": 401, "data": null, "msg": format!("no such token: {token}") }),
    };
    Json(answer).into_response()
}

/// A profile with a common result, behind a Bearer header.
async fn common_profile(State(calls): State<Calls>, headers: HeaderMap) -> Json<Value> {
    Json(match calls.user(bearer(&headers)) {
        Some(uid) => json!({ "code": 200, "msg": "ok", "data": { "id": uid, "nickname": "Ada" } }),
        None => json!({ "code": 401, "msg": "not logged in" }),
    })
}

/// `GET /api/user` of Laravel with Sanctum.
async fn laravel(State(calls): State<Calls>, headers: HeaderMap) -> Response {
    let wants_json = headers.get(header::ACCEPT).is_some_and(|value| value == "application/json");
    match calls.user(bearer(&headers)) {
        Some(uid) => Json(json!({
            "id": uid.parse::<u64>().unwrap_or(1), "name": "Ada", "email": "ada@example.com",
            "created_at": "2026-01-01T00:00:00.000000Z",
        }))
        .into_response(),
        None if wants_json => {
            (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Unauthenticated." }))).into_response()
        }
        None => Redirect::to("/login").into_response(),
    }
}

/// Token introspection as Keycloak has it (RFC 7662).
async fn introspect(State(calls): State<Calls>, headers: HeaderMap, body: String) -> Response {
    if !has_client(&headers) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_request" }))).into_response();
    }
    let now = clock::unix_ms() / 1_000;
    Json(match calls.user(&field(&body, "token")) {
        Some(uid) => json!({
            "active": true, "sub": uid, "exp": now + 300, "iat": now, "client_id": "shop",
            "username": "ada", "token_type": "Bearer", "realm_access": { "roles": ["vip", "staff"] },
        }),
        None => json!({ "active": false }),
    })
    .into_response()
}

/// A check that reads the token from the URL.
async fn query(State(calls): State<Calls>, Query(query): Query<Fields>) -> Json<Value> {
    let uid = calls.user(query.get("access_token").map(String::as_str).unwrap_or_default());
    Json(json!({ "uid": uid }))
}

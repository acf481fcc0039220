//! `/openapi.json`: the description of all calls, made from the handlers and their types.
//!
//! What the types can't say is added here: which problems each call may answer, and how keys are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{channels, message, publish, users};
use crate::error::Problem;
use crate::metrics::Via;
use crate::routes::App;

/// Problems that every call may answer.
const ANYWHERE: [Problem; 4] =
    [Problem::InvalidKey, Problem::ForbiddenOrigin, Problem::ForbiddenHost, Problem::MethodNotAllowed];
/// Those of calls that have a body.
const OF_BODIES: [Problem; 5] = [
    Problem::InvalidJson,
    Problem::InvalidRequest,
    Problem::RequestTimeout,
    Problem::TooLarge,
    Problem::UnsupportedMediaType,
];
/// Those of calls that need a scope, a channel and the bus.
const OF_WORK: [Problem; 4] =
    [Problem::MissingScope, Problem::ForbiddenChannel, Problem::TooManyInFlight, Problem::Unavailable];
const OF_PUBLISHING: [Problem; 6] = [
    Problem::InvalidUser,
    Problem::InvalidChannel,
    Problem::RateLimited,
    Problem::IdempotencyUnavailable,
    Problem::IdempotencyKeyReused,
    Problem::StoreFull,
];
const OF_HISTORY: [Problem; 2] = [Problem::InvalidChannel, Problem::NoHistory];

/// The native calls. Those of connmix are added by [`document`].
#[derive(OpenApi)]
#[openapi(
    info(title = "message center", description = "Sends messages to the devices of users, and tells who is online."),
    paths(publish::publish, publish::batch, users::sessions, users::sessions_of_many, users::disconnect,
        channels::messages, channels::erase),
    components(schemas(message::To<'_>, message::UserId, super::answer::ProblemAnswer)),
    tags(
        (name = "publish", description = "Sending messages."),
        (name = "channels", description = "What is kept of channels."),
        (name = "users", description = "Who is online, and sending users away."),
        (name = "connmix", description = "The calls of connmix, for publishers that used it.")
    )
)]
struct Calls;

/// The whole document.
pub(crate) fn document() -> Value {
    let mut document = serde_json::to_value(Calls::openapi()).expect("the description has only string keys");
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "A key as it was printed when it was made." },
        "basic": { "type": "http", "scheme": "basic", "description": "The name of a key and the key." },
    });
    document["security"] = json!([{ "bearer": [] }, { "basic": [] }]);
    document["components"]["schemas"]["ConnmixAnswer"] = connmix_schema();
    document["paths"]["/v1/mesh/publish"] = connmix_call();
    document["paths"]["/openapi.json"] = json!({ "get": {
        "operationId": "describe", "summary": "This description.",
        "responses": { "200": { "description": "OpenAPI 3.1.", "content": { "application/json": { "schema": { "type": "object" } } } } },
    } });
    for (path, method, problems) in problems() {
        add_problems(&mut document["paths"][path][method]["responses"], &problems);
    }
    document
}

/// Which problems each call may answer.
fn problems() -> Vec<(&'static str, &'static str, Vec<Problem>)> {
    let of = |lists: &[&[Problem]]| [lists, &[&ANYWHERE[..]]].concat().concat();
    vec![
        ("/v1/publish", "post", of(&[&OF_BODIES, &OF_WORK, &OF_PUBLISHING])),
        ("/v1/publish/batch", "post", of(&[&OF_BODIES, &OF_WORK, &OF_PUBLISHING])),
        ("/v1/users/{uid}/sessions", "get", of(&[&OF_WORK, &[Problem::InvalidUser]])),
        ("/v1/users/sessions", "post", of(&[&OF_BODIES, &OF_WORK])),
        ("/v1/users/{uid}/disconnect", "post", of(&[&OF_BODIES, &OF_WORK, &[Problem::InvalidUser]])),
        (
            "/v1/channels/{channel}/messages",
            "get",
            of(&[&OF_WORK, &OF_HISTORY, &[Problem::InvalidRequest, Problem::HistoryNotWhole]]),
        ),
        ("/v1/channels/{channel}/messages", "delete", of(&[&OF_WORK, &OF_HISTORY, &[Problem::StoreFull]])),
        ("/openapi.json", "get", of(&[])),
    ]
}

/// One response a status, with an example of each kind.
fn add_problems(responses: &mut Value, problems: &[Problem]) {
    let mut by_status: BTreeMap<u16, Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        by_status.entry(problem.row().status.as_u16()).or_default().push(*problem);
    }
    for (status, problems) in by_status {
        let rows = || problems.iter().map(|problem| problem.row());
        let codes: Vec<&str> = rows().map(|row| row.name).collect();
        let examples: BTreeMap<&str, Value> = rows()
            .map(|row| {
                let kind = format!("urn:message-center:problem:{}", row.name);
                let (title, code) = (row.title, row.name);
                let problem = json!({ "type": kind, "title": title, "status": status, "detail": "what to do", "code": code });
                (row.name, json!({ "value": problem }))
            })
            .collect();
        let schema = json!({ "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "properties": { "code": { "enum": codes }, "status": { "const": status } } },
        ] });
        responses[status.to_string()] = json!({
            "description": rows().map(|row| row.title).collect::<Vec<_>>().join(" "),
            "content": { "application/problem+json": { "schema": schema, "examples": examples } },
        });
        if matches!(status, 429 | 503) {
            responses[status.to_string()]["headers"] = json!({ "Retry-After": {
                "description": "Seconds after which the same request may succeed.", "schema": { "type": "integer" },
            } });
        }
    }
}

fn connmix_schema() -> Value {
    let integer = json!({ "type": "integer", "minimum": 0 });
    json!({ "oneOf": [
        { "type": "object", "required": ["E", "r"], "properties": {
            "E": { "type": "null" },
            "r": { "type": "object", "required": ["s", "f"], "properties": { "s": integer, "f": integer } },
        } },
        { "type": "object", "required": ["E"], "properties": {
            "E": { "type": "object", "required": ["c", "m"], "properties": { "c": integer, "m": { "type": "string" } } },
        } },
    ] })
}

fn connmix_call() -> Value {
    let answer = |description: &str| {
        json!({ "description": description, "content": { "application/json": {
            "schema": { "$ref": "#/components/schemas/ConnmixAnswer" } } } })
    };
    let text = json!({ "type": "string" });
    json!({ "post": {
        "operationId": "meshPublish", "tags": ["connmix"], "summary": "Sends a message to a channel.",
        "requestBody": { "required": true, "content": { "application/json": {
            "schema": { "type": "object", "required": ["c", "d"], "properties": {
                "c": text, "d": text, "t": { "type": "string", "enum": ["text", "binary"] } } },
            "example": { "c": "user:1001", "d": "text" } } } },
        "responses": {
            "200": answer("Counts, or an error that a retry does not change."),
            "401": answer("No key, or a wrong one (105)."), "403": answer("Not permitted (106)."),
            "405": answer("Another method (101)."), "408": answer("The body came too slowly (101)."),
            "429": answer("Too many (107)."), "503": answer("The bus can't be reached (108)."),
        },
    } })
}

/// Serves the document.
pub(crate) async fn serve(State(app): State<Arc<App>>) -> Response {
    app.metrics.answered(Via::Native, "ok");
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], app.openapi.clone()).into_response()
}

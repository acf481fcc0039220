//! The native calls: publishing to many, batches, what is kept, who is online, disconnecting.
//!
//! A success is JSON; every refusal is a problem (RFC 9457) with a name that programs can rely on. Whatever a
//! call asks for is bounded: entries, bytes, and what is under way at a time.

mod answer;
mod body;
pub(crate) mod channels;
mod message;
pub(crate) mod openapi;
pub(crate) mod publish;
mod target;
pub(crate) mod users;

#[cfg(test)]
mod tests;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::connmix::http::advise;
use crate::error::Refusal;
use crate::metrics::Via;
use crate::routes::App;
use answer::ProblemAnswer;

/// Targets that one call may name, over all its messages.
pub(crate) const MAX_TARGETS: usize = 10_000;
/// Messages in one batch.
pub(crate) const MAX_MESSAGES: usize = 1_000;
/// Users in one question.
pub(crate) const MAX_USERS: usize = 1_000;

/// Whether whoever asks for this path understands problems. Elsewhere, connmix's errors are expected.
pub(crate) fn is_native(path: &str) -> bool {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ["/v1/publish", "/v1/users", "/v1/channels", "/openapi.json"].into_iter().any(below)
}

/// Answers a call.
fn respond<T: Serialize>(app: &App, outcome: Result<T, Refusal>) -> Response {
    match outcome {
        Ok(answer) => {
            app.metrics.answered(Via::Native, "ok");
            json(StatusCode::OK, "application/json", &answer)
        }
        Err(refusal) => refuse(app, &refusal),
    }
}

/// Answers with a problem.
pub(crate) fn refuse(app: &App, refusal: &Refusal) -> Response {
    let row = refusal.problem().row();
    app.metrics.answered(Via::Native, row.name);
    let mut response = json(row.status, "application/problem+json", &ProblemAnswer::of(refusal));
    advise(response.headers_mut(), refusal);
    response
}

fn json<T: Serialize>(status: StatusCode, content_type: &'static str, answer: &T) -> Response {
    let body = serde_json::to_vec(answer).expect("an answer has only string keys");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

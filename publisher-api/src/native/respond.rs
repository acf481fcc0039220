//! Answers native calls.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::answer::ProblemAnswer;
use crate::app::App;
use crate::error::Refusal;
use crate::http::advise;
use crate::metrics::Via;

/// Answers a call.
pub(super) fn respond<T: Serialize>(app: &App, outcome: Result<T, Refusal>) -> Response {
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

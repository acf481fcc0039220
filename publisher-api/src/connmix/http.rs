//! `POST /v1/mesh/publish`: one publish a request.
//!
//! Every answer is JSON with `E`, whatever goes wrong: clients of the original look nowhere else.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{MatchedPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::answer::http_answer;
use super::call::read_message;
use crate::app::App;
use crate::error::Refusal;
use crate::http::{advise, check_content_type};
use crate::idempotency::{Key, KeyedCall, Turn};
use crate::keys::Caller;
use crate::metrics::Via;
use crate::publisher::Counting;
use crate::receipts::Receipt;

/// `false` when the counts may not be all.
const COMPLETE: HeaderName = HeaderName::from_static("mc-complete");
/// `true` when an `Idempotency-Key` was recognized and the message was stored before.
const DUPLICATE: HeaderName = HeaderName::from_static("mc-duplicate");

/// Publishes one message.
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: MatchedPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = match admit(&app, &caller, &headers) {
        Ok(key) => answer(&app, &caller, key, path.as_str(), &headers, body).await,
        Err(refusal) => {
            app.bodies.discard(&headers, body);
            Err(refusal)
        }
    };
    let duplicate = matches!(outcome, Ok((_, true)));
    let mut response = respond(&app, &outcome.map(|(receipt, _)| receipt));
    if duplicate {
        response.headers_mut().insert(DUPLICATE, HeaderValue::from_static("true"));
    }
    response
}

/// Checks what can be checked before the body is read.
fn admit(app: &App, caller: &Caller, headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    check_content_type(headers)?;
    let key = Key::read(headers, caller.name())?;
    app.publisher.has_slot(caller).map(|()| key)
}

/// Answers a request for which no call was made.
pub(crate) fn refuse(app: &App, refusal: Refusal) -> Response {
    respond(app, &Err(refusal))
}

/// Reads and publishes the message. Returns the counts, and whether the message was stored before.
async fn answer(
    app: &App,
    caller: &Caller,
    key: Option<Key>,
    path: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Receipt, bool), Refusal> {
    let body = app.bodies.read(headers, body, app.config.request_bytes()).await?;
    let message = read_message(&body, app.config.max_message.as_usize())?;
    let publisher = &app.publisher;
    if key.is_some() && !publisher.has_history(&message.channel) {
        return Err(Refusal::Idempotency);
    }
    caller.admit_publish(&message.channel)?;
    // Held until the answer, so that a repeat meanwhile finds the message stored.
    let turn = match &key {
        Some(key) => {
            let call = KeyedCall { key, path, body: &body };
            Some(app.keyed.begin(call, publisher.store().deadline()).await?)
        }
        None => None,
    };
    let id = key.map(|key| key.message_id(&message.channel, 0));
    let accepted = publisher.accept(caller, message, id)?;
    let handed_over = publisher.hand_over(accepted, Counting::Wanted).await?;
    let is_repeat = turn.as_ref().is_some_and(Turn::is_repeat);
    let duplicate = is_repeat && handed_over.stored().is_some_and(|stored| stored.duplicate);
    Ok((handed_over.receipt().await, duplicate))
}

fn respond(app: &App, outcome: &Result<Receipt, Refusal>) -> Response {
    let json = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, json)], http_answer(outcome)).into_response();
    let (status, label) = match outcome {
        Ok(_) => (StatusCode::OK, "ok"),
        Err(refusal) => (refusal.status(), refusal.code().label()),
    };
    *response.status_mut() = status;
    app.metrics.answered(Via::Http, label);
    match outcome {
        Ok(receipt) if !receipt.complete => {
            response.headers_mut().insert(COMPLETE, HeaderValue::from_static("false"));
        }
        Ok(_) => {}
        Err(refusal) => advise(response.headers_mut(), refusal),
    }
    response
}

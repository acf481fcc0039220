//! `POST /v1/mesh/publish`: one publish a request.
//!
//! Every answer is JSON with `E`, whatever goes wrong: clients of the original look nowhere else.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{Publish, http_answer};
use crate::error::{Code, Refusal};
use crate::guard::check_content_type;
use crate::idempotency::Key;
use crate::keys::{Caller, Scope};
use crate::metrics::Via;
use crate::receipts::Receipt;
use crate::routes::{App, PUBLISH_PATH};

/// Says `false` when the counts may not be all.
const COMPLETE: HeaderName = HeaderName::from_static("mc-complete");
/// Says `true` when an `Idempotency-Key` was recognized and the message was there before.
const DUPLICATE: HeaderName = HeaderName::from_static("mc-duplicate");
/// Of a body that is too large, this many times the limit is read and thrown away, so that the caller gets
/// to read the answer instead of a broken connection.
const DISCARD_FACTOR: usize = 8;

/// How to send a key, for clients that ask first.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"message center\", charset=\"UTF-8\", Bearer");

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = match admit(&app, &caller, &headers) {
        Ok(key) => answer(&app, &caller, key, body).await,
        Err(refusal) => {
            discard(&app, &headers, body).await;
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

/// What can be said before the body is read.
fn admit(app: &App, caller: &Caller, headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    caller.require(Scope::Publish)?;
    check_content_type(headers)?;
    let key = Key::read(headers, caller.name())?;
    app.publisher.has_room().map(|()| key)
}

/// Reads a body that nobody needs, as far as a publish may be long. A caller that is still sending would find the
/// connection broken, and not read why it was refused. One that asks before it sends (`Expect`) has sent nothing.
pub(crate) async fn discard(app: &App, headers: &HeaderMap, body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let (mut chunks, mut left) = (body.into_data_stream(), app.config.request_bytes());
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Late or not, the refusal is the answer.
    let _ = timeout(app.config.body_timeout, reading).await;
}

/// Answers a request that no call was made by.
pub(crate) fn refuse(app: &App, refusal: Refusal) -> Response {
    respond(app, &Err(refusal))
}

/// The counts, and whether the message was there before.
async fn answer(
    app: &App,
    caller: &Caller,
    key: Option<Key>,
    body: Body,
) -> Result<(Receipt, bool), Refusal> {
    let patience = app.config.body_timeout;
    let body = timeout(patience, read(body, app.config.request_bytes()))
        .await
        .map_err(|_| Refusal::SlowBody(patience))??;
    let publish = Publish::parse(&body, app.config.max_message.as_usize())?;
    if key.is_some() && !app.publisher.keeps(&publish.channel) {
        return Err(Refusal::Idempotency);
    }
    caller.admit_publish(&publish.channel)?;
    let Some(key) = key else {
        return Ok((app.publisher.hand_over(publish, None, true).await?.receipt().await, false));
    };
    let turn = app.keyed.begin(&key, PUBLISH_PATH, &body, app.publisher.store_deadline()).await?;
    let id = key.message_id(&publish.channel, 0);
    let handed_over = app.publisher.hand_over(publish, Some(id), true).await?;
    let duplicate = turn.is_repeat() && handed_over.stored().is_some_and(|(_, duplicate)| duplicate);
    Ok((handed_over.receipt().await, duplicate))
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut whole, mut length) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::BrokenBody)?;
        length = length.saturating_add(chunk.len());
        if length <= limit {
            whole.extend_from_slice(&chunk);
        } else if length > limit.saturating_mul(DISCARD_FACTOR) {
            break;
        }
    }
    if length > limit {
        return Err(Refusal::TooLarge { what: "the request", limit });
    }
    Ok(whole)
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

/// Says in headers what to do about a refusal.
pub(crate) fn advise(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some(pause) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(pause));
    }
    if refusal.code() == Code::BadKey {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    if let Refusal::Method { allowed, .. } = refusal {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
}

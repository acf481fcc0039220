//! `POST /v1/mesh/publish`: one publish a request.
//!
//! Every answer is JSON with `E`, whatever goes wrong: clients of the original look nowhere else.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{Publish, http_answer};
use crate::error::{Code, Refusal};
use crate::guard::check_content_type;
use crate::idempotency::{Key, KeyedCall};
use crate::keys::{Caller, Scope};
use crate::metrics::Via;
use crate::publisher::Counting;
use crate::receipts::Receipt;
use crate::routes::{App, PUBLISH_PATH};

/// Says `false` when the counts may not be all.
const COMPLETE: HeaderName = HeaderName::from_static("mc-complete");
/// Says `true` when an `Idempotency-Key` was recognized and the message was there before.
const DUPLICATE: HeaderName = HeaderName::from_static("mc-duplicate");
/// Of a body that is too large, this many times the limit is read and thrown away behind the answer, so that
/// a caller that sends all of it first gets to read why it was refused instead of a broken connection.
const DISCARD_FACTOR: usize = 8;
/// A caller from which nothing comes for this long, of a body that is thrown away, reads its answer or is
/// gone.
const DISCARD_PAUSE: Duration = Duration::from_secs(1);

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
        Ok(key) => answer(&app, &caller, key, &headers, body).await,
        Err(refusal) => {
            discard(&app, &headers, body);
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
    app.publisher.has_room(caller).map(|()| key)
}

/// Reads a body that nobody needs, as far as a publish may be long, behind the answer. A caller that is still
/// sending would find the connection broken, and not read why it was refused.
pub(crate) fn discard(app: &App, headers: &HeaderMap, body: Body) {
    discard_rest(app, headers, body.into_data_stream(), app.config.request_bytes());
}

/// The same for what is left of a body, at most so many bytes. A caller that asks before it sends (`Expect`)
/// has sent nothing.
fn discard_rest(app: &App, headers: &HeaderMap, mut rest: BodyDataStream, most: usize) {
    if headers.contains_key(header::EXPECT) || rest.is_end_stream() {
        return;
    }
    let (patience, drain) = (app.config.body_timeout, app.drain.clone());
    app.drain.spawn("publisher-discard", async move {
        let mut left = most;
        let reading = async {
            while left > 0
                && let Ok(Some(Ok(chunk))) = timeout(DISCARD_PAUSE, rest.next()).await
            {
                left = left.saturating_sub(chunk.len());
            }
        };
        tokio::select! { _ = timeout(patience, reading) => {}, () = drain.begun() => {} }
    });
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
    headers: &HeaderMap,
    body: Body,
) -> Result<(Receipt, bool), Refusal> {
    let body = read(app, headers, body, app.config.request_bytes()).await?;
    let publish = Publish::parse(&body, app.config.max_message.as_usize())?;
    if key.is_some() && !app.publisher.keeps(&publish.channel) {
        return Err(Refusal::Idempotency);
    }
    caller.admit_publish(&publish.channel)?;
    let Some(key) = key else {
        return Ok((
            app.publisher.hand_over(caller, publish, None, Counting::Wanted).await?.receipt().await,
            false,
        ));
    };
    let call = KeyedCall { key: &key, path: PUBLISH_PATH, body: &body };
    let turn = app.keyed.begin(call, app.publisher.store_deadline()).await?;
    let id = key.message_id(&publish.channel, 0);
    let handed_over = app.publisher.hand_over(caller, publish, Some(id), Counting::Wanted).await?;
    let duplicate = turn.is_repeat() && handed_over.stored().is_some_and(|(_, duplicate)| duplicate);
    Ok((handed_over.receipt().await, duplicate))
}

/// Reads a body of at most `limit` bytes, in time. One that is longer is refused as soon as that is known.
pub(crate) async fn read(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Vec<u8>, Refusal> {
    let announced = body.size_hint().lower();
    let (patience, mut chunks, mut whole) = (app.config.body_timeout, body.into_data_stream(), Vec::new());
    let reading = async {
        if usize::try_from(announced).is_ok_and(|announced| announced <= limit) {
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|_| Refusal::BrokenBody)?;
                if chunk.len() > limit - whole.len() {
                    return Err(Refusal::LargeBody(limit));
                }
                whole.extend_from_slice(&chunk);
            }
            return Ok(());
        }
        Err(Refusal::LargeBody(limit))
    };
    let read = timeout(patience, reading).await.unwrap_or(Err(Refusal::SlowBody(patience)));
    if let Err(Refusal::LargeBody(_)) = read {
        discard_rest(app, headers, chunks, limit.saturating_mul(DISCARD_FACTOR));
    }
    read.map(|()| whole)
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
    if let Refusal::Method { allowed, .. } = refusal
        && let Ok(allowed) = HeaderValue::try_from(&**allowed)
    {
        headers.insert(header::ALLOW, allowed);
    }
}

//! `POST /v1/publish` and `POST /v1/publish/batch`.
//!
//! The error of one target or one message stands in its own result. A call is refused as a whole only if
//! nothing could be sent, and for the same reason everywhere.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{MatchedPath, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::{BatchAnswer, MessageResult, PublishAnswer};
use super::body;
use super::deliver::{edges_answer, send};
use super::limits::{MAX_MESSAGES, MAX_TARGETS};
use super::message::Addressed;
use super::respond::respond;
use super::target::Entries;
use crate::app::App;
use crate::error::Refusal;
use crate::http::ROUTED;
use crate::idempotency::{Key, KeyedCall};
use crate::keys::Caller;
use crate::publisher::Counting;

const BATCH: &str = r#"{"messages":[{"to":{"users":[1001]},"event":"@user","data":{"msg":"Hello"}}]}"#;

/// A header of publishing calls.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "the type only describes a header that is read by hand, so that a bad one is answered with a problem"
)]
pub(super) struct IdempotencyKey {
    /// Names this call, in 1 to 255 visible ASCII characters, so that a repeat of the call within the
    /// duplicate window (60 s) stores nothing twice. The repeat is answered with the same ids,
    /// `"duplicate":true`, and fresh counts. Each API key has idempotency keys of its own. All targets must
    /// have history.
    #[param(rename = "Idempotency-Key", required = false, example = "order-4711-shipped")]
    idempotency_key: Option<String>,
}

/// Several messages, published in order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Batch)]
pub(super) struct Batch<'a> {
    /// The messages: at most 1,000, with at most 10,000 targets together. Messages to the same channel stay
    /// in order.
    #[serde(borrow)]
    #[schema(value_type = Vec<super::message::Body<'_>>, min_items = 1, max_items = 1_000)]
    messages: Entries<'a>,
    /// Whether to count the sessions that the messages reach; true if left out.
    #[serde(default)]
    receipt: Option<bool>,
}

#[utoipa::path(
    post, path = ROUTED, params(IdempotencyKey), operation_id = "publish", tag = "publish",
    request_body(content = super::message::Body<'_>, examples(
        ("announcement" = (value = json!({"to": {"groups": ["vip"], "all": true}, "event": "@all",
            "data": {"msg": "Maintenance at noon"}}))),
        ("event" = (value = json!({"to": {"users": [1001, "bob"], "channels": ["broadcast"]}, "event": "@user",
            "data": {"msg": "Hello"}}))),
        ("text" = (value = json!({"to": {"channels": ["broadcast"]}, "raw": "as it is", "receipt": false})))
    )),
    responses((status = 200, description = "One result per target.", body = PublishAnswer))
)]
/// Sends a message to users, channels, groups, or everyone.
///
/// Needs the scope `publish`. A target that the key may not use is refused alone; the others are served.
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: MatchedPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let key = Key::read(&headers, caller.name());
        let (key, body) = body::read(&app, &headers, body, key).await?;
        let message = Addressed::parse(&body, app.config.max_message.as_usize())?;
        let counting = Counting::of(message.receipt);
        let keyed = key.as_ref().map(|key| KeyedCall { key, path: path.as_str(), body: &body });
        let mut done = send(&app, &caller, vec![Ok(message)], counting, keyed).await?;
        if let Some(refusal) = done.refused {
            return Err(refusal);
        }
        let results = match done.messages.pop() {
            Some(MessageResult::Results { results }) => results,
            Some(MessageResult::Refused { .. }) | None => Vec::new(),
        };
        let (edges, complete) = edges_answer(&done.receipts, counting);
        let (id, duplicate) = (app.publisher.new_id().to_string(), done.duplicate);
        Ok(PublishAnswer { id, results, duplicate, edges, complete })
    };
    respond(&app, outcome.await)
}

#[utoipa::path(
    post, path = ROUTED, params(IdempotencyKey), operation_id = "publishBatch", tag = "publish",
    request_body(content = Batch<'_>, example = json!({"messages": [
        {"to": {"users": [1001]}, "event": "@user", "data": {"msg": "first"}},
        {"to": {"users": [1001]}, "event": "@user", "data": {"msg": "second"}}]})),
    responses((status = 200, description = "One outcome per message.", body = BatchAnswer))
)]
/// Sends several messages, in order.
///
/// Needs the scope `publish`. A bad message does not stop the others.
pub(crate) async fn batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: MatchedPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let key = Key::read(&headers, caller.name());
        let (key, body) = body::read(&app, &headers, body, key).await?;
        let (messages, counting) = read_batch(&body, app.config.max_message.as_usize())?;
        let keyed = key.as_ref().map(|key| KeyedCall { key, path: path.as_str(), body: &body });
        let done = send(&app, &caller, messages, counting, keyed).await?;
        // The whole batch is refused only for a common reason that passes by itself. Other reasons stand in
        // the results.
        if let Some(refusal) = done.refused.filter(|refusal| refusal.retry_after().is_some()) {
            return Err(refusal);
        }
        let (edges, complete) = edges_answer(&done.receipts, counting);
        let (id, duplicate) = (app.publisher.new_id().to_string(), done.duplicate);
        Ok(BatchAnswer { id, messages: done.messages, duplicate, edges, complete })
    };
    respond(&app, outcome.await)
}

/// Reads the messages of a batch, and whether the caller wants counts.
pub(super) fn read_batch(
    json: &[u8],
    limit: usize,
) -> Result<(Vec<Result<Addressed, Refusal>>, Counting), Refusal> {
    let Batch { messages, receipt } = body::parse(json, BATCH)?;
    match messages.0.len() {
        0 => return Err(Refusal::Native("\"messages\" is empty; give at least one message")),
        many if many > MAX_MESSAGES => {
            return Err(Refusal::TooLong { what: "messages", limit: MAX_MESSAGES });
        }
        _ => {}
    }
    let mut parsed = Vec::with_capacity(messages.0.len());
    let mut targets = 0;
    for message in messages.0 {
        let message =
            Addressed::parse(message.get().as_bytes(), limit).and_then(|message| match message.receipt {
                None => Ok(message),
                Some(_) => {
                    Err(Refusal::Native("\"receipt\" is said once for the whole batch, beside \"messages\""))
                }
            });
        targets += message.as_ref().map_or(0, |message| message.targets.len());
        if targets > MAX_TARGETS {
            return Err(Refusal::TooLong { what: "targets", limit: MAX_TARGETS });
        }
        parsed.push(message);
    }
    Ok((parsed, Counting::of(receipt)))
}

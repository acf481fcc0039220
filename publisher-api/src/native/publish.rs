//! `POST /v1/publish` and `POST /v1/publish/batch`.
//!
//! What concerns one target or one message is told in its place; a call is refused as a whole if nothing of
//! it could be done for one and the same reason.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::{BatchAnswer, EdgesAnswer, EntryError, MessageResult, PublishAnswer, TargetResult};
use super::message::Message;
use super::target::{Entries, Target};
use super::{MAX_MESSAGES, MAX_TARGETS, body, respond};
use crate::connmix::Publish;
use crate::error::Refusal;
use crate::idempotency::{Key, KeyedCall};
use crate::keys::{Caller, Scope};
use crate::publisher::Counting;
use crate::publisher::bulk::{Delivery, Sent};
use crate::receipts::Receipt;
use crate::routes::App;

/// Path of a call with one message.
const PATH: &str = "/v1/publish";
/// Path of a call with several.
const BATCH_PATH: &str = "/v1/publish/batch";
const BATCH: &str = r#"{"messages":[{"to":{"users":[1001]},"event":"@user","data":{"msg":"Hello"}}]}"#;

/// A header of publishing calls.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "it only describes what is read by hand, so that a fault in it is told as a problem"
)]
pub(super) struct IdempotencyKey {
    /// Names this call, in 1 to 255 visible ASCII characters, so that a repeat of it within the duplicate
    /// window (60 s) stores nothing twice: the same ids, `"duplicate":true`, and fresh counts. A key belongs
    /// to the API key that it came with. All targets must have history.
    #[param(rename = "Idempotency-Key", required = false, example = "order-4711-shipped")]
    idempotency_key: Option<String>,
}

/// Several messages.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Batch)]
pub(super) struct Batch<'a> {
    /// At most 1,000, with at most 10,000 targets together. Messages to one channel keep their order.
    #[serde(borrow)]
    #[schema(value_type = Vec<super::message::Body<'_>>, min_items = 1, max_items = 1_000)]
    messages: Entries<'a>,
    /// Whether to count the sessions that were reached; yes if left out.
    #[serde(default)]
    receipt: Option<bool>,
}

#[utoipa::path(
    post, path = "/v1/publish", params(IdempotencyKey), operation_id = "publish", tag = "publish",
    request_body(content = super::message::Body<'_>, examples(
        ("event" = (value = json!({"to": {"users": [1001, "bob"], "channels": ["broadcast"]}, "event": "@user",
            "data": {"msg": "Hello"}}))),
        ("text" = (value = json!({"to": {"channels": ["broadcast"]}, "raw": "as it is", "receipt": false})))
    )),
    responses((status = 200, description = "What became of each target.", body = PublishAnswer))
)]
/// Sends a message to users and channels.
///
/// Needs the scope `publish`; a target that the key may not use is refused by itself.
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let (key, body) = read(&app, &caller, &headers, body).await?;
        let message = Message::parse(&body, app.config.max_message.as_usize())?;
        let counting = Counting::of(message.receipt);
        let keyed = key.as_ref().map(|key| KeyedCall { key, path: PATH, body: &body });
        let Done { mut messages, receipts, refused, duplicate } =
            send(&app, &caller, vec![Ok(message)], counting, keyed).await?;
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let results = match messages.pop() {
            Some(MessageResult::Results { results }) => results,
            Some(MessageResult::Refused { .. }) | None => Vec::new(),
        };
        let (edges, complete) = told(counting, &receipts);
        Ok(PublishAnswer { id: app.publisher.new_id().to_string(), results, duplicate, edges, complete })
    };
    respond(&app, outcome.await)
}

#[utoipa::path(
    post, path = "/v1/publish/batch", params(IdempotencyKey), operation_id = "publishBatch", tag = "publish",
    request_body(content = Batch<'_>, example = json!({"messages": [
        {"to": {"users": [1001]}, "event": "@user", "data": {"msg": "first"}},
        {"to": {"users": [1001]}, "event": "@user", "data": {"msg": "second"}}]})),
    responses((status = 200, description = "What became of each message.", body = BatchAnswer))
)]
/// Sends several messages, in order.
///
/// Needs the scope `publish`. A bad message does not stop the others.
pub(crate) async fn batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let (key, body) = read(&app, &caller, &headers, body).await?;
        let (messages, counting) = read_batch(&body, app.config.max_message.as_usize())?;
        let keyed = key.as_ref().map(|key| KeyedCall { key, path: BATCH_PATH, body: &body });
        let Done { messages, receipts, refused, duplicate } =
            send(&app, &caller, messages, counting, keyed).await?;
        // Only what is the same for all and passes by itself; anything else is told in its place.
        if let Some(refusal) = refused.filter(|refusal| refusal.retry_after().is_some()) {
            return Err(refusal);
        }
        let (edges, complete) = told(counting, &receipts);
        Ok(BatchAnswer { id: app.publisher.new_id().to_string(), messages, duplicate, edges, complete })
    };
    respond(&app, outcome.await)
}

/// The key and the body of a call that may be made.
async fn read(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Option<Key>, Vec<u8>), Refusal> {
    let key = caller.require(Scope::Publish).and_then(|()| Key::read(headers, caller.name()));
    let (key, admitted) = match key {
        Ok(key) => (key, Ok(())),
        Err(refusal) => (None, Err(refusal)),
    };
    Ok((key, body::read(app, headers, body, admitted).await?))
}

/// The messages of a batch, and whether its caller is told the counts.
pub(super) fn read_batch(
    json: &[u8],
    limit: usize,
) -> Result<(Vec<Result<Message, Refusal>>, Counting), Refusal> {
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
            Message::parse(message.get().as_bytes(), limit).and_then(|message| match message.receipt {
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

/// What became of messages.
struct Done {
    messages: Vec<MessageResult>,
    receipts: Vec<Receipt>,
    /// Why, if nothing was done, and for one reason only.
    refused: Option<Refusal>,
    /// Whether all of it was there before, from an earlier call with the same key.
    duplicate: bool,
}

/// What one target waits for.
enum Place {
    /// The result of this delivery.
    Delivery(usize),
    /// What the earlier target of the same message has.
    Same(usize),
    Refused(Refusal),
}

/// Sends what can be sent. `keyed`: the call, if it has an `Idempotency-Key`.
async fn send(
    app: &App,
    caller: &Caller,
    messages: Vec<Result<Message, Refusal>>,
    counting: Counting,
    keyed: Option<KeyedCall<'_>>,
) -> Result<Done, Refusal> {
    let mut deliveries = Vec::new();
    let mut plan = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        plan.push(message.map(|Message { targets, kind, payload, .. }| {
            let place = |Target { name, channel, same_as }| {
                let place = match (same_as, channel) {
                    (Some(first), _) => Place::Same(first),
                    (None, Err(refusal)) => Place::Refused(refusal),
                    (None, Ok(channel)) => match caller.require_channel(&channel) {
                        Err(refusal) => Place::Refused(refusal),
                        Ok(()) => {
                            let id = keyed.map(|call| call.key.message_id(&channel, index));
                            let publish = Publish { channel, kind, payload: payload.clone() };
                            deliveries.push(Delivery { publish, id });
                            Place::Delivery(deliveries.len() - 1)
                        }
                    },
                };
                (name, place)
            };
            targets.into_iter().map(place).collect::<Vec<_>>()
        }));
    }
    if keyed.is_some() && deliveries.iter().any(|delivery| !app.publisher.keeps(&delivery.publish.channel)) {
        return Err(Refusal::Idempotency);
    }
    if !deliveries.is_empty() {
        caller.admit(u32::try_from(deliveries.len()).unwrap_or(u32::MAX))?;
    }
    let deadline = keyed.map(|_| app.publisher.store_deadline());
    // Held until everything is sent, so that a repeat meanwhile finds it all.
    let turn = match (keyed, deadline) {
        (Some(call), Some(deadline)) if !deliveries.is_empty() => {
            Some(app.keyed.begin(call, deadline).await?)
        }
        (Some(_) | None, _) => None,
    };
    let sent = app.publisher.publish_all(caller, deliveries, counting, deadline).await;
    let mut outcome = Outcome {
        sent: sent.into_iter().map(Some).collect(),
        is_repeat: turn.is_some_and(|turn| turn.is_repeat()),
        fresh: false,
        receipts: Vec::new(),
        refusals: Vec::new(),
        sent_some: false,
    };
    let messages = plan.into_iter().map(|message| outcome.message(message)).collect();
    let duplicate = outcome.sent_some && !outcome.fresh && outcome.is_repeat;
    Ok(Done { messages, refused: outcome.common_refusal(), receipts: outcome.receipts, duplicate })
}

/// Turns what was sent into what is answered.
struct Outcome {
    /// By delivery; each is taken once.
    sent: Vec<Option<Result<Sent, Refusal>>>,
    /// Whether the call came before with the same key.
    is_repeat: bool,
    /// Whether anything was not there before.
    fresh: bool,
    receipts: Vec<Receipt>,
    /// One of each kind.
    refusals: Vec<Refusal>,
    sent_some: bool,
}

impl Outcome {
    fn message(&mut self, message: Result<Vec<(String, Place)>, Refusal>) -> MessageResult {
        match message {
            Err(refusal) => MessageResult::Refused { error: self.refused(refusal) },
            Ok(places) => {
                let mut results: Vec<TargetResult> = Vec::with_capacity(places.len());
                for (to, place) in places {
                    let result = match place {
                        Place::Same(first) => results[first].clone(),
                        Place::Refused(refusal) => TargetResult::Refused { to, error: self.refused(refusal) },
                        Place::Delivery(index) => self.delivered(to, index),
                    };
                    results.push(result);
                }
                MessageResult::Results { results }
            }
        }
    }

    fn delivered(&mut self, to: String, index: usize) -> TargetResult {
        match self.sent.get_mut(index).and_then(Option::take).unwrap_or(Err(Refusal::Unavailable)) {
            Ok(Sent { id, stored, receipt }) => {
                self.sent_some = true;
                let duplicate = self.is_repeat && stored.is_some_and(|(_, duplicate)| duplicate);
                self.fresh |= !duplicate;
                let counts = receipt.as_ref().map(|receipt| receipt.counts);
                self.receipts.extend(receipt);
                TargetResult::Sent {
                    to,
                    id: stored.map_or_else(|| id.to_string(), |(position, _)| position.to_string()),
                    duplicate,
                    sessions: counts.map(|counts| counts.sessions),
                    failed: counts.map(|counts| counts.failed),
                }
            }
            Err(refusal) => TargetResult::Refused { to, error: self.refused(refusal) },
        }
    }

    fn refused(&mut self, refusal: Refusal) -> EntryError {
        let error = EntryError::of(&refusal);
        let kind = refusal.problem();
        if self.refusals.iter().all(|known| known.problem() != kind) {
            self.refusals.push(refusal);
        }
        error
    }

    fn common_refusal(&mut self) -> Option<Refusal> {
        if self.sent_some || self.refusals.len() != 1 { None } else { self.refusals.pop() }
    }
}

/// What is said about the edges.
fn told(counting: Counting, receipts: &[Receipt]) -> (Option<EdgesAnswer>, Option<bool>) {
    if counting == Counting::Unwanted {
        return (None, None);
    }
    (Some(EdgesAnswer::of(receipts)), Some(receipts.iter().all(|receipt| receipt.complete)))
}

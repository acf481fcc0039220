//! Reading and erasing the history of a channel.
//!
//! A page has every message from its beginning to its last message. If one of them is missing, the call is
//! refused.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, RawQuery, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};
use shared::history::{Page, PageLimit, Position, ReadError, StoredMessage};
use shared::ids::{Channel, NameError};
use shared::wire::Kind;
use utoipa::{IntoParams, ToSchema};

use super::respond::respond;
use crate::app::App;
use crate::error::Refusal;
use crate::http::ROUTED;
use crate::keys::Caller;

/// The most messages in one page.
const MAX_LIMIT: u32 = 1_000;
const DEFAULT_LIMIT: u32 = 100;
/// The most bytes in one page; a larger message comes alone.
const PAGE_BYTES: usize = 1 << 20;
/// How often a page is read again if a replica behind the leader answered with an empty page.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The messages to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// An `id` or `next`; the answer begins with the message after it. If left out, the answer begins with
    /// the oldest stored message.
    #[param(example = "2b9f42b420cf6b4c.42")]
    after: Option<String>,
    /// The most messages to return, from 1 to 1,000; 100 if left out.
    #[param(minimum = 1, maximum = 1_000, default = 100)]
    limit: Option<u32>,
}

/// A stored message, with `text` or `base64`, as it was published.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeptMessage)]
pub(super) struct MessageAnswer {
    /// The position of the message, which recovering clients receive as its id.
    #[schema(example = "2b9f42b420cf6b4c.42")]
    id: String,
    /// The time at which the message was stored (RFC 3339, UTC).
    #[schema(example = "2026-11-23T05:00:00.000Z")]
    time: String,
    /// The text that plain subscribers received in a text frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The bytes that plain subscribers received in a binary frame, in standard base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// The reason why the message can't be shown: a newer version wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

/// Messages of a channel.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeptMessages)]
pub(super) struct MessagesAnswer {
    /// The channel.
    #[schema(example = "user:1001")]
    channel: String,
    /// The messages, oldest first.
    messages: Vec<MessageAnswer>,
    /// The `after` with which to read on, now or later.
    #[schema(example = "2b9f42b420cf6b4c.42")]
    next: String,
    /// Whether further messages are stored already.
    more: bool,
    /// Whether these are all messages after `after`, up to `next`. Always true: otherwise the answer is 410.
    whole: bool,
}

/// The outcome of erasing a channel.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erased)]
pub(super) struct ErasedAnswer {
    /// The channel.
    #[schema(example = "user:1001")]
    channel: String,
    /// How many messages were erased.
    erased: u64,
    /// The `after` with which to read the messages that come after the erasure.
    #[schema(example = "2b9f42b420cf6b4c.43")]
    next: String,
}

#[utoipa::path(
    get, path = ROUTED, operation_id = "messagesOfChannel", tag = "channels",
    params(("channel" = String, Path, description = "The channel, percent-encoded.", example = "user:1001"), Which),
    responses((status = 200, description = "The stored messages.", body = MessagesAnswer))
)]
/// Reads the stored messages of a channel.
///
/// Needs the scope `read`, and a key that may use the channel. If a message after `after` is missing, because
/// it was erased, too old or one too many, or because the store was made anew, the answer is 410.
pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Which>, QueryRejection>,
) -> Response {
    let outcome = async {
        let channel = stored_channel(&app, path, &caller)?;
        let (after, limit) = query.map_err(|_| BAD_QUERY).and_then(|Query(which)| which.checked())?;
        read(&app, channel, after, limit).await
    };
    respond(&app, outcome.await)
}

#[utoipa::path(
    delete, path = ROUTED, operation_id = "eraseChannel", tag = "channels",
    params(("channel" = String, Path, description = "The channel, percent-encoded.", example = "user:1001")),
    responses((status = 200, description = "The outcome.", body = ErasedAnswer))
)]
/// Erases all messages of a channel.
///
/// Needs the scope `admin`, and a key that may use the channel. Clients that recover from an earlier position
/// are told to reload. Messages that devices have received are out of reach; backups are yours to erase.
pub(crate) async fn erase(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let outcome = async {
        // A caller that wants to erase only some messages must not lose all.
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(NO_QUERY);
        }
        let channel = stored_channel(&app, path, &caller)?;
        let store = app.publisher.store();
        let deadline = store.deadline();
        store.usable(deadline).await?;
        let erased = store.history().erase(&channel, deadline).await;
        let erased = erased.map_err(|error| store.refusal(error))?;
        tracing::info!(key = caller.name(), messages = erased.messages, "a channel was erased");
        Ok(ErasedAnswer {
            channel: channel.as_str().to_owned(),
            erased: erased.messages,
            next: erased.position.to_string(),
        })
    };
    respond(&app, outcome.await)
}

const NO_QUERY: Refusal =
    Refusal::Native("DELETE takes no query: it erases all messages of the channel; a part can't be erased");

const BAD_QUERY: Refusal = Refusal::Native(
    "the query may have \"after\", an id that was given out here, and \"limit\", an integer from 1 to 1000",
);

impl Which {
    fn checked(self) -> Result<(Option<Position>, usize), Refusal> {
        let after = self.after.map(|after| after.parse()).transpose().map_err(|_| BAD_QUERY)?;
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok((after, limit as usize)),
            _ => Err(BAD_QUERY),
        }
    }
}

/// Returns the channel that a path names, if the caller may use the channel and the channel has history.
fn stored_channel(
    app: &App,
    path: Result<Path<String>, PathRejection>,
    caller: &Caller,
) -> Result<Channel, Refusal> {
    let Path(name) = path.map_err(|_| Refusal::BadTarget(NameError::Character))?;
    let channel = Channel::parse(&name).map_err(Refusal::BadTarget)?;
    caller.require_channel(&channel)?;
    if app.publisher.has_history(&channel) { Ok(channel) } else { Err(Refusal::NoHistory) }
}

async fn read(
    app: &App,
    channel: Channel,
    after: Option<Position>,
    limit: usize,
) -> Result<MessagesAnswer, Refusal> {
    let (store, history) = (app.publisher.store(), app.publisher.store().history());
    store.usable(store.deadline()).await?;
    let unreadable = |error: ReadError| match error {
        ReadError::OtherEpoch if after.is_some() => Refusal::NotWhole,
        ReadError::NotReady | ReadError::OtherEpoch | ReadError::Behind | ReadError::Api(_) => store.away(),
    };
    // Asked before the channel's tail, so that a message that the tail does not include has a later sequence.
    let last = history.fresh(history.partition(&channel)).await.map_err(unreadable)?.last_seq;
    let Position { epoch, seq: tail } = history.tail(&channel).await.map_err(unreadable)?;
    if after.is_some_and(|after| after.epoch != epoch || after.seq > last.max(tail)) {
        return Err(Refusal::NotWhole);
    }
    let from = after.map_or(0, |after| after.seq);
    let limit = PageLimit { messages: limit, bytes: PAGE_BYTES };
    let mut page = history.page(&channel, epoch, from, limit).await.map_err(unreadable)?;
    for _ in 0..TRIES {
        // A replica behind its leader may have none of these messages yet.
        if !page.messages.is_empty() || tail <= from || (after.is_some() && !page.whole) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        page = history.page(&channel, epoch, from, limit).await.map_err(unreadable)?;
    }
    if after.is_some() && (!page.whole || page.messages.iter().any(|message| message.erased)) {
        return Err(Refusal::NotWhole);
    }
    if page.messages.is_empty() && tail > from {
        return Err(store.away());
    }
    Ok(answer(&channel, page, from.max(last), tail))
}

/// Makes the answer of a page. `caught_up`: the sequence up to which the channel has no message, if the page
/// is empty.
fn answer(channel: &Channel, page: Page, caught_up: u64, tail: u64) -> MessagesAnswer {
    let Page { epoch, messages, remaining, .. } = page;
    let seq = messages.last().map_or(caught_up, |message| message.seq);
    // The mark of an erasure is no message, and nothing before the mark exists any more.
    let begin = messages.iter().rposition(|message| message.erased).map_or(0, |mark| mark + 1);
    let show = |message: StoredMessage| show(Position { epoch, seq: message.seq }, message);
    MessagesAnswer {
        channel: channel.as_str().to_owned(),
        more: remaining > 0 || seq < tail,
        messages: messages.into_iter().skip(begin).map(show).collect(),
        next: Position { epoch, seq }.to_string(),
        whole: true,
    }
}

fn show(position: Position, message: StoredMessage) -> MessageAnswer {
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(message.time)).to_string();
    let mut shown =
        MessageAnswer { id: position.to_string(), time, text: None, base64: None, unreadable: None };
    match message.message {
        Ok(live) => match (live.kind, std::str::from_utf8(&live.payload)) {
            (Kind::Text, Ok(text)) => shown.text = Some(text.to_owned()),
            (Kind::Text | Kind::Binary, _) => shown.base64 = Some(STANDARD.encode(&live.payload)),
        },
        Err(error) => shown.unreadable = Some(error.to_string()),
    }
    shown
}

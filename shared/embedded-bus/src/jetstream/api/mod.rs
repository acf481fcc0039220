//! `$JS.API.>`: the requests and their answers.
//!
//! Codes, texts and shapes are those of nats-server. A subject that is not in [`ENDPOINTS`] is a subject like
//! any other, so a client that asks there is told at once that nobody receives it; nats-server lets the
//! client wait.

mod advisory;
mod messages;
mod streams;

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::{Item, Output, OutputKind, Route};
use super::streams::Streams;
use super::time;

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Account,
    Create,
    Update,
    Info,
    Delete,
    Purge,
    Names,
    List,
    GetMessage,
    DeleteMessage,
    /// Asks for a new consumer: there are none here.
    CreateConsumer,
    /// Asks about a consumer, which can't be found.
    FindConsumer(&'static str),
    /// Asks for all consumers of a stream, of which there are none, with the entries of a page.
    ListConsumers(&'static str, usize),
    /// Asks for an action of a cluster.
    Cluster(&'static str),
}

/// The type of the answer to a request that pauses a consumer.
const PAUSE: &str = "consumer_pause_response";

/// The subjects of all requests. The first token that a wildcard stands for is the name of the
/// stream.
pub(crate) const ENDPOINTS: [(&str, Endpoint); 21] = [
    ("$JS.API.INFO", Endpoint::Account),
    ("$JS.API.STREAM.CREATE.*", Endpoint::Create),
    ("$JS.API.STREAM.UPDATE.*", Endpoint::Update),
    ("$JS.API.STREAM.INFO.*", Endpoint::Info),
    ("$JS.API.STREAM.DELETE.*", Endpoint::Delete),
    ("$JS.API.STREAM.PURGE.*", Endpoint::Purge),
    ("$JS.API.STREAM.NAMES", Endpoint::Names),
    ("$JS.API.STREAM.LIST", Endpoint::List),
    ("$JS.API.STREAM.MSG.GET.*", Endpoint::GetMessage),
    ("$JS.API.STREAM.MSG.DELETE.*", Endpoint::DeleteMessage),
    ("$JS.API.CONSUMER.CREATE.>", Endpoint::CreateConsumer),
    ("$JS.API.CONSUMER.DURABLE.CREATE.>", Endpoint::CreateConsumer),
    ("$JS.API.CONSUMER.INFO.>", Endpoint::FindConsumer("consumer_info_response")),
    ("$JS.API.CONSUMER.NAMES.*", Endpoint::ListConsumers("consumer_names_response", 1024)),
    ("$JS.API.CONSUMER.LIST.*", Endpoint::ListConsumers("consumer_list_response", 256)),
    ("$JS.API.CONSUMER.DELETE.>", Endpoint::FindConsumer("consumer_delete_response")),
    ("$JS.API.CONSUMER.PAUSE.>", Endpoint::FindConsumer(PAUSE)),
    ("$JS.API.CONSUMER.UNPIN.>", Endpoint::FindConsumer("consumer_unpin_response")),
    ("$JS.API.CONSUMER.LEADER.STEPDOWN.>", Endpoint::Cluster("consumer_leader_stepdown_response")),
    ("$JS.API.STREAM.LEADER.STEPDOWN.*", Endpoint::Cluster("stream_leader_stepdown_response")),
    ("$JS.API.STREAM.PEER.REMOVE.*", Endpoint::Cluster("stream_remove_peer_response")),
];

impl Endpoint {
    /// Returns the type of the answer.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Account => "account_info_response",
            Self::Create => "stream_create_response",
            Self::Update => "stream_update_response",
            Self::Info => "stream_info_response",
            Self::Delete => "stream_delete_response",
            Self::Purge => "stream_purge_response",
            Self::Names => "stream_names_response",
            Self::List => "stream_list_response",
            Self::GetMessage => "stream_msg_get_response",
            Self::DeleteMessage => "stream_msg_delete_response",
            Self::CreateConsumer => "consumer_create_response",
            Self::FindConsumer(kind) | Self::ListConsumers(kind, _) | Self::Cluster(kind) => kind,
        }
    }

    /// Returns the fields beside an error.
    fn beside_error(self) -> Value {
        match self {
            Self::Info => json!({ "total": 0, "offset": 0, "limit": 0 }),
            Self::Names | Self::List => json!({ "total": 0, "offset": 0, "limit": 0, "streams": null }),
            Self::Purge => json!({ "purged": 0 }),
            Self::ListConsumers(..) => json!({ "total": 0, "offset": 0, "limit": 0, "consumers": [] }),
            Self::FindConsumer(PAUSE) => json!({ "paused": false, "pause_until": time::NEVER }),
            Self::Account
            | Self::Create
            | Self::Update
            | Self::Delete
            | Self::GetMessage
            | Self::DeleteMessage
            | Self::CreateConsumer
            | Self::FindConsumer(_)
            | Self::Cluster(_) => json!({}),
        }
    }
}

/// An answer, ready to be sent.
#[derive(Debug)]
struct Answer {
    json: Bytes,
    is_error: bool,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    body: T,
}

/// The body of an answer without a result.
#[derive(Serialize)]
struct Done {
    success: bool,
}

fn write<T: Serialize>(kind: &str, error: Option<&ApiError>, body: T) -> Bytes {
    let envelope = Envelope { r#type: format!("io.nats.jetstream.api.v1.{kind}"), error, body };
    serde_json::to_vec(&envelope).expect("answers have nothing that is not JSON").into()
}

/// Returns an error without fields beside it.
pub(crate) fn failure(kind: &str, error: &ApiError) -> Bytes {
    write(kind, Some(error), json!({}))
}

/// Reads the body of a request. An empty body and `null` count as `{}`.
pub(crate) fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    match body.trim_ascii() {
        b"" | b"null" => Ok(T::default()),
        // Serde would read a struct from an array too, which no client means.
        [b'[', ..] => Err(ApiError::invalid_json("an object is expected")),
        body => first_value(body),
    }
}

/// Reads the body of a request that nats-server answers whatever the body is. An error is possible only if
/// the body begins like an object or an array.
pub(crate) fn read_or_ignore<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    match body.trim_ascii_start() {
        [b'{' | b'[', ..] => read(body),
        _ => Ok(T::default()),
    }
}

/// Reads the first JSON value of a body. As in nats-server, the bytes behind the value do not count.
pub(crate) fn first_value<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(body)).map_err(ApiError::invalid_json)
}

impl Streams {
    /// Refuses requests about consumers of a missing stream.
    fn having_consumers(&self, name: &str) -> Result<(), ApiError> {
        if self.streams.contains_key(name) { Ok(()) } else { Err(ApiError::no_stream()) }
    }

    /// Opens the routes of all requests.
    pub(super) fn open_api_routes(&mut self) {
        for (number, (pattern, _)) in ENDPOINTS.iter().enumerate() {
            self.open_route((*pattern).to_owned(), Route::Api(number).sid(0));
        }
    }

    /// Carries out the request of an endpoint, given by its number in [`ENDPOINTS`], and answers it.
    pub(super) fn ask(&mut self, number: usize, item: &Item, now: u64) {
        let Some((pattern, endpoint)) = ENDPOINTS.get(number).copied() else { return };
        let position = pattern.split('.').count() - 1;
        let subject = std::str::from_utf8(&item.message.subject).unwrap_or_default();
        let name = subject.split('.').nth(position).unwrap_or_default().to_owned();
        let answer = self.call(endpoint, &name, &item.message.payload, now);
        self.nothing_to_reclaim = false;
        self.api.total += 1;
        self.api.errors += u64::from(answer.is_error);
        if let Some(reply) = item.reply.clone() {
            let stream = self.streams.get(&name).map(|stream| Arc::clone(&stream.name));
            let (kind, headers) = (OutputKind::Api(endpoint.kind()), Bytes::new());
            self.collect(Output { stream, kind, subject: reply, headers, payload: answer.json });
        }
        if let Some(advisory) = self.advisory.take() {
            self.collect(advisory);
        }
    }

    /// Carries out a request about the stream of this name, or about none.
    fn call(&mut self, endpoint: Endpoint, name: &str, body: &[u8], now: u64) -> Answer {
        let result = match endpoint {
            Endpoint::Account => Ok(self.account(endpoint)),
            Endpoint::Create => self.create(endpoint, name, body, now),
            Endpoint::Update => self.update(endpoint, name, body, now),
            Endpoint::Info => self.info(endpoint, name, body, now),
            Endpoint::Delete => self.delete(endpoint, name, body, now),
            Endpoint::Purge => self.purge(endpoint, name, body),
            Endpoint::Names => self.names(endpoint, body),
            Endpoint::List => self.list(endpoint, body, now),
            Endpoint::GetMessage => self.get_message(endpoint, name, body),
            Endpoint::DeleteMessage => self.delete_message(endpoint, name, body),
            Endpoint::CreateConsumer => self.having_consumers(name).and(Err(ApiError::no_consumers())),
            Endpoint::FindConsumer(_) => self.having_consumers(name).and(Err(ApiError::no_consumer())),
            Endpoint::ListConsumers(kind, limit) => self.having_consumers(name).map(|()| {
                write(kind, None, json!({ "total": 0, "offset": 0, "limit": limit, "consumers": [] }))
            }),
            Endpoint::Cluster(_) => Err(ApiError::no_cluster()),
        };
        match result {
            Ok(json) => Answer { json, is_error: false },
            Err(error) => {
                Answer { json: write(endpoint.kind(), Some(&error), endpoint.beside_error()), is_error: true }
            }
        }
    }
}

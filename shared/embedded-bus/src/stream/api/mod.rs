//! `$JS.API.>`: which requests there are and how they are answered.
//!
//! Codes, texts and shapes are nats-server's. What is not in [`ENDPOINTS`] is a subject like any other, so whoever asks is
//! told at once that nobody is there; nats-server lets them wait.

mod about;
mod contents;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ApiError;
use super::streams::Streams;

/// What a request is for.
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
    /// Asks for a consumer: there are none here.
    Consumer(&'static str),
    /// Asks for what a cluster does.
    Cluster(&'static str),
}

/// The subjects of all requests.
pub(crate) const ENDPOINTS: [(&str, Endpoint); 18] = [
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
    ("$JS.API.CONSUMER.CREATE.>", Endpoint::Consumer("consumer_create_response")),
    ("$JS.API.CONSUMER.DURABLE.CREATE.>", Endpoint::Consumer("consumer_create_response")),
    ("$JS.API.CONSUMER.INFO.>", Endpoint::Consumer("consumer_info_response")),
    ("$JS.API.CONSUMER.NAMES.*", Endpoint::Consumer("consumer_names_response")),
    ("$JS.API.CONSUMER.LIST.*", Endpoint::Consumer("consumer_list_response")),
    ("$JS.API.CONSUMER.DELETE.>", Endpoint::Consumer("consumer_delete_response")),
    ("$JS.API.STREAM.LEADER.STEPDOWN.*", Endpoint::Cluster("stream_leader_stepdown_response")),
    ("$JS.API.STREAM.PEER.REMOVE.*", Endpoint::Cluster("stream_remove_peer_response")),
];

impl Endpoint {
    /// The type that answers carry.
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
            Self::Consumer(kind) | Self::Cluster(kind) => kind,
        }
    }

    /// What stands beside an error.
    fn beside_error(self) -> Value {
        match self {
            Self::Info => json!({ "total": 0, "offset": 0, "limit": 0 }),
            Self::Names | Self::List => json!({ "total": 0, "offset": 0, "limit": 0, "streams": null }),
            Self::Purge => json!({ "purged": 0 }),
            Self::Consumer("consumer_names_response" | "consumer_list_response") => {
                json!({ "total": 0, "offset": 0, "limit": 0, "consumers": [] })
            }
            Self::Account
            | Self::Create
            | Self::Update
            | Self::Delete
            | Self::GetMessage
            | Self::DeleteMessage
            | Self::Consumer(_)
            | Self::Cluster(_) => json!({}),
        }
    }
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) json: Bytes,
    pub(crate) is_error: bool,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    body: T,
}

/// Done, and there is nothing to say.
#[derive(Serialize)]
struct Done {
    success: bool,
}

fn write<T: Serialize>(kind: &str, error: Option<&ApiError>, body: T) -> Bytes {
    let envelope = Envelope { r#type: format!("io.nats.jetstream.api.v1.{kind}"), error, body };
    serde_json::to_vec(&envelope).expect("answers have nothing that is not JSON").into()
}

/// An error without anything beside it.
pub(crate) fn failure(kind: &str, error: &ApiError) -> Bytes {
    write(kind, Some(error), json!({}))
}

/// Reads the body of a request; an empty one and `null` ask for nothing in particular.
pub(crate) fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    match body.trim_ascii() {
        b"" | b"null" => Ok(T::default()),
        // A struct could be read from an array too, which no client means.
        [b'[', ..] => Err(ApiError::invalid_json("an object is expected")),
        body => serde_json::from_slice(body).map_err(ApiError::invalid_json),
    }
}

impl Streams {
    /// Carries out a request about the stream of this name, or about none.
    pub(super) fn call(&mut self, endpoint: Endpoint, name: &str, body: &[u8], now: u64) -> Answer {
        let result = match endpoint {
            Endpoint::Account => Ok(self.account(endpoint)),
            Endpoint::Create => self.create(endpoint, name, body, now),
            Endpoint::Update => self.update(endpoint, name, body, now),
            Endpoint::Info => self.info(endpoint, name, body, now),
            Endpoint::Delete => self.delete(endpoint, name, body),
            Endpoint::Purge => self.purge(endpoint, name, body),
            Endpoint::Names => self.names(endpoint, body),
            Endpoint::List => self.list(endpoint, body, now),
            Endpoint::GetMessage => self.get_message(endpoint, name, body),
            Endpoint::DeleteMessage => self.delete_message(endpoint, name, body),
            Endpoint::Consumer(_) => Err(ApiError::not_enabled()),
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

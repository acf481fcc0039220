//! Refusals: the reasons for which a request is not served, with their codes and problems.
//!
//! | module | holds |
//! | --- | --- |
//! | `code` | the codes of connmix's calls |
//! | `problem` | the kinds of refusals, which the native calls answer as problems |
//!
//! A reason knows its kind, a kind knows its code, and a code knows its HTTP status and whether to come
//! again. So code, status and advice can't drift apart.

mod code;
mod problem;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use shared::bus::jetstream::ApiError;
use shared::handshake::Fault;
use shared::ids::NameError;

pub use code::{Code, Row, code_table};
pub use problem::{Problem, ProblemRow, problem_table};

use crate::scope::Scope;

/// The reason for which a request is refused. Its text is `E.m`: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not JSON at all, or not UTF-8.
    #[error("this is not JSON: {0}; send a JSON object in UTF-8, made by a JSON library")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but no object.
    #[error("a JSON object is expected, like {0}")]
    NotObject(&'static str),
    /// A required field is missing.
    #[error("\"{field}\" is missing; it must be {want}")]
    Missing {
        /// Name of the field.
        field: &'static str,
        /// The expected content.
        want: &'static str,
    },
    /// A field of the wrong type.
    #[error("\"{field}\" is {got}; it must be {want}")]
    WrongType {
        /// Name of the field.
        field: &'static str,
        /// The content found.
        got: &'static str,
        /// The expected content.
        want: &'static str,
    },
    /// `t` has neither of its two values.
    #[error("\"t\" must be \"text\" or \"binary\"; leave it out for text")]
    UnknownType,
    /// `d` of a binary message can't be decoded.
    #[error("\"d\" must be standard base64 with padding, because \"t\" is \"binary\": {0}")]
    NotBase64(#[source] base64::DecodeError),
    /// `i` can't be echoed.
    #[error("\"i\" must be a string, a number, a boolean or null of at most {0} bytes")]
    BadEcho(usize),
    /// An unknown method.
    #[error("\"m\" is unknown; use \"mesh.publish\"")]
    UnknownMethod,
    /// A binary WebSocket frame.
    #[error(
        "this is a binary frame; send JSON in text frames, and binary messages as base64 with \"t\":\"binary\""
    )]
    BinaryFrame,
    /// A request whose body is not declared as JSON.
    #[error("the header Content-Type must be application/json{}", got(.0.as_deref()))]
    ContentType(Option<String>),
    /// The body came too slowly.
    #[error("the body did not arrive within {} s; send it at once", .0.as_secs_f32())]
    SlowBody(Duration),
    /// The body is no HTTP, or the connection broke while the body was read.
    #[error(
        "the body is no HTTP, or the connection ended before its last byte; send it with its Content-Length, or in whole \
         chunks"
    )]
    BrokenBody,
    /// The body is larger than any call may be.
    #[error("the request is larger than {0} bytes, which is the limit; send less, or a link to it")]
    LargeBody(usize),
    /// Not a WebSocket handshake where one is needed.
    #[error("this path is for WebSockets ({0}); to publish over HTTP, POST to /v1/mesh/publish")]
    NoHandshake(#[source] Fault),
    /// A method of HTTP that the path does not take.
    #[error("{path} takes {allowed} only")]
    Method {
        /// The path.
        path: &'static str,
        /// The methods to use, as the header `Allow` lists them.
        allowed: Arc<str>,
    },
    /// `c` is no channel name.
    #[error("\"c\" is no channel name: {0}")]
    BadChannel(#[source] NameError),
    /// The message, or the request around it, is too large.
    #[error("{what} is larger than {limit} bytes, which is the limit; send less, or a link to it")]
    TooLarge {
        /// The thing that is too large.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// An `Origin` that is not allowed.
    #[error(
        "requests from web pages are refused; to let this origin in, add it to publisher_api.allowed_origins"
    )]
    Origin,
    /// A `Host` that is not this machine's own.
    #[error(
        "the header Host names neither localhost, nor a loopback address, nor any of publisher_api.allowed_hosts: add it there"
    )]
    Host,
    /// No `Host`, several, or an unreadable `Host`.
    #[error("there must be one header Host, with the name or address of this port as it is reached")]
    BadHost,
    /// No key where one is needed.
    #[error(
        "a key is needed; send it as Authorization: Bearer <key>, or in the URL: http://<name>:<key>@<host>/..."
    )]
    NoKey,
    /// A header `Authorization` that can't be read.
    #[error("the header Authorization {0}")]
    BadCredentials(&'static str),
    /// A key that is not valid, or not any more.
    #[error(
        "this key is not valid; it was revoked, not copied whole, or belongs to another name: compare it with publisher_api.keys, \
         or make another with message-center key new"
    )]
    WrongKey,
    /// A key without the scope that the call needs.
    #[error(
        "the key {key:?} lacks the scope {scope:?}, which this call needs; add it to the scopes of the key, or use another key",
        scope = .scope.name()
    )]
    MissingScope {
        /// Name of the key.
        key: Arc<str>,
        /// The missing scope.
        scope: Scope,
    },
    /// A channel that the key may not name.
    #[error(
        "the key {key:?} may not use this channel; add a pattern that matches to the channels of the key, or use another key"
    )]
    ForbiddenChannel {
        /// Name of the key.
        key: Arc<str>,
    },
    /// More messages than the key may publish.
    #[error("the key {key:?} may publish {rate} messages a second; try again in {} s", seconds(*.after))]
    TooFast {
        /// Name of the key.
        key: Arc<str>,
        /// Messages a second.
        rate: u32,
        /// After which time a message is let through again.
        after: Duration,
    },
    /// More at once than the configuration allows.
    #[error("too many {what} at once (the limit is {limit}); try again in a moment")]
    TooMany {
        /// The things of which there are too many.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// More at once than this key's share.
    #[error(
        "the key {key:?} has its share of the {limit} {what} at once already, and what is free is for other keys; try again \
         in a moment"
    )]
    Share {
        /// Name of the key.
        key: Arc<str>,
        /// The things of which there are too many.
        what: &'static str,
        /// How many there are for all keys.
        limit: usize,
    },
    /// The bus did not take the message.
    #[error("the bus can't be reached, so the message was not sent; try again in a moment")]
    Unavailable,
    /// The list of bans can't be written.
    #[error(
        "the list of users who may not log in can't be written, so nothing was done for certain; repeat the call in a \
         moment"
    )]
    NoList,
    /// The store did not answer in time.
    #[error(
        "the store of the history did not answer within {} s, so it is not known whether the message is stored; try \
         again, with the same Idempotency-Key if it must not come twice", .0.as_secs_f32()
    )]
    StoreUnavailable(Duration),
    /// The store has no space.
    #[error(
        "the store is full, so the message was not stored; try again later. /readyz and the log of the bus say what is full: \
         make room on the disk, raise bus.store.max_bytes, bus.store.max_memory or history.max_bytes, or set \
         history.full to drop-oldest"
    )]
    StoreFull,
    /// The store can't be used as it is.
    #[error(
        "the store did not take the message: {0}; mend that where the bus and its streams are set up, then send it again"
    )]
    StoreRefused(#[source] StoreRefusal),
    /// An earlier message was not stored, and this one must not overtake it.
    #[error(
        "an earlier message of this call to the same channel was not stored{}, so this one was held back to keep their \
         order; send them again", if *.full { ", because the store is full" } else { "" }
    )]
    Behind {
        /// Whether the earlier message found the store full.
        full: bool,
    },
    /// The same `Idempotency-Key` came before, with another body.
    #[error(
        "this Idempotency-Key was used for a call with another path or body; repeat that one byte for byte, or take a new \
         key"
    )]
    KeyReused,
    /// `after` is a position behind which something is missing.
    #[error(
        "not everything after this id is there any more; read without \"after\" what is kept, and reload what is missing \
         from where it came from"
    )]
    NotWhole,
    /// A channel without history.
    #[error("this channel keeps no messages; its rule in [[channels]] would need history = true")]
    NoHistory,
    /// A call of the original that is not offered here.
    #[error("{call} is not offered; {instead}")]
    NotSupported {
        /// The call.
        call: &'static str,
        /// The call to use instead.
        instead: &'static str,
    },
    /// JSON whose fields are not those of the call.
    #[error("the JSON does not fit the call: {0}; /openapi.json says what belongs there")]
    Shape(#[source] serde_json::Error),
    /// A fault in a native call, which the text names.
    #[error("{0}")]
    Native(&'static str),
    /// A target that is no channel name.
    #[error("this is no channel name: {0}")]
    BadTarget(#[source] NameError),
    /// A target or a path that names no user.
    #[error("this is no user: {0}")]
    BadUser(#[source] NameError),
    /// A target that is no group.
    #[error("this is no group that has a channel: {0}")]
    BadGroup(#[source] NameError),
    /// Repeats can't be recognized without history.
    #[error(
        "a target of this call has no history, so there is nothing to remember an Idempotency-Key by; leave the header out, \
         or publish to channels without history in a call of their own"
    )]
    Idempotency,
    /// A list with more entries than allowed.
    #[error("there are more than {limit} {what}, which is the limit; make several calls")]
    TooLong {
        /// The things of which there are too many.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A path that does not exist.
    #[error(
        "there is nothing at this path; publish with POST /v1/publish or POST /v1/mesh/publish, or over a WebSocket at /ws/v1; /openapi.json has all calls"
    )]
    UnknownPath,
}

/// Why the store can't be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum StoreRefusal {
    /// The streams are set up for something else.
    #[error("{0}")]
    Mismatch(String),
    /// The store answered with an error that a retry does not change.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A claim of an `Idempotency-Key` can't be written or read.
    #[error("the bus answered what can't be read: {0}")]
    Claim(#[source] serde_json::Error),
}

fn got(content_type: Option<&str>) -> String {
    content_type.map_or_else(|| "; there is none".to_owned(), |got| format!("; it is {got:?}"))
}

/// Returns whole seconds, rounded up, so that a caller that waits for them has waited long enough.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Refusal {
    /// Returns the kind of this refusal.
    pub fn problem(&self) -> Problem {
        match self {
            Self::NotJson(_) => Problem::InvalidJson,
            Self::NotObject(_)
            | Self::Missing { .. }
            | Self::WrongType { .. }
            | Self::UnknownType
            | Self::NotBase64(_)
            | Self::BadEcho(_)
            | Self::UnknownMethod
            | Self::BinaryFrame
            | Self::BrokenBody
            | Self::BadHost
            | Self::NoHandshake(_)
            | Self::Shape(_)
            | Self::Native(_) => Problem::InvalidRequest,
            Self::ContentType(_) => Problem::UnsupportedMediaType,
            Self::SlowBody(_) => Problem::RequestTimeout,
            Self::Method { .. } => Problem::MethodNotAllowed,
            Self::BadChannel(_) | Self::BadTarget(_) => Problem::InvalidChannel,
            Self::BadUser(_) => Problem::InvalidUser,
            Self::BadGroup(_) => Problem::InvalidGroup,
            Self::Idempotency => Problem::IdempotencyUnavailable,
            Self::TooLarge { .. } | Self::LargeBody(_) | Self::TooLong { .. } => Problem::TooLarge,
            Self::NoKey | Self::BadCredentials(_) | Self::WrongKey => Problem::InvalidKey,
            Self::Origin => Problem::ForbiddenOrigin,
            Self::Host => Problem::ForbiddenHost,
            Self::MissingScope { .. } => Problem::MissingScope,
            Self::ForbiddenChannel { .. } => Problem::ForbiddenChannel,
            Self::TooFast { .. } => Problem::RateLimited,
            Self::TooMany { .. } | Self::Share { .. } => Problem::TooManyInFlight,
            Self::Unavailable | Self::NoList | Self::StoreUnavailable(_) | Self::StoreRefused(_) => {
                Problem::Unavailable
            }
            Self::Behind { full: false } => Problem::Unavailable,
            Self::StoreFull | Self::Behind { full: true } => Problem::StoreFull,
            Self::KeyReused => Problem::IdempotencyKeyReused,
            Self::NotWhole => Problem::HistoryNotWhole,
            Self::NoHistory => Problem::NoHistory,
            Self::NotSupported { .. } => Problem::NotSupported,
            Self::UnknownPath => Problem::NotFound,
        }
    }

    /// Returns the code with which connmix's calls answer this refusal.
    pub fn code(&self) -> Code {
        self.problem().row().code
    }

    /// Returns after how many seconds the same request may succeed, for `Retry-After`. `None`: never.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the table decides for every other reason")]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooFast { after, .. } => Some(seconds(*after)),
            other => other.code().row().retry_after.map(seconds),
        }
    }

    /// Returns the HTTP status of connmix's calls: that of the code, except where the request never reached a
    /// call.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the table decides for every other reason")]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoHandshake(_) | Self::BrokenBody | Self::BadHost => StatusCode::BAD_REQUEST,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Idempotency => StatusCode::BAD_REQUEST,
            other => other.code().row().status,
        }
    }
}

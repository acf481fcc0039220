//! What a publisher is told when its request is refused: one table of codes, one list of reasons.
//!
//! A reason knows its code, a code knows its HTTP status and whether to come again, so that number, status
//! and advice can't drift apart. The manual's table is made from this one.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use shared::handshake::Fault;
use shared::ids::NameError;

use crate::keys::Scope;

/// The numbers that publishers see as `E.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 101
    BadRequest,
    /// 103
    BadChannel,
    /// 104
    TooLarge,
    /// 105
    BadKey,
    /// 106
    Forbidden,
    /// 107
    TooMany,
    /// 108
    Unavailable,
    /// 109
    NotSupported,
}

/// What belongs to a code.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `E.c`.
    pub number: u16,
    /// Status over HTTP. Clients of the original look at `E` only, hence the many 200s.
    pub status: StatusCode,
    /// Whether and when the same request may succeed later.
    pub retry_after: Option<Duration>,
    /// What it means and what to do, for the manual.
    pub meaning: &'static str,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::BadChannel,
        Self::TooLarge,
        Self::BadKey,
        Self::Forbidden,
        Self::TooMany,
        Self::Unavailable,
        Self::NotSupported,
    ];

    /// Its row in the table.
    pub const fn row(self) -> Row {
        const SOON: Option<Duration> = Some(Duration::from_secs(1));
        let (number, status, retry_after, meaning) = match self {
            Self::BadRequest => (
                101,
                StatusCode::OK,
                None,
                "The JSON or one of its fields is wrong. `m` names it; mend the request.",
            ),
            Self::BadChannel => (
                103,
                StatusCode::OK,
                None,
                "`c` is no channel name: 1 to 200 bytes without control characters, and without blanks but for a uid's \
                 behind `user:`.",
            ),
            Self::TooLarge => (
                104,
                StatusCode::OK,
                None,
                "The message is larger than `publisher_api.max_message`. Send less, or a link.",
            ),
            Self::BadKey => (
                105,
                StatusCode::UNAUTHORIZED,
                None,
                "No key, one that can't be read, or one that is not valid (any more). Never answered while no keys are configured.",
            ),
            Self::Forbidden => (
                106,
                StatusCode::FORBIDDEN,
                None,
                "Not permitted: the key lacks a scope or may not name the channel, or the request names an origin or a host that is not allowed.",
            ),
            Self::TooMany => (
                107,
                StatusCode::TOO_MANY_REQUESTS,
                SOON,
                "Too many publishes or sockets at once, in all or for the share of the key, or more messages a second than the key may publish. Come again after the pause that is named.",
            ),
            Self::Unavailable => (
                108,
                StatusCode::SERVICE_UNAVAILABLE,
                SOON,
                "The bus or the store can't be reached, or the store is full; `m` says which. Come again after a pause.",
            ),
            Self::NotSupported => (
                109,
                StatusCode::OK,
                None,
                "A call of the original that is not offered here. `m` names what to use instead.",
            ),
        };
        Row { number, status, retry_after, meaning }
    }

    /// `E.c` as text, for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "101",
            Self::BadChannel => "103",
            Self::TooLarge => "104",
            Self::BadKey => "105",
            Self::Forbidden => "106",
            Self::TooMany => "107",
            Self::Unavailable => "108",
            Self::NotSupported => "109",
        }
    }
}

/// The table of codes in Markdown, as it stands in the manual.
pub fn code_table() -> String {
    let mut table = String::from("| `E.c` | HTTP | come again? | meaning |\n| --- | --- | --- | --- |\n");
    for row in Code::ALL.map(Code::row) {
        let again = if row.retry_after.is_some() { "yes" } else { "no" };
        let line = format!("| {} | {} | {again} | {} |\n", row.number, row.status.as_u16(), row.meaning);
        table.push_str(&line);
    }
    table
}

/// Why a request is refused. Its text is `E.m`: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not JSON at all, or not UTF-8.
    #[error("this is not JSON: {0}; send a JSON object in UTF-8, made by a JSON library")]
    NotJson(serde_json::Error),
    /// JSON, but no object.
    #[error("a JSON object is expected, like {0}")]
    NotObject(&'static str),
    /// A field that must be there is not.
    #[error("\"{field}\" is missing; it must be {want}")]
    Missing {
        /// Name of the field.
        field: &'static str,
        /// What belongs there.
        want: &'static str,
    },
    /// A field of the wrong type.
    #[error("\"{field}\" is {got}; it must be {want}")]
    WrongType {
        /// Name of the field.
        field: &'static str,
        /// What was there.
        got: &'static str,
        /// What belongs there.
        want: &'static str,
    },
    /// `t` is none of its two values.
    #[error("\"t\" must be \"text\" or \"binary\"; leave it out for text")]
    UnknownType,
    /// `d` of a binary message can't be decoded.
    #[error("\"d\" must be standard base64 with padding, because \"t\" is \"binary\": {0}")]
    NotBase64(base64::DecodeError),
    /// `i` can't be echoed.
    #[error("\"i\" must be a string, a number, a boolean or null of at most {0} bytes")]
    BadEcho(usize),
    /// A method that nobody knows.
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
    /// The body is no HTTP, or the connection broke while it was read.
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
    NoHandshake(Fault),
    /// A method of HTTP that the path does not take.
    #[error("{path} takes {allowed} only")]
    Method {
        /// The path.
        path: &'static str,
        /// The method to use.
        allowed: &'static str,
    },
    /// `c` is no channel name.
    #[error("\"c\" is no channel name: {0}")]
    BadChannel(NameError),
    /// The message, or the request around it, is too large.
    #[error("{what} is larger than {limit} bytes, which is the limit; send less, or a link to it")]
    TooLarge {
        /// What is too large.
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
    /// No `Host`, several, or one that is none.
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
    /// A key that nobody has, or nobody any more.
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
        /// What it lacks.
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
        /// When there is room again.
        after: Duration,
    },
    /// More at once than the configuration allows.
    #[error("too many {what} at once (the limit is {limit}); try again in a moment")]
    TooMany {
        /// What there is too much of.
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
        /// What there is too much of.
        what: &'static str,
        /// How many there are for all keys.
        limit: usize,
    },
    /// The bus did not take the message.
    #[error("the bus can't be reached, so the message was not sent; try again in a moment")]
    Unavailable,
    /// The list of those who may not log in can't be written.
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
    /// The store has no room.
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
    StoreRefused(String),
    /// A message before it was not stored, and it must not overtake that.
    #[error(
        "an earlier message of this call to the same channel was not stored{}, so this one was held back to keep their \
         order; send them again", if *.full { ", because the store is full" } else { "" }
    )]
    Behind {
        /// Whether the earlier one found the store full.
        full: bool,
    },
    /// The same `Idempotency-Key` came before with another body.
    #[error(
        "this Idempotency-Key was used for a call with another path or body; repeat that one byte for byte, or take a new \
         key"
    )]
    KeyReused,
    /// `after` is not a place from which everything is there.
    #[error(
        "not everything after this id is there any more; read without \"after\" what is kept, and reload what is missing \
         from where it came from"
    )]
    NotWhole,
    /// A channel without history.
    #[error("this channel keeps no messages; its rule in [[channels]] would need history = true")]
    NoHistory,
    /// A call of the original that does not exist here.
    #[error("{call} is not offered; {instead}")]
    NotSupported {
        /// The call.
        call: &'static str,
        /// What to use.
        instead: &'static str,
    },
    /// JSON whose fields are not those of the call.
    #[error("the JSON does not fit the call: {0}; /openapi.json says what belongs there")]
    Shape(serde_json::Error),
    /// Something in a native call that the text says.
    #[error("{0}")]
    Native(&'static str),
    /// A target that is no channel name.
    #[error("this is no channel name: {0}")]
    BadTarget(NameError),
    /// A target or a path that names no user.
    #[error("this is no user: {0}")]
    BadUser(NameError),
    /// Repeats can't be recognized without history.
    #[error(
        "a target of this call has no history, so there is nothing to remember an Idempotency-Key by; leave the header out, \
         or publish to channels without history in a call of their own"
    )]
    Idempotency,
    /// A list with more entries than allowed.
    #[error("there are more than {limit} {what}, which is the limit; make several calls")]
    TooLong {
        /// What there is too much of.
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

fn got(content_type: Option<&str>) -> String {
    content_type.map_or_else(|| "; there is none".to_owned(), |got| format!("; it is {got:?}"))
}

/// Whole seconds, rounded up, so that whoever waits for them has waited long enough.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Refusal {
    /// The code that it is answered with.
    pub fn code(&self) -> Code {
        self.problem().row().code
    }

    /// Whether and after how many seconds the same request may succeed, for `Retry-After`.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the table decides for every other reason")]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooFast { after, .. } => Some(seconds(*after)),
            other => other.code().row().retry_after.map(seconds),
        }
    }

    /// The HTTP status: that of the code, except where the request never reached a call.
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

//! Requests of connmix: HTTP bodies and frames of a WebSocket. Pure: no sockets here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::ids::Channel;
use shared::trace::TraceContext;
use shared::wire::Kind;

use super::field::Field;
use crate::error::Refusal;
use crate::http::{object, present};
use crate::publisher::Message;

/// Path of a call of the original that is not offered.
const SEND_PATH: &str = "/v1/mesh/send";
/// The longest `i` that is echoed, in bytes of JSON.
const MAX_ECHO_BYTES: usize = 256;
const PARAMETERS: &str = r#"{"c":"user:1001","d":"text"}"#;
const FRAME: &str = r#"{"m":"mesh.publish","p":{"c":"user:1001","d":"text"},"i":1}"#;

/// Reads `{"c","d","t"}`. Unknown fields are ignored. `limit` bounds the payload, in bytes as it goes out.
///
/// # Errors
/// Codes 101, 103, 104.
pub(crate) fn read_message(json: &[u8], limit: usize) -> Result<Message, Refusal> {
    #[derive(Deserialize)]
    struct Parameters {
        #[serde(default)]
        c: Field,
        #[serde(default)]
        d: Field,
        #[serde(default)]
        t: Field,
    }
    let Parameters { c, d, t } = object(json, PARAMETERS)?;
    let name = c.text("c", "the channel's name as a string, e.g. \"user:1001\"")?;
    let data =
        d.text("d", "what the devices shall receive, as a JSON string (an object goes in as its text)")?;
    let kind = match t {
        Field::Absent => Kind::Text,
        Field::Text(t) if t == "text" => Kind::Text,
        Field::Text(t) if t == "binary" => Kind::Binary,
        Field::Text(_) | Field::Other(_) => return Err(Refusal::UnknownType),
    };
    let channel = Channel::parse(&name).map_err(Refusal::BadChannel)?;
    Ok(Message { channel, kind, payload: payload(data, kind, limit)? })
}

fn payload(data: String, kind: Kind, limit: usize) -> Result<Bytes, Refusal> {
    let payload = match kind {
        Kind::Text => Bytes::from(data),
        Kind::Binary => STANDARD.decode(data).map_err(Refusal::NotBase64)?.into(),
    };
    if payload.len() > limit {
        return Err(Refusal::TooLarge { what: "the message in \"d\"", limit });
    }
    Ok(payload)
}

/// The request of one text frame of a publisher's WebSocket, with the `i` that its answer echoes.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// `i`, or else `id`, verbatim.
    pub(crate) echo: Option<&'a RawValue>,
    /// The message to publish, or the refusal.
    pub(crate) message: Result<Message, Refusal>,
    /// The trace of the caller, if `traceparent` can be read.
    pub(crate) trace: Option<TraceContext>,
}

impl<'a> Call<'a> {
    /// Reads `{"m","p","i"}`.
    pub(crate) fn parse(json: &'a str, limit: usize) -> Self {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(default)]
            m: Field,
            #[serde(borrow)]
            p: Option<&'a RawValue>,
            #[serde(borrow, default, deserialize_with = "present")]
            i: Option<&'a RawValue>,
            #[serde(borrow, default, deserialize_with = "present")]
            id: Option<&'a RawValue>,
            #[serde(default)]
            traceparent: Field,
        }
        let frame: Frame<'a> = match object(json.as_bytes(), FRAME) {
            Ok(frame) => frame,
            Err(refusal) => return Self { echo: None, message: Err(refusal), trace: None },
        };
        let echo = frame.i.or(frame.id);
        if let Some(echo) = echo
            && (echo.get().len() > MAX_ECHO_BYTES || echo.get().starts_with(['[', '{']))
        {
            return Self { echo: None, message: Err(Refusal::BadEcho(MAX_ECHO_BYTES)), trace: None };
        }
        let parameters = frame.p.map(RawValue::get);
        // A bad traceparent does not stop the call.
        let trace = match frame.traceparent {
            Field::Text(parent) => TraceContext::parse(&parent, None),
            Field::Absent | Field::Other(_) => None,
        };
        let message = method(frame.m).and_then(|()| parse_parameters(parameters, limit));
        Self { echo, message, trace }
    }
}

fn parse_parameters(parameters: Option<&str>, limit: usize) -> Result<Message, Refusal> {
    let want = "an object with \"c\" and \"d\"";
    let parameters = parameters.ok_or(Refusal::Missing { field: "p", want })?;
    if !parameters.starts_with('{') {
        return Err(Refusal::WrongType { field: "p", got: "not an object", want });
    }
    read_message(parameters.as_bytes(), limit)
}

/// Returns the refusal of a request to a path that does not exist. A path of the original is told as its
/// method.
pub(crate) fn unknown_path(path: &str) -> Refusal {
    if path == SEND_PATH { no_send() } else { Refusal::UnknownPath }
}

/// Returns the refusal of the original's message to one connection, over the WebSocket and over HTTP.
fn no_send() -> Refusal {
    Refusal::NotSupported {
        call: "mesh.send",
        instead: "connections have no addresses here: give each user a channel and use mesh.publish",
    }
}

fn method(method: Field) -> Result<(), Refusal> {
    let unsupported = |call, instead| Err(Refusal::NotSupported { call, instead });
    let name = method.text("m", "the method, \"mesh.publish\"")?;
    match name.as_str() {
        "mesh.publish" => Ok(()),
        "mesh.send" => Err(no_send()),
        "conn.call" => unsupported(
            "conn.call",
            "devices subscribe by themselves, so there is nothing to call: use mesh.publish to their channel",
        ),
        queue if queue.starts_with("queue.") => unsupported(
            "queue.*",
            "devices talk to the business system over HTTP, not through queues; to reach them use mesh.publish",
        ),
        _ => Err(Refusal::UnknownMethod),
    }
}

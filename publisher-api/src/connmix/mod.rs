//! connmix's calls: what a request says, and how its answer looks. The same for HTTP and WebSocket.
//!
//! Pure: no sockets here. A [`Publish`] that comes out of [`Publish::parse`] is valid.

mod field;
pub(crate) mod http;
mod tapped;
pub(crate) mod ws;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::ids::Channel;
use shared::trace::TraceContext;
use shared::wire::{Counts, Kind};

use crate::error::Refusal;
use crate::receipts::Receipt;
use field::Field;

/// The longest `i` that is echoed, in bytes of JSON.
const MAX_ECHO_BYTES: usize = 256;
const PARAMETERS: &str = r#"{"c":"user:1001","d":"text"}"#;
const FRAME: &str = r#"{"m":"mesh.publish","p":{"c":"user:1001","d":"text"},"i":1}"#;

/// A request to publish, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Where to.
    pub(crate) channel: Channel,
    /// How plain subscribers receive it.
    pub(crate) kind: Kind,
    /// What goes out, byte for byte.
    pub(crate) payload: Bytes,
}

impl Publish {
    /// Reads `{"c","d","t"}`. Fields that are not known are ignored. `limit` bounds the payload, in bytes
    /// as it goes out.
    ///
    /// # Errors
    /// Codes 101, 103, 104.
    pub(crate) fn parse(json: &[u8], limit: usize) -> Result<Self, Refusal> {
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
        Ok(Self { channel, kind, payload: payload(data, kind, limit)? })
    }
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

/// What one text frame of a publisher's WebSocket asks for, with the `i` that its answer echoes.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// `i`, or else `id`, verbatim.
    pub(crate) echo: Option<&'a RawValue>,
    /// The publish, or why not.
    pub(crate) publish: Result<Publish, Refusal>,
    /// The trace that it goes on with: what its caller wrote in `traceparent`, if that can be read.
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
            Err(refusal) => return Self { echo: None, publish: Err(refusal), trace: None },
        };
        let echo = frame.i.or(frame.id);
        if let Some(echo) = echo
            && (echo.get().len() > MAX_ECHO_BYTES || echo.get().starts_with(['[', '{']))
        {
            return Self { echo: None, publish: Err(Refusal::BadEcho(MAX_ECHO_BYTES)), trace: None };
        }
        let parameters = frame.p.map(RawValue::get);
        // Whatever is wrong with it, the call goes on.
        let trace = match frame.traceparent {
            Field::Text(parent) => TraceContext::parse(&parent, None),
            Field::Absent | Field::Other(_) => None,
        };
        let publish = method(frame.m).and_then(|()| parse_parameters(parameters, limit));
        Self { echo, publish, trace }
    }
}

/// `Some` even for null, which serde would take for nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn parse_parameters(parameters: Option<&str>, limit: usize) -> Result<Publish, Refusal> {
    let want = "an object with \"c\" and \"d\"";
    let parameters = parameters.ok_or(Refusal::Missing { field: "p", want })?;
    if !parameters.starts_with('{') {
        return Err(Refusal::WrongType { field: "p", got: "not an object", want });
    }
    Publish::parse(parameters.as_bytes(), limit)
}

/// What the original's message to one connection is answered with, over the WebSocket and over HTTP.
pub(crate) fn no_send() -> Refusal {
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

/// Reads a JSON object. (serde would take a list for a struct as well.)
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8], example: &'static str) -> Result<T, Refusal> {
    let is_object = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_object {
        return serde_json::from_slice(json).map_err(Refusal::NotJson);
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
        Ok(_) => Err(Refusal::NotObject(example)),
        Err(error) => Err(Refusal::NotJson(error)),
    }
}

/// An answer, in the order of keys that publishers know. Over HTTP there is no `i`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Counted {
        #[serde(rename = "E")]
        error: (),
        r: Counted,
        #[serde(skip_serializing_if = "Option::is_none")]
        i: Option<&'a RawValue>,
    },
    Refused {
        #[serde(rename = "E")]
        error: Fault,
        #[serde(skip_serializing_if = "Option::is_none")]
        i: Option<&'a RawValue>,
    },
}

#[derive(Debug, Serialize)]
struct Counted {
    #[serde(flatten)]
    counts: Counts,
    /// Only where there is no header to say it, and only when it is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Fault {
    c: u16,
    m: String,
}

/// The body of an HTTP answer.
pub(crate) fn http_answer(outcome: &Result<Receipt, Refusal>) -> String {
    match outcome {
        Ok(receipt) => counted(receipt.counts, None, None),
        Err(refusal) => refused(refusal, None),
    }
}

/// The text of a WebSocket answer.
pub(crate) fn ws_answer(outcome: &Result<Receipt, Refusal>, echo: Option<&RawValue>) -> String {
    match outcome {
        Ok(receipt) => counted(receipt.counts, (!receipt.complete).then_some(false), echo),
        Err(refusal) => refused(refusal, echo),
    }
}

fn counted(counts: Counts, complete: Option<bool>, i: Option<&RawValue>) -> String {
    text(&Answer::Counted { error: (), r: Counted { counts, complete }, i })
}

fn refused(refusal: &Refusal, i: Option<&RawValue>) -> String {
    let error = Fault { c: refusal.code().row().number, m: refusal.to_string() };
    text(&Answer::Refused { error, i })
}

fn text(answer: &Answer<'_>) -> String {
    serde_json::to_string(answer).expect("an answer has only string keys")
}

#[cfg(test)]
mod tests;

//! The message of a native call: an event with data, or text or bytes as they are.
//!
//! `event` and `data` become the text `{"event":…,"data":…}`, with the bytes of `data` unchanged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::wire::Kind;
use utoipa::ToSchema;

use super::body::parse;
use super::limits::MAX_TARGETS;
use super::target::{Target, To, targets};
use crate::error::Refusal;
use crate::http::present;

const EXAMPLE: &str = r#"{"to":{"users":[1001]},"event":"@user","data":{"msg":"Hello"}}"#;

/// The refusal of a message without a target.
const NOBODY: &str =
    "\"to\" names nobody; give it \"users\", \"channels\" or \"groups\" with an entry, or \"all\":true";

/// A message and its targets. A message has exactly one of `event`, `raw` and `raw_base64`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Message)]
pub(super) struct Body<'a> {
    /// The targets; at least one.
    #[serde(borrow)]
    #[schema(value_type = To<'_>)]
    to: To<'a>,
    /// The name of the event. Devices receive the text `{"event":…,"data":…}`.
    #[serde(default)]
    #[schema(example = "@user")]
    event: Option<String>,
    /// Any JSON value, for `event`; its bytes go out unchanged. If left out, null.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>, example = json!({"msg": "Hello"}))]
    data: Option<&'a RawValue>,
    /// The text that devices receive.
    #[serde(default)]
    raw: Option<String>,
    /// The bytes that devices receive in a binary frame, in standard base64 with padding.
    #[serde(default)]
    raw_base64: Option<String>,
    /// Whether to count the sessions that the message reaches; true if left out. A batch has one `receipt`
    /// for all its messages.
    #[serde(default)]
    receipt: Option<bool>,
}

/// A message with its targets, each checked by itself.
#[derive(Debug)]
pub(super) struct Addressed {
    /// Users first, then channels, groups and all; at least one.
    pub(super) targets: Vec<Target>,
    /// The kind of frame in which plain subscribers receive the message.
    pub(super) kind: Kind,
    /// The bytes that go out, the same for all targets.
    pub(super) payload: Bytes,
    /// The `receipt` of the message, if it has one.
    pub(super) receipt: Option<bool>,
}

impl Addressed {
    /// Reads a message; `limit` bounds what goes out, in bytes.
    ///
    /// # Errors
    /// Fails if the message as a whole is bad. A bad target is refused in its own result instead.
    pub(super) fn parse(json: &[u8], limit: usize) -> Result<Self, Refusal> {
        let body: Body<'_> = parse(json, EXAMPLE)?;
        match body.to.count() {
            0 => return Err(Refusal::Native(NOBODY)),
            many if many > MAX_TARGETS => {
                return Err(Refusal::TooLong { what: "targets", limit: MAX_TARGETS });
            }
            _ => {}
        }
        let targets = targets(&body.to);
        let receipt = body.receipt;
        let (kind, payload) = payload(body)?;
        if payload.len() > limit {
            return Err(Refusal::TooLarge { what: "the message", limit });
        }
        Ok(Self { targets, kind, payload, receipt })
    }
}

fn payload(body: Body<'_>) -> Result<(Kind, Bytes), Refusal> {
    if body.event.is_none() && body.data.is_some() {
        return Err(Refusal::Native("\"data\" needs an \"event\"; to send text as it is, use \"raw\""));
    }
    match (body.event, body.raw, body.raw_base64) {
        (Some(event), None, None) => {
            let name = serde_json::to_string(&event).map_err(Refusal::NotJson)?;
            let data = body.data.map_or("null", RawValue::get);
            Ok((Kind::Text, format!("{{\"event\":{name},\"data\":{data}}}").into()))
        }
        (None, Some(text), None) => Ok((Kind::Text, text.into())),
        (None, None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Ok((Kind::Binary, bytes.into())),
            Err(_) => Err(Refusal::Native("\"raw_base64\" must be standard base64 with padding")),
        },
        (None, None, None) => Err(Refusal::Native(
            "there is no message; give \"event\" and \"data\", or \"raw\", or \"raw_base64\"",
        )),
        (Some(_) | None, ..) => {
            Err(Refusal::Native("give only one of \"event\", \"raw\" and \"raw_base64\""))
        }
    }
}

//! A stored message: which one to read, and what comes.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::{ApiError, Unreadable};
use crate::headers;

/// Which message to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Get<'a> {
    /// The last message of this subject.
    Last(&'a str),
    /// The message with this sequence.
    Seq(u64),
    /// The first message of a subject from a sequence on.
    Next {
        /// The lowest sequence.
        seq: u64,
        /// The subject; wildcards are allowed.
        subject: &'a str,
    },
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct RawMessage {
    /// The sequence in the stream.
    pub seq: u64,
    /// When the message was stored, in nanoseconds since 1970.
    pub time: u64,
    /// The subject that the message was published to.
    pub subject: String,
    /// The headers; after a direct read with those that the stream adds.
    pub headers: HeaderMap,
    /// The payload, copied: it holds no read buffer.
    pub payload: Bytes,
}

/// The acknowledgement of a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PubAck {
    /// The sequence in the stream.
    pub seq: u64,
    /// Whether a message with the same id was stored before.
    #[serde(default)]
    pub duplicate: bool,
}

#[derive(Deserialize)]
pub(super) struct StoredAnswer {
    message: StoredBody,
}

#[derive(Deserialize)]
struct StoredBody {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl StoredAnswer {
    pub(super) fn decode(self) -> Result<RawMessage, ApiError> {
        let StoredBody { subject, seq, hdrs, data, time } = self.message;
        let bytes = |text: &str| STANDARD.decode(text).map_err(Unreadable::from);
        let (headers, payload) = (parse_headers(&bytes(&hdrs)?), bytes(&data)?.into());
        Ok(RawMessage { seq, time: nanos(&time)?, subject, headers, payload })
    }
}

/// Parses a header block. Lines that are no header are left out.
pub(super) fn parse_headers(block: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let block = String::from_utf8_lossy(block);
    for (name, value) in block.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (name.parse::<async_nats::HeaderName>(), value.trim().parse::<async_nats::HeaderValue>())
        {
            headers.append(name, value);
        }
    }
    headers
}

/// Reads the answer to a direct read.
pub(super) fn direct(message: Message) -> Result<RawMessage, ApiError> {
    let seq = number(&message, headers::SEQUENCE).ok_or(Unreadable::NoHeader(headers::SEQUENCE))?;
    let headers = message.headers.unwrap_or_default();
    let text = |name: &'static str| {
        headers.get_last(name).map(|value| value.as_str().to_owned()).ok_or(Unreadable::NoHeader(name))
    };
    let (subject, time) = (text(headers::SUBJECT)?, nanos(&text(headers::TIME_STAMP)?)?);
    // The payload is a slice of the read buffer, which would live as long as the payload.
    let payload = Bytes::copy_from_slice(&message.payload);
    Ok(RawMessage { seq, time, subject, headers, payload })
}

/// Reads a number from a header of the server: the last header of this name, behind those of the message.
pub(super) fn number(message: &Message, header: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get_last(header)?.as_str().parse().ok()
}

/// Converts a time in RFC 3339 into nanoseconds since 1970.
pub(super) fn nanos(text: &str) -> Result<u64, Unreadable> {
    let unreadable = || Unreadable::Time(text.to_owned());
    let time: SystemTime = humantime::parse_rfc3339(text).map_err(|_| unreadable())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| unreadable())?;
    u64::try_from(since.as_nanos()).map_err(|_| unreadable())
}

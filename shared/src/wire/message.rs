//! A message as it travels to the edges: the publisher's bytes untouched, facts about it in headers.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{VERSION, WireError, check_version};
use crate::headers;
use crate::ids::MessageId;

/// The kind of WebSocket frame in which plain subscribers receive a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A WebSocket text frame.
    Text,
    /// A WebSocket binary frame.
    Binary,
}

/// A message on its way to the subscribers of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMessage {
    /// The id, in asks and in the duplicate window.
    pub id: MessageId,
    /// Text or binary.
    pub kind: Kind,
    /// The payload as the publisher wrote it, byte for byte; UTF-8 if the kind is text. The bytes may be a
    /// slice of a read buffer: copy what lives longer.
    pub payload: Bytes,
}

impl LiveMessage {
    /// Returns the headers of the message on the bus.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(headers::MESSAGE_ID, self.id.to_string());
        if self.kind == Kind::Binary {
            headers.insert(headers::KIND, "binary");
        }
        if VERSION != 1 {
            headers.insert(headers::VERSION, VERSION.to_string());
        }
        headers
    }

    /// Reads a message from the bus.
    ///
    /// # Errors
    /// There is no id, the kind is unknown, the version is too new, or a text is not UTF-8.
    pub fn decode(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Self, WireError> {
        let headers = headers.ok_or(WireError::Header(headers::MESSAGE_ID))?;
        let get = |name: &'static str| headers.get(name).map(|value| value.as_str());
        if let Some(version) = get(headers::VERSION) {
            check_version(version.parse().map_err(|_| WireError::Header(headers::VERSION))?)?;
        }
        let id = get(headers::MESSAGE_ID)
            .and_then(|id| id.parse().ok())
            .ok_or(WireError::Header(headers::MESSAGE_ID))?;
        let kind = match get(headers::KIND) {
            None | Some("text") => Kind::Text,
            Some("binary") => Kind::Binary,
            Some(_) => return Err(WireError::Header(headers::KIND)),
        };
        if kind == Kind::Text && std::str::from_utf8(&payload).is_err() {
            return Err(WireError::NotUtf8);
        }
        Ok(Self { id, kind, payload })
    }
}

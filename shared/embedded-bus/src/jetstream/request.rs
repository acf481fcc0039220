//! What waits for the streams, what leaves them, and which subjects lead to them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::stream::Message;
use crate::wire::Publish;

/// Something that was published to a subject which leads to the streams.
#[derive(Debug)]
pub(crate) struct Item {
    /// The sid of the route that it came by.
    pub(crate) route: Box<[u8]>,
    pub(crate) reply: Option<Bytes>,
    pub(crate) message: Message,
}

impl Item {
    /// Copies a message out of its read buffer, all of it into one place.
    pub(crate) fn copy(route: &[u8], publish: &Publish<'_>) -> Self {
        let reply = publish.reply.unwrap_or_default();
        let size = publish.subject.len() + reply.len() + publish.headers.len() + publish.payload.len();
        let mut buffer = BytesMut::with_capacity(size);
        let mut part = |bytes: &[u8]| {
            buffer.extend_from_slice(bytes);
            buffer.split().freeze()
        };
        let (subject, to) = (part(publish.subject), part(reply));
        let (headers, payload) = (part(publish.headers), part(publish.payload));
        let reply = publish.reply.is_some().then_some(to);
        Self { route: route.into(), reply, message: Message { subject, headers, payload } }
    }

    /// Bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        let message = &self.message;
        let reply = self.reply.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + message.subject.len() + message.headers.len() + message.payload.len() + reply
    }
}

/// Why a message is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// It asks the API: the number of its endpoint.
    Api(usize),
    /// It is to be stored in this stream.
    Publish(&'a str),
    /// It asks this stream for messages.
    Direct(&'a str),
}

impl<'a> Route<'a> {
    /// The sid of the route, with a number that makes it unlike those of the same kind.
    pub(crate) fn sid(self, number: usize) -> Vec<u8> {
        match self {
            Self::Api(endpoint) => format!("a {endpoint} {number}"),
            Self::Publish(stream) => format!("p {stream} {number}"),
            Self::Direct(stream) => format!("d {stream} {number}"),
        }
        .into_bytes()
    }

    pub(crate) fn read(sid: &'a [u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(sid).ok()?.split(' ');
        match (words.next()?, words.next()?) {
            ("a", endpoint) => Some(Self::Api(endpoint.parse().ok()?)),
            ("p", stream) => Some(Self::Publish(stream)),
            ("d", stream) => Some(Self::Direct(stream)),
            _ => None,
        }
    }
}

/// A subject that begins or ends to lead to the streams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RouteChange {
    Open { pattern: String, sid: Vec<u8> },
    Close { sid: Vec<u8> },
}

/// What a message that leaves is, and so what stands in its place if the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A copy of a stored message.
    Copy,
    /// The answer to whoever had it stored.
    Ack,
    /// An answer of the API, with its type.
    Api(&'static str),
    /// A message that was asked for, or the word that there is none.
    Direct,
}

/// A message that leaves once everything before it is kept.
#[derive(Debug)]
pub(crate) struct Output {
    /// The stream that it tells of.
    pub(crate) stream: Option<Arc<str>>,
    pub(crate) kind: OutputKind,
    pub(crate) subject: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

impl Output {
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.subject.len() + self.headers.len() + self.payload.len()
    }
}

//! Items that wait for the streams, outputs that leave them, and routes that lead to them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::stream::Message;
use crate::wire::Publish;

/// A message that was published to a route of the streams.
#[derive(Debug)]
pub(crate) struct Item {
    /// The sid of the route.
    pub(crate) route: Box<[u8]>,
    pub(crate) reply: Option<Bytes>,
    pub(crate) message: Message,
}

impl Item {
    /// Copies a message out of its read buffer, into one allocation.
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

    /// Returns the bytes of the item, about.
    pub(crate) fn size(&self) -> usize {
        let message = &self.message;
        let reply = self.reply.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + message.subject.len() + message.headers.len() + message.payload.len() + reply
    }
}

/// The purpose of a message, by its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A request to the API, with the number of its endpoint.
    Api(usize),
    /// A message to store in this stream.
    Publish(&'a str),
    /// A direct read of this stream.
    Direct(&'a str),
}

impl<'a> Route<'a> {
    /// Returns the sid of the route. `number` tells routes of one kind apart.
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

/// A change of the routes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RouteChange {
    Open { pattern: String, sid: Vec<u8> },
    Close { sid: Vec<u8> },
}

/// The kind of an output, which decides what is sent in its place if the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A live copy of a stored message.
    Copy,
    /// The answer to a publisher.
    Ack,
    /// An answer of the API, with its type.
    Api(&'static str),
    /// A stored message that was asked for, or the status that there is none.
    Direct,
}

/// A message that leaves after the commit.
#[derive(Debug)]
pub(crate) struct Output {
    /// The stream that the output is about.
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

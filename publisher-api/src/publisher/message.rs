//! The message of a publish, as both dialects hand it to the publisher.

use bytes::Bytes;
use shared::ids::Channel;
use shared::wire::Kind;

/// A checked message to one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The channel that receives the message.
    pub(crate) channel: Channel,
    /// How plain subscribers receive the message.
    pub(crate) kind: Kind,
    /// The bytes that go out, unchanged.
    pub(crate) payload: Bytes,
}

//! The protocol as bytes: [`parse`] takes a client's operations apart, [`encode`] writes the server's.
//!
//! Both are pure: no socket, no clock, no lock.

pub(crate) mod encode;
pub(crate) mod parse;
#[cfg(test)]
mod tests;

/// One operation of a client. It borrows from the bytes that it was read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    /// CONNECT with its JSON.
    Connect(&'a [u8]),
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// PUB or HPUB.
    Publish(Publish<'a>),
    /// SUB.
    Subscribe {
        /// The pattern, not checked yet.
        subject: &'a [u8],
        /// The queue group to join.
        queue: Option<&'a [u8]>,
        /// The client's name for this subscription.
        sid: &'a [u8],
    },
    /// UNSUB.
    Unsubscribe {
        /// The subscription to end.
        sid: &'a [u8],
        /// Messages in total after which it ends; at once if absent. (nats-server takes an unreadable number
        /// as absent.)
        max: Option<u64>,
    },
    /// INFO or +OK. A client has no reason to send them, and nats-server ignores them.
    Ignored,
    /// -ERR: the client gives up.
    ClientError,
}

/// One message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    /// The subject that it is published to.
    pub(crate) subject: &'a [u8],
    /// The subject for answers.
    pub(crate) reply: Option<&'a [u8]>,
    /// The header block as sent; empty if there is none.
    pub(crate) headers: &'a [u8],
    /// The bytes behind the headers.
    pub(crate) payload: &'a [u8],
    /// Whether the message came as HPUB, even with an empty header block.
    pub(crate) with_headers: bool,
}

/// Why a connection can't go on. The first error of a connection stays its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// An unknown verb, or a payload that does not end where its length said.
    UnknownOperation,
    /// A known verb with wrong arguments.
    Arguments,
    /// A line longer than the limit.
    ControlLine,
    /// A message larger than the limit.
    Payload,
}

impl WireError {
    /// Returns the text of the -ERR that the client gets.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::UnknownOperation => "Unknown Protocol Operation",
            Self::Arguments => "Parser Error",
            Self::ControlLine => "maximum control line exceeded",
            Self::Payload => "Maximum Payload Violation",
        }
    }
}

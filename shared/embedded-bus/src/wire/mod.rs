//! The protocol as bytes: [`parse`] takes a client's operations apart, [`encode`] writes the server's.
//!
//! Both are pure: no socket, no clock, no lock.

pub(crate) mod encode;
pub(crate) mod parse;
#[cfg(test)]
mod tests;

/// One operation of a client. It borrows from the bytes it was read from.
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
        /// What to hear. Not checked yet.
        subject: &'a [u8],
        /// The queue group to join.
        queue: Option<&'a [u8]>,
        /// What the client calls this subscription.
        sid: &'a [u8],
    },
    /// UNSUB.
    Unsubscribe {
        /// Which subscription.
        sid: &'a [u8],
        /// After how many messages in total; at once if absent. (nats-server takes an unreadable number as absent.)
        max: Option<u64>,
    },
    /// INFO or +OK, which a client has no reason to send and nats-server lets pass.
    Ignored,
    /// -ERR: the client gives up.
    ClientError,
}

/// One message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    /// Where to.
    pub(crate) subject: &'a [u8],
    /// Where an answer is expected.
    pub(crate) reply: Option<&'a [u8]>,
    /// The header block as sent, empty if there is none.
    pub(crate) headers: &'a [u8],
    /// What follows the headers.
    pub(crate) payload: &'a [u8],
    /// Whether it came as HPUB, even with an empty header block.
    pub(crate) with_headers: bool,
}

/// Why a connection can't go on. Once given, it is given for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// No verb of the protocol, or a payload that does not end where it said.
    UnknownOperation,
    /// Known verb, wrong arguments.
    Arguments,
    /// The line is longer than allowed.
    ControlLine,
    /// The message is larger than allowed.
    Payload,
}

impl WireError {
    /// What the client is told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::UnknownOperation => "Unknown Protocol Operation",
            Self::Arguments => "Parser Error",
            Self::ControlLine => "maximum control line exceeded",
            Self::Payload => "Maximum Payload Violation",
        }
    }
}

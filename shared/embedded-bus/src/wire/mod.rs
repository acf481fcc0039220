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

/// Reads arbitrary bytes as a client's, whole and in pieces of `chunk`, and checks that both read the same. For the fuzz
/// target and for the test that runs its corpus. Returns the number of operations.
///
/// # Panics
/// If the parser breaks one of its promises.
#[doc(hidden)]
pub fn check_bytes(input: &[u8], chunk: usize) -> usize {
    const MAX_CONTROL_LINE: usize = 512;
    const MAX_PAYLOAD: usize = 1024;
    let read = |chunk: usize| {
        let mut parser = parse::Parser::new(MAX_CONTROL_LINE, MAX_PAYLOAD);
        let (mut seen, mut buffer) = (Vec::new(), Vec::new());
        for piece in input.chunks(chunk.max(1)) {
            buffer.extend_from_slice(piece);
            loop {
                match parser.next(&buffer) {
                    Ok(Some((operation, taken))) => {
                        seen.push(format!("{operation:?}"));
                        buffer.drain(..taken);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(parser.next(b"PING\r\n"), Err(error), "an error is final");
                        seen.push(format!("{error:?}"));
                        return seen;
                    }
                }
            }
            assert!(buffer.len() <= MAX_CONTROL_LINE + MAX_PAYLOAD + 64, "more is kept than one operation");
        }
        seen
    };
    let whole = read(input.len());
    assert_eq!(whole, read(chunk), "chunks of {chunk} bytes read otherwise");
    whole.len()
}

//! Splits the bytes of one client into operations.
//!
//! However the bytes are cut into chunks, the operations and the error are the same. Parsing allocates
//! nothing, and an error is final. At most one line and one payload have to be buffered: both are refused by
//! their length before the rest of them has come.

use super::{Operation, Publish, WireError};

/// Digits of a size. nats-server reads no longer numbers.
const SIZE_DIGITS: usize = 9;
/// The most arguments of a line (HPUB with reply).
const MAX_ARGUMENTS: usize = 4;

/// The state of parsing one client's bytes.
#[derive(Debug)]
pub(crate) struct Parser {
    max_control_line: usize,
    max_payload: usize,
    /// Bytes at the front that contain no end of line.
    scanned: usize,
    /// Bytes without which another attempt is pointless.
    need: usize,
    failed: Option<WireError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Connect,
    Ping,
    Pong,
    Pub,
    HPub,
    Sub,
    Unsub,
    Info,
    Ok,
    Err,
}

/// The verbs, the most frequent first.
const VERBS: [(&[u8], Verb); 10] = [
    (b"PUB", Verb::Pub),
    (b"HPUB", Verb::HPub),
    (b"SUB", Verb::Sub),
    (b"UNSUB", Verb::Unsub),
    (b"PING", Verb::Ping),
    (b"PONG", Verb::Pong),
    (b"CONNECT", Verb::Connect),
    (b"INFO", Verb::Info),
    (b"+OK", Verb::Ok),
    (b"-ERR", Verb::Err),
];

impl Parser {
    pub(crate) fn new(max_control_line: usize, max_payload: usize) -> Self {
        Self { max_control_line, max_payload, scanned: 0, need: 1, failed: None }
    }

    /// Returns how many bytes the next operation takes at least, as far as known.
    #[cfg(test)]
    pub(super) fn need(&self) -> usize {
        self.need
    }

    /// Returns the operation at the front of `input` and the bytes it took, or `None` if it is incomplete.
    /// Between two operations `input` may only grow at its end.
    pub(crate) fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Operation<'a>, usize)>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if input.len() < self.need {
            return Ok(None);
        }
        match self.operation(input) {
            Ok(Some(done)) => {
                (self.scanned, self.need) = (0, 1);
                Ok(Some(done))
            }
            Ok(None) => {
                self.need = self.need.max(input.len() + 1);
                Ok(None)
            }
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    fn operation<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Operation<'a>, usize)>, WireError> {
        let Some((verb, start)) = verb(input)? else { return Ok(None) };
        let from = self.scanned.max(start);
        let found = input[from..].iter().position(|byte| *byte == b'\n').map(|position| from + position);
        let mut arguments = &input[start..found.unwrap_or(input.len())];
        if let [kept @ .., b'\r'] = arguments {
            arguments = kept;
        }
        // One blank after the verb is not counted.
        if arguments.len() > self.max_control_line + 1 {
            return Err(WireError::ControlLine);
        }
        let Some(end) = found else {
            self.scanned = input.len();
            return Ok(None);
        };
        let line = end + 1;
        let operation = match verb {
            Verb::Ping => Operation::Ping,
            Verb::Pong => Operation::Pong,
            Verb::Info | Verb::Ok => Operation::Ignored,
            Verb::Err => Operation::ClientError,
            Verb::Connect => Operation::Connect(arguments.trim_ascii()),
            Verb::Sub => subscribe(arguments)?,
            Verb::Unsub => unsubscribe(arguments)?,
            Verb::Pub | Verb::HPub => return self.publish(input, line, verb, arguments),
        };
        Ok(Some((operation, line)))
    }

    /// Reads a PUB or HPUB whose line ends before `start`.
    fn publish<'a>(
        &mut self,
        input: &'a [u8],
        start: usize,
        verb: Verb,
        arguments: &'a [u8],
    ) -> Result<Option<(Operation<'a>, usize)>, WireError> {
        let line = PublishLine::read(verb, arguments)?;
        if line.total > self.max_payload {
            return Err(WireError::Payload);
        }
        let end = start + line.total;
        let Some(tail) = input.get(end..end + 2) else {
            // Reported as soon as it is known, without waiting for the second byte.
            if input.get(end).is_some_and(|byte| *byte != b'\r') {
                return Err(WireError::UnknownOperation);
            }
            self.scanned = start - 1;
            self.need = end + 1;
            return Ok(None);
        };
        if tail != b"\r\n" {
            return Err(WireError::UnknownOperation);
        }
        let (headers, payload) = input[start..end].split_at(line.headers);
        let publish = Publish {
            subject: line.subject,
            reply: line.reply,
            headers,
            payload,
            with_headers: verb == Verb::HPub,
        };
        Ok(Some((Operation::Publish(publish), end + 2)))
    }
}

/// Returns the verb and the offset of its arguments; `None` if the verb is incomplete.
fn verb(input: &[u8]) -> Result<Option<(Verb, usize)>, WireError> {
    let mut possible = false;
    for (text, verb) in VERBS {
        let seen = text.len().min(input.len());
        if !input[..seen].eq_ignore_ascii_case(&text[..seen]) {
            continue;
        }
        if seen < text.len() {
            possible = true;
            continue;
        }
        let separated = match verb {
            // These verbs need no separator behind them, as in nats-server.
            Verb::Ping | Verb::Pong | Verb::Ok | Verb::Err | Verb::Connect => Some(true),
            Verb::Pub | Verb::HPub | Verb::Sub | Verb::Unsub | Verb::Info => {
                input.get(seen).map(|byte| matches!(byte, b' ' | b'\t'))
            }
        };
        return match separated {
            Some(true) => Ok(Some((verb, seen))),
            Some(false) => Err(WireError::UnknownOperation),
            None => Ok(None),
        };
    }
    if possible { Ok(None) } else { Err(WireError::UnknownOperation) }
}

/// The arguments of a line, separated by runs of blanks, which may also lead or trail.
struct Arguments<'a> {
    found: [&'a [u8]; MAX_ARGUMENTS],
    count: usize,
}

impl<'a> Arguments<'a> {
    fn split(line: &'a [u8]) -> Result<Self, WireError> {
        let mut arguments = Self { found: [&[]; MAX_ARGUMENTS], count: 0 };
        for word in line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty()) {
            *arguments.found.get_mut(arguments.count).ok_or(WireError::Arguments)? = word;
            arguments.count += 1;
        }
        Ok(arguments)
    }

    fn as_slice(&self) -> &[&'a [u8]] {
        &self.found[..self.count]
    }
}

fn subscribe(line: &[u8]) -> Result<Operation<'_>, WireError> {
    match *Arguments::split(line)?.as_slice() {
        [subject, sid] => Ok(Operation::Subscribe { subject, queue: None, sid }),
        [subject, queue, sid] => Ok(Operation::Subscribe { subject, queue: Some(queue), sid }),
        _ => Err(WireError::Arguments),
    }
}

fn unsubscribe(line: &[u8]) -> Result<Operation<'_>, WireError> {
    match *Arguments::split(line)?.as_slice() {
        [sid] => Ok(Operation::Unsubscribe { sid, max: None }),
        [sid, max] => {
            let max = size(max).filter(|max| *max > 0).map(|max| max as u64);
            Ok(Operation::Unsubscribe { sid, max })
        }
        _ => Err(WireError::Arguments),
    }
}

struct PublishLine<'a> {
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    headers: usize,
    total: usize,
}

impl<'a> PublishLine<'a> {
    fn read(verb: Verb, line: &'a [u8]) -> Result<Self, WireError> {
        let arguments = Arguments::split(line)?;
        let (names, headers, total) = match (verb, arguments.as_slice()) {
            (Verb::HPub, [names @ .., headers, total]) => (names, size(headers), size(total)),
            (_, [names @ .., total]) => (names, Some(0), size(total)),
            (_, []) => return Err(WireError::Arguments),
        };
        let (subject, reply) = match *names {
            [subject] => (subject, None),
            [subject, reply] => (subject, Some(reply)),
            _ => return Err(WireError::Arguments),
        };
        match (headers, total) {
            (Some(headers), Some(total)) if headers <= total => Ok(Self { subject, reply, headers, total }),
            _ => Err(WireError::Arguments),
        }
    }
}

/// Reads a decimal number of at most nine digits.
fn size(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS {
        return None;
    }
    digits.iter().try_fold(0_usize, |value, digit| match digit {
        b'0'..=b'9' => Some(value * 10 + usize::from(digit - b'0')),
        _ => None,
    })
}

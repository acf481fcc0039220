//! Live copies of stored messages: their subjects and headers.
//!
//! A destination rewrites the subject of the source: `*`, `$n` and `{{wildcard(n)}}` stand for tokens that
//! the wildcards of the source matched, a last `>` for the rest. Nats-Last-Sequence is the previous sequence
//! of the message's own subject, so that a subscriber of one subject notices a gap.

use bytes::Bytes;

use super::time;
use crate::headers::Extended;
use crate::storage::Record;
use crate::subject;

/// A rule that turns one subject into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    source: Box<[u8]>,
    tokens: Vec<DestinationToken>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum DestinationToken {
    Literal(Box<[u8]>),
    /// The token that the wildcard with this number, from 0, matched.
    Wildcard(usize),
    Rest,
}

impl Transform {
    /// Returns `None` if the two do not fit: a wildcard of the source is not used, or a wildcard is used that
    /// does not exist.
    pub(crate) fn new(source: &str, destination: &str) -> Option<Self> {
        let source = if source.is_empty() { ">" } else { source };
        let valid = |text: &str| {
            subject::is_valid_pattern(text.as_bytes()) && !text.contains([' ', '\t', '\r', '\n'])
        };
        if !valid(source) || !valid(destination) {
            return None;
        }
        let count = source.split('.').filter(|token| *token == "*").count();
        let mut used = vec![false; count];
        let (mut tokens, mut stars) = (Vec::new(), 0);
        for token in destination.split('.') {
            let part = match (token, wildcard(token)) {
                (">", _) => DestinationToken::Rest,
                ("*", _) => {
                    stars += 1;
                    DestinationToken::Wildcard(stars - 1)
                }
                (_, Some(number)) => DestinationToken::Wildcard(number.checked_sub(1)?),
                (_, None) if token.starts_with("{{") => return None,
                (_, None) => DestinationToken::Literal(token.as_bytes().into()),
            };
            if let DestinationToken::Wildcard(number) = part {
                *used.get_mut(number)? = true;
            }
            tokens.push(part);
        }
        let rest = tokens.contains(&DestinationToken::Rest);
        let fits = used.iter().all(|used| *used) && rest == source.ends_with('>');
        fits.then(|| Self { source: source.as_bytes().into(), tokens })
    }

    /// Returns the subject of the copy; `None` if the message is not to be copied.
    pub(crate) fn apply(&self, given: &[u8]) -> Option<Vec<u8>> {
        if !subject::matches(&self.source, given) {
            return None;
        }
        let mut matched = Vec::new();
        let mut rest = given;
        for token in subject::tokens(&self.source) {
            if subject::is_rest(token) {
                break;
            }
            let end = rest.iter().position(|byte| *byte == b'.').unwrap_or(rest.len());
            if subject::is_wildcard(token) {
                matched.push(&rest[..end]);
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        let mut out = Vec::with_capacity(given.len() + 16);
        for part in &self.tokens {
            if !out.is_empty() {
                out.push(b'.');
            }
            out.extend_from_slice(match part {
                DestinationToken::Literal(token) => token,
                DestinationToken::Wildcard(number) => matched.get(*number)?,
                DestinationToken::Rest => rest,
            });
        }
        Some(out)
    }
}

/// Reads the number of `$n` or `{{wildcard(n)}}`.
fn wildcard(token: &str) -> Option<usize> {
    if let Some(number) = token.strip_prefix('$') {
        return number.parse().ok();
    }
    let inner = token.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let open = inner.find('(')?;
    let name = inner[..open].trim();
    name.eq_ignore_ascii_case("wildcard").then(|| inner[open + 1..].strip_suffix(')')?.trim().parse().ok())?
}

/// Returns the headers of a copy. `previous` is the sequence before it of its subject; 0: none.
pub(crate) fn headers(stream: &str, record: &Record, previous: u64, headers_only: bool) -> Bytes {
    let block = Extended::of(&record.headers)
        .line("Nats-Stream", stream)
        .line("Nats-Subject", &record.subject)
        .number("Nats-Sequence", record.seq)
        .line("Nats-Time-Stamp", time::format(record.time))
        .number("Nats-Last-Sequence", previous);
    let block = if headers_only { block.number("Nats-Msg-Size", record.payload.len() as u64) } else { block };
    block.end().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(source: &str, destination: &str, given: &str) -> Option<String> {
        let out = Transform::new(source, destination).expect("a valid rule").apply(given.as_bytes())?;
        Some(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_subject_is_rewritten_by_what_the_wildcards_matched() {
        assert_eq!(apply("mc.log.>", "mc.live.>", "mc.log.a.b").as_deref(), Some("mc.live.a.b"));
        assert_eq!(apply("", "copy.>", "a.b").as_deref(), Some("copy.a.b"));
        assert_eq!(apply("a.*.*", "b.$2.{{wildcard(1)}}", "a.x.y").as_deref(), Some("b.y.x"));
        assert_eq!(apply("a.*.>", "b.*.c.>", "a.x.y.z").as_deref(), Some("b.x.c.y.z"));
        assert_eq!(apply("a.b", "c", "a.b").as_deref(), Some("c"));
        assert_eq!(apply("a.>", "c.>", "b.a"), None);
    }

    #[test]
    fn rules_that_do_not_fit_are_refused() {
        for (source, destination) in [
            ("a.*", "b.>"),
            (">", "b"),
            ("a.>", "b"),
            ("a.*.*", "b.*"),
            ("a.*", "b.$2"),
            ("a.*", "b.$0"),
            ("a", "b..c"),
            ("a.*", "b.{{partition(3,1)}}"),
            ("a.>", ""),
        ] {
            assert_eq!(Transform::new(source, destination), None, "{source} {destination}");
        }
    }

    #[test]
    fn a_copy_keeps_its_headers_and_gets_those_of_the_stream() {
        let record = Record {
            seq: 7,
            time: 1_500_000_000,
            subject: "s.a".into(),
            headers: "NATS/1.0\r\nA: b\r\n\r\n".into(),
            payload: "hi".into(),
        };
        let expected = "NATS/1.0\r\nA: b\r\nNats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: 7\r\n\
                        Nats-Time-Stamp: 1970-01-01T00:00:01.5Z\r\nNats-Last-Sequence: 3\r\n";
        assert_eq!(headers("S", &record, 3, false), format!("{expected}\r\n"));
        assert_eq!(headers("S", &record, 3, true), format!("{expected}Nats-Msg-Size: 2\r\n\r\n"));
    }
}

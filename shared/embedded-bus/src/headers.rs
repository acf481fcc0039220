//! Header blocks: finding the headers that matter for a stream, and adding a stream's own.
//!
//! A block is `NATS/1.0`, lines of `Name: value` and an empty line. Names are case-sensitive, as in
//! nats-server.

/// The beginning of a block.
const VERSION: &[u8] = b"NATS/1.0\r\n";
/// The end of a line, and an empty line at the end of a block.
const END: &[u8] = b"\r\n";
/// The trace destination that switches tracing off.
const TRACE_DISABLED: &[u8] = b"trace disabled";

/// Returns the names and values of a block, in order, without blanks around the values. Skips lines without a
/// colon.
pub(crate) fn lines(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    block.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Returns the id by which a repeated publish is known.
pub(crate) fn message_id(block: &[u8]) -> Option<&[u8]> {
    let found = lines(block).find(|(name, _)| *name == b"Nats-Msg-Id")?.1;
    (!found.is_empty()).then_some(found)
}

/// Whether a message is only traced. nats-server then follows its path and delivers it to nobody.
pub(crate) fn is_trace_only(block: &[u8]) -> bool {
    let (mut asked, mut dest) = (None, None);
    for (name, value) in lines(block) {
        match name {
            b"Nats-Trace-Only" => asked = asked.or(Some(value)),
            b"Nats-Trace-Dest" => dest = dest.or(Some(value)),
            _ => {}
        }
    }
    let is_on = |value: &[u8]| [&b"true"[..], b"1", b"on"].iter().any(|on| value.eq_ignore_ascii_case(on));
    let has_dest = dest.is_some_and(|dest| !dest.is_empty() && dest != TRACE_DISABLED);
    has_dest && asked.is_some_and(is_on)
}

/// Conditions that a message sets for its own storing. Empty values count as absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expectations<'a> {
    pub(crate) message_id: Option<&'a [u8]>,
    pub(crate) expected_stream: Option<&'a [u8]>,
    pub(crate) expected_last: Option<&'a [u8]>,
    pub(crate) expected_last_in_subject: Option<&'a [u8]>,
    pub(crate) expected_last_subject: Option<&'a [u8]>,
    pub(crate) expected_last_id: Option<&'a [u8]>,
    pub(crate) rollup: Option<&'a [u8]>,
    pub(crate) ttl: bool,
    pub(crate) batch: bool,
    pub(crate) counter: bool,
    pub(crate) schedule: bool,
}

impl<'a> Expectations<'a> {
    /// Reads the conditions. Of several lines with one name the first counts.
    pub(crate) fn read(block: &'a [u8]) -> Self {
        let mut expectations = Self::default();
        for (name, value) in lines(block) {
            let Some(name) = name.strip_prefix(b"Nats-") else { continue };
            let field = match name {
                b"Msg-Id" => &mut expectations.message_id,
                b"Expected-Stream" => &mut expectations.expected_stream,
                b"Expected-Last-Sequence" => &mut expectations.expected_last,
                b"Expected-Last-Subject-Sequence" => &mut expectations.expected_last_in_subject,
                b"Expected-Last-Subject-Sequence-Subject" => &mut expectations.expected_last_subject,
                b"Expected-Last-Msg-Id" => &mut expectations.expected_last_id,
                b"Rollup" => &mut expectations.rollup,
                b"TTL" => {
                    expectations.ttl = true;
                    continue;
                }
                b"Batch-Id" => {
                    expectations.batch = true;
                    continue;
                }
                b"Incr" => {
                    expectations.counter = true;
                    continue;
                }
                b"Schedule" => {
                    expectations.schedule = true;
                    continue;
                }
                _ => continue,
            };
            if field.is_none() && !value.is_empty() {
                *field = Some(value);
            }
        }
        expectations
    }
}

/// A block with further lines behind its own.
#[derive(Debug)]
pub(crate) struct Extended(Vec<u8>);

impl Extended {
    /// Begins with a copy of a block, which may be empty.
    pub(crate) fn of(block: &[u8]) -> Self {
        let mut out = Vec::with_capacity(block.len() + 192);
        out.extend_from_slice(if block.is_empty() {
            VERSION
        } else {
            block.strip_suffix(END).unwrap_or(block)
        });
        Self(out)
    }

    /// Begins with a status line.
    pub(crate) fn status(text: &str) -> Self {
        Self(format!("NATS/1.0 {text}\r\n").into_bytes())
    }

    /// Adds a line.
    pub(crate) fn line(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value.as_ref());
        self.0.extend_from_slice(END);
        self
    }

    /// Adds a line with a number.
    pub(crate) fn number(self, name: &str, value: u64) -> Self {
        self.line(name, value.to_string())
    }

    /// Ends the block.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(END);
        self.0
    }
}

/// Returns a block of only a status line.
pub(crate) fn status(text: &str) -> Vec<u8> {
    Extended::status(text).end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_count_as_spelled_and_the_first_of_them_counts() {
        let block =
            b"NATS/1.0\r\nnats-msg-id: x\r\nNats-Msg-Id:  a b \r\nNats-Msg-Id: c\r\nNats-Rollup:\r\n\r\n";
        let expectations = Expectations::read(block);
        assert_eq!(expectations, Expectations { message_id: Some(b"a b"), ..Expectations::default() });
        assert_eq!(message_id(block), Some(&b"a b"[..]));
        assert_eq!(message_id(b""), None);
    }

    #[test]
    fn lines_are_added_behind_those_that_are_there() {
        let block = Extended::of(b"NATS/1.0\r\nA: b\r\n\r\n").line("C", "d").number("E", 7).end();
        assert_eq!(block, b"NATS/1.0\r\nA: b\r\nC: d\r\nE: 7\r\n\r\n");
        assert_eq!(Extended::of(b"").line("C", "d").end(), b"NATS/1.0\r\nC: d\r\n\r\n");
    }

    #[test]
    fn only_a_message_with_a_destination_is_only_traced() {
        let block = |lines: &str| format!("NATS/1.0\r\n{lines}\r\n").into_bytes();
        let dest = "Nats-Trace-Dest: trace\r\n";
        for on in ["true", "TRUE", "1", "on", " true "] {
            let asked = format!("{dest}Nats-Trace-Only: {on}\r\n");
            assert!(is_trace_only(&block(&asked)), "{asked:?}");
        }
        for off in [
            dest.to_owned(),
            format!("{dest}Nats-Trace-Only: false\r\n"),
            format!("{dest}Nats-Trace-Only: yes\r\n"),
            "Nats-Trace-Only: true\r\n".to_owned(),
            "Nats-Trace-Dest:\r\nNats-Trace-Only: true\r\n".to_owned(),
            "Nats-Trace-Dest: trace disabled\r\nNats-Trace-Only: true\r\n".to_owned(),
            "nats-trace-dest: trace\r\nnats-trace-only: true\r\n".to_owned(),
        ] {
            assert!(!is_trace_only(&block(&off)), "{off:?}");
        }
        assert!(!is_trace_only(b""));
    }

    proptest! {
        #[test]
        fn no_block_panics(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Expectations::read(&block), is_trace_only(&block), Extended::of(&block).end(), lines(&block).count());
        }
    }
}

//! Any way of cutting the bytes reads the same, arbitrary bytes never panic, and each error has its name.

use proptest::prelude::*;

use super::parse::Parser;
use super::*;

const LINE: usize = 64;
const PAYLOAD: usize = 100;

/// Reads all of `input`, fed in these chunks. Returns the operations as text, and the error, if any, as the
/// last entry.
fn read(input: &[u8], chunks: &[usize]) -> Vec<String> {
    let mut parser = Parser::new(LINE, PAYLOAD);
    let (mut seen, mut buffer, mut fed) = (Vec::new(), Vec::new(), 0);
    let mut sizes = chunks.iter().copied().chain(std::iter::repeat(usize::MAX));
    while fed < input.len() {
        let end = fed.saturating_add(sizes.next().unwrap_or(1).max(1)).min(input.len());
        buffer.extend_from_slice(&input[fed..end]);
        fed = end;
        loop {
            match parser.next(&buffer) {
                Ok(Some((operation, taken))) => {
                    assert!(taken > 0 && taken <= buffer.len());
                    seen.push(format!("{operation:?}"));
                    buffer.drain(..taken);
                }
                Ok(None) => {
                    assert!(parser.need() > buffer.len(), "it wants to look again without anything new");
                    assert!(buffer.len() <= 2 * LINE + PAYLOAD, "more is kept than one line and one payload");
                    break;
                }
                Err(error) => {
                    assert_eq!(parser.next(b"PING\r\n"), Err(error), "an error is final");
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

fn one(input: &str) -> String {
    let seen = read(input.as_bytes(), &[]);
    assert_eq!(seen.len(), 1, "{input:?} gave {seen:?}");
    seen.into_iter().next().unwrap_or_default()
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let valid = proptest::sample::select(vec![
        "PING\r\n",
        "pong\r\n",
        "SUB a.* 1\r\n",
        "sub  a\tq 2 \r\n",
        "UNSUB 1 5\r\n",
        "UNSUB 1\n",
        "PUB a 5\r\nhe\r\no\r\n",
        "PUB a _INBOX.1 0\r\n\r\n",
        "HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        "CONNECT {\"verbose\":false}\r\n",
        "+OK\r\n",
        "INFO {}\r\n",
    ])
    .prop_map(|text: &str| text.as_bytes().to_vec());
    let line = prop_oneof![
        "(PUB|HPUB|SUB|UNSUB|CONNECT|P|H)[ \t]{0,3}[a-z0-9. -]{0,70}\r?\n?".prop_map(String::into_bytes),
        "[ \tA-Z0-9+-]{0,10}\r?\n".prop_map(String::into_bytes),
    ];
    prop_oneof![12 => valid, 1 => line, 1 => proptest::collection::vec(any::<u8>(), 0..20)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_reads_the_same(
        pieces in proptest::collection::vec(piece(), 0..12),
        chunks in proptest::collection::vec(1..9_usize, 0..60),
    ) {
        let input = pieces.concat();
        let whole = read(&input, &[]);
        prop_assert_eq!(&whole, &read(&input, &chunks));
        prop_assert_eq!(&whole, &read(&input, &vec![1; input.len()]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..400), chunk in 1..50_usize) {
        let chunks = vec![chunk; input.len()];
        prop_assert_eq!(read(&input, &chunks), read(&input, &[]));
    }

    #[test]
    fn what_is_encoded_can_be_read_back(
        subject in "[a-z.]{1,30}", reply in proptest::option::of("[a-z]{1,9}"), sid in "[0-9]{1,9}",
        headers in proptest::collection::vec(any::<u8>(), 0..40),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let (headers, payload) = (headers.as_slice(), payload.as_slice());
        let reply = reply.as_deref().map(str::as_bytes);
        let sent = Publish { subject: subject.as_bytes(), reply, headers, payload, with_headers: !headers.is_empty() };
        let mut out = Vec::new();
        encode::message(&mut out, &sent, sid.as_bytes(), true);
        prop_assert!(out.len() <= encode::message_bound(&sent, sid.as_bytes()));
        // MSG differs from PUB by its verb and the sid behind the subject.
        let expected = format!("MSG {subject} {sid} ");
        let start = usize::from(!headers.is_empty());
        prop_assert!(out[start..].starts_with(expected.as_bytes()));
        let mut back = if headers.is_empty() { b"PUB ".to_vec() } else { b"HPUB ".to_vec() };
        back.extend_from_slice(subject.as_bytes());
        back.push(b' ');
        back.extend_from_slice(&out[start + expected.len()..]);
        let mut parser = Parser::new(LINE, PAYLOAD);
        prop_assert_eq!(parser.next(&back), Ok(Some((Operation::Publish(sent), back.len()))));
    }
}

#[test]
fn blanks_come_in_runs_and_trail() {
    assert_eq!(one("SUB a.*  2\r\n"), one("sub a.*\t2 \r\n"));
    assert_eq!(one("UNSUB 1 \r\n"), one("UNSUB 1\r\n"));
    assert_eq!(one("PUB a  1\r\nx\r\n"), one("PUB a 1\r\nx\r\n"));
    assert_eq!(one("PING  \r\n"), one("ping\n"));
}

#[test]
fn what_is_no_operation_is_told_apart_from_wrong_arguments() {
    let unknown = [
        "FOO\r\n",
        " PING\r\n",
        "\r\n",
        "\0",
        "SUB\r\n",
        "PUBX a 1\r\n",
        "MSG a 1 1\r\n",
        "GET / HTTP/1.1",
        "\u{16}",
    ];
    for input in unknown {
        assert_eq!(one(input), "UnknownOperation", "{input:?}");
    }
    let arguments = [
        "SUB a\r\n",
        "SUB a b c d\r\n",
        "UNSUB \r\n",
        "UNSUB 1 2 3\r\n",
        "PUB a\r\n",
        "PUB a b c 1\r\n",
        "PUB a -1\r\n",
        "PUB a x\r\n",
        "PUB a +1\r\n",
        "PUB a 0000000001\r\n",
        "PUB a 99999999999999999999999\r\n",
        "HPUB a 12\r\n",
        "HPUB a 13 12\r\n",
        "HPUB a -1 6\r\n",
        "HPUB a b c 1 1\r\n",
        "PUB \r\n",
    ];
    for input in arguments {
        assert_eq!(one(input), "Arguments", "{input:?}");
    }
}

#[test]
fn a_payload_ends_where_it_said() {
    for input in ["PUB a 1\r\nxyz\r\n", "PUB a 1\r\nx\n", "PUB a 1\r\nx\r\r", "PUB a 1\r\nxy"] {
        assert_eq!(one(input), "UnknownOperation", "{input:?}");
    }
}

#[test]
fn too_much_is_refused_before_it_is_there() {
    assert_eq!(one(&format!("PUB a {}\r\n", PAYLOAD + 1)), "Payload");
    assert_eq!(one("PUB a 999999999\r\n"), "Payload");
    assert_eq!(one(&format!("HPUB a 1 {}\r\n", PAYLOAD + 1)), "Payload");
    assert_eq!(one(&format!("SUB {}", "a".repeat(LINE + 1))), "ControlLine");
    assert_eq!(one(&format!("PING {}", "a".repeat(LINE + 1))), "ControlLine");
    assert_eq!(one(&format!("PUB{}", " ".repeat(LINE + 2))), "ControlLine");
    assert_eq!(one(&format!("CONNECT {{{}", "a".repeat(LINE + 1))), "ControlLine");
}

#[test]
fn a_line_of_exactly_the_limit_passes() {
    let subject = "a".repeat(LINE - 2);
    assert!(one(&format!("SUB {subject} 1\r\n")).starts_with("Subscribe"));
    assert!(one(&format!("SUB {subject} 1\n")).starts_with("Subscribe"));
    assert_eq!(one(&format!("SUB {subject}a 1\r\n")), "ControlLine");
}

#[test]
fn an_unreadable_number_of_messages_ends_the_subscription_at_once() {
    for input in ["UNSUB 1\r\n", "UNSUB 1 0\r\n", "UNSUB 1 -1\r\n", "UNSUB 1 abc\r\n"] {
        assert_eq!(one(input), "Unsubscribe { sid: [49], max: None }", "{input:?}");
    }
}

//! Sections 1, 3 and 4: lengths, reserved bits, reserved opcodes; and headers that no client may write.

use super::case::{Case, End, Said, echo, op, op_of, pong};
use super::hold;
use test_kit::frames::{BINARY, CLOSE, PING, TEXT, masked, whole};

/// The end after a frame that breaks the protocol.
const VIOLATION: End = End::Closed(1002);
/// The end after a message that is no op.
const NOT_AN_OP: End = End::Closed(4400);

/// Lengths around those at which the header changes, and the pieces in which they are sent.
const LENGTHS: [(usize, usize); 8] = [
    (0, usize::MAX),
    (125, usize::MAX),
    (126, usize::MAX),
    (127, usize::MAX),
    (128, usize::MAX),
    (65_535, usize::MAX),
    (65_536, usize::MAX),
    (65_536, 997),
];

#[tokio::test]
async fn messages_of_any_length_are_taken_whole() {
    let mut cases = Vec::new();
    for (number, (length, chop)) in (1..).zip(LENGTHS) {
        let text = if length == 0 {
            Case::new(format!("1.1.{number}"), &[whole(TEXT, b"")], &[Said::Refusal], NOT_AN_OP)
        } else {
            let (message, payload) = op_of(length);
            Case::new(format!("1.1.{number}"), &[whole(TEXT, &message)], &[echo(&payload)], End::Open)
        };
        cases.push(text.chopped(chop));
        let binary = whole(BINARY, &vec![0xfe; length]);
        cases.push(Case::new(format!("1.2.{number}"), &[binary], &[Said::Refusal], NOT_AN_OP).chopped(chop));
    }
    hold(cases).await;
}

#[tokio::test]
async fn reserved_bits_are_a_violation() {
    let (hello, ping) = (op(b"Hello"), whole(PING, b""));
    let reserved = |bits: u8, opcode: u8, payload: &[u8]| masked(0x80 | bits << 4 | opcode, payload);
    let second = |bits| [whole(TEXT, &hello), reserved(bits, TEXT, &hello), ping.clone()];
    hold(vec![
        Case::new("3.1", &[reserved(1, TEXT, &hello)], &[], VIOLATION),
        Case::new("3.2", &second(2), &[echo("Hello")], VIOLATION),
        Case::new("3.3", &second(3), &[echo("Hello")], VIOLATION).chopped(20),
        Case::new("3.4", &second(4), &[echo("Hello")], VIOLATION).chopped(1),
        Case::new("3.5", &[reserved(5, BINARY, &[0xff; 8])], &[], VIOLATION),
        Case::new("3.6", &[reserved(6, PING, b"payload")], &[], VIOLATION),
        Case::new("3.7", &[reserved(7, CLOSE, &1000_u16.to_be_bytes())], &[], VIOLATION),
    ])
    .await;
}

#[tokio::test]
async fn reserved_opcodes_are_a_violation() {
    let hello = op(b"Hello");
    let mut cases = Vec::new();
    for (section, first) in [(1, 3), (2, 11)] {
        for number in 1..=5_u8 {
            let payload: &[u8] = if number % 2 == 0 { b"reserved" } else { b"" };
            let (id, frame) = (format!("4.{section}.{number}"), whole(first + number - 1, payload));
            let case = if number < 3 {
                Case::new(id, &[frame], &[], VIOLATION)
            } else {
                let frames = [whole(TEXT, &hello), frame, whole(PING, b"")];
                Case::new(id, &frames, &[echo("Hello")], VIOLATION)
            };
            cases.push(if number > 3 { case.chopped(1) } else { case });
        }
    }
    hold(cases).await;
}

#[tokio::test]
async fn headers_that_no_client_may_write_end_the_connection_before_their_payload_is_read() {
    let hello = op(b"Hello");
    let unmasked = [&[0x81, hello.len() as u8][..], &hello].concat();
    // 17 MiB, the highest bit, and all bits; none of the payload follows.
    let announced = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let limit = |id: &str, length: u64| {
        Case::new(id, &[announced(length)], &[Said::Refusal], End::ClosedWithin(1009))
    };
    let half = vec![b' '; 9 << 20];
    hold(vec![
        Case::new("unmasked", &[unmasked], &[], VIOLATION),
        limit("one byte above the limit", (16 << 20) + 1),
        limit("the highest bit", 1 << 63),
        limit("all bits", u64::MAX),
        Case::new(
            "fragments above the limit together",
            &[masked(TEXT, &half), masked(0x80, &half)],
            &[Said::Refusal],
            End::Closed(1009),
        ),
        Case::new("a ping goes on", &[whole(PING, b"x")], &[pong(b"x")], End::Open),
    ])
    .await;
}

//! Sections 5 and 10: messages in several frames, and control frames in between.

use super::case::{Case, End, echo, op, op_of, pong};
use super::hold;
use test_kit::frames::{CONTINUATION, PING, PONG, TEXT, fragmented, part, whole};

const VIOLATION: End = End::Closed(1002);

/// Gives each of the numbers the same case: sent at once, in pieces, byte by byte.
fn three_ways(numbers: [u8; 3], case: impl Fn(String) -> Case) -> [Case; 3] {
    let [at_once, pieces, bytes] = numbers.map(|number| case(format!("5.{number}")));
    [at_once, pieces.chopped(7), bytes.chopped(1)]
}

#[tokio::test]
async fn messages_are_put_together_and_control_frames_come_through_in_between() {
    let message = op(b"fragment1fragment2");
    let (one, two) = message.split_at(24);
    let both = echo("fragment1fragment2");
    let split = [part(TEXT, one), whole(CONTINUATION, two)];
    let pinged = [split[0].clone(), whole(PING, b"ping"), split[1].clone()];
    let mut cases = Vec::new();
    cases.push(Case::new("5.1", &[part(PING, b"frag"), whole(CONTINUATION, b"ment")], &[], VIOLATION));
    cases.push(Case::new("5.2", &[part(PONG, b"frag"), whole(CONTINUATION, b"ment")], &[], VIOLATION));
    cases.extend(three_ways([3, 4, 5], |id| Case::new(id, &split, std::slice::from_ref(&both), End::Open)));
    let answers = [pong(b"ping"), both.clone()];
    cases.extend(three_ways([6, 7, 8], |id| Case::new(id, &pinged, &answers, End::Open)));
    let five = op(b"fragment1fragment2fragment3fragment4fragment5");
    let (first, rest) = five.split_at(20);
    let (second, rest) = rest.split_at(11);
    let (third, rest) = rest.split_at(9);
    let (fourth, fifth) = rest.split_at(9);
    let frames = [
        part(TEXT, first),
        part(CONTINUATION, second),
        whole(PING, b"one"),
        part(CONTINUATION, third),
        part(CONTINUATION, fourth),
        whole(PING, b"two"),
        whole(CONTINUATION, fifth),
    ];
    let answers = [pong(b"one"), pong(b"two"), echo("fragment1fragment2fragment3fragment4fragment5")];
    cases.push(Case::new("5.19", &frames, &answers, End::Open).chopped(16));
    cases.push(Case::new("5.20", &frames, &answers, End::Open));
    // The frame between the first part and the second is answered before the second is sent.
    let waits = |id: &str| {
        Case::new(id, &frames[..3], &answers[..1], End::Open)
            .then(&frames[3..6], &answers[1..2])
            .then(&frames[6..], &answers[2..])
    };
    cases.push(waits("5.19, with waits between"));
    cases.push(waits("5.20, with waits between").chopped(3));
    let empty = [part(TEXT, b""), part(CONTINUATION, &message), whole(CONTINUATION, b"")];
    cases.push(Case::new("empty frames around it", &empty, &[both], End::Open));
    let (large, payload) = op_of(65_536);
    cases.push(Case::new("10.1.1", &[fragmented(TEXT, &large, 1_300)], &[echo(&payload)], End::Open));
    hold(cases).await;
}

#[tokio::test]
async fn a_continuation_of_nothing_and_a_message_within_another_are_violations() {
    let hello = op(b"Hello");
    let (one, two) = hello.split_at(10);
    let message = whole(TEXT, &hello);
    let mut cases = Vec::new();
    let last = [whole(CONTINUATION, b"of nothing"), message.clone()];
    cases.extend(three_ways([9, 10, 11], |id| Case::new(id, &last, &[], VIOLATION)));
    let more = [part(CONTINUATION, b"of nothing"), message.clone()];
    cases.extend(three_ways([12, 13, 14], |id| Case::new(id, &more, &[], VIOLATION)));
    let after =
        [part(TEXT, one), whole(CONTINUATION, two), part(CONTINUATION, b"of nothing"), message.clone()];
    cases.push(Case::new("5.15", &after, &[echo("Hello")], VIOLATION));
    for (id, continuation) in [("5.16", part(CONTINUATION, b"x")), ("5.17", whole(CONTINUATION, b"x"))] {
        let twice = [continuation.clone(), message.clone(), continuation, message.clone()];
        cases.push(Case::new(id, &twice, &[], VIOLATION));
    }
    cases.push(Case::new("5.18", &[part(TEXT, one), whole(TEXT, two)], &[], VIOLATION));
    hold(cases).await;
}

//! Section 9: large messages, many frames, small pieces, many messages.

use super::case::{Case, End, Said, echo, op_of};
use super::hold;
use test_kit::frames::{BINARY, TEXT, fragmented, whole};

const NOT_AN_OP: End = End::Closed(4400);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn text(id: String, bytes: usize, frame: usize) -> Case {
    let (message, payload) = op_of(bytes);
    Case::new(id, &[fragmented(TEXT, &message, frame)], &[echo(&payload)], End::Open)
}

fn binary(id: String, bytes: usize, frame: usize) -> Case {
    Case::new(id, &[fragmented(BINARY, &vec![0xfe; bytes], frame)], &[Said::Refusal], NOT_AN_OP)
}

#[tokio::test]
async fn messages_up_to_the_limit_are_taken() {
    let mut cases = Vec::new();
    for (number, bytes) in (1..).zip([64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB]) {
        cases.push(text(format!("9.1.{number}"), bytes, bytes));
        cases.push(binary(format!("9.2.{number}"), bytes, bytes));
    }
    hold(cases).await;
}

#[tokio::test]
async fn messages_in_many_frames_are_taken() {
    let sizes = [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];
    let mut cases = Vec::new();
    for (number, frame) in (1..).zip(sizes) {
        cases.push(text(format!("9.3.{number}"), 4 * MIB, frame));
        cases.push(binary(format!("9.4.{number}"), 4 * MIB, frame));
    }
    hold(cases).await;
}

#[tokio::test]
async fn messages_in_small_pieces_are_taken() {
    let mut cases = Vec::new();
    for (number, chop) in (1..).zip([64, 128, 256, 512, KIB, 2 * KIB]) {
        cases.push(text(format!("9.5.{number}"), MIB, MIB).chopped(chop));
        cases.push(binary(format!("9.6.{number}"), MIB, MIB).chopped(chop));
    }
    hold(cases).await;
}

#[tokio::test]
async fn odd_frames_in_odd_pieces_are_put_together() {
    let mut cases = Vec::new();
    for (number, (bytes, frame, chop)) in (1..).zip([
        (4 * MIB + 1, 65_537, 8_191),
        (4 * MIB - 1, 65_535, 65_537),
        (MIB + 7, 1_021, 509),
        (256 * KIB + 3, 127, 131),
        (64 * KIB + 1, 125, 7),
        (16 * KIB - 1, 3, 1),
    ]) {
        cases.push(text(format!("text {number}"), bytes, frame).chopped(chop));
        cases.push(binary(format!("binary {number}"), bytes, frame).chopped(chop));
    }
    hold(cases).await;
}

/// The first of many binary messages is refused; the messages that follow do not delay the end of the
/// connection.
#[tokio::test]
async fn many_binary_messages_in_a_row_are_one_refusal() {
    let mut cases = Vec::new();
    for (number, bytes) in (1..).zip([0, 1, 16, 64, 256, KIB, 4 * KIB, 16 * KIB]) {
        let frames = vec![whole(BINARY, &vec![0xfe; bytes]); (256 * KIB / bytes.max(1)).min(1_000)];
        cases.push(Case::new(format!("9.8.{number}"), &frames, &[Said::Refusal], NOT_AN_OP));
    }
    hold(cases).await;
}

#[tokio::test]
async fn a_thousand_messages_in_a_row_are_answered() {
    let mut cases = Vec::new();
    for (number, bytes) in (1..).zip([32, 64, 256, KIB, 4 * KIB, 16 * KIB]) {
        let (message, payload) = op_of(bytes);
        // As many messages at a time as fit into the buffers between, so that no side has to read while
        // writing.
        let at_once = (256 * KIB / bytes).min(1_000);
        let frames = vec![whole(TEXT, &message); at_once];
        cases.push(Case::new(format!("9.7.{number}"), &frames, &vec![echo(&payload); at_once], End::Open));
    }
    hold(cases).await;
}

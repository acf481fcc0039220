//! Section 7: closing, codes and reasons.

use super::case::{Case, End, echo, op, op_of};
use super::hold;
use test_kit::frames::{CLOSE, CONTINUATION, PING, TEXT, close, part, whole};

const VIOLATION: End = End::Closed(1002);

#[tokio::test]
async fn nothing_that_follows_a_close_is_answered() {
    let hello = whole(TEXT, &op(b"Hello"));
    let (large, payload) = op_of(256 << 10);
    let normal = || close(1000, b"");
    let done = End::Closed(1000);
    let within = [part(TEXT, b"{\"op\":"), normal(), whole(CONTINUATION, b"\"x\"}")];
    let after_large = [whole(TEXT, &large), hello.clone(), normal(), whole(PING, b"")];
    hold(vec![
        Case::new("7.1.1", &[hello.clone(), normal()], &[echo("Hello")], done),
        Case::new("7.1.2", &[normal(), normal()], &[], done),
        Case::new("7.1.3", &[normal(), whole(PING, b"")], &[], done),
        Case::new("7.1.4", &[normal(), hello], &[], done),
        Case::new("7.1.5", &within, &[], done),
        Case::new("7.1.6", &after_large, &[echo(&payload), echo("Hello")], done),
    ])
    .await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_if_it_is_well_formed() {
    let longest = [b'*'; 123];
    let mut cases = vec![
        Case::new("7.3.1", &[whole(CLOSE, b"")], &[], End::ClosedWithout),
        Case::new("7.3.2", &[whole(CLOSE, b"a")], &[], VIOLATION),
        Case::new("7.3.3", &[close(1000, b"")], &[], End::Closed(1000)),
        Case::new("7.3.4", &[close(1000, b"Hello World!")], &[], End::Closed(1000)),
        Case::new("7.3.5", &[close(1000, &longest)], &[], End::Closed(1000)),
        Case::new("7.3.6", &[close(1000, &[b'*'; 124])], &[], VIOLATION),
        Case::new("7.5.1", &[close(1000, b"\xce\xba\xed\xa0\x80edited")], &[], End::Closed(1007)),
    ];
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (number, code) in (1..).zip(good) {
        cases.push(Case::new(format!("7.7.{number}"), &[close(code, b"")], &[], End::Closed(code)));
    }
    let bad = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    for (number, code) in (1..).zip(bad) {
        cases.push(Case::new(format!("7.9.{number} ({code})"), &[close(code, b"")], &[], VIOLATION));
    }
    for (id, code) in [("7.13.1", 5000), ("7.13.2", 65_535)] {
        cases.push(Case::new(id, &[close(code, b"")], &[], VIOLATION));
    }
    hold(cases).await;
}

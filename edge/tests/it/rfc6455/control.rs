//! Section 2: pings and pongs.

use super::case::{Case, End, Said, pong};
use super::hold;
use test_kit::frames::{PING, PONG, whole};

#[tokio::test]
async fn pings_are_answered_in_order_with_their_payload() {
    let binary = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    let longest = [0xfe; 125];
    let many: Vec<Vec<u8>> = (0..10).map(|number| format!("payload-{number}").into_bytes()).collect();
    let pings: Vec<_> = many.iter().map(|payload| whole(PING, payload)).collect();
    let pongs: Vec<Said> = many.iter().map(|payload| pong(payload)).collect();
    let unasked = [whole(PONG, b"unasked"), whole(PING, b"ping")];
    hold(vec![
        Case::new("2.1", &[whole(PING, b"")], &[pong(b"")], End::Open),
        Case::new("2.2", &[whole(PING, b"Hello, world!")], &[pong(b"Hello, world!")], End::Open),
        Case::new("2.3", &[whole(PING, binary)], &[pong(binary)], End::Open),
        Case::new("2.4", &[whole(PING, &longest)], &[pong(&longest)], End::Open),
        Case::new("2.5", &[whole(PING, &[0xfe; 126])], &[], End::Closed(1002)),
        Case::new("2.6", &[whole(PING, &longest)], &[pong(&longest)], End::Open).chopped(1),
        Case::new("2.7", &[whole(PONG, b"")], &[], End::Open),
        Case::new("2.8", &[whole(PONG, b"unasked")], &[], End::Open),
        Case::new("2.9", &unasked, &[pong(b"ping")], End::Open),
        Case::new("2.10", &pings, &pongs, End::Open),
        Case::new("2.11", &pings, &pongs, End::Open).chopped(1),
    ])
    .await;
}

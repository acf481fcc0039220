//! The outbox without a network: pipes, and a clock that only moves when asked.

use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use super::*;

fn outbox(bound: usize) -> (Arc<Outbox>, Stats, CancellationToken) {
    let (stats, gone) = (Stats::default(), CancellationToken::new());
    (Arc::new(Outbox::new(1, bound, stats.clone(), gone.clone())), stats, gone)
}

fn message(payload: &[u8]) -> Publish<'_> {
    Publish { subject: b"a", reply: None, headers: &[], payload, with_headers: false }
}

#[tokio::test(start_paused = true)]
async fn what_waits_leaves_in_order_before_it_closes() {
    let (outbox, stats, _) = outbox(1000);
    let (near, mut far) = tokio::io::duplex(16);
    assert_eq!(outbox.deliver(&message(b"one"), b"1"), Push::Queued { wake: true, crowded: false });
    assert_eq!(outbox.deliver(&message(b"two"), b"1"), Push::Queued { wake: false, crowded: false });
    outbox.close(b"bye");
    assert_eq!(outbox.answer(b"too late"), Push::Refused);
    let mut seen = String::new();
    let (_, read) = tokio::join!(outbox.write_to(near, CLOSE_DEADLINE), far.read_to_string(&mut seen));
    read.unwrap();
    assert_eq!(seen, "MSG a 1 3\r\none\r\nMSG a 1 3\r\ntwo\r\nbye");
    assert_eq!(stats.snapshot().bytes_out, seen.len() as u64);
    assert_eq!(stats.snapshot().messages_discarded, 0);
}

#[tokio::test(start_paused = true)]
async fn beyond_its_bound_it_is_cut_off_and_told_so() {
    let (outbox, stats, gone) = outbox(300);
    let (near, mut far) = tokio::io::duplex(1000);
    let mut queued = 0;
    while outbox.deliver(&message(b"12345"), b"1") != Push::Refused {
        queued += 1;
        assert!(queued < 100, "the bound does not hold");
    }
    assert!(gone.is_cancelled());
    outbox.write_to(near, CLOSE_DEADLINE).await;
    let mut seen = String::new();
    far.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "-ERR 'Slow Consumer'\r\n");
    let counts = stats.snapshot();
    assert_eq!((counts.slow_consumers, counts.messages_discarded), (1, queued + 1));
    assert_eq!(outbox.deliver(&message(b"12345"), b"1"), Push::Refused);
    assert_eq!(stats.snapshot().slow_consumers, 1, "it is cut off once");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_is_given_up() {
    let (outbox, stats, gone) = outbox(1000);
    let (near, _far) = tokio::io::duplex(1);
    outbox.deliver(&message(b"one"), b"1");
    let start = Instant::now();
    outbox.write_to(near, Duration::from_secs(7)).await;
    assert_eq!(start.elapsed().as_secs(), 7);
    assert!(gone.is_cancelled());
    let counts = stats.snapshot();
    assert_eq!((counts.slow_consumers, counts.messages_discarded), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_publisher_is_held_until_there_is_room_but_not_for_a_dead_receiver() {
    let (outbox, _, _) = outbox(1000);
    let (near, mut far) = tokio::io::duplex(1);
    let payload = [b'x'; 700];
    let crowded = Push::Queued { wake: false, crowded: true };
    outbox.deliver(&message(&payload), b"1");
    let start = Instant::now();
    outbox.wait_for_space(start + Duration::from_millis(10)).await;
    assert_eq!(start.elapsed().as_millis(), 10, "nothing is written, so the deadline ends it");

    let reader = async {
        // The socket takes only the first byte for now.
        tokio::time::advance(PATIENCE - Duration::from_millis(1)).await;
        assert_eq!(outbox.deliver(&message(b""), b"1"), crowded);
        tokio::time::advance(Duration::from_millis(1)).await;
        let push = outbox.deliver(&message(b""), b"1");
        assert_eq!(push, Push::Queued { wake: false, crowded: false }, "it took nothing for too long");
        let pending = outbox.lock().pending();
        far.read_u8().await.unwrap();
        while outbox.lock().pending() == pending {
            tokio::task::yield_now().await;
        }
        assert_eq!(outbox.deliver(&message(b""), b"1"), crowded, "it makes progress again");
        while far.read_u8().await.is_ok() {}
    };
    let writing = outbox.write_to(near, CLOSE_DEADLINE);
    let waiting = async {
        outbox.wait_for_space(Instant::now() + Duration::from_secs(60)).await;
        assert!(outbox.lock().pending() <= 500);
        outbox.close(b"");
    };
    tokio::join!(writing, reader, waiting);
    assert!(start.elapsed() < Duration::from_secs(1), "it was told of the room");
}

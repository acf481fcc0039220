//! `/ws/v1` by the rules of RFC 6455: bad handshakes, frames that break the rules, and which side ends the
//! connection.

use std::time::{Duration, Instant};

use shared::config::ByteSize;
use test_kit::frames::{CLOSE, PONG, TEXT, Wire, close, masked, whole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::caller::{Http, Socket, mesh_publish};
use crate::support::{Bed, soon};

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
/// How long a connection may last after its closing handshake. If the client does not answer the close, the
/// connection lasts for 1 s.
const AT_ONCE: Duration = Duration::from_millis(800);

fn handshake(version: &str, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("GET /ws/v1 HTTP/{version}\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
    head.push_str("sec-websocket-version: 13\r\n");
    lines.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// A socket after the upgrade, without a WebSocket library.
async fn upgraded(bed: &Bed) -> Wire {
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(&handshake("1.1", &["host: localhost", KEY], b"")).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the handshake is answered", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    Wire::new(stream)
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_socket_with_the_code_that_says_which() {
    let bed = Bed::start(|_| {}).await;
    for (what, frames, code) in [
        ("a reserved bit", vec![0xc1, 0x80, 0, 0, 0, 0], 1002),
        ("a reserved opcode", masked(0x83, b""), 1002),
        ("no mask", vec![0x81, 0x04, b'p', b'i', b'n', b'g'], 1002),
        ("a fragmented ping", masked(0x09, b""), 1002),
        ("a continuation of nothing", masked(0x80, b"x"), 1002),
        ("a message within another", [masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
        ("text that is not UTF-8", masked(0x81, &[0xff]), 1007),
        ("a first part that is not UTF-8", masked(0x01, &[0xff]), 1007),
        ("a second part that is not UTF-8", [masked(0x01, &[0xf4]), masked(0x00, &[0x90])].concat(), 1007),
    ] {
        let mut wire = upgraded(&bed).await;
        wire.write(&frames, usize::MAX).await;
        let (opcode, payload) = wire.read().await.unwrap();
        assert_eq!((opcode, payload.get(..2)), (CLOSE, Some(&u16::to_be_bytes(code)[..])), "{what}");
        // The server ends the connection after the answer to its close, even if this side leaves its half
        // open.
        wire.write(&close(code, b""), usize::MAX).await;
        let began = Instant::now();
        assert!(wire.read().await.is_none(), "{what}");
        assert!(began.elapsed() < AT_ONCE, "{what}: it took {:?}", began.elapsed());
    }
    assert_eq!(bed.metric(r#"mc_publisher_socket_ends_total{reason="not_utf8"}"#), 3);
    bed.finish().await;
}

#[tokio::test]
async fn a_close_is_answered_and_the_connection_ended() {
    let bed = Bed::start(|_| {}).await;
    for (what, sent, code) in [
        ("a code", close(1000, b""), Some(1000)),
        ("no code", whole(CLOSE, b""), None),
        ("a code that is none", close(999, b""), Some(1002)),
        ("half a code", whole(CLOSE, b"a"), Some(1002)),
        ("a reason that is not UTF-8", whole(CLOSE, &[0x03, 0xe8, 0xff]), Some(1007)),
    ] {
        let mut wire = upgraded(&bed).await;
        wire.write(&sent, usize::MAX).await;
        let began = Instant::now();
        let (opcode, payload) = wire.read().await.unwrap();
        let answered = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        assert_eq!((opcode, answered), (CLOSE, code), "{what}");
        assert!(wire.read().await.is_none(), "{what}");
        assert!(began.elapsed() < AT_ONCE, "{what}: it took {:?}", began.elapsed());
    }
    bed.finish().await;
}

#[tokio::test]
async fn parts_with_waits_between_are_put_together() {
    let bed = Bed::start(|_| {}).await;
    let mut wire = upgraded(&bed).await;
    let text = mesh_publish("a", "in parts, with µ", 1);
    let (first, last) = text.as_bytes().split_at(text.len() / 2);
    wire.write(&[masked(0x01, first), masked(0x89, b"one")].concat(), usize::MAX).await;
    assert_eq!(wire.read().await.unwrap(), (PONG, b"one".to_vec()));
    wire.write(&[masked(0x00, b""), masked(0x89, b"two")].concat(), usize::MAX).await;
    assert_eq!(wire.read().await.unwrap(), (PONG, b"two".to_vec()));
    wire.write(&masked(0x80, last), usize::MAX).await;
    assert_eq!(wire.read().await.unwrap(), (TEXT, br#"{"E":null,"r":{"s":0,"f":0},"i":1}"#.to_vec()));
    drop(wire);
    bed.finish().await;
}

#[tokio::test]
async fn a_message_in_too_many_frames_ends_the_socket() {
    let bed = Bed::start(|config| config.max_message = ByteSize(1_024)).await;
    // A call may be six times as long as a message, plus 4 KiB.
    let most = 64 + (6 * 1_024 + 4_096) / 64;
    let text = mesh_publish("a", "in parts", 1);
    let parts = |count: usize| {
        let (first, last) = (masked(0x01, text.as_bytes()), masked(0x80, b""));
        [first, masked(0x00, b"").repeat(count - 2), last].concat()
    };
    let mut wire = upgraded(&bed).await;
    // The frames of each message are counted anew, and control frames do not count.
    for _ in 0..2 {
        wire.write(&masked(0x89, b"").repeat(most), usize::MAX).await;
        for _ in 0..most {
            assert_eq!(wire.read().await.unwrap().0, PONG);
        }
        wire.write(&parts(most), usize::MAX).await;
        let (opcode, answer) = wire.read().await.unwrap();
        assert_eq!((opcode, answer), (TEXT, br#"{"E":null,"r":{"s":0,"f":0},"i":1}"#.to_vec()));
    }
    wire.write(&parts(most + 2)[..6 * most + text.len()], usize::MAX).await;
    wire.write(&masked(0x00, b"").repeat(4), usize::MAX).await;
    let (opcode, payload) = wire.read().await.unwrap();
    assert_eq!((opcode, payload.get(..2)), (CLOSE, Some(&1009_u16.to_be_bytes()[..])));
    wire.write(&close(1009, b""), usize::MAX).await;
    assert!(wire.read().await.is_none());
    assert_eq!(bed.metric(r#"mc_publisher_socket_ends_total{reason="too_many_frames"}"#), 1);
    bed.finish().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let bed = Bed::start(|_| {}).await;
    let host = "host: localhost";
    for (request, about) in [
        (handshake("1.0", &[host, KEY], b""), "HTTP/1.1"),
        (handshake("1.1", &[host], b""), "Sec-WebSocket-Key"),
        (handshake("1.1", &[host, KEY, KEY], b""), "Sec-WebSocket-Key"),
        (handshake("1.1", &[host, "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAAAA"], b""), "Sec-WebSocket-Key"),
        (handshake("1.1", &[host, KEY, "sec-websocket-version: 8"], b""), "version 13"),
        (handshake("1.1", &[host, KEY, "content-length: 8"], b""), "no body"),
        (handshake("1.1", &[host, KEY, "content-length: 8"], b"\x89\x82\0\0\0\0hi"), "no body"),
        (handshake("1.1", &[host, KEY, "transfer-encoding: chunked"], b"0\r\n\r\n"), "no body"),
        (handshake("1.1", &[KEY], b""), "Host"),
        (handshake("1.1", &[host, host, KEY], b""), "Host"),
        (handshake("1.1", &["host: a b/c@d", KEY], b""), "Host"),
    ] {
        let mut caller = Http::connect(bed.address).await;
        caller.send(&request).await;
        let answer = caller.answer().await;
        assert_eq!(answer.code(), (400, 101), "{}\n{answer:?}", String::from_utf8_lossy(&request));
        assert!(answer.body.contains(about), "{about}: {answer:?}");
    }
    let mut socket = Socket::connect(bed.address).await;
    socket.send("ping").await;
    assert_eq!(socket.text().await, "pong");
    bed.finish().await;
}

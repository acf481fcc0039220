//! Clients that send without a pause are closed soon, and others are served meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::{World, eventually};

/// A ping and a pong of no bytes, and the text `ping`; all with a mask of zeros.
const PING: &[u8] = &[0x89, 0x80, 0, 0, 0, 0];
const PONG: &[u8] = &[0x8a, 0x80, 0, 0, 0, 0];
const PING_TEXT: &[u8] = &[0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'];
/// The first frame of a message, of no bytes, and another one.
const BEGINNING: &[u8] = &[0x01, 0x80, 0, 0, 0, 0];
const CONTINUATION: &[u8] = &[0x00, 0x80, 0, 0, 0, 0];

/// Connects, sends the first frame once, and then the other frame again and again until the edge ends the
/// connection. Returns everything that the edge sent.
fn flood(edge: SocketAddr, first: &'static [u8], frame: &'static [u8]) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(edge).unwrap();
        write!(
            stream,
            "GET /message-center HTTP/1.1\r\nHost: {edge}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut reader = stream.try_clone().unwrap();
        let listening = std::thread::spawn(move || {
            let mut heard = Vec::new();
            // The connection may be reset, since the client sends on after the close.
            if let Err(error) = reader.read_to_end(&mut heard) {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            heard
        });
        stream.write_all(first).unwrap();
        let frames = frame.repeat(10_000);
        while stream.write_all(&frames).is_ok() {}
        listening.join().unwrap()
    })
}

async fn ends_soon(first: &'static [u8], frame: &'static [u8]) {
    // Neither the login timeout nor silence ends the session first.
    let world = World::ready(|config| config.login_timeout = Duration::from_secs(3_600)).await;
    let mut other = Client::of(&world.edge, "user-1").await;
    let flooder = flood(world.edge.local_addr(), first, frame);
    eventually("the flood was ended", || world.metric("mc_edge_sessions_closed_total", "too_many_ops") == 1)
        .await;
    other.say("ping").await;
    other.expect("pong").await;
    other.leave().await;
    let heard = tokio::task::spawn_blocking(move || flooder.join().unwrap()).await.unwrap();
    assert!(heard.starts_with(b"HTTP/1.1 101"));
    // The bound covers the head, a second's worth of answers at once, ten times as many refusals, and answers
    // that fall due on a slow machine.
    assert!(heard.len() < 64 << 10, "{} bytes of answers", heard.len());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_pongs_ends_soon() {
    ends_soon(&[], PONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_pings_ends_soon_and_costs_a_bounded_number_of_answers() {
    ends_soon(&[], PING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_text_pings_ends_soon_and_costs_a_bounded_number_of_answers() {
    ends_soon(&[], PING_TEXT).await;
}

/// None of the frames ends the message, so there is no op to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_empty_frames_of_one_message_ends_soon() {
    ends_soon(BEGINNING, CONTINUATION).await;
}

//! Every port of the real binary: requests that are no HTTP or no handshake, the end of a WebSocket, and full
//! ports.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::alone::Alone;
use harness::device::PATH;
use harness::frames;
use harness::raw::{self, Raw};
use harness::wait::eventually;
use publisher_api::keys::{KeyConfig, NewKey};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const HOST: &str = "Host: localhost\r\n";
const PUBLISH: &str = "POST /v1/mesh/publish HTTP/1.1\r\nContent-Type: application/json\r\n";
/// Bound for the end of a connection after its closing handshake; without an answer the end takes 1 s or 2 s.
const AT_ONCE: Duration = Duration::from_millis(800);

/// A handshake with these header lines besides the required ones.
fn handshake(path: &str, version: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/{version}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

/// Both ports with WebSockets, and their paths.
fn sockets(alone: &Alone) -> [(SocketAddr, &'static str); 2] {
    [(alone.edge(), PATH), (alone.publisher_address(), "/ws/v1")]
}

/// Reads the head of an answer; the connection stays open.
async fn head(raw: &mut Raw) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(raw.read_exactly(1).await);
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn upgraded(address: SocketAddr, path: &str) -> Raw {
    let mut raw = Raw::connect(address).await;
    raw.write(handshake(path, "1.1", &format!("{HOST}{KEY}")).as_bytes()).await;
    let answer = head(&mut raw).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    raw
}

#[tokio::test]
async fn behind_a_violation_the_connection_ends_with_the_clients_close() {
    let alone = Alone::plan().in_memory().start().await;
    for (address, path) in sockets(&alone) {
        for (what, bytes, code) in [
            ("a reserved bit", &[0xc1, 0x80, 0, 0, 0, 0][..], 1002_u16),
            ("a reserved opcode", &[0x83, 0x80, 0, 0, 0, 0], 1002),
            ("text that is not UTF-8", &[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        ] {
            let mut raw = upgraded(address, path).await;
            raw.write(bytes).await;
            let close = raw.read_exactly(4).await;
            assert_eq!((close[0], &close[2..]), (0x88, &code.to_be_bytes()[..]), "{path}, {what}");
            raw.read_exactly(usize::from(close[1]) - 2).await;
            raw.write(&[&[0x88, 0x82, 0, 0, 0, 0][..], &code.to_be_bytes()].concat()).await;
            let began = Instant::now();
            assert!(raw.read_to_end().await.is_empty(), "{path}, {what}");
            assert!(began.elapsed() < AT_ONCE, "{path}, {what}: it took {:?}", began.elapsed());
        }
    }
    alone.end().await;
}

#[tokio::test]
async fn what_is_no_handshake_becomes_no_websocket() {
    let alone = Alone::plan().in_memory().start().await;
    for (address, path) in sockets(&alone) {
        for (version, lines) in [
            ("1.0", format!("{HOST}{KEY}")),
            ("1.1", HOST.to_owned()),
            ("1.1", format!("{HOST}{KEY}{KEY}")),
            ("1.1", format!("{HOST}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n")),
            ("1.1", format!("{HOST}{KEY}Content-Length: 8\r\n")),
            ("1.1", format!("{HOST}{KEY}Transfer-Encoding: chunked\r\n")),
            ("1.1", KEY.to_owned()),
            ("1.1", format!("{HOST}{HOST}{KEY}")),
            ("1.1", format!("Host: a b/c@d\r\n{KEY}")),
        ] {
            let mut raw = Raw::connect(address).await;
            raw.write(handshake(path, version, &lines).as_bytes()).await;
            let answer = head(&mut raw).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(["400", "426"].contains(&status), "{path}, HTTP/{version}, {lines:?}: {answer}");
        }
    }
    alone.end().await;
}

#[tokio::test]
async fn every_port_wants_one_host() {
    let alone = Alone::plan().in_memory().start().await;
    for (address, line) in [
        (alone.edge(), format!("GET {PATH} HTTP/1.1\r\n")),
        (alone.publisher_address(), format!("{PUBLISH}Content-Length: 0\r\n")),
        (alone.admin(), "GET /livez HTTP/1.1\r\n".to_owned()),
    ] {
        for hosts in
            ["", "Host: localhost\r\nHost: localhost\r\n", "Host: a b/c@d\r\n", "Host: localhost:x\r\n"]
        {
            let request = format!("{line}{hosts}Connection: close\r\n\r\n");
            let answer = raw::exchange(address, request.as_bytes()).await;
            assert_eq!(answer.status, 400, "{request:?}: {answer:?}");
        }
    }
    alone.end().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_http_is_refused_at_once() {
    // The body timeout is longer than the test, so that the connection's end cannot come from it.
    let alone = Alone::plan().in_memory().set("publisher_api.body_timeout", "1h").start().await;
    for (lines, status) in [
        ("Content-Length: 100000000\r\n\r\n{\"c\"", "200"),
        ("Transfer-Encoding: chunked\r\n\r\nzz\r\n{\"c\"", "400"),
    ] {
        let mut raw = Raw::connect(alone.publisher_address()).await;
        raw.write(format!("{PUBLISH}{HOST}{lines}").as_bytes()).await;
        let answer = head(&mut raw).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{lines}: {answer}");
        raw.read_to_end().await;
    }
    alone.end().await;
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_out_who_comes_from_the_same_address() {
    let alone = Alone::plan()
        .in_memory()
        .set("publisher_api.max_connections", 64)
        .set("publisher_api.max_connections_per_address", 32)
        // The first-byte timeout is long, so that it frees no slot.
        .set("publisher_api.first_byte_timeout", "1h")
        .set("publisher_api.head_timeout", "1h")
        .set("edge.max_handshakes", 64)
        .set("edge.max_handshakes_per_address", 32)
        .set("edge.first_byte_timeout", "1h")
        .set("edge.handshake_timeout", "1h")
        .start()
        .await;
    let body = r#"{"c":"a","d":"x"}"#;
    let publish = format!("{PUBLISH}{HOST}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for said in ["", "GET / HTTP/1.1\r\n"] {
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut silent = Raw::connect(alone.publisher_address()).await;
            silent.write(said.as_bytes()).await;
            held.push(silent);
        }
        eventually("a publish is answered", async || {
            raw::exchange(alone.publisher_address(), publish.as_bytes()).await.status == 200
        })
        .await;
    }
    let mut held = Vec::new();
    for address in [alone.edge(), alone.admin()] {
        for _ in 0..400 {
            held.push(Raw::connect(address).await);
        }
    }
    assert_eq!(raw::get(alone.admin(), "/livez").await.status, 200);
    eventually("a device gets in", async || {
        let mut raw = Raw::connect(alone.edge()).await;
        raw.write(handshake(PATH, "1.0", &format!("{HOST}{KEY}")).as_bytes()).await;
        String::from_utf8_lossy(&raw.read_to_end().await).starts_with("HTTP/1.0 426")
    })
    .await;
    drop(held);
    alone.end().await;
}

/// Publishes over one WebSocket without end, as much at a time as allowed, and reads every answer.
async fn publish_without_end(address: SocketAddr, authorization: String) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let opening = handshake("/ws/v1", "1.1", &format!("{HOST}{KEY}{authorization}"));
    writer.write_all(opening.as_bytes()).await.expect("it reads");
    // All messages go to one channel with history, so each waits for the one before.
    let text = br#"{"m":"mesh.publish","p":{"c":"user:1","d":"x"},"i":1}"#;
    let frames = frames::whole(frames::TEXT, text).repeat(100);
    let mut answers = vec![0; 64 << 10];
    let publishing = async { while writer.write_all(&frames).await.is_ok() {} };
    let taking = async { while reader.read(&mut answers).await.is_ok_and(|bytes| bytes > 0) {} };
    tokio::join!(publishing, taking);
}

#[tokio::test]
async fn a_key_that_publishes_all_it_can_leaves_the_others_their_share() {
    let make = |name: &str| {
        let config = KeyConfig { name: name.to_owned(), ..KeyConfig::default() };
        let key = NewKey::make(config).expect("it is a good key");
        let hash = publisher_api::keys::SecretHash::of(key.secret()).to_string();
        (
            format!("[[keys]]\nname = \"{name}\"\nhash = \"{hash}\"\n"),
            format!("Authorization: Bearer {}\r\n", key.secret()),
        )
    };
    let ((greedy, greedy_secret), (modest, modest_secret)) = (make("greedy"), make("modest"));
    let file = NamedTempFile::new().expect("there is room for a file");
    std::fs::write(file.path(), greedy + &modest).expect("it can be written");
    let alone = Alone::plan()
        .set("publisher_api.keys_file", file.path().display())
        .set("publisher_api.max_in_flight", 256)
        .set("publisher_api.max_in_flight_per_socket", 64)
        .start()
        .await;
    let address = alone.publisher_address();
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        flood.spawn(publish_without_end(address, greedy_secret.clone()));
    }
    let refused = async || alone.metric("mc_publisher_key_refusals_total", r#"reason="share""#).await;
    eventually("the greedy key has its share", async || refused().await > 0.0).await;
    let body = r#"{"c":"user:2","d":"x"}"#;
    let length = body.len();
    let publish =
        format!("{PUBLISH}{HOST}{modest_secret}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    for round in 0..10 {
        let answer = raw::exchange(address, publish.as_bytes()).await;
        assert_eq!(answer.body, r#"{"E":null,"r":{"s":0,"f":0}}"#, "round {round}");
    }
    drop(flood);
    alone.end().await;
}

//! Each bound of the publisher-api, and what callers see at the bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use test_kit::frames;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::caller::{Http, JSON, PUBLISH, Socket, call, mesh_publish, publish_to, request};
use crate::support::edge::FakeEdge;
use crate::support::tls::{Site, over_tls};
use crate::support::{Bed, eventually, soon};

/// Starts a publisher with one publish in flight that takes very long.
async fn busy(max_in_flight: usize, per_socket: usize) -> (Bed, FakeEdge, Socket) {
    let bed = Bed::start(|config| {
        config.max_in_flight = max_in_flight;
        config.max_in_flight_per_socket = per_socket;
        config.answer_deadline = Duration::from_secs(15);
    })
    .await;
    let edge = FakeEdge::start(&bed.bus.server, "frozen", true).await;
    edge.state.answers.store(false, Ordering::SeqCst);
    let mut socket = Socket::connect(bed.address).await;
    socket.send(&mesh_publish("a", "x", "slow")).await;
    eventually("it is in flight", || bed.metric("mc_publisher_in_flight") == 1).await;
    (bed, edge, socket)
}

#[tokio::test]
async fn too_many_publishes_at_once_are_refused_at_both_doors() {
    let (bed, edge, mut socket) = busy(1, 256).await;
    let refused = publish_to(bed.address, "a", "x").await;
    assert_eq!((refused.code(), refused.header("retry-after")), ((429, 107), Some("1")));
    socket.send(&mesh_publish("a", "x", 2)).await;
    let answer = socket.json().await;
    assert_eq!((&answer["E"]["c"], &answer["i"]), (&107.into(), &2.into()));
    edge.thaw().await;
    assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":0,"f":0},"i":"slow"}"#);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_socket_with_too_many_publishes_in_flight_is_not_read_until_there_is_room() {
    let (bed, edge, mut socket) = busy(4_096, 1).await;
    socket.send(&mesh_publish("a", "x", "next")).await;
    // The call of another connection is answered first, so there was time to read the socket.
    let mut other = Socket::connect(bed.address).await;
    other.send(&mesh_publish("b", "x", 1)).await;
    eventually("the other is in flight", || bed.metric("mc_publisher_in_flight") == 2).await;
    let channels = || edge.seen().into_iter().map(|(channel, _)| channel).collect::<Vec<_>>();
    eventually("the edge has the other's", || channels().contains(&"b".to_owned())).await;
    assert_eq!(channels(), ["a", "b"], "the second of the first socket is not read");
    edge.thaw().await;
    assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":0,"f":0},"i":"slow"}"#);
    assert_eq!(socket.json().await["i"], "next");
    assert_eq!(other.json().await["i"], 1);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn too_many_sockets_are_refused_until_one_leaves() {
    let bed = Bed::start(|config| config.max_sockets = 1).await;
    let first = Socket::connect(bed.address).await;
    assert_eq!(Socket::handshake(bed.address, &[]).await.err(), Some(429));
    drop(first);
    eventually("the place is free", || bed.metric("mc_publisher_sockets") == 0).await;
    let mut second = Socket::connect(bed.address).await;
    second.send("ping").await;
    assert_eq!(second.text().await, "pong");
    bed.finish().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let bed = Bed::start(|config| {
        config.max_connections = 1;
        config.answer_deadline = Duration::from_secs(15);
    })
    .await;
    let edge = FakeEdge::start(&bed.bus.server, "frozen", true).await;
    edge.state.answers.store(false, Ordering::SeqCst);
    let body = r#"{"c":"a","d":"x"}"#;
    let mut first = Http::connect(bed.address).await;
    first.send(&request(PUBLISH, &[JSON], body)).await;
    eventually("it is being answered", || bed.metric("mc_publisher_in_flight") == 1).await;
    let mut second = Http::connect(bed.address).await;
    second.send(&request(PUBLISH, &[JSON], body)).await;
    edge.thaw().await;
    assert_eq!(first.answer().await.counts(), (0, 0, true));
    assert_eq!(second.answer().await.counts(), (0, 0, true));
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn half_a_request_gives_its_place_back() {
    let bed = Bed::start(|config| {
        config.max_connections = 1;
        config.head_timeout = Duration::from_millis(200);
    })
    .await;
    let mut idle = Http::connect(bed.address).await;
    idle.send(b"POST /v1/mesh/publish HTTP/1.1\r\nhost: localhost\r\n").await;
    eventually("it is out of time", || bed.metric(r#"mc_publisher_losses_total{reason="slow_head"}"#) == 1)
        .await;
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, true));
    bed.finish().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let bed = Bed::start(|config| config.body_timeout = Duration::from_millis(100)).await;
    let mut half = request(PUBLISH, &[JSON], r#"{"c":"a","d":"x"}"#);
    half.truncate(half.len() - 3);
    assert_eq!(call(bed.address, &half).await.code(), (408, 101));
    bed.finish().await;
}

#[tokio::test]
async fn a_socket_from_which_nothing_comes_is_pinged_and_then_closed() {
    let bed = Bed::start(|config| {
        config.ping_interval = Duration::from_millis(100);
        config.silence = Duration::from_millis(600);
    })
    .await;
    // A client that answers pings (this one does so whenever it reads) stays.
    let mut alive = Socket::connect(bed.address).await;
    let dead = Socket::connect(bed.address).await;
    let both = async {
        tokio::select! {
            code = alive.close_code() => panic!("the living socket was closed with {code}"),
            () = eventually("the dead socket is closed", || {
                bed.metric(r#"mc_publisher_socket_ends_total{reason="silent"}"#) == 1
            }) => {}
        }
    };
    both.await;
    // Read by hand: a client library would answer the pings first and find the connection gone.
    assert!(dead.into_bytes().await.windows(2).any(|code| code == 4408_u16.to_be_bytes()));
    alive.send("ping").await;
    assert_eq!(alive.text().await, "pong");
    bed.finish().await;
}

#[tokio::test]
async fn a_caller_that_does_not_take_its_answers_is_dropped() {
    let bed = Bed::start(|config| config.write_timeout = Duration::from_millis(300)).await;
    let mut greedy = Socket::connect(bed.address).await;
    let mut other = Socket::connect(bed.address).await;
    let flood = async { while greedy.try_send(Message::from(vec![0_u8])).await.is_ok() {} };
    crate::support::soon("the greedy socket is dropped", flood).await;
    assert_eq!(bed.metric(r#"mc_publisher_socket_ends_total{reason="slow"}"#), 1);
    other.send(&mesh_publish("a", "x", 1)).await;
    assert_eq!(other.json().await["i"], 1);
    bed.finish().await;
}

#[tokio::test]
async fn a_connection_that_does_not_take_its_answers_gives_its_place_back() {
    let bed = Bed::start(|config| {
        config.max_connections = 1;
        config.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut greedy = Http::connect(bed.address).await;
    let asks = request("POST /nothing", &[JSON], "{}").repeat(100);
    let flood = async { while greedy.try_send(&asks).await.is_ok() {} };
    crate::support::soon("the greedy connection is dropped", flood).await;
    assert_eq!(bed.metric(r#"mc_publisher_losses_total{reason="slow_reader"}"#), 1);
    assert_eq!(publish_to(bed.address, "a", "x").await.counts(), (0, 0, true));
    bed.finish().await;
}

#[tokio::test]
async fn a_socket_that_only_pings_fills_no_memory() {
    const FRAME: usize = 125;
    const FLOOD: usize = 200_000;
    // The long timeout prevents that the unread socket is dropped in the middle of the test.
    let bed = Bed::start(|config| config.write_timeout = Duration::from_secs(3_600)).await;
    let mut socket = Socket::connect(bed.address).await;
    let ping = || Message::Ping(vec![b'x'; FRAME].into());
    // The socket is not read, so the pongs fill every buffer on the way. Further pongs must be left out.
    for _ in 0..FLOOD {
        socket.feed(ping()).await;
    }
    socket.send("ping").await;
    let pongs = socket.pongs_before_text().await;
    // The buffers of the operating system, and ours.
    let buffers = 12 << 20;
    assert!(pongs * FRAME < buffers, "{pongs} of {FLOOD} pongs were buffered");
    bed.finish().await;
}

/// Connects from the loopback address with this last number.
async fn from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Returns whether a caller from that address is answered.
async fn is_answered(last: u8, address: SocketAddr) -> bool {
    let mut caller = from(last, address).await;
    let asked = caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    if asked.await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), caller.read_to_end(&mut answer)).await;
    read.is_ok_and(|read| read.is_ok()) && answer.starts_with(b"HTTP/1.1 404")
}

#[tokio::test]
async fn one_address_has_its_part_of_the_connections_and_others_are_answered() {
    let bed =
        Bed::start(|config| (config.max_connections, config.max_connections_per_address) = (8, 4)).await;
    let mut held = Vec::new();
    for other in 100..120 {
        for _ in 0..8 {
            held.push(from(2, bed.address).await);
        }
        assert!(is_answered(other, bed.address).await, "{other} was kept out");
    }
    assert!(bed.metric(r#"mc_publisher_losses_total{reason="address_connections"}"#) > 0);
    drop(held);
    bed.finish().await;
}

/// Callers behind one proxy have the same address. Connections without a useful request must not keep them
/// out.
#[tokio::test]
async fn behind_one_address_who_asks_for_nothing_of_use_keeps_nobody_out() {
    for said in [&b""[..], b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        for per_address in [4, 0] {
            let bed = Bed::start(|config| {
                (config.max_connections, config.max_connections_per_address) = (8, per_address);
                // The timeouts are long, so that they do not end the silent connections.
                config.first_byte_timeout = Duration::from_secs(3_600);
                config.head_timeout = Duration::from_secs(3_600);
            })
            .await;
            let mut held = Vec::new();
            for _ in 0..20 {
                let mut silent = from(2, bed.address).await;
                // The connection may be refused.
                let _ = silent.write_all(said).await;
                held.push(silent);
            }
            let enter = async { while !is_answered(2, bed.address).await {} };
            soon("a caller from there is answered", enter).await;
            assert!(is_answered(3, bed.address).await);
            assert!(bed.metric(r#"mc_publisher_losses_total{reason="displaced"}"#) > 0);
            drop(held);
            bed.finish().await;
        }
    }
}

#[tokio::test]
async fn addresses_that_have_all_connections_together_yield_them_to_the_others() {
    let bed =
        Bed::start(|config| (config.max_connections, config.max_connections_per_address) = (8, 0)).await;
    let mut held = Vec::new();
    for attacker in [2, 3, 2, 3, 2, 3, 2, 3] {
        held.push(from(attacker, bed.address).await);
    }
    eventually("all are taken", || bed.metric("mc_publisher_connections") == 8).await;
    for other in 100..120 {
        assert!(is_answered(other, bed.address).await, "{other} was kept out");
    }
    assert!(bed.metric(r#"mc_publisher_losses_total{reason="displaced"}"#) > 0);
    drop(held);
    bed.finish().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_ends_soon() {
    let bed = Bed::start(|config| config.first_byte_timeout = Duration::from_millis(200)).await;
    let mut silent = Http::connect(bed.address).await;
    assert!(silent.is_closed().await);
    assert_eq!(bed.metric(r#"mc_publisher_losses_total{reason="silent"}"#), 1);
    bed.finish().await;
}

/// Within the write timeout, this caller takes less than a third of the bytes that the system buffers for it,
/// and that timeout is long beside the pauses of a loaded machine.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_caller_that_takes_its_answers_slowly_is_not_dropped() {
    let bed = Bed::start(|config| config.write_timeout = Duration::from_secs(5)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let (mut reader, mut writer) = socket.connect(bed.address).await.unwrap().into_split();
    let asks = request("POST /nothing", &[JSON], "{}").repeat(100);
    let asking = async { while writer.write_all(&asks).await.is_ok() {} };
    let taking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..150 {
            tick.tick().await;
            crate::support::soon("answers come", reader.read_exact(&mut [0; 1 << 10])).await.unwrap();
        }
    };
    tokio::select! { () = asking => panic!("the caller was dropped"), () = taking => {} }
    assert_eq!(bed.metric(r#"mc_publisher_losses_total{reason="slow_reader"}"#), 0);
    drop((reader, writer));
    bed.finish().await;
}

/// Sends these bytes over TLS again and again, never reads, and ends with the connection.
async fn never_reads(address: SocketAddr, trusted: &Path, head: &'static str, again: Vec<u8>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let mut stream = over_tls(stream, trusted).await;
    let flood = async {
        stream.write_all(head.as_bytes()).await?;
        while stream.write_all(&again).await.is_ok() {}
        Ok::<_, std::io::Error>(())
    };
    soon("a caller that never reads is dropped", flood).await.unwrap();
}

#[tokio::test]
async fn callers_that_never_read_end_over_tls_and_give_their_places_back() {
    const EACH: usize = 5;
    let site = Site::new();
    let bed = Bed::start(|config| {
        (config.tls.cert, config.tls.key) = (site.file("cert"), site.file("key"));
        (config.max_connections, config.max_sockets) = (EACH, EACH);
        config.write_timeout = Duration::from_millis(300);
    })
    .await;
    let upgrade = "GET /ws/v1 HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The answers are large, so that the buffers of the system are soon full. The frame is refused with its
    // `i`.
    let asks = request("GET /openapi.json", &[], "").repeat(10);
    let text = format!(r#"{{"i":"{}"}}"#, "x".repeat(250));
    let frames = frames::whole(frames::TEXT, text.as_bytes()).repeat(100);
    let certificate = site.file("cert");
    let (address, trusted) = (bed.address, certificate.as_path());
    let callers = |number: usize, head: &'static str, again: Vec<u8>| {
        join_all((0..number).map(move |_| never_reads(address, trusted, head, again.clone())))
    };
    // The second group gets in only once the connections of the first are closed.
    callers(EACH, "", asks.clone()).await;
    callers(EACH, "", asks).await;
    assert_eq!(bed.metric(r#"mc_publisher_losses_total{reason="slow_reader"}"#), 2 * EACH as u64);
    callers(EACH, upgrade, frames).await;
    eventually("their ends are over", || bed.metric("mc_publisher_sockets") == 0).await;
    assert_eq!(bed.metric(r#"mc_publisher_socket_ends_total{reason="slow"}"#), EACH as u64);
    bed.finish().await;
}

//! Many subscriptions, many bytes, and slow receivers.

mod support;

use std::time::Duration;

use embedded_bus::Config;
use support::{DEADLINE, Raw, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const USERS: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_subscriptions_of_one_connection_each_get_their_own() {
    let server = Server::start().await;
    let mut edge = server.raw().await;
    let subscribe: String = (0..USERS).map(|user| format!("SUB mc.live.0.user:{user} {user}\r\n")).collect();
    edge.send(subscribe).await;
    edge.sync("").await;
    assert_eq!(server.stats.snapshot().subscriptions, USERS as u64);
    let mut publisher = server.raw().await;
    let publish: String =
        (0..USERS).rev().map(|user| format!("PUB mc.live.0.user:{user} 2\r\nhi\r\n")).collect();
    let expected: String =
        (0..USERS).rev().map(|user| format!("MSG mc.live.0.user:{user} {user} 2\r\nhi\r\n")).collect();
    tokio::join!(publisher.send(publish), edge.expect(&expected));
    let unsubscribe: String = (0..USERS / 2).map(|user| format!("UNSUB {user}\r\n")).collect();
    edge.send(unsubscribe).await;
    edge.sync("").await;
    assert_eq!(server.stats.snapshot().subscriptions, USERS as u64 / 2);
    drop(edge);
    server.until(|stats| stats.subscriptions == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_is_cut_off_and_costs_the_others_nothing() {
    const MESSAGES: usize = 3000;
    let server = Server::with(Config { max_pending_bytes: 4 << 20, ..Config::default() }).await;
    let (mut slow, mut healthy, mut publisher) = (server.raw().await, server.raw().await, server.raw().await);
    for client in [&mut slow, &mut healthy] {
        client.send("SUB flood 1\r\n").await;
        client.sync("").await;
    }
    let payload = "x".repeat(9000);
    let publish = async {
        for number in 0..MESSAGES {
            publisher.send(format!("PUB flood {}\r\n{number:05}{payload}\r\n", payload.len() + 5)).await;
        }
        publisher.sync("").await;
    };
    let receive = async {
        for number in 0..MESSAGES {
            healthy.expect(&format!("MSG flood 1 {}\r\n{number:05}{payload}\r\n", payload.len() + 5)).await;
        }
    };
    tokio::join!(publish, receive);
    let stats = server.until(|stats| stats.slow_consumers == 1 && stats.connections == 2).await;
    assert!(stats.messages_discarded > 0);
    let seen = slow.rest().await;
    assert!(seen.len() < MESSAGES * payload.len(), "it got everything, so it was not slow");
    drop((healthy, publisher));
    server.expect_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_consumer_survives_a_publisher_that_is_much_faster() {
    const MESSAGES: usize = 10_000;
    let server = Server::with(Config { max_pending_bytes: 4 << 20, ..Config::default() }).await;
    let (mut consumer, mut publisher) = (server.raw().await, server.raw().await);
    consumer.send("SUB flood 1\r\n").await;
    consumer.sync("").await;
    let payload = "x".repeat(4096);
    let chunk = format!("PUB flood 4096\r\n{payload}\r\n").repeat(10);
    let publish = async {
        for _ in 0..MESSAGES / 10 {
            publisher.send(&chunk).await;
        }
        publisher.sync("").await;
    };
    let receive = async {
        let mut left = MESSAGES * format!("MSG flood 1 4096\r\n{payload}\r\n").len();
        let mut buffer = vec![0; 32 << 10];
        // At most 32 MB a second, and steadily.
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        while left > 0 {
            pace.tick().await;
            let read =
                timeout(DEADLINE, consumer.stream.read(&mut buffer)).await.expect("it stalls").expect("read");
            assert!(read > 0, "it was cut off with {left} bytes to go");
            left -= read;
        }
    };
    tokio::join!(publish, receive);
    assert!(
        server.stats.snapshot().publishers_held > 0,
        "the publisher was not faster, so this shows nothing"
    );
    assert_eq!(server.stats.snapshot().slow_consumers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_that_flood_each_other_without_reading_do_not_deadlock() {
    let config = Config { max_pending_bytes: 1 << 20, max_payload: 64 << 10, ..Config::default() };
    let server = Server::with(config).await;
    let (mut one, mut two) = (server.raw().await, server.raw().await);
    for client in [&mut one, &mut two] {
        client.send("SUB both 1\r\n").await;
        client.sync("").await;
    }
    let chunk = format!("PUB both 10000\r\n{}\r\n", "x".repeat(10_000)).repeat(20);
    let flood = async |client: &mut Raw| while client.stream.write_all(chunk.as_bytes()).await.is_ok() {};
    let both = async { tokio::join!(flood(&mut one), flood(&mut two)) };
    timeout(DEADLINE, both).await.expect("both are cut off, as neither reads");
    assert_eq!(server.until(|stats| stats.connections == 0).await.slow_consumers, 2);
    server.expect_healthy().await;
}

#[tokio::test]
async fn shutdown_ends_in_time_even_with_a_receiver_that_never_reads() {
    let server = Server::with(Config { max_pending_bytes: 32 << 20, ..Config::default() }).await;
    let (mut stuck, mut publisher) = (server.raw().await, server.raw().await);
    stuck.send("SUB flood 1\r\n").await;
    stuck.sync("").await;
    for _ in 0..16 {
        publisher.send(format!("PUB flood 1000000\r\n{}\r\n", "x".repeat(1_000_000))).await;
    }
    publisher.sync("").await;
    let stopped = timeout(Duration::from_secs(10), server.stop()).await;
    assert!(stopped.is_ok(), "the end took more than ten seconds");
}

/// Returns a consumer of `flood` whose system buffers next to nothing.
#[cfg(target_os = "linux")]
async fn narrow(server: &Server) -> Raw {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    let stream = socket.connect(server.address).await.expect("connected");
    let mut raw = Raw { stream, info: String::new() };
    raw.info = raw.until("\r\n").await;
    raw.send(support::CONNECT).await;
    raw.send("SUB flood 1\r\n").await;
    raw.sync("").await;
    raw
}

/// The system buffers more for a consumer than the first one takes within the deadline.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_takes_little_without_a_pause_is_kept_and_one_that_takes_nothing_is_cut_off() {
    const WRITE_DEADLINE: Duration = Duration::from_secs(2);
    let config = Config { max_pending_bytes: 64 << 20, write_deadline: WRITE_DEADLINE, ..Config::default() };
    let server = Server::with(config).await;
    let (mut slow, stalled) = (narrow(&server).await, narrow(&server).await);
    let mut publisher = server.raw().await;
    let message = format!("PUB flood {}\r\n{}\r\n", 256 << 10, "x".repeat(256 << 10));
    for _ in 0..64 {
        publisher.send(&message).await;
    }
    publisher.sync("").await;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..80 {
        tick.tick().await;
        let taken = timeout(DEADLINE, slow.stream.read_exact(&mut [0; 1 << 10])).await;
        assert!(matches!(taken, Ok(Ok(_))), "it takes something all the time, and was cut off");
    }
    server.until(|stats| stats.slow_consumers == 1 && stats.connections == 2).await;
    drop((slow, stalled, publisher));
    server.expect_healthy().await;
}

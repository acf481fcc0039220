//! Connections whose clients never read: each end is counted until it is over, and over in time.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, World, eventually, soon};
use crate::tls::{Site, connect_over};

type Device = WebSocketStream<TlsStream<TcpStream>>;

/// A device that subscribes over TLS and then never reads.
async fn deaf(world: &World, site: &Site) -> Device {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(world.edge.local_addr()).await.unwrap();
    let stream = connect_over(stream, &site.file("cert")).await.unwrap();
    let request = "wss://localhost/message-center";
    let shaken = soon("a handshake", Box::pin(tokio_tungstenite::client_async(request, stream))).await;
    let (mut socket, _) = shaken.unwrap();
    socket.send(Message::text(r#"{"op":"subscribe","channel":"@broadcast"}"#)).await.unwrap();
    socket
}

/// Fills what the system holds for each of so many devices, none of which reads.
async fn deaf_devices(world: &World, site: &Site, number: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for _ in 0..number {
        devices.push(deaf(world, site).await);
    }
    let text = "x".repeat(64 << 10);
    let mut reached = 0;
    // Messages that come before all have subscribed reach fewer.
    while reached < number as u64 {
        let id = world.publish("broadcast", &text).await;
        reached = world.counts(id).await.0;
    }
    for _ in 0..12 {
        world.publish("broadcast", &text).await;
    }
    devices
}

#[tokio::test]
async fn devices_that_never_read_end_over_tls_and_give_their_places_back() {
    const DEVICES: usize = 20;
    let site = Site::new();
    let world = site
        .world(|config| {
            config.max_sessions = DEVICES;
            config.outbox = shared::config::ByteSize(8 << 20);
            config.stalled_after = Duration::from_millis(500);
        })
        .await;
    let devices = deaf_devices(&world, &site, DEVICES).await;
    let closed = || world.metric("mc_edge_sessions_closed_total", "too_slow");
    eventually("all are closed", || closed() == DEVICES as u64).await;
    eventually("all ends are over", || world.edge.sessions() == 0).await;
    assert_eq!(world.metric("mc_edge_sessions", ""), 0, "nothing lives on uncounted");
    // All that is left are the tasks of an edge without clients.
    let began = Instant::now();
    assert_eq!(world.drain.finish(PATIENCE).await, 0, "a task waits for a device that never reads");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(devices);
    world.end().await;
}

#[tokio::test]
async fn an_edge_that_leaves_does_not_wait_for_devices_that_never_read() {
    let site = Site::new();
    let world = site.world(|config| config.outbox = shared::config::ByteSize(8 << 20)).await;
    let devices = deaf_devices(&world, &site, 5).await;
    let began = Instant::now();
    // The drain window is a second; the last frames have two more, and the end of each connection one.
    assert_eq!(world.drain.finish(PATIENCE).await, 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(world.metric("mc_edge_sessions", ""), 0);
    drop(devices);
    world.end().await;
}

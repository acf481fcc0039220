//! Connections whose clients never read: each end is counted until it is over, and over in time.

use std::time::Duration;

use futures_util::SinkExt as _;
use futures_util::future::join_all;
use test_kit::frames;
use test_kit::site::Site;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, World, eventually, soon};
use crate::tls::{connect_over, world};

type Device = WebSocketStream<TlsStream<TcpStream>>;

/// A device that connects over TLS, and whose system takes next to nothing that the device does not read.
/// None: the device was not let in.
async fn narrow(world: &World, site: &Site) -> Option<Device> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(world.edge.local_addr()).await.unwrap();
    let stream = connect_over(stream, &site.file("cert")).await.unwrap();
    let request = "wss://localhost/message-center";
    let shaken = soon("a handshake", Box::pin(tokio_tungstenite::client_async(request, stream))).await;
    shaken.ok().map(|(device, _)| device)
}

/// A device that subscribes over TLS and then never reads.
async fn deaf(world: &World, site: &Site) -> Device {
    let mut device = narrow(world, site).await.expect("there is a free slot");
    device.send(Message::text(r#"{"op":"subscribe","channel":"@broadcast"}"#)).await.unwrap();
    device
}

/// Fills the system's buffers for each of so many devices, none of which reads.
async fn deaf_devices(world: &World, site: &Site, number: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for _ in 0..number {
        devices.push(deaf(world, site).await);
    }
    let text = "x".repeat(64 << 10);
    let mut reached = 0;
    // Messages that come before all devices have subscribed reach fewer.
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
    let world = world(&site, |config| {
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
    // Only the tasks of an edge without clients are left.
    let began = Instant::now();
    assert_eq!(world.drain.finish(PATIENCE).await, 0, "a task waits for a device that never reads");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(devices);
    world.end().await;
}

#[tokio::test]
async fn an_edge_that_leaves_does_not_wait_for_devices_that_never_read() {
    let site = Site::new();
    let world = world(&site, |config| config.outbox = shared::config::ByteSize(8 << 20)).await;
    let devices = deaf_devices(&world, &site, 5).await;
    let began = Instant::now();
    // The drain window is a second; the last frames have two more, and the end of each connection one.
    assert_eq!(world.drain.finish(PATIENCE).await, 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(world.metric("mc_edge_sessions", ""), 0);
    drop(devices);
    world.end().await;
}

/// Connects over TLS until it is let in, sends pings for as long as any byte is taken, and never reads or
/// logs in.
async fn pings_and_never_reads(world: &World, site: &Site) {
    let mut again = interval(Duration::from_millis(200));
    let mut device = loop {
        again.tick().await;
        if let Some(device) = narrow(world, site).await {
            break device;
        }
    };
    let pings = frames::whole(frames::PING, &[b'x'; 125]).repeat(1_000);
    let flood = async { while device.get_mut().write_all(&pings).await.is_ok() {} };
    soon("a device that does not log in is closed, whether it reads or not", flood).await;
}

#[tokio::test]
async fn devices_that_neither_log_in_nor_read_end_in_time_and_hold_their_places_until_then() {
    const PLACES: usize = 30;
    let site = Site::new();
    let world = world(&site, |config| {
        config.max_sessions = PLACES;
        config.login_timeout = Duration::from_secs(1);
        // Otherwise the pings would end the session first.
        config.ops_per_second = u32::MAX;
    })
    .await;
    let closed = || world.metric("mc_edge_sessions_closed_total", "no_login");
    let mut most = 0;
    let all_end = async {
        for ended in [PLACES as u64, 2 * PLACES as u64] {
            eventually("so many are closed", || {
                most = most.max(world.metric("mc_edge_sessions", ""));
                closed() >= ended
            })
            .await;
        }
        eventually("all ends are over", || world.edge.sessions() == 0).await;
    };
    let devices = (0..2 * PLACES).map(|_| pings_and_never_reads(&world, &site));
    tokio::join!(join_all(devices), all_end);
    assert_eq!(most, PLACES as u64, "each lives in a place, and all are taken once");
    assert_eq!(world.metric("mc_edge_sessions", ""), 0, "nothing lives on uncounted");
    assert_eq!(world.drain.finish(PATIENCE).await, 0, "a task waits for a device that never reads");
    world.end().await;
}

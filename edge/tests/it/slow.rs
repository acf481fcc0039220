//! Slow is not stalled: a client that takes little without a pause stays, and a client that takes nothing is
//! closed in time.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::{World, eventually, soon};

const STALLED_AFTER: Duration = Duration::from_secs(2);

/// A subscriber whose system takes next to nothing that the subscriber does not read.
async fn subscriber(world: &World) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(world.edge.local_addr()).await.unwrap();
    let mut client = Client::try_connect_over(stream, &world.edge, &[]).await.unwrap();
    client.say(r#"{"op":"subscribe","channel":"@broadcast"}"#).await;
    client.expect(r#"{"result":true}"#).await;
    client
}

async fn fill(world: &World, messages: u32) {
    let text = "x".repeat(32 << 10);
    for _ in 0..messages {
        let id = world.publish("broadcast", &text).await;
        world.counts(id).await;
    }
}

fn too_slow(world: &World) -> u64 {
    world.metric("mc_edge_sessions_closed_total", "too_slow")
}

async fn world(change: impl FnOnce(&mut edge::Config)) -> World {
    World::ready(|config| {
        config.outbox = shared::config::ByteSize(4 << 20);
        config.stalled_after = STALLED_AFTER;
        change(config);
    })
    .await
}

/// Takes little without a pause, for some seconds, without reading or answering a ping.
#[cfg(target_os = "linux")]
async fn takes_little(world: &World, client: &mut Client) {
    let closed = || world.metric("mc_edge_sessions_closed_total", "");
    let stream = client.socket.get_mut();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..70 {
        tick.tick().await;
        let mut some = [0; 1 << 10];
        soon("the client takes something", stream.read_exact(&mut some)).await.unwrap();
        assert_eq!(closed(), 0, "it takes something all the time");
    }
}

/// The client takes less in this time than a third of what the system holds for it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_takes_little_without_a_pause_is_not_closed() {
    let world = world(|_| {}).await;
    let mut client = subscriber(&world).await;
    fill(&world, 20).await;
    takes_little(&world, &mut client).await;
    drop(client);
    world.end().await;
}

#[cfg(target_os = "linux")]
fn impatient(config: &mut edge::Config) {
    config.ping_interval = Duration::from_millis(500);
    config.silence = Duration::from_secs(3);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_is_not_called_silent_while_a_ping_waits_behind_what_it_takes() {
    let world = world(impatient).await;
    let mut client = subscriber(&world).await;
    fill(&world, 20).await;
    takes_little(&world, &mut client).await;
    drop(client);
    world.end().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_is_not_called_silent_while_a_ping_waits_with_the_system() {
    let world = world(impatient).await;
    let mut client = subscriber(&world).await;
    fill(&world, 3).await;
    eventually("the system has it all", || world.metric("mc_edge_outbox_messages", "") == 0).await;
    takes_little(&world, &mut client).await;
    let silent = || world.metric("mc_edge_sessions_closed_total", "silent");
    eventually("it is silent once it takes nothing", || silent() == 1).await;
    drop(client);
    world.end().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_in_time() {
    let world = world(|_| {}).await;
    let client = subscriber(&world).await;
    fill(&world, 20).await;
    let began = Instant::now();
    eventually("it is closed", || too_slow(&world) == 1).await;
    // Closed as soon as allowed, give or take a look, and a busy machine.
    assert!(began.elapsed() < STALLED_AFTER * 3, "{:?}", began.elapsed());
    eventually("its end is over", || world.edge.sessions() == 0).await;
    drop(client);
    world.end().await;
}

//! Clients that take slots to keep others out: the others get in.

use std::net::Ipv4Addr;
use std::time::Duration;

use edge::Edge;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::Client;
use crate::support::{World, eventually, soon};

const PLACES: usize = 20;

/// Opens a connection from this address of the machine itself.
async fn from(last: u8, edge: &Edge) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
    socket.connect(edge.local_addr()).await
}

/// Returns whether a device from address `last` gets in, while the attackers open connections without a pause
/// and send nothing.
async fn gets_in(world: &World, last: u8, attackers: &[u8], held: &mut Vec<TcpStream>) -> bool {
    for attacker in attackers {
        for _ in 0..PLACES / attackers.len() {
            // The connection may be refused.
            held.extend(from(*attacker, &world.edge).await);
        }
    }
    let stream = from(last, &world.edge).await.unwrap();
    match Client::try_connect_over(stream, &world.edge, &[]).await {
        Ok(client) => {
            client.leave().await;
            true
        }
        Err(_) => false,
    }
}

/// Returns whether a handshake from address `last` is answered with 101. A refused client may find its
/// connection reset.
async fn is_let_in(last: u8, edge: &Edge) -> bool {
    let mut stream = from(last, edge).await.unwrap();
    let request = "GET /message-center HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut answer = [0; 12];
    let answered = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut answer).await
    };
    answered.await.is_ok() && answer == *b"HTTP/1.1 101"
}

async fn world(per_address: usize) -> World {
    World::ready(|config| {
        config.exempt_addresses = Vec::new();
        config.connections_per_second_per_address = 0;
        config.max_handshakes = PLACES;
        config.max_handshakes_per_address = per_address;
        // The others must not be saved by the timeout of the attackers.
        config.first_byte_timeout = Duration::from_secs(3_600);
        config.handshake_timeout = Duration::from_secs(3_600);
    })
    .await
}

#[tokio::test]
async fn one_address_has_its_part_of_the_places_and_others_get_in() {
    let world = world(PLACES / 2).await;
    let mut held = Vec::new();
    for other in 100..140 {
        assert!(gets_in(&world, other, &[2], &mut held).await, "{other} was kept out");
    }
    let under_way = || world.metric("mc_edge_handshakes", "");
    eventually("it has its part", || under_way() == PLACES as u64 / 2).await;
    drop(held);
    world.end().await;
}

/// Many clients are behind one address: a network, or a proxy that does not name them.
#[tokio::test]
async fn who_says_nothing_keeps_nobody_behind_its_own_address_out() {
    let world = world(PLACES / 2).await;
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.extend(from(2, &world.edge).await);
    }
    // Nothing else would end the silent connections.
    let enter = async { while !is_let_in(2, &world.edge).await {} };
    soon("a device from there gets in", enter).await;
    assert!(world.metric("mc_edge_refusals_total", "displaced") > 0);
    drop(held);
    world.end().await;
}

#[tokio::test]
async fn addresses_that_have_all_places_together_yield_them_to_the_others() {
    let world = world(0).await;
    let (mut held, mut in_time) = (Vec::new(), 0);
    for other in 100..140 {
        in_time += usize::from(gets_in(&world, other, &[2, 3, 4], &mut held).await);
    }
    assert!(in_time >= 38, "{in_time} of 40 got in");
    assert!(world.metric("mc_edge_refusals_total", "displaced") >= 38);
    // Clients that come together share what there is.
    let storm = join_all((150..150 + PLACES as u8).map(|last| {
        let edge = &world.edge;
        async move { Client::try_connect_over(from(last, edge).await.unwrap(), edge, &[]).await }
    }));
    let let_in: Vec<_> = storm.await.into_iter().filter_map(Result::ok).collect();
    assert!(let_in.len() >= PLACES * 8 / 10, "{}", let_in.len());
    for client in let_in {
        client.leave().await;
    }
    drop(held);
    world.end().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_gives_its_place_back_soon() {
    let world = World::ready(|config| config.first_byte_timeout = Duration::from_millis(200)).await;
    let silent = TcpStream::connect(world.edge.local_addr()).await.unwrap();
    eventually("it is ended", || world.metric("mc_edge_refusals_total", "silent") == 1).await;
    assert_eq!(world.metric("mc_edge_handshakes", ""), 0);
    drop(silent);
    world.end().await;
}

#[tokio::test]
async fn to_be_refused_for_want_of_a_place_costs_an_address_its_rate() {
    let world = World::ready(|config| {
        config.exempt_addresses = Vec::new();
        (config.connections_per_second_per_address, config.connection_burst_per_address) = (1, 10);
        config.max_handshakes_per_address = 1;
    })
    .await;
    // A client that has sent something keeps its slot.
    let mut held = from(2, &world.edge).await.unwrap();
    held.write_all(b"GET ").await.unwrap();
    eventually("it has its place", || world.metric("mc_edge_handshakes", "") == 1).await;
    let refused = |reason| world.metric("mc_edge_refusals_total", reason);
    let mut tries = 0;
    while refused("address_rate") == 0 {
        assert!(tries < 100, "it may go on and on");
        // The refusal is read to its end, so that the next refusal can be sent too.
        let mut next = from(2, &world.edge).await.unwrap();
        let _ = next.shutdown().await;
        let _ = next.read_to_end(&mut Vec::new()).await;
        tries += 1;
    }
    assert!(refused("address_handshakes") >= 1);
    drop(held);
    world.end().await;
}

#[tokio::test]
async fn behind_a_proxy_the_places_are_those_of_the_real_address() {
    let world = World::ready(|config| {
        config.trusted_proxies = vec!["127.0.0.1".into()];
        config.max_handshakes_per_address = 1;
        config.connections_per_second = 1;
    })
    .await;
    // The connections wait for their turn, and hold their slots meanwhile.
    let same = join_all(
        (0..10).map(|_| Client::try_connect_with(&world.edge, &[("x-forwarded-for", "203.0.113.9")])),
    );
    let (let_in, refused): (Vec<_>, Vec<_>) = same.await.into_iter().partition(Result::is_ok);
    assert!(!let_in.is_empty() && !refused.is_empty());
    assert!(world.metric("mc_edge_refusals_total", "address_handshakes") >= 1);
    for client in let_in {
        client.unwrap_or_else(|refusal| panic!("{refusal:?}")).leave().await;
    }
    world.end().await;
}

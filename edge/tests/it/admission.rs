//! Limits of connecting: from where, how often, and the answer to a refused connection.

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::{World, eventually, soon};

const FROM: &str = "x-forwarded-for";

fn local(world: &World, reason: &str) -> u64 {
    world.metric("mc_edge_refusals_total", reason)
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_real_address_has_its_own_rate() {
    let world = World::ready(|config| {
        config.trusted_proxies = vec!["127.0.0.1".into()];
        (config.connections_per_second_per_address, config.connection_burst_per_address) = (1, 2);
    })
    .await;
    // On a slow machine the address may get another turn meanwhile, but not as many as it asks for.
    let mut clients = Vec::new();
    let refused = loop {
        assert!(clients.len() < 100, "one address was let in again and again");
        // The client's own claim stands further left, and changes.
        let claimed = format!("192.0.2.{}, 203.0.113.9", clients.len());
        match Client::try_connect_with(&world.edge, &[(FROM, &claimed)]).await {
            Ok(client) => clients.push(client),
            Err(refused) => break refused,
        }
    };
    assert!(clients.len() >= 2, "a burst is let in");
    assert_eq!(refused.0.as_u16(), 429);
    assert!(refused.1.unwrap().parse::<u64>().unwrap() >= 1);
    clients.push(Client::try_connect_with(&world.edge, &[(FROM, "203.0.113.8")]).await.unwrap());
    assert_eq!(local(&world, "address_rate"), 1);
    assert_eq!(world.metric("mc_edge_tracked_addresses", ""), 2);
    for client in clients {
        client.leave().await;
    }
    world.end().await;
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_limited_whatever_it_claims() {
    let world = World::ready(|config| {
        config.exempt_addresses = Vec::new();
        (config.connections_per_second_per_address, config.connection_burst_per_address) = (1, 1);
    })
    .await;
    let mut clients = Vec::new();
    let refused = loop {
        assert!(clients.len() < 100, "a claim gave a new rate");
        let claimed = format!("192.0.2.{}", clients.len());
        match Client::try_connect_with(&world.edge, &[(FROM, &claimed)]).await {
            Ok(client) => clients.push(client),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.0.as_u16(), 429);
    assert_eq!(local(&world, "address_rate"), 1);
    assert_eq!(world.metric("mc_edge_forwarded_ignored_total", ""), clients.len() as u64);
    for client in clients {
        client.leave().await;
    }
    world.end().await;
}

#[tokio::test]
async fn an_address_has_so_many_sessions_and_a_new_one_when_one_has_left() {
    let world = World::ready(|config| {
        config.trusted_proxies = vec!["127.0.0.0/8".into()];
        config.sessions_per_address = 1;
    })
    .await;
    let from = |address: &'static str| {
        let edge = &world.edge;
        async move { Client::try_connect_with(edge, &[(FROM, address)]).await }
    };
    let first = from("2001:db8:1:2::1").await.unwrap();
    let (status, retry_after) = from("2001:db8:1:2::2").await.err().unwrap();
    assert_eq!(status.as_u16(), 429, "the same network of 64 bits");
    assert!(retry_after.is_some());
    let other = from("2001:db8:1:3::1").await.unwrap();
    assert_eq!(local(&world, "address_sessions"), 1);
    first.leave().await;
    eventually("its place is free", || world.edge.sessions() == 1).await;
    from("2001:db8:1:2::2").await.unwrap().leave().await;
    other.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_storm_is_let_in_at_the_rate_of_the_edge_and_the_rest_is_told_when_to_come_back() {
    let world = World::ready(|config| config.connections_per_second = 1).await;
    let outcomes = join_all((0..30).map(|_| Client::try_connect(&world.edge))).await;
    let (let_in, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert!(let_in.len() >= 3, "one at once, and what has its turn within two seconds");
    assert!(world.metric("mc_edge_connections_paced_total", "") >= 1);
    for refused in &refused {
        let (status, retry_after) = refused.as_ref().err().unwrap();
        assert_eq!(status.as_u16(), 503);
        assert!(retry_after.as_ref().unwrap().parse::<u64>().unwrap() >= 1);
    }
    assert!(!refused.is_empty() && local(&world, "edge_rate") == refused.len() as u64);
    for client in let_in {
        client.unwrap_or_else(|refusal| panic!("{refusal:?}")).leave().await;
    }
    world.end().await;
}

#[tokio::test]
async fn beyond_the_handshakes_under_way_the_next_is_told_so() {
    let world = World::ready(|config| config.max_handshakes = 1).await;
    // Until the first byte of this client is noticed, its slot goes to the next client.
    let (idle, (status, retry_after)) = loop {
        let mut idle = TcpStream::connect(world.edge.local_addr()).await.unwrap();
        idle.write_all(b"GET ").await.unwrap();
        eventually("it has the only place", || world.metric("mc_edge_handshakes", "") == 1).await;
        match Client::try_connect(&world.edge).await {
            Ok(client) => client.leave().await,
            Err(refusal) => break (idle, refusal),
        }
    };
    assert_eq!(status.as_u16(), 503);
    assert!(retry_after.is_some());
    assert_eq!(local(&world, "busy"), 1);
    drop(idle);
    eventually("the place is free", || world.metric("mc_edge_handshakes", "") == 0).await;
    Client::connect(&world.edge).await.leave().await;
    world.end().await;
}

#[tokio::test]
async fn above_the_watermark_new_clients_are_sent_elsewhere_but_still_served() {
    let world = World::ready(|config| (config.max_sessions, config.watermark) = (10, 50)).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::connect(&world.edge).await);
    }
    eventually("it is not ready", || world.health.reasons().contains("max_sessions")).await;
    clients.push(Client::listening(&world.edge).await);
    for client in clients {
        client.leave().await;
    }
    soon("it is ready again", world.health.wait_ready()).await;
    world.end().await;
}

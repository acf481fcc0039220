//! The first second of everything in one process: whoever reaches the port is taken, and counted.

use std::net::SocketAddr;
use std::time::Duration;

use harness::business::Business;
use harness::device::Device;
use harness::ports;
use harness::program::{Launch, Program};
use harness::publisher::Publisher;
use harness::wait::soon;
use tokio::net::TcpStream;

/// Starts everything in one process with the intervals of a default configuration, and gives its ports at once.
async fn start(business: &Business, settings: &[(&str, &str)]) -> (Program, SocketAddr, SocketAddr) {
    let [edge, publisher] = ports::lasting();
    let launch = Launch::of("run")
        .set("edge.listen", edge)
        .set("edge.admin", "127.0.0.1:0")
        .set("publisher_api.listen", publisher)
        .set("auth_adapter.url", business.url());
    let launch = settings.iter().fold(launch, |launch, (key, value)| launch.set(key, value));
    (launch.start(), edge, publisher)
}

/// Connects from the moment on when the port accepts, again and again, and publishes right behind the first login.
async fn expect_welcome(settings: &[(&str, &str)]) {
    let business = Business::start().await;
    let (program, edge, publisher) = start(&business, settings).await;
    let bound = async { while TcpStream::connect(edge).await.is_err() {} };
    soon("the port accepts", bound).await;
    let mut first = Device::online(edge, "user-1").await;
    let answer = Publisher::of(publisher).publish("user:1", "first").await;
    assert_eq!(answer.counts(), Some((1, 0)), "{answer:?}");
    // Where other edges may be, a publisher waits for their heartbeats before it calls a count complete.
    assert!(answer.is_complete() || !settings.is_empty(), "{answer:?}");
    first.expect_text("first").await;
    // For as long as an edge that is started by itself waits for publishers.
    let until = tokio::time::Instant::now() + Duration::from_millis(1_500);
    let mut devices = 0;
    while devices == 0 || tokio::time::Instant::now() < until {
        Device::connect(edge).await.close().await;
        devices += 1;
    }
    drop(first);
    program.end().await;
}

#[tokio::test]
async fn the_only_process_refuses_nobody_from_the_moment_on_when_its_port_is_open() {
    expect_welcome(&[]).await;
}

#[tokio::test]
async fn a_process_whose_bus_others_may_join_refuses_nobody_either() {
    expect_welcome(&[("bus.listen", "127.0.0.1:0")]).await;
}

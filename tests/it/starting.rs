//! The first second of all parts in one process: every device that reaches the port is accepted, and counted.

use std::net::SocketAddr;
use std::time::Duration;

use harness::business::Business;
use harness::device::Device;
use harness::ports;
use harness::program::{Launch, Program};
use harness::publisher::Publisher;
use harness::wait::soon;
use tokio::net::TcpStream;

/// Starts all parts in one process with default intervals; returns the process and its ports at once.
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

/// Connects again and again from the moment the port accepts, and publishes right after the first login.
async fn expect_welcome(settings: &[(&str, &str)]) {
    let business = Business::start().await;
    let (program, edge, publisher) = start(&business, settings).await;
    let bound = async { while TcpStream::connect(edge).await.is_err() {} };
    soon("the port accepts", bound).await;
    let mut first = Device::online(edge, "user-1").await;
    let answer = Publisher::of(publisher).publish("user:1", "first").await;
    assert_eq!(answer.counts(), Some((1, 0)), "{answer:?}");
    // Where other edges may exist, a publisher-api waits for their heartbeats before a count is complete.
    assert!(answer.is_complete() || !settings.is_empty(), "{answer:?}");
    first.expect_text("first").await;
    // As long as an edge that runs alone waits for publisher-apis.
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

//! An embedded bus that can stop and come back at its address.

use std::net::SocketAddr;

use shared::bus::{self, BusConfig, BusServer};
use shared::drain::Drain;

use crate::ports;
use crate::wait::DEADLINE;

/// A running embedded bus, or a stopped one that keeps its address.
#[derive(Debug)]
pub struct TestBus {
    /// The server, for [`Bus::connect`](bus::Bus::connect).
    pub server: BusServer,
    address: SocketAddr,
    drain: Drain,
}

impl TestBus {
    /// Starts a bus on a free port.
    pub async fn start() -> Self {
        let [address] = ports::lasting();
        Self::listen(address).await
    }

    async fn listen(address: SocketAddr) -> Self {
        let drain = Drain::new();
        let config = BusConfig { listen: address.to_string(), ..BusConfig::default() };
        let server = bus::provide(&config, &drain).await.expect("the bus starts");
        Self { server, address, drain }
    }

    /// The address of the bus.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the bus, and checks that no task is left.
    ///
    /// # Panics
    /// A task is left.
    pub async fn stop(&self) {
        assert_eq!(self.drain.finish(DEADLINE).await, 0, "the bus left tasks behind");
    }

    /// Starts a stopped bus again at the same address.
    pub async fn restart(&mut self) {
        *self = Self::listen(self.address).await;
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

/// The server of a bus that runs elsewhere, at `address`.
///
/// # Panics
/// The address makes no URL.
pub async fn server_at(address: SocketAddr) -> BusServer {
    let config = BusConfig { url: format!("nats://{address}"), ..BusConfig::default() };
    bus::provide(&config, &Drain::new()).await.expect("nothing is embedded")
}

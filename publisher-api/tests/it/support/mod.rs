//! A bus, a publisher-api, edges played by the test, and callers. Everything listens on free ports.

pub(crate) mod caller;
pub(crate) mod edge;
pub(crate) mod log;
pub(crate) mod schema;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use test_kit::bus::TestBus;
pub(crate) use test_kit::wait::{becomes_true as eventually, soon};

use prometheus_client::registry::Registry;
use publisher_api::{Config, PublisherApi};
use shared::bus::{Bus, BusServer};
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::part::Host;
use shared::rules::{Rules, default_rules};
use test_kit::metrics;

/// How long a condition may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The interval of heartbeats in these tests.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// A publisher-api on a bus.
pub(crate) struct Bed {
    pub(crate) bus: TestBus,
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    pub(crate) drain: Drain,
    registry: Registry,
    connection: Drain,
}

impl Bed {
    /// Starts a publisher with short times, and waits until it is ready.
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let bed = Self::start_unready(TestBus::start().await, change).await;
        bed.ready().await;
        bed
    }

    /// Starts a publisher with this history, and waits until it is ready.
    pub(crate) async fn start_with(history: HistoryConfig) -> Self {
        let bus = TestBus::start().await;
        let server = bus.server.clone();
        let bed = Self::new(bus, &server, &history, |_| {}).await;
        bed.ready().await;
        bed
    }

    pub(crate) async fn start_unready(bus: TestBus, change: impl FnOnce(&mut Config)) -> Self {
        let server = bus.server.clone();
        Self::new(bus, &server, &HistoryConfig::default(), change).await
    }

    /// Starts a publisher on a bus of the test; the bed's own bus is not used.
    pub(crate) async fn start_on(server: &BusServer, change: impl FnOnce(&mut Config)) -> Self {
        Self::new(TestBus::start().await, server, &HistoryConfig::default(), change).await
    }

    /// Starts a publisher that reaches its bus at another address.
    pub(crate) async fn start_over(
        bus: TestBus,
        address: SocketAddr,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let server = test_kit::bus::server_at(address).await;
        Self::new(bus, &server, &HistoryConfig::default(), change).await
    }

    /// Starts another publisher on the same bus.
    pub(crate) async fn another(&self, history: HistoryConfig) -> Self {
        Self::new(TestBus::start().await, &self.bus.server, &history, |_| {}).await
    }

    async fn new(
        bus: TestBus,
        server: &BusServer,
        history: &HistoryConfig,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            heartbeat: HEARTBEAT,
            silent_after: HEARTBEAT * 10,
            named_for: HEARTBEAT * 25,
            ..Config::default()
        };
        change(&mut config);
        let (drain, connection) = (Drain::new(), Drain::new());
        let handle = Bus::connect(server, "publisher-api", &connection).await.unwrap();
        let (health, mut registry) = (Health::new(), Registry::default());
        let rules = Rules::compile(&default_rules()).unwrap();
        let host =
            Host { bus: handle, health: health.clone(), registry: &mut registry, drain: drain.clone() };
        let api = PublisherApi::start(config, &rules, history, host).await.expect("publisher-api starts");
        Self { bus, address: api.local_addr(), health, drain, registry, connection }
    }

    pub(crate) async fn ready(&self) {
        eventually("publisher-api is ready", || self.health.is_ready()).await;
    }

    /// Returns the metrics as Prometheus reads them.
    pub(crate) fn metrics(&self) -> String {
        metrics::text(&self.registry)
    }

    /// Returns the value of one line of the metrics, or 0 if there is no such line.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        metrics::value(&self.metrics(), line)
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn finish(self) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "a task of publisher-api is left");
        assert_eq!(self.connection.finish(PATIENCE).await, 0, "a task of the bus connection is left");
        self.bus.stop().await;
    }
}

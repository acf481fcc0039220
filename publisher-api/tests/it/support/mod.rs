//! A bus, a publisher-api, edges that do what a test tells them, and callers. Everything on free ports.

pub(crate) mod caller;
pub(crate) mod edge;
pub(crate) mod link;
pub(crate) mod log;
pub(crate) mod nats;
pub(crate) mod schema;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use prometheus_client::registry::Registry;
use publisher_api::{Config, PublisherApi};
use shared::bus::{self, Bus, BusConfig, BusServer};
use shared::drain::Drain;
use shared::health::Health;
use shared::history::HistoryConfig;
use shared::rules::{Rules, default_rules};

/// No condition takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often edges speak in these tests.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// Waits until `condition` holds; looks every few milliseconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let holds = async {
        while !condition() {
            look.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, holds).await.is_ok(), "this did not happen: {what}");
}

/// A future that must be done in time.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("this did not happen: {what}"),
    }
}

/// An embedded bus that can go away and come back at the same place.
pub(crate) struct TestBus {
    pub(crate) server: BusServer,
    drain: Drain,
}

impl TestBus {
    pub(crate) async fn start() -> Self {
        Self::listen("127.0.0.1:0").await
    }

    async fn listen(listen: &str) -> Self {
        let drain = Drain::new();
        let config = BusConfig { listen: listen.to_owned(), ..BusConfig::default() };
        let server = bus::provide(&config, &drain).await.expect("the bus starts");
        Self { server, drain }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.urls[0].trim_start_matches("nats://").parse().unwrap()
    }

    pub(crate) async fn stop(&self) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "the bus stops");
    }

    pub(crate) async fn restart(&mut self) {
        let address = self.server.urls[0].trim_start_matches("nats://").to_owned();
        *self = Self::listen(&address).await;
    }
}

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
    /// Starts with short times and waits until it is ready.
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let bed = Self::start_unready(TestBus::start().await, change).await;
        bed.ready().await;
        bed
    }

    /// The same with this history.
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

    /// On a bus that belongs to the test; the bed's own is not used.
    pub(crate) async fn start_on(server: &BusServer, change: impl FnOnce(&mut Config)) -> Self {
        Self::new(TestBus::start().await, server, &HistoryConfig::default(), change).await
    }

    /// Reaches its bus at another address.
    pub(crate) async fn start_over(
        bus: TestBus,
        address: SocketAddr,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let config = BusConfig { url: format!("nats://{address}"), ..BusConfig::default() };
        let server = bus::provide(&config, &Drain::new()).await.unwrap();
        Self::new(bus, &server, &HistoryConfig::default(), change).await
    }

    /// Another publisher on the same bus.
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
        let api = PublisherApi::start(config, &rules, history, handle, health.clone(), &mut registry, &drain)
            .await
            .expect("publisher-api starts");
        Self { bus, address: api.local_addr(), health, drain, registry, connection }
    }

    pub(crate) async fn ready(&self) {
        eventually("publisher-api is ready", || self.health.is_ready()).await;
    }

    /// The metrics as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// The value of one line of the metrics; 0 if there is none.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let metrics = self.metrics();
        let value = metrics.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0)
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn finish(self) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "a task of publisher-api is left");
        assert_eq!(self.connection.finish(PATIENCE).await, 0, "a task of the bus connection is left");
        self.bus.stop().await;
    }
}

//! Everything in one process of the real binary, with a folder of its own: it can be killed and started again over it.
//!
//! The ports change with every start, and so does what [`Alone::edge`] and the like give.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use tempfile::TempDir;

use crate::business::Business;
use crate::device::Device;
use crate::program::{Launch, Program};
use crate::publisher::Publisher;
use crate::raw;
use crate::wait::{DEADLINE, eventually};

/// The data folder, within a folder that ends with the test.
const DATA: &str = "data";

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct AlonePlan {
    settings: Vec<(String, String)>,
    in_memory: bool,
    bus: Option<String>,
}

/// A running message center.
#[derive(Debug)]
pub struct Alone {
    /// The process.
    pub program: Program,
    /// Who knows the tokens.
    pub business: Business,
    /// The channel with which tests reach into the streams, and what ends it.
    plan: AlonePlan,
    edge: SocketAddr,
    publisher: SocketAddr,
    admin: SocketAddr,
    bus: Option<SocketAddr>,
    folder: TempDir,
}

impl AlonePlan {
    /// A configuration key.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Keeps streams in memory instead of on disk.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Uses the bus at this URL instead of embedding one.
    #[must_use]
    pub fn over(mut self, bus: &str) -> Self {
        self.bus = Some(bus.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(self) -> Alone {
        let business = Business::start().await;
        let folder = TempDir::new().expect("there is room for a folder");
        let mut program = self.launch(&business, folder.path()).start();
        let (edge, publisher, admin, bus) = self.addresses(&mut program).await;
        let alone = Alone { program, business, plan: self, edge, publisher, admin, bus, folder };
        alone.ready().await;
        alone
    }

    fn launch(&self, business: &Business, folder: &Path) -> Launch {
        let mut launch = Launch::of("run")
            .set("edge.listen", "127.0.0.1:0")
            .set("edge.admin", "127.0.0.1:0")
            .set("edge.heartbeat", "50ms")
            // A device that the test has not got round to yet answers no ping.
            .set("edge.silence", "10m")
            .set("publisher_api.listen", "127.0.0.1:0")
            .set("publisher_api.heartbeat", "50ms")
            .set("auth_adapter.url", business.url());
        launch = match &self.bus {
            Some(url) => launch.set("bus.url", url),
            None => launch
                .set("bus.listen", "127.0.0.1:0")
                .set("bus.store.sync", if self.in_memory { "memory" } else { "strict" })
                .set("bus.store.path", folder.join(DATA).display()),
        };
        self.settings.iter().fold(launch, |launch, (key, value)| launch.set(key, value))
    }

    async fn addresses(
        &self,
        program: &mut Program,
    ) -> (SocketAddr, SocketAddr, SocketAddr, Option<SocketAddr>) {
        let bus = match self.bus {
            Some(_) => None,
            None => Some(program.address("the embedded bus listens").await),
        };
        let edge = program.address("edge listens").await;
        let publisher = program.address("publisher-api listens").await;
        (edge, publisher, program.address("the admin port listens").await, bus)
    }
}

impl Alone {
    /// What to start, with the usual settings.
    pub fn plan() -> AlonePlan {
        AlonePlan::default()
    }

    /// Starts it with the usual settings.
    pub async fn start() -> Self {
        Self::plan().start().await
    }

    /// Where devices connect.
    pub fn edge(&self) -> SocketAddr {
        self.edge
    }

    /// A back end.
    pub fn publisher(&self) -> Publisher {
        Publisher::of(self.publisher)
    }

    /// Where back ends publish.
    pub fn publisher_address(&self) -> SocketAddr {
        self.publisher
    }

    /// Where the embedded bus listens.
    ///
    /// # Panics
    /// There is none.
    pub fn bus(&self) -> SocketAddr {
        self.bus.expect("the bus is embedded")
    }

    /// Where health and metrics are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    /// The sum of a metric's series that have this label.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        raw::metric(self.admin, name, label).await
    }

    /// A recovering device of `user-1` that is online from now on, and its position.
    ///
    /// # Panics
    /// It does not come about.
    pub async fn begin(&self) -> (Device, String) {
        let (device, recovery) = Device::back(self.edge, "user-1", "").await;
        assert!(recovery.recovered, "\"from now\" is always whole");
        (device, recovery.id)
    }

    /// Publishes numbers to `user:1`, each as its text, each to so many sessions.
    ///
    /// # Panics
    /// One is not accepted, or not taken by so many.
    pub async fn publish(&self, sessions: u64, numbers: impl IntoIterator<Item = u64>) {
        let publisher = self.publisher();
        for number in numbers {
            publisher.publish_to(sessions, "user:1", &number.to_string()).await;
        }
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready.
    pub async fn ready(&self) {
        eventually("message center is ready", async || raw::get(self.admin, "/readyz").await.status == 200)
            .await;
    }

    /// Does something on the bus as another client of it.
    ///
    /// # Panics
    /// There is no bus to connect to.
    pub async fn on_bus<T>(&self, work: impl AsyncFnOnce(Bus) -> T) -> T {
        let drain = Drain::new();
        let config = BusConfig { url: format!("nats://{}", self.bus()), ..BusConfig::default() };
        let there = bus::provide(&config, &drain).await.expect("nothing is embedded");
        let bus = Bus::connect(&there, "test", &drain).await.expect("the address is one");
        bus.connected(DEADLINE).await.expect("the bus listens");
        let result = work(bus).await;
        assert_eq!(drain.finish(DEADLINE).await, 0, "the test's bus connection is left");
        result
    }

    /// Sets how large a file may become that it writes; see [`Program::limit_files`]. What it says of that is no fault.
    pub async fn limit_files(&mut self, bytes: Option<u64>) {
        self.program.expect_errors();
        self.program.limit_files(bytes).await;
    }

    /// Kills it, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.program.kill().await;
    }

    /// Starts it again over the same folder, with these settings changed, and waits until it is ready.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_again(&mut self, changes: &[(&str, &str)]) {
        for (key, value) in changes {
            self.plan = std::mem::take(&mut self.plan).set(key, value);
        }
        self.program = self.plan.launch(&self.business, self.folder.path()).start();
        let (edge, publisher, admin, bus) = self.plan.addresses(&mut self.program).await;
        (self.edge, self.publisher, self.admin, self.bus) = (edge, publisher, admin, bus);
        self.ready().await;
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self, changes: &[(&str, &str)]) {
        self.kill().await;
        self.start_again(changes).await;
    }

    /// Asks it to leave and expects that it does so properly.
    pub async fn end(self) {
        self.program.end().await;
        self.business.stop().await;
    }
}

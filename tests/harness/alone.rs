//! The real binary with all parts in one process, over a data folder of its own: killed and started again at
//! will.
//!
//! Every start takes new ports, so [`Alone::edge`] and the other addresses change with each start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shared::bus::Bus;
use shared::drain::Drain;
use tempfile::TempDir;

use crate::bus::server_at;
use crate::business::Business;
use crate::device::Device;
use crate::program::{Launch, Program};
use crate::publisher::Publisher;
use crate::raw;
use crate::wait::{DEADLINE, eventually};

/// The data folder, inside a temporary folder that ends with the test.
const DATA: &str = "data";

/// Settings of the process to start.
#[derive(Debug, Clone, Default)]
pub struct AlonePlan {
    settings: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    in_memory: bool,
    bus: Option<String>,
}

/// A running message center.
#[derive(Debug)]
pub struct Alone {
    /// The process.
    pub program: Program,
    /// The business system that checks the tokens.
    pub business: Business,
    /// The settings that every start uses.
    plan: AlonePlan,
    edge: SocketAddr,
    publisher: SocketAddr,
    admin: SocketAddr,
    bus: Option<SocketAddr>,
    folder: TempDir,
}

impl AlonePlan {
    /// Sets a configuration key.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Stores streams in memory instead of on disk.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Uses the bus at this URL instead of the embedded one.
    #[must_use]
    pub fn over(mut self, bus: &str) -> Self {
        self.bus = Some(bus.to_owned());
        self
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// The process does not start.
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
            // A test reads its devices late, so they answer pings late.
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
        launch = self.variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
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
    /// The usual settings.
    pub fn plan() -> AlonePlan {
        AlonePlan::default()
    }

    /// Starts the process with the usual settings.
    pub async fn start() -> Self {
        Self::plan().start().await
    }

    /// The address of the client port.
    pub fn edge(&self) -> SocketAddr {
        self.edge
    }

    /// A back end.
    pub fn publisher(&self) -> Publisher {
        Publisher::of(self.publisher)
    }

    /// The address of the publishing port.
    pub fn publisher_address(&self) -> SocketAddr {
        self.publisher
    }

    /// The address of the embedded bus.
    ///
    /// # Panics
    /// The process embeds no bus.
    pub fn bus(&self) -> SocketAddr {
        self.bus.expect("the bus is embedded")
    }

    /// The address of the admin port: health and metrics.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    /// The sum of a metric over the series that have this label.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        raw::metric(self.admin, name, label).await
    }

    /// Connects a recovering device of `user-1`; returns the device and its position.
    ///
    /// # Panics
    /// The login or the subscription fails.
    pub async fn begin(&self) -> (Device, String) {
        let (device, recovery) = Device::back(self.edge, "user-1", "").await;
        assert!(recovery.recovered, "\"from now\" is always whole");
        (device, recovery.id)
    }

    /// Publishes each number, as text, to `user:1`, and expects each to reach `sessions` sessions.
    ///
    /// # Panics
    /// A publish fails or reaches another number of sessions.
    pub async fn publish(&self, sessions: u64, numbers: impl IntoIterator<Item = u64>) {
        let publisher = self.publisher();
        for number in numbers {
            publisher.publish_to(sessions, "user:1", &number.to_string()).await;
        }
    }

    /// Waits until the process is ready.
    ///
    /// # Panics
    /// The process does not become ready.
    pub async fn ready(&self) {
        eventually("message center is ready", async || raw::get(self.admin, "/readyz").await.status == 200)
            .await;
    }

    /// Runs `work` with a connection of its own to the bus.
    ///
    /// # Panics
    /// The bus takes no connection.
    pub async fn on_bus<T>(&self, work: impl AsyncFnOnce(Bus) -> T) -> T {
        let drain = Drain::new();
        let bus =
            Bus::connect(&server_at(self.bus()).await, "test", &drain).await.expect("the address is one");
        bus.connected(DEADLINE).await.expect("the bus listens");
        let result = work(bus).await;
        assert_eq!(drain.finish(DEADLINE).await, 0, "the test's bus connection is left");
        result
    }

    /// Limits the size of the files that the process writes; see [`Program::limit_files`]. The errors that it
    /// logs then are expected.
    pub async fn limit_files(&mut self, bytes: Option<u64>) {
        self.program.expect_errors();
        self.program.limit_files(bytes).await;
    }

    /// Kills the process, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.program.kill().await;
    }

    /// Starts the process again over the same folder, with `changes` to its settings, and waits until it is
    /// ready.
    ///
    /// # Panics
    /// The process does not start.
    pub async fn start_again(&mut self, changes: &[(&str, &str)]) {
        for (key, value) in changes {
            self.plan = std::mem::take(&mut self.plan).set(key, value);
        }
        self.program = self.plan.launch(&self.business, self.folder.path()).start();
        let (edge, publisher, admin, bus) = self.plan.addresses(&mut self.program).await;
        (self.edge, self.publisher, self.admin, self.bus) = (edge, publisher, admin, bus);
        self.ready().await;
    }

    /// Kills the process and starts it again.
    pub async fn restart(&mut self, changes: &[(&str, &str)]) {
        self.kill().await;
        self.start_again(changes).await;
    }

    /// Asks the process to leave, and expects exit code 0.
    pub async fn end(self) {
        self.program.end().await;
        self.business.stop().await;
    }
}

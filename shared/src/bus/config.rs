//! `[bus]`: connect to one, or embed one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ConnectOptions;
use embedded_bus::{Credentials, DiskConfig, Stats, Storage, StreamsConfig};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::metrics::ServerMetrics;
use super::store;
use crate::config::{ByteSize, Problems, Secret};
use crate::drain::Drain;
use crate::headers;
use crate::health::Health;
use crate::subject;

/// How long a bus that other processes can reach serves on after it announced its end.
const LAME_DUCK: Duration = Duration::from_secs(1);
/// The interval between two looks at the data folder.
const LOOK: Duration = Duration::from_secs(1);

/// The bus to use: with a `url` the servers that it names, without one a bus that this process embeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BusConfig {
    /// Servers to connect to, e.g. `nats://10.0.0.5:4222` (`--bus-url`); several with a comma between. Empty:
    /// embed a bus.
    pub url: String,
    /// User name, together with `password`: for the servers of `url`, or for clients of the embedded bus.
    pub user: String,
    /// Password of `user`.
    pub password: Secret,
    /// A token instead of user and password.
    pub token: Secret,
    /// TLS towards the servers of `bus.url`; write their addresses with `tls://`. The PEM files are read
    /// again for each connection.
    pub tls: BusTls,
    /// Where the embedded bus listens for other processes, e.g. `127.0.0.1:4222` (`--bus-listen`). Empty: no
    /// other process can connect; only `message-center bus` then takes 127.0.0.1:4222.
    pub listen: String,
    /// Where `/livez`, `/readyz` and `/metrics` are when the bus is a process of its own.
    pub admin: SocketAddr,
    /// Lets the embedded bus listen off loopback without credentials (`--insecure`).
    pub insecure: bool,
    /// The largest payload that the embedded bus accepts.
    pub max_payload: ByteSize,
    /// The most bytes that may wait for one connection of the embedded bus. Beyond it, the connection is
    /// closed as too slow.
    pub max_pending: ByteSize,
    /// Where and how the embedded bus stores messages.
    pub store: StoreConfig,
}

/// The event that an acknowledgement of the embedded bus waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// For the disk: what was acknowledged outlives a machine that goes down.
    #[default]
    Strict,
    /// For the system, which has it on the disk within a second: it outlives a process that is killed. If the
    /// machine goes down, clients are told to reload.
    Relaxed,
    /// For nothing: messages are kept in memory and end with the process.
    Memory,
}

/// Where and how the embedded bus stores messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StoreConfig {
    /// The folder (`--data`), which only one process at a time can open. Empty: `message-center run` and
    /// `message-center bus` take `message-center-data`; a part that embeds a bus stores everything in memory.
    pub path: PathBuf,
    /// The event that an acknowledgement waits for: `strict`, `relaxed` or `memory`.
    pub sync: Sync,
    /// The most bytes that the folder may take; a sixteenth below that, further messages are refused.
    /// `history.max_bytes` should be at most four fifths of it: the rest is for deleted messages whose space
    /// is not free yet, for erasing, and for bans.
    pub max_bytes: ByteSize,
    /// The most memory for the index of messages, channels and message ids ([sizing.md](sizing.md)), and with
    /// `sync = "memory"` for the messages themselves. At the limit, further messages are refused. Leave as
    /// much again for the rest of the process.
    pub max_memory: ByteSize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let (max_bytes, max_memory) = (ByteSize(10 << 30), ByteSize(2 << 30));
        Self { path: PathBuf::new(), sync: Sync::Strict, max_bytes, max_memory }
    }
}

impl StoreConfig {
    /// Returns the folder, unless everything is in memory.
    pub fn folder(&self) -> Option<&Path> {
        (self.sync != Sync::Memory && !is_empty(&self.path)).then_some(self.path.as_path())
    }

    fn streams(&self) -> StreamsConfig {
        StreamsConfig {
            storage: self.storage(),
            max_memory: self.max_memory.0,
            // Bans, the keys of repeats, and the marks of erasing.
            reserved_streams: [subject::DENY_STREAM, subject::KEY_STREAM].map(str::to_owned).into(),
            reserved_header: headers::ERASED.to_owned(),
            ..StreamsConfig::default()
        }
    }

    fn storage(&self) -> Storage {
        let Some(path) = self.folder() else { return Storage::Memory };
        let sync = if self.sync == Sync::Relaxed {
            embedded_bus::SyncMode::Relaxed
        } else {
            embedded_bus::SyncMode::Strict
        };
        Storage::Disk(DiskConfig { path: path.to_owned(), sync, max_bytes: self.max_bytes.0 })
    }

    fn validate(&self, problems: &mut Problems) {
        problems.check(self.max_bytes.0 >= 1 << 20, "bus.store.max_bytes", || {
            "is under 1 MiB; give the store room".into()
        });
        problems.check(self.max_memory.0 >= 16 << 20, "bus.store.max_memory", || {
            "is under 16 MiB, which is some 75,000 channels; give the store memory".into()
        });
    }
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            user: String::new(),
            password: Secret::default(),
            token: Secret::default(),
            tls: BusTls::default(),
            listen: String::new(),
            admin: SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 6798)),
            insecure: false,
            max_payload: ByteSize(1 << 20),
            max_pending: ByteSize(64 << 20),
            store: StoreConfig::default(),
        }
    }
}

/// TLS towards the servers of `bus.url`. `tls://` asks for it, and a server may ask for it too. The files are
/// read again at each connection, so that they can be renewed while the process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BusTls {
    /// PEM file of the authorities that may sign the servers' certificates. Empty: those that the system
    /// trusts.
    pub ca: PathBuf,
    /// PEM file of this process's own certificate, where the servers ask for one; together with `key`.
    pub cert: PathBuf,
    /// PEM file of the key of `cert`.
    pub key: PathBuf,
}

impl BusTls {
    fn is_set(&self) -> bool {
        *self != Self::default()
    }

    fn validate(&self, embedded: bool, problems: &mut Problems) {
        problems.check(!(self.is_set() && embedded), "bus.tls", || {
            "is for the servers of bus.url, and there is none; the embedded bus speaks no TLS".into()
        });
        problems.check(is_empty(&self.cert) == is_empty(&self.key), "bus.tls.key", || {
            "cert and key belong together: set both or none".into()
        });
        for (key, file) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            if !is_empty(file)
                && let Err(error) = std::fs::File::open(file)
            {
                problems.add(format!("bus.tls.{key}"), format!("{} can't be read: {error}", file.display()));
            }
        }
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Why the bus can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The embedded bus could not start.
    #[error(transparent)]
    Bind(#[from] embedded_bus::BindError),
    /// The address or the credentials can't be used.
    #[error("bus.url or the credentials can't be used: {0}")]
    Connect(async_nats::ConnectError),
    /// The client did not take a subscription.
    #[error("the bus client refused a subscription: {0}")]
    Subscribe(async_nats::SubscribeError),
}

/// A bus to connect to.
#[derive(Debug, Clone)]
pub struct BusServer {
    /// One or more `nats://` or `tls://` addresses.
    pub urls: Vec<String>,
    credentials: Credentials,
    tls: BusTls,
    /// The statistics of the embedded bus, if it runs in this process.
    stats: Option<Stats>,
    /// Whether this bus has exactly one of each part, for ever.
    pub(super) closed: bool,
}

impl BusConfig {
    /// Returns whether only this process can reach the bus.
    pub fn is_private(&self) -> bool {
        self.url.is_empty() && self.listen.is_empty()
    }

    /// Returns whether this process embeds the bus.
    pub fn is_embedded(&self) -> bool {
        self.url.is_empty()
    }

    /// Returns the address on which this process listens for other parts, if `listen` is an address.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok().filter(|_| self.is_embedded())
    }

    /// Checks what can be checked without a network.
    pub fn validate(&self, problems: &mut Problems) {
        problems.check(self.user.is_empty() == self.password.is_empty(), "bus.password", || {
            "user and password belong together: set both or none".into()
        });
        problems.check(self.user.is_empty() || self.token.is_empty(), "bus.token", || {
            "set either a token or user and password".into()
        });
        problems.check(self.url.is_empty() || self.listen.is_empty(), "bus.listen", || {
            "a process connects to a bus (bus.url) or embeds one (bus.listen), not both".into()
        });
        for url in self.urls() {
            // Never printed: what stands before an @ may be a password.
            if url.contains('@') {
                let text = "credentials belong in bus.user and bus.password, where they are not printed";
                problems.add("bus.url", text.to_owned());
                continue;
            }
            let known = ["nats://", "tls://"].iter().any(|scheme| url.starts_with(scheme));
            problems.check(known, "bus.url", || format!("{url:?} must begin with nats:// or tls://"));
        }
        self.store.validate(problems);
        self.tls.validate(self.is_embedded(), problems);
        if !self.listen.is_empty() {
            match self.listen.parse::<SocketAddr>() {
                Ok(address) => problems.check(
                    address.ip().is_loopback() || self.has_credentials() || self.insecure,
                    "bus.listen",
                    || {
                        "off loopback the bus needs bus.token, or bus.user and bus.password (or --insecure)"
                            .into()
                    },
                ),
                Err(_) => {
                    problems.add("bus.listen", format!("{:?} is no address like 127.0.0.1:4222", self.listen))
                }
            }
        }
        problems.check(
            self.max_payload.0 >= 1024 && self.max_payload.0 <= self.max_pending.0 / 2,
            "bus.max_payload",
            || "must be at least 1KiB and at most half of bus.max_pending".into(),
        );
    }

    fn has_credentials(&self) -> bool {
        !self.token.is_empty() || !self.user.is_empty()
    }

    fn credentials(&self) -> Credentials {
        if !self.token.is_empty() {
            Credentials::Token(self.token.expose().to_owned())
        } else if self.user.is_empty() {
            Credentials::None
        } else {
            Credentials::UserPassword { user: self.user.clone(), password: self.password.expose().to_owned() }
        }
    }

    fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim).filter(|url| !url.is_empty())
    }

    pub(super) fn server(&self) -> BusServer {
        let urls = self.urls().map(str::to_owned).collect();
        BusServer { urls, credentials: self.credentials(), tls: self.tls.clone(), stats: None, closed: false }
    }

    /// Returns the configuration of the embedded bus. Without `listen`, the bus listens on a random loopback
    /// port (async-nats has no transport within a process) behind a random token that never leaves the
    /// process.
    pub(super) fn embedded(&self) -> Option<embedded_bus::Config> {
        if !self.is_embedded() {
            return None;
        }
        let private = self.listen.is_empty();
        let listen = if private { "127.0.0.1:0" } else { self.listen.as_str() };
        Some(embedded_bus::Config {
            listen: listen.parse().ok()?,
            credentials: if private { Credentials::Token(random_token()) } else { self.credentials() },
            max_payload: self.max_payload.as_usize(),
            max_pending_bytes: self.max_pending.as_usize(),
            // Only the parts of this process use a private bus, and they have left before it ends.
            lame_duck: if private { Duration::ZERO } else { LAME_DUCK },
            streams: Some(self.store.streams()),
            ..embedded_bus::Config::default()
        })
    }
}

impl BusServer {
    pub(super) fn embedded(mut address: SocketAddr, credentials: Credentials, stats: Stats) -> Self {
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self {
            urls: vec![format!("nats://{address}")],
            credentials,
            tls: BusTls::default(),
            stats: Some(stats),
            closed: false,
        }
    }

    /// Returns the server for a process that starts one of each part and lets nobody else onto the bus. Parts
    /// then need not wait for others that they can't know yet.
    pub fn for_one_of_each(self) -> Self {
        Self { closed: true, ..self }
    }

    /// Registers the metrics of the embedded bus, if it runs in this process.
    pub fn register(&self, registry: &mut Registry) {
        if let Some(stats) = &self.stats {
            registry.register_collector(Box::new(ServerMetrics(stats.clone())));
        }
    }

    /// Tells in `health` how the data folder of the embedded bus stands, if it is in this process: a full one
    /// is a note, because what is there is still delivered; one that can't be used is a reason against being
    /// ready.
    pub fn watch(&self, health: &Health, drain: &Drain) {
        let Some(stats) = self.stats.clone() else { return };
        let state = (stats, health.clone(), drain.clone());
        drain.supervise_useful("bus-store-readiness", state, |(stats, health, leaving)| {
            Box::pin(async {
                let mut looks = tokio::time::interval(LOOK);
                loop {
                    tokio::select! {
                        _ = looks.tick() => store::tell(stats, health),
                        () = leaving.begun() => return,
                    }
                }
            })
        });
    }

    pub(super) fn options(&self) -> ConnectOptions {
        let mut options = match &self.credentials {
            Credentials::None => ConnectOptions::new(),
            Credentials::Token(token) => ConnectOptions::with_token(token.clone()),
            Credentials::UserPassword { user, password } => {
                ConnectOptions::with_user_and_password(user.clone(), password.clone())
            }
        };
        // One address with tls:// is a wish for all: a password must not go to another in the clear.
        options = options.require_tls(self.urls.iter().any(|url| url.starts_with("tls://")));
        if !is_empty(&self.tls.ca) {
            options = options.add_root_certificates(self.tls.ca.clone());
        }
        if !is_empty(&self.tls.cert) {
            options = options.add_client_certificate(self.tls.cert.clone(), self.tls.key.clone());
        }
        options
    }
}

/// 256 random bits as text.
fn random_token() -> String {
    format!("{:032x}{:032x}", crate::ids::random_bits(), crate::ids::random_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &BusConfig) -> String {
        let mut problems = Problems::default();
        config.validate(&mut problems);
        problems.to_string()
    }

    #[test]
    fn a_bus_is_connected_to_or_embedded() {
        assert_eq!(faults(&BusConfig::default()), "");
        let both =
            BusConfig { url: "nats://a:1".into(), listen: "127.0.0.1:1".into(), ..BusConfig::default() };
        assert!(faults(&both).contains("not both"));
        let config = BusConfig { url: "nats://a:1, tls://b:2".into(), ..BusConfig::default() };
        assert_eq!((faults(&config), config.server().urls.len()), (String::new(), 2));
        for url in ["a:1", "http://a", "nats://user:secret@a:1", "http://user:secret@a", "user:secret@a:1"] {
            let text = faults(&BusConfig { url: url.into(), ..BusConfig::default() });
            assert!(!text.is_empty() && !text.contains("secret"), "{url}: {text}");
        }
        let large = BusConfig { max_payload: ByteSize(40 << 20), ..BusConfig::default() };
        assert!(faults(&large).contains("half of bus.max_pending"));
    }

    #[test]
    fn tls_is_for_servers_elsewhere_and_its_files_must_be_there() {
        let tls =
            BusTls { ca: "/no/such/ca.pem".into(), cert: "/no/such/cert.pem".into(), ..BusTls::default() };
        let config = BusConfig { url: "tls://a:1".into(), tls: tls.clone(), ..BusConfig::default() };
        let text = faults(&config);
        for fault in ["bus.tls.ca", "bus.tls.cert", "belong together"] {
            assert!(text.contains(fault), "{fault} is not in\n{text}");
        }
        let embedded = BusConfig { tls, ..BusConfig::default() };
        assert!(faults(&embedded).contains("the embedded bus speaks no TLS"));
    }

    #[test]
    fn off_loopback_the_embedded_bus_needs_credentials() {
        let open = BusConfig { listen: "0.0.0.0:4222".into(), ..BusConfig::default() };
        assert!(faults(&open).contains("--insecure"));
        assert_eq!(faults(&BusConfig { insecure: true, ..open.clone() }), "");
        assert_eq!(faults(&BusConfig { token: Secret::new("t"), ..open.clone() }), "");
        assert!(faults(&BusConfig { user: "u".into(), ..open }).contains("belong together"));
    }

    #[test]
    fn a_private_bus_has_a_random_token_on_a_loopback_port() {
        let config = BusConfig::default().embedded().unwrap();
        assert!(config.listen.ip().is_loopback() && config.listen.port() == 0);
        let tokens = (random_token(), random_token());
        assert!(tokens.0 != tokens.1 && tokens.0.len() == 64, "{tokens:?}");
    }
}

//! `[publisher_api]`: every key with its default, and what may not be combined.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, ByteSize, LogConfig, Problems, Span};
use shared::faults::Faults;
use shared::history::HistoryConfig;
use shared::login::LoginConfig;
use shared::rules::{RuleConfig, Rules, default_rules};
use shared::tls::TlsConfig;

use crate::keys::{self, KeyConfig};

/// Bytes that a message needs on the bus besides its payload.
const BUS_OVERHEAD: u64 = 1_024;

/// Settings of one publisher-api.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Config {
    /// Where back ends publish. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are when publisher-api is a process of its own.
    pub admin: SocketAddr,
    /// The keys with which back ends may publish; `message-center key new` makes entries
    /// `[[publisher_api.keys]]`. Without keys, every program that reaches the port may publish. See
    /// docs/keys.md.
    pub keys: Vec<KeyConfig>,
    /// A file with further keys (`[[keys]]`), read again when it changes. Empty: no file.
    pub keys_file: PathBuf,
    /// TLS on this port: PEM files of the certificate (with the certificates between it and the authority)
    /// and of the key, read again when they change. Empty: plain text.
    pub tls: TlsConfig,
    /// If there are no keys: lets every program that reaches the port publish, even off loopback
    /// (`--insecure`).
    pub insecure: bool,
    /// Origins of web pages that may publish, e.g. `https://admin.example.com`. No CORS headers are sent.
    pub allowed_origins: Vec<String>,
    /// Host names by which callers may address the port. On loopback, `localhost` is always allowed too;
    /// elsewhere an empty list allows every name.
    pub allowed_hosts: Vec<String>,
    /// The largest message, as it goes out.
    pub max_message: ByteSize,
    /// The largest body of a native call.
    pub max_request: ByteSize,
    /// The most publishes, over all callers, whose counts are not known yet; more are refused (107). With
    /// keys of several names, a name gets another slot only while it has fewer slots than are free.
    pub max_in_flight: usize,
    /// The same for messages of native calls with several targets; more wait, at most for `bus_wait` (429).
    /// With keys of several names, a name gets half of the slots at most.
    pub max_in_flight_bulk: usize,
    /// The same for one WebSocket. Beyond it, the socket is not read until an answer was given.
    pub max_in_flight_per_socket: usize,
    /// The most questions and commands about users at a time; more are refused (429). Keys share these slots
    /// like those of `max_in_flight`.
    pub max_questions: usize,
    /// The most open connections, not counting WebSockets; more wait to be accepted. Once all are taken, the
    /// address with the most connections yields an idle one to each new connection from another address.
    pub max_connections: usize,
    /// The most open connections from one address (of IPv6: one /64). Beyond it, a connection of that address
    /// that has not made a useful request yet is closed; if there is none, the new connection is closed. 0:
    /// no limit.
    pub max_connections_per_address: usize,
    /// The most open WebSockets; more are refused (107). Keys share these slots like those of
    /// `max_in_flight`.
    pub max_sockets: usize,
    /// How often edges announce themselves. Must be the same as `edge.heartbeat`.
    #[serde(with = "Span")]
    pub heartbeat: Duration,
    /// An edge without a heartbeat for this long is not waited for.
    #[serde(with = "Span")]
    pub silent_after: Duration,
    /// An edge without a heartbeat for this long is taken for gone. Until then, counts are incomplete.
    #[serde(with = "Span")]
    pub named_for: Duration,
    /// How long an edge may take to answer an ask: to how many sessions a message went.
    #[serde(with = "Span")]
    pub answer_deadline: Duration,
    /// Publishes within this time share one question to the edges.
    #[serde(with = "Span")]
    pub ask_window: Duration,
    /// How long a publish waits while the bus is away, before the publish is refused (108).
    #[serde(with = "Span")]
    pub bus_wait: Duration,
    /// How long a publish to a channel with history waits for the store, retries included, before the publish
    /// is refused (108). Must outlast a restart of the bus and an election of a leader.
    #[serde(with = "Span")]
    pub store_wait: Duration,
    /// The most bytes of remembered `Idempotency-Key`s. Beyond it, calls with such a key are refused (503).
    pub max_idempotency_keys: ByteSize,
    /// Rules against message loss that a test switches off. Only debug builds accept this key.
    pub faults: Faults,
    /// How long the bus may be away before publisher-api stops being ready.
    #[serde(with = "Span")]
    pub bus_grace: Duration,
    /// How long a new connection may stay silent.
    #[serde(with = "Span")]
    pub first_byte_timeout: Duration,
    /// How long a connection may take to send the head of its (next) request.
    #[serde(with = "Span")]
    pub head_timeout: Duration,
    /// How long the body of a request may take.
    #[serde(with = "Span")]
    pub body_timeout: Duration,
    /// How often a WebSocket is pinged.
    #[serde(with = "Span")]
    pub ping_interval: Duration,
    /// A WebSocket that sends nothing for this long is closed (pongs count).
    #[serde(with = "Span")]
    pub silence: Duration,
    /// A WebSocket or connection that takes no byte of its answers for this long is dropped.
    #[serde(with = "Span")]
    pub write_timeout: Duration,
    /// How long publishes in flight may take to finish when publisher-api leaves.
    #[serde(with = "Span")]
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            listen: loopback(6789),
            admin: loopback(6796),
            keys: Vec::new(),
            keys_file: PathBuf::new(),
            tls: TlsConfig::default(),
            insecure: false,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            max_message: ByteSize(256 << 10),
            max_request: ByteSize(4 << 20),
            max_in_flight: 4_096,
            max_in_flight_bulk: 4_096,
            max_in_flight_per_socket: 256,
            max_questions: 256,
            max_connections: 4_096,
            max_connections_per_address: 2_048,
            max_sockets: 1_024,
            heartbeat: seconds(1),
            silent_after: seconds(3),
            named_for: seconds(60),
            answer_deadline: Duration::from_millis(250),
            ask_window: Duration::from_millis(1),
            bus_wait: seconds(2),
            store_wait: seconds(30),
            max_idempotency_keys: ByteSize(256 << 20),
            faults: Faults::default(),
            bus_grace: seconds(5),
            first_byte_timeout: seconds(10),
            head_timeout: seconds(30),
            body_timeout: seconds(10),
            ping_interval: seconds(25),
            silence: seconds(60),
            write_timeout: seconds(10),
            grace: seconds(10),
        }
    }
}

impl Config {
    /// Adds the problems of these values.
    pub fn validate(&self, problems: &mut Problems) {
        problems.check(self.may_be_open() || self.has_keys(), "publisher_api.listen", || {
            format!(
                "{} is not on loopback, and there are no keys to tell publishers from strangers; make one with \
                 `message-center key new`, listen on 127.0.0.1, or, in a network where everyone may publish, start \
                 with --insecure (publisher_api.insecure = true)",
                self.listen
            )
        });
        keys::config::validate(&self.keys, &self.keys_file, problems);
        self.tls.validate("publisher_api.tls", problems);
        problems.check((1..=64 << 20).contains(&self.max_message.0), "publisher_api.max_message", || {
            "must be from 1 to 64MiB".into()
        });
        problems.check(
            (1 << 10..=64 << 20).contains(&self.max_request.0),
            "publisher_api.max_request",
            || "must be from 1KiB to 64MiB".into(),
        );
        for (key, number) in [
            ("publisher_api.max_in_flight", self.max_in_flight),
            ("publisher_api.max_in_flight_bulk", self.max_in_flight_bulk),
            ("publisher_api.max_in_flight_per_socket", self.max_in_flight_per_socket),
            ("publisher_api.max_questions", self.max_questions),
            ("publisher_api.max_connections", self.max_connections),
            ("publisher_api.max_sockets", self.max_sockets),
        ] {
            problems.check((1..=1 << 20).contains(&number), key, || "must be from 1 to 1048576".into());
        }
        problems.check(
            self.max_connections_per_address <= 1 << 20,
            "publisher_api.max_connections_per_address",
            || "must be at most 1048576; 0 is no limit".into(),
        );
        for origin in &self.allowed_origins {
            let whole =
                origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            problems.check(whole, "publisher_api.allowed_origins", || {
                format!("{origin:?} is no origin; write scheme and host, e.g. \"https://admin.example.com\"")
            });
        }
        for host in &self.allowed_hosts {
            let bare = !host.is_empty() && !host.contains(['/', '@', ' ']);
            problems.check(bare, "publisher_api.allowed_hosts", || {
                format!("{host:?} is no host; write a name, e.g. \"publish.example.com\"")
            });
        }
        problems.check(
            (1 << 20..=1 << 40).contains(&self.max_idempotency_keys.0),
            "publisher_api.max_idempotency_keys",
            || "must be from 1MiB to 1TiB".into(),
        );
        self.faults.validate("publisher_api.faults", problems);
        self.validate_times(problems);
    }

    fn validate_times(&self, problems: &mut Problems) {
        for (key, time) in [
            ("publisher_api.heartbeat", self.heartbeat),
            ("publisher_api.answer_deadline", self.answer_deadline),
            ("publisher_api.bus_wait", self.bus_wait),
            ("publisher_api.store_wait", self.store_wait),
            ("publisher_api.first_byte_timeout", self.first_byte_timeout),
            ("publisher_api.head_timeout", self.head_timeout),
            ("publisher_api.body_timeout", self.body_timeout),
            ("publisher_api.ping_interval", self.ping_interval),
            ("publisher_api.write_timeout", self.write_timeout),
            ("publisher_api.grace", self.grace),
        ] {
            let bounds = Duration::from_millis(1)..=Duration::from_secs(3_600);
            problems.check(bounds.contains(&time), key, || "must be from 1ms to 1h".into());
        }
        problems.check(self.silent_after >= self.heartbeat * 2, "publisher_api.silent_after", || {
            "must be at least two heartbeats, so that a late one is not taken for silence".into()
        });
        problems.check(self.named_for >= self.silent_after, "publisher_api.named_for", || {
            "must be at least publisher_api.silent_after".into()
        });
        problems.check(self.ask_window < self.answer_deadline, "publisher_api.ask_window", || {
            "must be below publisher_api.answer_deadline".into()
        });
        problems.check(self.silence > self.ping_interval, "publisher_api.silence", || {
            "must be above publisher_api.ping_interval, or sockets are closed before they are pinged".into()
        });
    }

    /// Returns whether the port may accept publishes without keys.
    pub(crate) fn may_be_open(&self) -> bool {
        self.listen.ip().is_loopback() || self.insecure
    }

    /// See [`config::Settings::doors_opened`].
    pub fn doors_opened(&self, new: &Self) -> Vec<&'static str> {
        let hosts = !self.allowed_hosts.is_empty() && new.allowed_hosts.is_empty();
        let doors = [
            (self.has_keys() && !new.has_keys(), "publisher_api.keys"),
            // On loopback an empty list lets in fewer.
            (hosts && !self.listen.ip().is_loopback(), "publisher_api.allowed_hosts"),
        ];
        doors.into_iter().filter_map(|(opens, key)| opens.then_some(key)).collect()
    }

    /// Returns whether there are keys. A configured file counts: a file without keys is refused.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || !self.keys_file.as_os_str().is_empty()
    }

    /// Returns the largest request, in bytes: escaping in JSON can make six bytes of one.
    pub(crate) fn request_bytes(&self) -> usize {
        self.max_message.as_usize().saturating_mul(6).saturating_add(4_096)
    }
}

/// The settings of the process `publisher-api`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[publisher_api]`
    pub publisher_api: Config,
    /// `[bus]`
    pub bus: BusConfig,
    /// `[history]`
    pub history: HistoryConfig,
    /// `[login]`
    pub login: LoginConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[[channels]]`
    pub channels: Vec<RuleConfig>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            publisher_api: Config::default(),
            bus: BusConfig::default(),
            history: HistoryConfig::default(),
            login: LoginConfig::default(),
            log: LogConfig::default(),
            channels: default_rules(),
        }
    }
}

impl config::Settings for Settings {
    const SERVICE: &'static str = "message-center-publisher-api";

    fn reloadable() -> &'static [&'static str] {
        const KEYS: &[&str] = &[
            "publisher_api.allowed_hosts",
            "publisher_api.allowed_origins",
            "publisher_api.keys",
            "publisher_api.keys_file",
            "publisher_api.tls",
        ];
        KEYS
    }

    fn doors_opened(&self, new: &Self) -> Vec<&'static str> {
        self.publisher_api.doors_opened(&new.publisher_api)
    }

    fn validate(&self, problems: &mut Problems) {
        self.publisher_api.validate(problems);
        problems.check_ports([
            ("publisher_api.listen", Some(self.publisher_api.listen)),
            ("publisher_api.admin", Some(self.publisher_api.admin)),
            ("bus.listen", self.bus.listen_address()),
        ]);
        self.bus.validate(problems);
        self.history.validate(problems);
        self.login.validate(problems);
        shared::telemetry::validate(&self.log, problems);
        if let Err(faults) = Rules::compile(&self.channels) {
            problems.extend(faults);
        }
        let needed = self.publisher_api.max_message.0.saturating_add(BUS_OVERHEAD);
        problems.check(
            !self.bus.is_embedded() || needed <= self.bus.max_payload.0,
            "publisher_api.max_message",
            || format!("must be at least 1KiB below bus.max_payload, which is {}", self.bus.max_payload),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Sources, load, print};

    fn faults(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let mut problems = Problems::default();
        config.validate(&mut problems);
        problems.to_string()
    }

    #[test]
    fn the_defaults_are_good_and_can_be_printed_and_read() {
        assert_eq!(faults(|_| {}), "");
        let directory = std::env::temp_dir().join(format!("mc-publisher-{}.toml", std::process::id()));
        std::fs::write(&directory, print(&Settings::default())).unwrap();
        let sources = Sources { file: Some(directory.clone()), ..Sources::default() };
        let read: Settings = load(&sources).unwrap();
        std::fs::remove_file(directory).unwrap();
        assert_eq!(read, Settings::default());
    }

    #[test]
    fn off_loopback_is_refused_unless_insecure() {
        let everywhere = "0.0.0.0:6789".parse().unwrap();
        assert!(faults(|config| config.listen = everywhere).contains("--insecure"));
        assert_eq!(faults(|config| (config.listen, config.insecure) = (everywhere, true)), "");
        let key = KeyConfig {
            name: "shop".into(),
            hash: keys::SecretHash::of("secret").to_string(),
            ..KeyConfig::default()
        };
        assert_eq!(faults(|config| (config.listen, config.keys) = (everywhere, vec![key])), "");
        let nowhere =
            faults(|config| (config.listen, config.keys_file) = (everywhere, "no/such/file".into()));
        assert!(nowhere.contains("no/such/file: can't be read"), "{nowhere}");
        assert_eq!(faults(|config| config.listen = "[::1]:0".parse().unwrap()), "");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = faults(|config| {
            config.max_message = ByteSize(0);
            config.max_in_flight = 0;
            config.heartbeat = Duration::ZERO;
            config.silent_after = Duration::ZERO;
            config.heartbeat = Duration::from_secs(2);
            config.named_for = Duration::ZERO;
            config.silent_after = Duration::from_secs(3);
            config.ask_window = Duration::from_secs(1);
            config.silence = Duration::from_secs(25);
            config.answer_deadline = Duration::ZERO;
            config.allowed_origins = vec!["admin.example".into()];
            config.allowed_hosts = vec!["http://admin.example".into()];
        });
        for key in [
            "max_message",
            "max_in_flight:",
            "silent_after",
            "named_for",
            "ask_window",
            "silence",
            "answer_deadline",
            "allowed_origins",
            "allowed_hosts",
        ] {
            assert!(faults.contains(&format!("publisher_api.{key}")), "{key} is not in\n{faults}");
        }
    }

    #[test]
    fn a_message_must_fit_the_embedded_bus() {
        let sources = Sources {
            flags: vec![("publisher_api.max_message".into(), "2MiB".into())],
            ..Sources::default()
        };
        let problems = load::<Settings>(&sources).unwrap_err().to_string();
        assert!(problems.contains("below bus.max_payload, which is 1MiB"), "{problems}");
    }
}

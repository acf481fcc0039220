//! The configuration of `message-center run`: every section.

use std::net::{Ipv4Addr, SocketAddr};

use auth_adapter::Mode;
use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, LogConfig, Problems};
use shared::history::{Full, HistoryConfig};
use shared::login::LoginConfig;
use shared::rules::{RuleConfig, default_rules};

/// All sections of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Settings {
    /// Holds the sockets of devices.
    pub edge: edge::Config,
    /// The API through which back ends publish.
    pub publisher_api: publisher_api::Config,
    /// Checks login tokens by asking your business system. See docs/login.md.
    pub auth_adapter: auth_adapter::Config,
    /// The bus between the parts: this process connects to one, or embeds one.
    pub bus: BusConfig,
    /// How much history is stored. Must be the same for edges and publishers.
    pub history: HistoryConfig,
    /// Logins and their revoking, the same for all parts.
    pub login: LoginConfig,
    /// The demo business system, which runs when `auth_adapter.url` is empty and `auth_adapter.mode` is `url`.
    pub demo: DemoConfig,
    /// The log, on standard error.
    pub log: LogConfig,
    /// The channels that clients may name, and the channels that these names stand for. Must be the same for
    /// edges and publishers. Rules are tried in order; the first match wins. `{uid}` is the logged-in user;
    /// every other placeholder must stand in the name too. A list here replaces the default rules, which are
    /// `@user`, `@group/{g}` and `@all`; without a rule for `@user` each part warns when it starts.
    pub channels: Vec<RuleConfig>,
}

/// The default folder in which messages are stored.
pub(crate) const DATA: &str = "message-center-data";

/// Gives the bus the default folder if it has none. `sync = "memory"` alone, not an empty path, turns the
/// disk off.
pub(crate) fn on_disk(mut bus: BusConfig) -> BusConfig {
    if bus.store.path.as_os_str().is_empty() {
        bus.store.path = DATA.into();
    }
    bus
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            edge: edge::Config::default(),
            publisher_api: publisher_api::Config::default(),
            auth_adapter: auth_adapter::Config::default(),
            bus: on_disk(BusConfig::default()),
            history: HistoryConfig::default(),
            login: LoginConfig::default(),
            demo: DemoConfig::default(),
            log: LogConfig::default(),
            channels: default_rules(),
        }
    }
}

/// The demo business system, which runs when `auth_adapter.url` is empty and `auth_adapter.mode` is `url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DemoConfig {
    /// Where the demo checks tokens. If the port is taken, the demo takes a free one. Must be on loopback.
    pub listen: SocketAddr,
    /// Lets devices and back ends reach a demo off loopback, for a container whose ports are published on the
    /// loopback of its host: every client that reaches `edge.listen` can log in as any user. If no keys are
    /// configured, each start makes a key for publishing and prints it.
    pub exposed: bool,
}

impl Default for DemoConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)), exposed: false }
    }
}

impl DemoConfig {
    /// Returns the URL for token checks of a demo that listens on `address`.
    pub(crate) fn url(self, address: SocketAddr) -> String {
        format!("http://{address}{}", crate::demo::PATH)
    }
}

impl Settings {
    /// Returns whether no business system is configured, so that the demo runs.
    pub fn is_demo(&self) -> bool {
        self.auth_adapter.mode == Mode::Url && self.auth_adapter.url.is_empty()
    }

    /// Returns whether a key must be made for this run: for an exposed demo without configured keys.
    pub(crate) fn needs_demo_key(&self) -> bool {
        let Self { demo, publisher_api, .. } = self;
        self.is_demo()
            && demo.exposed
            && !publisher_api.insecure
            && !publisher_api.has_keys()
            && !publisher_api.listen.ip().is_loopback()
    }

    /// Keeps demo mode on loopback, since it lets everybody in. `demo.exposed` excepts the two ports for
    /// devices and back ends.
    fn validate_demo(&self, problems: &mut Problems) {
        let exposed =
            [("edge.listen", self.edge.listen), ("publisher_api.listen", self.publisher_api.listen)];
        let always_inside = [("edge.admin", self.edge.admin), ("demo.listen", self.demo.listen)];
        let bus = self.bus.listen.parse::<SocketAddr>().ok().map(|address| ("bus.listen", address));
        let exposed = exposed.into_iter().filter(|_| !self.demo.exposed);
        for (key, address) in exposed.chain(always_inside).chain(bus) {
            problems.check(address.ip().is_loopback(), key, || {
                format!(
                    "{address} is not on loopback, and demo mode lets everybody log in; \
                     give your own login with --auth-url (auth_adapter.url)"
                )
            });
        }
    }
}

/// Refuses two listeners of this process at the same address.
fn validate_ports(settings: &Settings, problems: &mut Problems) {
    let Settings { edge, publisher_api, bus, .. } = settings;
    let listens = [
        ("edge.listen", Some(edge.listen)),
        ("publisher_api.listen", Some(publisher_api.listen)),
        ("edge.admin", Some(edge.admin)),
        ("bus.listen", bus.listen_address()),
    ];
    problems.check_ports(listens);
}

impl config::Settings for Settings {
    fn complete(&mut self) {
        self.bus = on_disk(std::mem::take(&mut self.bus));
    }

    fn reloadable() -> &'static [&'static str] {
        // The parts declare the same keys; a test compares the lists.
        &[
            "edge.origins",
            "edge.tls",
            "publisher_api.allowed_hosts",
            "publisher_api.allowed_origins",
            "publisher_api.keys",
            "publisher_api.keys_file",
            "publisher_api.tls",
        ]
    }

    fn doors_opened(&self, new: &Self) -> Vec<&'static str> {
        let mut doors = self.edge.doors_opened(&new.edge);
        doors.extend(self.publisher_api.doors_opened(&new.publisher_api));
        doors
    }

    /// Asks each part, so that a value that a part refuses alone is refused here too.
    fn validate(&self, problems: &mut Problems) {
        let Self { edge, publisher_api, auth_adapter, bus, history, login, demo, log, channels } =
            self.clone();
        validate_ports(self, problems);
        let fits = !bus.is_embedded()
            || bus.store.folder().is_none()
            || history.max_bytes.0 <= bus.store.max_bytes.0;
        problems.check(fits, "history.max_bytes", || {
            "is above bus.store.max_bytes, so the folder would be full first; lower it, or raise that, which had best be \
             a fifth larger"
                .into()
        });
        let drops = bus.is_embedded() && bus.store.folder().is_some() && history.full == Full::DropOldest;
        problems.check(!drops || bus.store.max_bytes.0 > history.max_bytes.0, "bus.store.max_bytes", || {
            "must be above history.max_bytes, by a fifth at best: otherwise the folder is full before the oldest \
             messages are dropped, and publishes are refused"
                .into()
        });
        let in_memory = bus.is_embedded() && bus.store.folder().is_none() && history.full == Full::DropOldest;
        problems.check(
            !in_memory || bus.store.max_memory.0 > history.max_bytes.0,
            "bus.store.max_memory",
            || {
                "must be above history.max_bytes where messages are kept in memory, twice that for small ones: otherwise \
                 it is full before the oldest messages are dropped, and publishes are refused"
                    .into()
            },
        );
        problems.check(!bus.is_embedded() || history.replicas <= 1, "history.replicas", || {
            "must be 1: the embedded bus keeps one copy; for more use a cluster of nats-servers (bus.url)"
                .into()
        });
        let (mut auth_adapter, mut publisher_api) = (auth_adapter, publisher_api);
        // The demo's key is made at the start, not here: a reload must not make another.
        publisher_api.insecure |= self.needs_demo_key();
        if self.is_demo() {
            self.validate_demo(problems);
            auth_adapter.url = demo.url(demo.listen);
        }
        edge::Settings {
            edge,
            bus: bus.clone(),
            history: history.clone(),
            login,
            log: log.clone(),
            channels: channels.clone(),
        }
        .validate(problems);
        publisher_api::Settings {
            publisher_api,
            bus: bus.clone(),
            history,
            login,
            log: log.clone(),
            channels,
        }
        .validate(problems);
        auth_adapter::Settings { auth_adapter, login, bus, log }.validate(problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Sources, load};

    fn with(flags: &[(&str, &str)]) -> Result<Settings, Problems> {
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load(&Sources { flags, ..Sources::default() })
    }

    #[test]
    fn demo_mode_stays_on_loopback() {
        assert!(with(&[]).unwrap().is_demo());
        let problems = with(&[("edge.listen", "0.0.0.0:6790"), ("demo.listen", "10.0.0.1:80")]);
        let problems = problems.unwrap_err().to_string();
        assert!(problems.contains("edge.listen") && problems.contains("demo.listen"), "{problems}");
        assert!(problems.contains("--auth-url"), "{problems}");
        let own = [("edge.listen", "0.0.0.0:6790"), ("auth_adapter.url", "http://127.0.0.1:8000/x")];
        assert!(!with(&own).unwrap().is_demo());
    }

    #[test]
    fn a_login_by_jwt_is_no_demo_and_needs_no_url() {
        let secret = ("auth_adapter.jwt.secret", "0123456789abcdef0123456789abcdef");
        let own = [("edge.listen", "0.0.0.0:6790"), ("auth_adapter.mode", "jwt"), secret];
        assert!(!with(&own).unwrap().is_demo());
        let url = ("auth_adapter.url", "http://127.0.0.1:8000/x");
        let both = with(&[("auth_adapter.mode", "jwt-then-url"), secret, url]);
        assert!(!both.unwrap().is_demo());
        for (flags, key) in [
            (&[("auth_adapter.mode", "jwt")][..], "auth_adapter.jwt"),
            (&[("auth_adapter.mode", "jwt"), secret, url], "auth_adapter.url"),
            (&[("auth_adapter.mode", "jwt-then-url"), secret], "auth_adapter.url"),
            (&[("login.max_token_age", "1s")], "login.max_token_age"),
        ] {
            let problems = with(flags).unwrap_err().to_string();
            assert_eq!(problems.matches(key).count(), 1, "{key}: {problems}");
            assert!(!problems.contains(secret.1), "{problems}");
        }
    }

    #[test]
    fn an_exposed_demo_is_reached_by_devices_and_back_ends_alone_and_with_a_key() {
        let open = [
            ("edge.listen", "0.0.0.0:6790"),
            ("publisher_api.listen", "0.0.0.0:6789"),
            ("demo.exposed", "true"),
        ];
        let settings = with(&open).unwrap();
        assert!(settings.needs_demo_key() && !settings.publisher_api.insecure);
        for inside in ["edge.admin", "demo.listen", "bus.listen"] {
            let flags = [&open[..], &[(inside, "0.0.0.0:4000"), ("bus.token", "0123456789abcdef")]].concat();
            let problems = with(&flags).unwrap_err().to_string();
            assert!(problems.contains(inside), "{inside}: {problems}");
        }
        for (key, value) in [
            ("publisher_api.insecure", "true"),
            ("publisher_api.listen", "127.0.0.1:6789"),
            ("publisher_api.keys_file", "keys.toml"),
            ("demo.exposed", "false"),
            ("auth_adapter.url", "http://127.0.0.1:8000/x"),
        ] {
            let flags = [&open[..], &[(key, value)]].concat();
            assert!(with(&flags).is_err() || !with(&flags).unwrap().needs_demo_key(), "{key}");
        }
        let own = [&open[..], &[("auth_adapter.url", "http://127.0.0.1:8000/x")]].concat();
        assert!(
            with(&own).unwrap_err().to_string().contains("publisher_api.listen"),
            "only a demo makes a key"
        );
    }

    #[test]
    fn messages_are_stored_on_disk_unless_memory_is_configured() {
        let folder = |flags: &[(&str, &str)]| {
            let bus = with(flags).unwrap().bus;
            bus.store.folder().map(std::path::Path::to_owned)
        };
        for flags in [&[][..], &[("bus.listen", "127.0.0.1:4222")], &[("bus.store.sync", "relaxed")]] {
            assert_eq!(folder(flags), Some(DATA.into()), "{flags:?}");
        }
        assert_eq!(folder(&[("bus.store.path", "elsewhere")]), Some("elsewhere".into()));
        assert_eq!(folder(&[("bus.store.sync", "memory")]), None);
    }

    #[test]
    fn a_folder_that_is_full_before_the_oldest_messages_are_dropped_is_refused() {
        let small = [("bus.store.max_bytes", "1GiB"), ("history.full", "drop-oldest")];
        let problems = with(&small).unwrap_err().to_string();
        assert!(
            problems.contains("bus.store.max_bytes") && problems.contains("history.max_bytes"),
            "{problems}"
        );
        assert!(with(&[small[0], small[1], ("history.max_bytes", "800MiB")]).is_ok());
        let in_memory = [small[1], ("bus.store.sync", "memory")];
        let problems = with(&in_memory).unwrap_err().to_string();
        assert!(problems.contains("bus.store.max_memory"), "{problems}");
        for (key, value) in [("history.max_bytes", "1GiB"), ("bus.store.max_memory", "16GiB")] {
            assert!(with(&[in_memory[0], in_memory[1], (key, value)]).is_ok(), "{key}");
        }
        assert!(with(&small[..1]).unwrap_err().to_string().starts_with("history.max_bytes"), "both refuse");
        assert!(with(&[small[0], ("history.max_bytes", "1GiB")]).is_ok());
    }

    #[test]
    fn replicas_that_the_embedded_bus_does_not_have_are_refused() {
        let problems = with(&[("history.replicas", "3")]).unwrap_err().to_string();
        assert!(problems.contains("history.replicas") && problems.contains("bus.url"), "{problems}");
        assert!(with(&[("history.replicas", "3"), ("bus.url", "nats://127.0.0.1:4222")]).is_ok());
    }

    #[test]
    fn values_that_a_part_refuses_alone_are_refused_here_and_named_once() {
        let problems = with(&[
            ("publisher_api.max_message", "2MiB"),
            ("auth_adapter.max_token", "0"),
            ("bus.user", "only"),
            ("log.filter", "==="),
            ("channels", "[{ name = '{x', channel = 'x' }]"),
        ]);
        let problems = problems.unwrap_err().to_string();
        for key in [
            "publisher_api.max_message",
            "auth_adapter.max_token",
            "bus.password",
            "log.filter",
            "channels.0.name",
        ] {
            assert_eq!(problems.matches(key).count(), 1, "{key} in\n{problems}");
        }
        assert!(!problems.contains("auth_adapter.url"), "demo mode needs none:\n{problems}");
    }

    #[test]
    fn the_reloadable_keys_are_those_of_the_parts() {
        use config::Settings as _;
        let mut parts = [edge::Settings::reloadable(), publisher_api::Settings::reloadable()].concat();
        parts.sort_unstable();
        assert_eq!(Settings::reloadable(), parts);
    }
}

//! `[edge]`: every key with its default, and the combinations that are refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, ByteSize, LogConfig, Problems, Span};
use shared::faults::Faults;
use shared::history::HistoryConfig;
use shared::login::LoginConfig;
use shared::rules::{RuleConfig, Rules, default_rules};
use shared::tls::TlsConfig;

use crate::admission::{ForwardedHeader, GateLimits, Networks};
use crate::balance::BalanceConfig;
use crate::hub::{SessionLimits, SessionPolicy};
use crate::session::state::Limits;
use crate::transport::FrameLimits;

/// Settings of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Config {
    /// Where devices connect (`--listen`). Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are; those of all parts, if they run in one process.
    pub admin: SocketAddr,
    /// Certificate and key of this port. Without them the port speaks plain text.
    pub tls: TlsConfig,
    /// Path of the WebSocket.
    pub path: String,
    /// Origins of web pages that may connect, e.g. `https://app.example.com`. Empty: all, since a login is a
    /// token inside the socket and there is no cookie to abuse.
    pub origins: Vec<String>,
    /// The largest frame from a client, but for the token of a login.
    pub max_frame: ByteSize,
    /// The largest frame of a login with its token. Where it is below `max_frame`, that holds.
    pub max_auth_frame: ByteSize,
    /// Memory for what waits for one session; beyond it the session is closed as too slow (4503).
    pub outbox: ByteSize,
    /// A client that takes no byte for this long although something waits is closed as too slow (4503).
    #[serde(with = "Span")]
    pub stalled_after: Duration,
    /// Sessions on this edge; more are refused with 503. 0: no limit.
    pub max_sessions: usize,
    /// Percent of `max_sessions` from which `/readyz` tells load balancers to send new clients elsewhere. The
    /// edge is ready again once a tenth of these sessions has left.
    pub watermark: u8,
    /// New connections a second. A second's worth may come at once, more wait up to 2 s for their turn, and
    /// the rest is refused with 503. 0: no limit. The default is what 256 token checks at a time can follow,
    /// at an eighth of a second each; with it, 100,000 devices are back within a minute.
    pub connections_per_second: u32,
    /// New connections a second from one address (of IPv6: one /64); more are refused with 429. 0: no limit.
    pub connections_per_second_per_address: u32,
    /// How many connections of one address may come at once: the devices of an office or a mobile network
    /// behind one address come back together.
    pub connection_burst_per_address: u32,
    /// Sessions from one address (of IPv6: one /64); more are refused with 429. 0: no limit, since thousands
    /// of users may share one address.
    pub sessions_per_address: usize,
    /// Addresses and networks to which no limit per address applies. The default is this machine.
    pub exempt_addresses: Vec<String>,
    /// Proxies and load balancers, by address or network, e.g. `10.0.0.0/8`, that name the client's real
    /// address. No other sender is believed.
    pub trusted_proxies: Vec<String>,
    /// The header in which trusted proxies name the client: `x-forwarded-for` or `forwarded` (RFC 7239). Only
    /// this header is read, since proxies pass on the other one as the client wrote it.
    pub forwarded_header: ForwardedHeader,
    /// Sessions of one user on this edge.
    pub sessions_per_user: usize,
    /// The policy beyond `sessions_per_user`: `evict-oldest` (4409) or `refuse-newest` (4429).
    pub session_policy: SessionPolicy,
    /// Names that one session may have subscribed.
    pub max_subscriptions: usize,
    /// Ops that one session may send a second; as many may come at once.
    pub ops_per_second: u32,
    /// Ops with which a connection may begin, all at once: a login and its subscriptions. `ops_per_second`
    /// holds after them.
    pub first_ops: u32,
    /// Handshakes at a time. Beyond it, a new connection takes the slot of the address with the most
    /// handshakes, or is refused with 503.
    pub max_handshakes: usize,
    /// Handshakes at a time from one address (of IPv6: one /64). Beyond it, a connection of that address that
    /// has sent nothing yet is ended; if there is none, the new connection is refused with 429. 0: no limit.
    pub max_handshakes_per_address: usize,
    /// How long a new connection may send nothing. Devices send at once; a lost packet costs them up to 3 s.
    #[serde(with = "Span")]
    pub first_byte_timeout: Duration,
    /// How long a handshake may take.
    #[serde(with = "Span")]
    pub handshake_timeout: Duration,
    /// How long a connection may go without a login or a subscription.
    #[serde(with = "Span")]
    pub login_timeout: Duration,
    /// How long a session may go on after its login expired.
    #[serde(with = "Span")]
    pub reauth_timeout: Duration,
    /// Token checks at a time; more wait.
    pub max_token_checks: usize,
    /// How long a token check may take, waiting included.
    #[serde(with = "Span")]
    pub auth_deadline: Duration,
    /// How long a subscription waits for a bus that is away.
    #[serde(with = "Span")]
    pub subscribe_deadline: Duration,
    /// How often a session is pinged, give or take a tenth.
    #[serde(with = "Span")]
    pub ping_interval: Duration,
    /// A session is closed when nothing came from its client for this long (pongs count).
    #[serde(with = "Span")]
    pub silence: Duration,
    /// How often this edge sends a heartbeat; the same as `publisher_api.heartbeat`.
    #[serde(with = "Span")]
    pub heartbeat: Duration,
    /// Messages whose counts are remembered for the publishers' questions.
    pub remembered_messages: usize,
    /// How long the bus may be away before this edge is not ready.
    #[serde(with = "Span")]
    pub bus_grace: Duration,
    /// Replays at a time, each of which gives one session stored messages; each partition has an even share.
    pub max_replays: usize,
    /// How often the channels of this edge are compared with the streams, to find messages whose live copy
    /// was lost. So such a message is late by at most about this time.
    #[serde(with = "Span")]
    pub sweep_interval: Duration,
    /// Rules against loss that are switched off. For tests of a debug build; a released program refuses to
    /// start with any.
    #[serde(skip_serializing_if = "Faults::is_empty")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub faults: Faults,
    /// How sessions are spread over the edges.
    pub balance: BalanceConfig,
    /// The time over which the sessions are sent away when this edge leaves.
    #[serde(with = "Span")]
    pub drain_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            listen: loopback(6790),
            admin: loopback(6795),
            tls: TlsConfig::default(),
            path: "/message-center".into(),
            origins: Vec::new(),
            max_frame: ByteSize(4 << 10),
            max_auth_frame: ByteSize(20 << 10),
            outbox: ByteSize(256 << 10),
            stalled_after: seconds(10),
            max_sessions: 0,
            watermark: 90,
            connections_per_second: 2_000,
            connections_per_second_per_address: 100,
            connection_burst_per_address: 1_000,
            sessions_per_address: 0,
            exempt_addresses: vec!["127.0.0.0/8".into(), "::1/128".into()],
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            sessions_per_user: 32,
            session_policy: SessionPolicy::default(),
            max_subscriptions: 80,
            ops_per_second: 20,
            first_ops: 100,
            max_handshakes: 1_000,
            max_handshakes_per_address: 500,
            first_byte_timeout: seconds(4),
            handshake_timeout: seconds(10),
            login_timeout: seconds(10),
            reauth_timeout: seconds(10),
            max_token_checks: 1_024,
            auth_deadline: seconds(5),
            subscribe_deadline: seconds(5),
            ping_interval: seconds(25),
            silence: seconds(60),
            heartbeat: seconds(1),
            remembered_messages: 65_536,
            bus_grace: seconds(5),
            max_replays: 256,
            sweep_interval: seconds(10),
            faults: Faults::default(),
            balance: BalanceConfig::default(),
            drain_window: seconds(20),
        }
    }
}

impl Config {
    /// See [`config::Settings::doors_opened`].
    pub fn doors_opened(&self, new: &Self) -> Vec<&'static str> {
        let opens = !self.origins.is_empty() && new.origins.is_empty();
        opens.then_some("edge.origins").into_iter().collect()
    }

    /// Adds the problems of these values.
    pub fn validate(&self, problems: &mut Problems) {
        let plain = self.path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        problems.check(self.path.starts_with('/') && plain, "edge.path", || {
            format!("{:?} is no path: write e.g. \"/message-center\"", self.path)
        });
        for origin in &self.origins {
            let whole =
                origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            problems.check(whole, "edge.origins", || {
                format!("{origin:?} is no origin: write scheme and host, e.g. \"https://app.example.com\"")
            });
        }
        for (key, size) in [("edge.max_frame", self.max_frame), ("edge.max_auth_frame", self.max_auth_frame)]
        {
            problems.check((128..=16 << 20).contains(&size.0), key, || "must be from 128B to 16MiB".into());
        }
        problems.check((1 << 10..=1 << 30).contains(&self.outbox.0), "edge.outbox", || {
            "must be from 1KiB to 1GiB".into()
        });
        for (key, number) in [
            ("edge.sessions_per_user", self.sessions_per_user),
            ("edge.max_subscriptions", self.max_subscriptions),
            ("edge.ops_per_second", self.ops_per_second as usize),
            ("edge.max_handshakes", self.max_handshakes),
            ("edge.max_token_checks", self.max_token_checks),
            ("edge.remembered_messages", self.remembered_messages),
            ("edge.max_replays", self.max_replays),
        ] {
            problems.check((1..=1 << 20).contains(&number), key, || "must be from 1 to 1048576".into());
        }
        problems.check(self.first_ops <= 1 << 20, "edge.first_ops", || "must be at most 1048576".into());
        self.faults.validate("edge.faults", problems);
        problems.check(self.sweep_interval >= Duration::from_millis(100), "edge.sweep_interval", || {
            "must be 100ms or more".into()
        });
        self.tls.validate("edge.tls", problems);
        self.balance.validate(problems);
        self.validate_admission(problems);
        self.validate_times(problems);
    }

    fn validate_admission(&self, problems: &mut Problems) {
        problems.check((1..=100).contains(&self.watermark), "edge.watermark", || {
            "must be from 1 to 100 (percent of edge.max_sessions)".into()
        });
        let most = 1_000_000;
        for (key, number) in [
            ("edge.connections_per_second", self.connections_per_second),
            ("edge.connections_per_second_per_address", self.connections_per_second_per_address),
        ] {
            problems.check(number <= most, key, || format!("must be at most {most}; 0 is no limit"));
        }
        problems.check(self.max_handshakes_per_address <= 1 << 20, "edge.max_handshakes_per_address", || {
            "must be at most 1048576; 0 is no limit".into()
        });
        problems.check(
            (1..=most).contains(&self.connection_burst_per_address),
            "edge.connection_burst_per_address",
            || format!("must be from 1 to {most}"),
        );
        for (key, networks) in [
            ("edge.exempt_addresses", &self.exempt_addresses),
            ("edge.trusted_proxies", &self.trusted_proxies),
        ] {
            if let Err(error) = Networks::parse(networks) {
                problems.add(key, error);
            }
        }
    }

    fn validate_times(&self, problems: &mut Problems) {
        for (key, time) in [
            ("edge.stalled_after", self.stalled_after),
            ("edge.first_byte_timeout", self.first_byte_timeout),
            ("edge.handshake_timeout", self.handshake_timeout),
            ("edge.login_timeout", self.login_timeout),
            ("edge.reauth_timeout", self.reauth_timeout),
            ("edge.auth_deadline", self.auth_deadline),
            ("edge.subscribe_deadline", self.subscribe_deadline),
            ("edge.ping_interval", self.ping_interval),
            ("edge.silence", self.silence),
            ("edge.heartbeat", self.heartbeat),
        ] {
            let bounds = Duration::from_millis(1)..=Duration::from_secs(86_400);
            problems.check(bounds.contains(&time), key, || "must be from 1ms to 1day".into());
        }
        for (key, time) in [("edge.bus_grace", self.bus_grace), ("edge.drain_window", self.drain_window)] {
            let bounds = Duration::ZERO..=Duration::from_secs(3_600);
            problems.check(bounds.contains(&time), key, || "must be at most 1h".into());
        }
        // A ping comes up to a tenth late, and its pong needs a moment.
        problems.check(self.silence > self.ping_interval.saturating_mul(5) / 4, "edge.silence", || {
            "must be well above edge.ping_interval, or sessions are closed before they could answer a ping".into()
        });
    }

    pub(crate) fn frame_limits(&self) -> FrameLimits {
        let bytes = |size: ByteSize| u32::try_from(size.0).unwrap_or(u32::MAX);
        FrameLimits { op: bytes(self.max_frame), auth: bytes(self.max_auth_frame) }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            frame: self.frame_limits().largest(),
            subscriptions: self.max_subscriptions,
            ops_per_second: self.ops_per_second,
            first_ops: self.first_ops,
            login_timeout: self.login_timeout,
            reauth_timeout: self.reauth_timeout,
            silence: self.silence,
            ping_interval: self.ping_interval,
        }
    }

    pub(crate) fn session_limits(&self) -> SessionLimits {
        let (sessions, per_user) = (self.max_sessions, self.sessions_per_user);
        let watermark = sessions.saturating_mul(usize::from(self.watermark)).div_ceil(100);
        SessionLimits { sessions, watermark, per_user, policy: self.session_policy }
    }

    /// Returns the limits of the gate.
    ///
    /// # Errors
    /// A text that is no network; [`Config::validate`] finds it first.
    pub(crate) fn gate_limits(&self) -> Result<GateLimits, String> {
        Ok(GateLimits {
            per_second: self.connections_per_second,
            per_address: self.connections_per_second_per_address,
            burst_per_address: self.connection_burst_per_address,
            sessions_per_address: self.sessions_per_address,
            trusted: Networks::parse(&self.trusted_proxies)?,
            exempt: Networks::parse(&self.exempt_addresses)?,
            header: self.forwarded_header,
            handshake: self.handshake_timeout,
        })
    }
}

/// The configuration of the process `edge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[edge]`
    pub edge: Config,
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
            edge: Config::default(),
            bus: BusConfig::default(),
            history: HistoryConfig::default(),
            login: LoginConfig::default(),
            log: LogConfig::default(),
            channels: default_rules(),
        }
    }
}

impl config::Settings for Settings {
    const SERVICE: &'static str = "message-center-edge";

    fn reloadable() -> &'static [&'static str] {
        &["edge.origins", "edge.tls"]
    }

    fn doors_opened(&self, new: &Self) -> Vec<&'static str> {
        self.edge.doors_opened(&new.edge)
    }

    fn validate(&self, problems: &mut Problems) {
        self.edge.validate(problems);
        problems.check_ports([
            ("edge.listen", Some(self.edge.listen)),
            ("edge.admin", Some(self.edge.admin)),
            ("bus.listen", self.bus.listen_address()),
        ]);
        self.bus.validate(problems);
        self.history.validate(problems);
        self.login.validate(problems);
        shared::telemetry::validate(&self.log, problems);
        if let Err(faults) = Rules::compile(&self.channels) {
            problems.extend(faults);
        }
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
    fn the_defaults_are_good_and_come_back_from_what_is_printed() {
        assert_eq!(faults(|_| {}), "");
        let printed = print(&Settings::default());
        let path = std::env::temp_dir().join(format!("mc-edge-{}.toml", std::process::id()));
        std::fs::write(&path, printed).unwrap();
        let read: Settings = load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(read, Settings::default());
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let faults = faults(|config| {
            config.path = "message center".into();
            config.origins = vec!["app.example.com".into()];
            config.max_frame = ByteSize(1);
            config.max_auth_frame = ByteSize(1 << 30);
            config.outbox = ByteSize(1);
            config.ops_per_second = 0;
            config.first_ops = u32::MAX;
            config.max_handshakes = 0;
            config.max_handshakes_per_address = usize::MAX;
            config.first_byte_timeout = Duration::ZERO;
            config.login_timeout = Duration::ZERO;
            config.silence = config.ping_interval;
            config.drain_window = Duration::from_secs(86_400);
            config.watermark = 0;
            config.connections_per_second = u32::MAX;
            config.connections_per_second_per_address = u32::MAX;
            config.connection_burst_per_address = 0;
            config.exempt_addresses = vec!["localhost".into()];
            config.trusted_proxies = vec!["10.0.0.0/33".into()];
        });
        for key in [
            "path",
            "origins",
            "max_frame",
            "max_auth_frame",
            "outbox",
            "ops_per_second",
            "first_ops",
            "max_handshakes",
            "max_handshakes_per_address",
            "first_byte_timeout",
            "login_timeout",
            "silence",
            "drain_window",
            "watermark",
            "connections_per_second",
            "connections_per_second_per_address",
            "connection_burst_per_address",
            "exempt_addresses",
            "trusted_proxies",
        ] {
            assert!(faults.contains(&format!("edge.{key}: ")), "{key} is not in\n{faults}");
        }
    }
}

//! `[auth_adapter]`: every key with its default, and what may not be combined.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, ByteSize, LogConfig, Problems, Secret, Span};
use shared::login::LoginConfig;

use crate::breaker::Policy;
use crate::jwt::{JwtConfig, Mode};
use crate::mapping::config::{AnswerConfig, Preset, RequestConfig};
use crate::mapping::{Mapping, is_hop_by_hop};

/// Settings of one auth-adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Config {
    /// Where the user of a token is learnt: `url` (from your business system at `url`), `jwt` (from the token
    /// itself, checked by `[auth_adapter.jwt]`; your business system is not asked), or `jwt-then-url` (all that
    /// has not the form of a JWT goes to `url`). See docs/jwt.md.
    pub mode: Mode,
    /// How JWTs are checked.
    pub jwt: JwtConfig,
    /// Where your business system checks tokens, e.g. `http://127.0.0.1:8000/websocket_auth` (`--auth-url`).
    /// Empty in mode `url`: demo mode, which only `message-center run` has.
    pub url: String,
    /// Where `/livez`, `/readyz` and `/metrics` are when auth-adapter is a process of its own.
    pub admin: SocketAddr,
    /// The kind of business system: `connmix` (`POST {"token":"…"}` → `{"uid":1001}`), `common-result` (a
    /// Bearer header → `{"code":0,"data":{"id":1001},"msg":""}`) or `rfc7662` (token introspection). Keys of
    /// `[auth_adapter.request]` and `[auth_adapter.answer]` override it one by one.
    pub preset: Preset,
    /// Headers to send with each token check, e.g. `Authorization = "Bearer …"`. Their values are secrets and
    /// never printed.
    pub headers: BTreeMap<String, Secret>,
    /// Statuses by which the business system refuses a token; a 200 without a user refuses it too. From 400
    /// to 499, but neither 408 nor 429. Add 404 only if your system uses it for tokens and never for a wrong
    /// URL.
    pub refusals: Vec<u16>,
    /// The question to the business system. Keys that are left out are those of `auth_adapter.preset`.
    pub request: RequestConfig,
    /// The meaning of the business system's answer. Keys that are left out are those of `auth_adapter.preset`.
    /// A place in the answer is a JSON pointer (RFC 6901), e.g. `/data/uid`.
    pub answer: AnswerConfig,
    /// TLS towards an `https` URL: the authorities to trust, and a certificate for this process.
    pub tls: BusinessTls,
    /// How long the business system may take to answer a check, and how long a check may wait for its turn
    /// before that. A check whose edge gave up meanwhile (`edge.auth_deadline`) is not made.
    #[serde(with = "Span")]
    pub deadline: Duration,
    /// How long the business system may take to accept a connection.
    #[serde(with = "Span")]
    pub connect_deadline: Duration,
    /// How long an idle connection stays open. Must be shorter than the idle timeout of the business system:
    /// otherwise a check fails now and then, because the connection is closed just when it is used again.
    #[serde(with = "Span")]
    pub keep_idle: Duration,
    /// How often a call that could not connect is tried again, within `deadline` and while such retries are
    /// no more than a tenth of all calls. A call that broke later is not repeated: it may have been
    /// processed.
    pub retries: u32,
    /// The circuit breaker, which stops asking a business system that fails.
    pub breaker: BreakerConfig,
    /// The most checks at the business system at the same time; more wait.
    pub max_in_flight: usize,
    /// The most questions of edges that may wait for an answer; more are answered "unavailable".
    pub max_waiting: usize,
    /// The longest token; a longer one is refused without asking the business system.
    pub max_token: ByteSize,
    /// How long an accepted token is remembered, but never longer than its login lasts.
    #[serde(with = "Span")]
    pub remember_yes: Duration,
    /// How long a refused token is remembered.
    #[serde(with = "Span")]
    pub remember_no: Duration,
    /// The most tokens to remember, in some 300 bytes each, and with groups in up to 10 KiB more (64 groups of
    /// 128 bytes). Only a fingerprint of a token is stored, not the token.
    pub max_remembered: u64,
    /// How long the bus may be away before auth-adapter stops being ready.
    #[serde(with = "Span")]
    pub bus_grace: Duration,
    /// How long checks under way may take to finish when auth-adapter leaves.
    #[serde(with = "Span")]
    pub grace: Duration,
}

/// TLS towards the business system. The files are read at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BusinessTls {
    /// PEM file of the authorities that may sign the business system's certificate. Empty: the authorities
    /// that the operating system trusts.
    pub ca: PathBuf,
    /// PEM file of this process's own certificate, if the business system asks for one; together with `key`.
    pub cert: PathBuf,
    /// PEM file of the key of `cert`.
    pub key: PathBuf,
}

/// The circuit breaker: when auth-adapter stops asking a business system that fails, and when it asks again.
/// While the breaker is open, remembered tokens are still good, and others are answered "unavailable" at
/// once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BreakerConfig {
    /// The share of failures among the latest calls, in percent, at which the breaker opens.
    pub failure_percent: u8,
    /// The breaker opens only after this many calls within `window`.
    pub min_calls: u32,
    /// How far back calls count.
    #[serde(with = "Span")]
    pub window: Duration,
    /// How long the breaker stays open, less a random quarter. Doubled each time that the business system
    /// still fails.
    #[serde(with = "Span")]
    pub open: Duration,
    /// The longest time for which the breaker stays open, and for which a token with `Retry-After` is not
    /// checked, even if the business system asks for more.
    #[serde(with = "Span")]
    pub open_longest: Duration,
    /// The number of calls that probe whether the business system is back. When all succeed, the breaker
    /// closes.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_percent: 50,
            min_calls: 10,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            open_longest: Duration::from_secs(30),
            probes: 3,
        }
    }
}

impl BreakerConfig {
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            failure_percent: self.failure_percent,
            min_calls: self.min_calls,
            window: self.window,
            open: self.open,
            open_longest: self.open_longest,
            probes: self.probes,
            successes: self.probes,
        }
    }

    fn validate(&self, problems: &mut Problems) {
        problems.check(
            (1..=100).contains(&self.failure_percent),
            "auth_adapter.breaker.failure_percent",
            || "must be from 1 to 100".into(),
        );
        for (key, number) in
            [("auth_adapter.breaker.min_calls", self.min_calls), ("auth_adapter.breaker.probes", self.probes)]
        {
            problems.check((1..=100_000).contains(&number), key, || "must be from 1 to 100000".into());
        }
        for (key, time) in [
            ("auth_adapter.breaker.window", self.window),
            ("auth_adapter.breaker.open", self.open),
            ("auth_adapter.breaker.open_longest", self.open_longest),
        ] {
            let bounds = Duration::from_millis(10)..=Duration::from_secs(3_600);
            problems.check(bounds.contains(&time), key, || "must be from 10ms to 1h".into());
        }
        problems.check(self.open <= self.open_longest, "auth_adapter.breaker.open_longest", || {
            "must be at least auth_adapter.breaker.open".into()
        });
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Url,
            jwt: JwtConfig::default(),
            url: String::new(),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 6797)),
            preset: Preset::default(),
            headers: BTreeMap::new(),
            refusals: vec![400, 401, 403, 422],
            request: RequestConfig::default(),
            answer: AnswerConfig::default(),
            tls: BusinessTls::default(),
            deadline: Duration::from_secs(3),
            connect_deadline: Duration::from_secs(1),
            keep_idle: Duration::from_secs(4),
            retries: 2,
            breaker: BreakerConfig::default(),
            max_in_flight: 256,
            max_waiting: 4_096,
            max_token: ByteSize(16 << 10),
            remember_yes: Duration::from_secs(30),
            remember_no: Duration::from_secs(5),
            max_remembered: 65_536,
            bus_grace: Duration::from_secs(5),
            grace: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Adds what is wrong with these values.
    pub fn validate(&self, problems: &mut Problems) {
        if self.mode.asks_url() {
            self.validate_url(problems);
        } else {
            problems.check(self.url.is_empty(), "auth_adapter.url", || {
                "is not asked in mode \"jwt\": remove it, or set auth_adapter.mode to \"jwt-then-url\"".into()
            });
        }
        Mapping::validate(self, problems);
        self.jwt.validate(self.mode, problems);
        self.breaker.validate(problems);
        self.validate_tls(problems);
        problems.check(self.retries <= 10, "auth_adapter.retries", || "must be at most 10".into());
        for status in &self.refusals {
            let refusal = (400..=499).contains(status) && !matches!(status, 408 | 429);
            problems.check(refusal, "auth_adapter.refusals", || {
                format!("{status} can't be a refusal: only 400 to 499 can, but neither 408 nor 429")
            });
        }
        for (name, value) in &self.headers {
            let named = reqwest::header::HeaderName::try_from(name.as_str()).is_ok();
            let valued = reqwest::header::HeaderValue::from_str(value.expose()).is_ok();
            problems.check(named && valued, "auth_adapter.headers", || {
                format!("{name:?} or its value can't be in an HTTP header")
            });
            problems.check(!is_hop_by_hop(name), "auth_adapter.headers", || {
                format!("{name:?} is set by HTTP itself: leave it out")
            });
        }
        problems.check((1..=64 << 10).contains(&self.max_token.0), "auth_adapter.max_token", || {
            "must be from 1 to 64KiB".into()
        });
        problems.check(self.max_remembered <= 1 << 24, "auth_adapter.max_remembered", || {
            "must be at most 16777216".into()
        });
        for (key, number) in [
            ("auth_adapter.max_in_flight", self.max_in_flight),
            ("auth_adapter.max_waiting", self.max_waiting),
        ] {
            problems.check((1..=1 << 20).contains(&number), key, || "must be from 1 to 1048576".into());
        }
        for (key, time) in [
            ("auth_adapter.deadline", self.deadline),
            ("auth_adapter.connect_deadline", self.connect_deadline),
            ("auth_adapter.keep_idle", self.keep_idle),
            ("auth_adapter.grace", self.grace),
        ] {
            let bounds = Duration::from_millis(1)..=Duration::from_secs(600);
            problems.check(bounds.contains(&time), key, || "must be from 1ms to 10m".into());
        }
        for (key, time) in
            [("auth_adapter.remember_yes", self.remember_yes), ("auth_adapter.remember_no", self.remember_no)]
        {
            let most = Duration::from_secs(3_600);
            problems.check(time <= most, key, || "must be at most 1h: a token may be withdrawn".into());
        }
    }

    fn validate_tls(&self, problems: &mut Problems) {
        let BusinessTls { ca, cert, key } = &self.tls;
        problems.check(is_empty(cert) == is_empty(key), "auth_adapter.tls.key", || {
            "cert and key belong together: set both or none".into()
        });
        for (name, file) in [("ca", ca), ("cert", cert), ("key", key)] {
            if !is_empty(file)
                && let Err(error) = std::fs::File::open(file)
            {
                problems.add(
                    format!("auth_adapter.tls.{name}"),
                    format!("{} can't be read: {error}", file.display()),
                );
            }
        }
        problems.check(
            self.tls == BusinessTls::default() || !self.url.starts_with("http://"),
            "auth_adapter.tls",
            || "is for a url that begins with https://".into(),
        );
    }

    fn validate_url(&self, problems: &mut Problems) {
        let url = reqwest::Url::parse(&self.url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            let given =
                if self.url.is_empty() { "is missing".into() } else { format!("{:?} is none", self.url) };
            return problems.add(
                "auth_adapter.url",
                format!(
                    "the address of your token check {given}; write e.g. \
                     http://127.0.0.1:8000/websocket_auth (--auth-url)"
                ),
            );
        };
        let open = url.username().is_empty() && url.password().is_none();
        problems.check(open, "auth_adapter.url", || {
            "credentials belong in auth_adapter.headers, where they are not printed".into()
        });
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// The configuration that the process `auth-adapter` reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[auth_adapter]`
    pub auth_adapter: Config,
    /// `[login]`
    pub login: LoginConfig,
    /// `[bus]`
    pub bus: BusConfig,
    /// `[log]`
    pub log: LogConfig,
}

impl config::Settings for Settings {
    const SERVICE: &'static str = "message-center-auth-adapter";

    fn validate(&self, problems: &mut Problems) {
        self.auth_adapter.validate(problems);
        self.login.validate(problems);
        problems.check_ports([
            ("auth_adapter.admin", Some(self.auth_adapter.admin)),
            ("bus.listen", self.bus.listen_address()),
        ]);
        self.bus.validate(problems);
        shared::telemetry::validate(&self.log, problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &Config) -> String {
        let mut problems = Problems::default();
        config.validate(&mut problems);
        problems.to_string()
    }

    fn with_url(url: &str) -> Config {
        Config { url: url.into(), ..Config::default() }
    }

    #[test]
    fn the_address_must_be_one_of_a_token_check() {
        for good in
            ["http://127.0.0.1:8000/websocket_auth", "https://login.example.com/check?v=1", "http://[::1]:1"]
        {
            assert_eq!(faults(&with_url(good)), "", "{good}");
        }
        assert!(
            faults(&Config::default())
                .starts_with("auth_adapter.url: the address of your token check is missing")
        );
        for bad in ["127.0.0.1:8000", "ftp://a/b", "http://", "/websocket_auth", "unix:/tmp/x"] {
            assert!(faults(&with_url(bad)).contains("--auth-url"), "{bad}");
        }
        let faults = faults(&with_url("http://name:hunter2@127.0.0.1/"));
        assert!(faults.contains("auth_adapter.headers") && !faults.contains("hunter2"), "{faults}");
    }

    #[test]
    fn every_fault_is_named_and_no_value_of_a_header() {
        let mut config = Config {
            max_in_flight: 0,
            max_waiting: usize::MAX,
            max_token: ByteSize(0),
            max_remembered: u64::MAX,
            deadline: Duration::ZERO,
            connect_deadline: Duration::ZERO,
            keep_idle: Duration::from_secs(86_400),
            retries: 11,
            refusals: vec![404, 429],
            tls: BusinessTls { cert: "/no/such/file".into(), ..BusinessTls::default() },
            breaker: BreakerConfig {
                failure_percent: 0,
                min_calls: 0,
                window: Duration::ZERO,
                open: Duration::from_secs(60),
                open_longest: Duration::from_secs(1),
                probes: 0,
            },
            remember_yes: Duration::from_secs(86_400),
            grace: Duration::from_secs(86_400),
            ..with_url("http://127.0.0.1/")
        };
        config.headers.insert("X-Key".into(), Secret::new("hunter2\n"));
        config.headers.insert("not a name".into(), Secret::new("hunter2"));
        let faults = faults(&config);
        for key in [
            "max_in_flight",
            "max_waiting",
            "max_token",
            "max_remembered",
            "deadline",
            "connect_deadline",
            "keep_idle",
            "retries",
            "breaker.failure_percent",
            "breaker.min_calls",
            "breaker.window",
            "breaker.open_longest",
            "breaker.probes",
            "remember_yes",
            "grace",
        ] {
            assert!(faults.contains(&format!("auth_adapter.{key}: must be")), "{key} is not in\n{faults}");
        }
        for fault in ["429 can't be", "tls.cert: /no/such/file", "tls.key: cert and key", "tls: is for a url"]
        {
            assert!(
                faults.contains(&format!("auth_adapter.{fault}")) || faults.contains(fault),
                "{fault}\n{faults}"
            );
        }
        assert!(!faults.contains("404"), "{faults}");
        assert!(faults.contains("\"X-Key\"") && faults.contains("\"not a name\""), "{faults}");
        assert!(!faults.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{faults}");
    }
}

//! `[auth_adapter]`: every key with its default, and what may not be combined.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, ByteSize, LogConfig, Problems, Secret};

/// Settings of one auth-adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the business system checks tokens, e.g. `http://127.0.0.1:8000/websocket_auth`.
    pub url: String,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin: SocketAddr,
    /// How the token is sent: `json` (`{"token":"…"}`) or `form` (`token=…`).
    pub body: BodyFormat,
    /// Headers to send along, e.g. `{ Authorization = "Bearer …" }`. Values are secrets.
    pub headers: BTreeMap<String, Secret>,
    /// How long the business system may take, and how long a check may wait for its turn to call it. The two
    /// together should not exceed the time after which an edge gives up, 5 s.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Checks at the business system at the same time; further ones wait.
    pub max_in_flight: usize,
    /// Questions that may wait for an answer in all; more are answered "unavailable".
    pub max_waiting: usize,
    /// The longest token; a longer one is refused without a question to the business system.
    pub max_token: ByteSize,
    /// How long a yes is remembered, but never longer than the login lives.
    #[serde(with = "humantime_serde")]
    pub remember_yes: Duration,
    /// How long a no is remembered.
    #[serde(with = "humantime_serde")]
    pub remember_no: Duration,
    /// Tokens that are remembered at most; one of more than 256 bytes counts for several.
    pub max_remembered: u64,
    /// How long the bus may be away before this part is not ready.
    #[serde(with = "humantime_serde")]
    pub bus_grace: Duration,
    /// How long checks under way may take to finish when this part leaves.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// How the token is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyFormat {
    /// `{"token":"…"}`
    #[default]
    Json,
    /// `token=…`
    Form,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 6797)),
            body: BodyFormat::Json,
            headers: BTreeMap::new(),
            deadline: Duration::from_secs(3),
            max_in_flight: 256,
            max_waiting: 4_096,
            max_token: ByteSize(4 << 10),
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
        self.validate_url(problems);
        for (name, value) in &self.headers {
            let named = reqwest::header::HeaderName::try_from(name.as_str()).is_ok();
            let valued = reqwest::header::HeaderValue::from_str(value.expose()).is_ok();
            problems.check(named && valued, "auth_adapter.headers", || {
                format!("{name:?} or its value can't be in an HTTP header")
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
        for (key, time) in [("auth_adapter.deadline", self.deadline), ("auth_adapter.grace", self.grace)] {
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

/// What the process `auth-adapter` reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[auth_adapter]`
    pub auth_adapter: Config,
    /// `[bus]`
    pub bus: BusConfig,
    /// `[log]`
    pub log: LogConfig,
}

impl config::Settings for Settings {
    const SERVICE: &'static str = "message-center-auth-adapter";

    fn validate(&self, problems: &mut Problems) {
        self.auth_adapter.validate(problems);
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
            "remember_yes",
            "grace",
        ] {
            assert!(faults.contains(&format!("auth_adapter.{key}: must be")), "{key} is not in\n{faults}");
        }
        assert!(faults.contains("\"X-Key\"") && faults.contains("\"not a name\""), "{faults}");
        assert!(!faults.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{faults}");
    }
}

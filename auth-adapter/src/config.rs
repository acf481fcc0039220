//! `[auth_adapter]`: every key with its default, and what may not be combined.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::bus::BusConfig;
use shared::config::{self, LogConfig, Problems, Secret};

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
    /// How long the business system may take.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Checks at the business system at the same time; further ones wait.
    pub max_in_flight: usize,
    /// Questions that may wait for an answer in all; more are answered "unavailable".
    pub max_waiting: usize,
    /// How long a yes is remembered, but never longer than the login lives.
    #[serde(with = "humantime_serde")]
    pub remember_yes: Duration,
    /// How long a no is remembered.
    #[serde(with = "humantime_serde")]
    pub remember_no: Duration,
    /// Tokens that are remembered at most.
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
        let url = reqwest::Url::parse(&self.url).ok();
        let usable = url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        problems.check(usable, "auth_adapter.url", || {
            format!(
                "{:?} is no address of a token check; write e.g. http://127.0.0.1:8000/websocket_auth (--auth-url)",
                self.url
            )
        });
        for (name, value) in &self.headers {
            let named = reqwest::header::HeaderName::try_from(name.as_str()).is_ok();
            let valued = reqwest::header::HeaderValue::from_str(value.expose()).is_ok();
            problems.check(named && valued, "auth_adapter.headers", || {
                format!("{name:?} or its value can't be in an HTTP header")
            });
        }
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
    fn validate(&self, problems: &mut Problems) {
        self.auth_adapter.validate(problems);
        self.bus.validate(problems);
        shared::telemetry::validate(&self.log, problems);
    }
}

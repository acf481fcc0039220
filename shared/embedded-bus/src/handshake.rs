//! INFO and CONNECT: how server and client introduce themselves.

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The version by which clients judge the protocol. The operations of this version are spoken.
pub(crate) const PROTOCOL_VERSION: &str = "2.11.0";
/// The level of the JetStream API that is spoken, as in nats-server 2.11.
pub(crate) const API_LEVEL: u32 = 1;
/// The Go version in INFO, which some clients require.
const GO_VERSION: &str = "none, this server is written in Rust";
/// The commit in INFO: nats-server's text for a build that does not know its commit.
const GIT_COMMIT: &str = "not set";

/// The fields of INFO, in the order in which nats-server writes them. Those of one connection are added by
/// [`Info::json`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Info {
    server_id: String,
    server_name: String,
    version: &'static str,
    proto: u8,
    git_commit: &'static str,
    go: &'static str,
    host: String,
    port: u16,
    headers: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    max_payload: usize,
    /// Whether the server has streams.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    jetstream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<String>,
    /// The level of the JetStream API. It is sent without streams as well.
    api_lvl: u32,
    /// "Lame duck mode": the server is about to end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ldm: bool,
}

impl Info {
    pub(crate) fn new(config: &Config, port: u16) -> Self {
        let random =
            std::iter::repeat_with(fastrand::alphanumeric).take(55).map(|letter| letter.to_ascii_uppercase());
        Self {
            server_id: std::iter::once('N').chain(random).collect(),
            server_name: config.server_name.clone(),
            version: PROTOCOL_VERSION,
            proto: 1,
            git_commit: GIT_COMMIT,
            go: GO_VERSION,
            host: config.listen.ip().to_string(),
            port,
            headers: true,
            auth_required: config.credentials.required(),
            max_payload: config.max_payload,
            jetstream: config.streams.is_some(),
            client_id: None,
            client_ip: None,
            api_lvl: API_LEVEL,
            ldm: false,
        }
    }

    /// Returns the id of this server: unique, and new at each start.
    pub(crate) fn server_id(&self) -> &str {
        &self.server_id
    }

    /// Returns the JSON for one connection.
    pub(crate) fn json(&self, client_id: u64, client_ip: &str, ldm: bool) -> String {
        let info =
            Self { client_id: Some(client_id), client_ip: Some(client_ip.to_owned()), ldm, ..self.clone() };
        serde_json::to_string(&info).expect("strings, numbers and booleans are always JSON")
    }
}

/// The fields of CONNECT that matter here. An absent field, or null, leaves its setting as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connect {
    pub(crate) verbose: Option<bool>,
    pub(crate) pedantic: Option<bool>,
    pub(crate) echo: Option<bool>,
    pub(crate) headers: Option<bool>,
    pub(crate) no_responders: Option<bool>,
    pub(crate) protocol: Option<i64>,
    pub(crate) user: Option<String>,
    pub(crate) pass: Option<String>,
    pub(crate) auth_token: Option<String>,
}

impl Connect {
    /// Reads the JSON; `None` if it can't be read. `null` is an empty CONNECT, as in nats-server.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        // Serde would read a struct from an array too, which no client means.
        if json.first() == Some(&b'[') {
            return None;
        }
        serde_json::from_slice::<Option<Self>>(json).ok().map(Option::unwrap_or_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_says_what_clients_look_for() {
        let config =
            Config { credentials: crate::Credentials::Token("secret".to_owned()), ..Config::default() };
        let json = Info::new(&config, 4222).json(7, "127.0.0.1", false);
        let info: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(info["max_payload"], 1 << 20);
        assert_eq!(info["headers"], true);
        assert_eq!(info["auth_required"], true);
        assert_eq!(info["client_id"], 7);
        assert_eq!(info["port"], 4222);
        assert_eq!(info["proto"], 1);
        assert_eq!(info["api_lvl"], API_LEVEL);
        assert!(info["go"].is_string() && info["git_commit"].is_string());
        assert_eq!(info["server_id"].as_str().unwrap().len(), 56);
        assert!(info.get("ldm").is_none() && info.get("jetstream").is_none());
        assert!(!json.contains("secret"));
    }

    #[test]
    fn connect_is_read_as_leniently_as_clients_need() {
        let json =
            br#"{"verbose":false,"jwt":null,"user":null,"lang":"rust","headers":true,"tls_required":false}"#;
        let connect = Connect::read(json).unwrap();
        assert_eq!((connect.verbose, connect.headers, connect.echo), (Some(false), Some(true), None));
        assert!(Connect::read(b"null").is_some());
        let deep = [b"{\"x\":".repeat(10_000), b"}".repeat(10_000)].concat();
        for bad in [&b""[..], b"{", b"{bad}", b"[]", b"{\"verbose\":\"yes\"}", b"\xff", &deep] {
            assert!(Connect::read(bad).is_none(), "{:?}", String::from_utf8_lossy(&bad[..bad.len().min(20)]));
        }
    }
}

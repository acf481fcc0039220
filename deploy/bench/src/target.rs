//! The address of a part: parses the URLs of the command line.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A `ws://` or `http://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    scheme: &'static str,
    /// Name or address with the port, as in the header `Host`.
    pub(crate) host: String,
    /// Path and query; at least `/`.
    pub(crate) path: String,
    /// Name and key before the host, if the URL has them.
    credentials: Option<String>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (scheme, rest) = match url.split_once("://") {
            Some(("ws", rest)) => ("ws", rest),
            Some(("http", rest)) => ("http", rest),
            Some(("wss" | "https", _)) => {
                return Err(
                    "bench does not speak TLS; measure the plain port, behind what terminates TLS".into()
                );
            }
            _ => return Err(format!("{url:?} is no URL such as ws://127.0.0.1:6790/message-center")),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(decode(credentials)?), host),
            None => (None, authority),
        };
        let after_brackets = host.rsplit(']').next().unwrap_or(host);
        let host = match after_brackets.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
            Some(_) => return Err(format!("{host:?} has no port number behind its colon")),
            None => format!("{host}:80"),
        };
        if host.starts_with(':') || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("{url:?} has no host"));
        }
        if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("the path of {url:?} has blanks"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, host, path, credentials })
    }
}

impl fmt::Display for Target {
    /// Writes the URL without its credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.host, self.path)
    }
}

impl Target {
    /// Returns whether the scheme is `ws`.
    pub(crate) fn is_websocket(&self) -> bool {
        self.scheme == "ws"
    }

    /// Returns the URL with `path` appended to its path.
    pub(crate) fn at(&self, path: &str) -> Self {
        Self { path: format!("{}{path}", self.path.trim_end_matches('/')), ..self.clone() }
    }

    /// Returns the URL with `end` removed from the end of its path.
    pub(crate) fn without(self, end: &str) -> Self {
        match self.path.strip_suffix(end) {
            Some(base) => Self { path: format!("{}/", base.trim_end_matches('/')), ..self },
            None => self,
        }
    }

    /// Returns the value of `Authorization`: made from `key`, or else from the credentials of the URL. A key
    /// with a colon is a name and a secret.
    pub(crate) fn authorization(&self, key: Option<&str>) -> Option<String> {
        match key.or(self.credentials.as_deref())? {
            pair if pair.contains(':') => Some(format!("Basic {}", STANDARD.encode(pair))),
            key => Some(format!("Bearer {key}")),
        }
    }

    /// Returns the address to connect to.
    ///
    /// # Errors
    /// Fails if the name is unknown.
    pub(crate) async fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let addresses = tokio::net::lookup_host(self.host.as_str()).await;
        let mut addresses: Vec<_> = addresses.with_context(|| format!("{self}: unknown host"))?.collect();
        ensure!(!addresses.is_empty(), "{self}: the host has no address");
        // `localhost` may have an IPv4 and an IPv6 address; by default the parts listen on IPv4.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        Ok(addresses[0])
    }
}

/// Decodes percent-encoding (`%41` is `A`), so that a key may contain any character.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                rest = tail;
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let code = digit(high).zip(digit(low)).map(|(high, low)| high * 16 + low);
                u8::try_from(code.ok_or("a percent sign in name or key needs two digits behind it")?)
                    .map_err(|error| error.to_string())?
            }
            (b'%', _) => return Err("a percent sign in name or key needs two digits behind it".into()),
            (byte, _) => *byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| "name and key of a URL must be UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(url: &str) -> Target {
        url.parse().unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        let devices = target("ws://127.0.0.1:6790/message-center");
        assert_eq!((devices.host.as_str(), devices.path.as_str()), ("127.0.0.1:6790", "/message-center"));
        assert!(devices.is_websocket());
        assert_eq!(target("http://example.com").host, "example.com:80");
        assert_eq!(target("http://[::1]:99?x=1").to_string(), "http://[::1]:99/?x=1");
        assert_eq!(target("http://[::1]").host, "[::1]:80");
        assert_eq!(target("http://a:1/base/").at("/v1/x").path, "/base/v1/x");
        assert_eq!(target("http://a:1/v1/p").without("/v1/p"), target("http://a:1"));
    }

    #[test]
    fn a_key_comes_from_the_flag_or_the_url_and_is_never_shown() {
        let with_key = target("http://shop:s%40cret@127.0.0.1:1/");
        assert_eq!(with_key.authorization(None), Some(format!("Basic {}", STANDARD.encode("shop:s@cret"))));
        assert_eq!(with_key.authorization(Some("other")), Some("Bearer other".into()));
        assert_eq!(target("http://a:1").authorization(None), None);
        assert!(!with_key.to_string().contains("cret"));
    }

    #[test]
    fn unusable_urls_are_refused_with_a_reason() {
        for (url, why) in [
            ("127.0.0.1:6790", "no URL"),
            ("ftp://x", "no URL"),
            ("wss://x", "TLS"),
            ("https://x", "TLS"),
            ("ws://", "no host"),
            ("ws://:80", "no host"),
            ("ws://a:b", "no port number"),
            ("ws://a/b c", "blanks"),
            ("ws://%zz@a", "percent"),
        ] {
            let error = url.parse::<Target>().unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_url_makes_a_panic(url in "(ws|http)://\\PC{0,30}") {
            if let Ok(target) = url.parse::<Target>() {
                prop_assert!(target.path.starts_with('/'));
            }
        }
    }
}

//! Keeps foreign web pages out, by `Origin` and `Host`.
//!
//! A page in a browser on this machine can reach a loopback port. It always sends an `Origin`, and after DNS
//! rebinding the `Host` of its own site; back ends send neither.

use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, header};

use shared::reload::Live;

use crate::config::Config;
use crate::error::Refusal;
use crate::http::text;

/// The origins and hosts that are let in.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Origins and hosts are looked up at each request.
    config: Live<Config>,
    loopback: bool,
}

impl Guard {
    /// `loopback`: whether the port is bound to the loopback interface only.
    pub(crate) fn new(config: Live<Config>, loopback: bool) -> Self {
        Self { config, loopback }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// Code 106; 101 for a bad `Host`.
    pub(crate) fn check<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        let config = self.config.get();
        let (origins, names) = (&config.allowed_origins, &config.allowed_hosts);
        let mut given = request.headers().get_all(header::ORIGIN).iter();
        if given.any(|origin| !allows_origin(origins, origin)) {
            return Err(Refusal::Origin);
        }
        let named = shared::host::named(request).map_err(|_| Refusal::BadHost)?;
        if !self.loopback && names.is_empty() {
            return Ok(());
        }
        match named {
            Some(host) if allows_host(names, &host) => Ok(()),
            Some(_) | None => Err(Refusal::Host),
        }
    }
}

fn allows_origin(origins: &[String], origin: &HeaderValue) -> bool {
    let origin = text(origin);
    origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

fn allows_host(names: &[String], host: &Authority) -> bool {
    shared::host::is_loopback(host)
        || names.iter().any(|allowed| {
            allowed.eq_ignore_ascii_case(host.host()) || allowed.eq_ignore_ascii_case(host.as_str())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(origins: &[String], hosts: &[String], loopback: bool) -> Guard {
        let (allowed_origins, allowed_hosts) = (origins.to_vec(), hosts.to_vec());
        Guard::new(Config { allowed_origins, allowed_hosts, ..Config::default() }.into(), loopback)
    }
    use axum::http::{HeaderMap, HeaderName, Version};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn check(guard: &Guard, uri: &str, pairs: &[(&str, &str)]) -> Result<(), &'static str> {
        checked(guard, Version::HTTP_11, uri, pairs)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a guard has three reasons")]
    fn checked(
        guard: &Guard,
        version: Version,
        uri: &str,
        pairs: &[(&str, &str)],
    ) -> Result<(), &'static str> {
        let mut request = Request::builder().version(version).uri(uri).body(()).unwrap();
        *request.headers_mut() = headers(pairs);
        guard.check(&request).map_err(|refusal| match refusal {
            Refusal::BadHost => "bad",
            Refusal::Origin => "origin",
            Refusal::Host => "host",
            other => panic!("{other}"),
        })
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_let_in() {
        let guard = guard(&[], &["Box.example".into(), "named:9".into()], true);
        for host in [
            "localhost",
            "LOCALHOST:6789",
            "127.0.0.1:6789",
            "127.9.9.9",
            "[::1]:6789",
            "box.example:1",
            "named:9",
        ] {
            assert_eq!(check(&guard, "/", &[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "named:8"]
        {
            assert_eq!(check(&guard, "/", &[("host", host)]), Err("host"), "{host}");
        }
        assert_eq!(check(&guard, "http://evil.example/", &[("host", "localhost")]), Err("host"));
        assert_eq!(checked(&guard, Version::HTTP_10, "/", &[]), Err("host"), "nobody is named");
    }

    #[test]
    fn off_loopback_any_host_is_let_in_unless_some_are_named() {
        assert_eq!(check(&guard(&[], &[], false), "/", &[("host", "mc.example")]), Ok(()));
        let guard = guard(&[], &["mc.example".into()], false);
        assert_eq!(check(&guard, "/", &[("host", "mc.example:6789")]), Ok(()));
        assert_eq!(check(&guard, "/", &[("host", "evil.example")]), Err("host"));
    }

    #[test]
    fn there_is_one_host_wherever_the_port_is() {
        let anywhere = guard(&[], &[], false);
        for guard in [&anywhere, &guard(&[], &[], true)] {
            for host in ["", "a b/c@d", "x@localhost", "localhost:x"] {
                assert_eq!(check(guard, "/", &[("host", host)]), Err("bad"), "{host:?}");
            }
            assert_eq!(check(guard, "/", &[]), Err("bad"));
            assert_eq!(check(guard, "/", &[("host", "localhost"), ("host", "localhost")]), Err("bad"));
        }
        assert_eq!(checked(&anywhere, Version::HTTP_10, "/", &[]), Ok(()), "which had no such header");
    }

    #[test]
    fn a_web_page_is_refused_unless_its_origin_is_allowed() {
        let guard = guard(&["https://admin.example".into()], &[], true);
        let from = |origin| check(&guard, "/", &[("host", "localhost"), ("origin", origin)]);
        assert_eq!(from("https://admin.example"), Ok(()));
        for origin in
            ["https://evil.example", "null", "", "https://admin.example.evil", "http://localhost:6789"]
        {
            assert_eq!(from(origin), Err("origin"), "{origin}");
        }
    }
}

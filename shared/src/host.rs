//! The `Host` of a request, which tells a page in a browser from other callers: a page names the host of its
//! own site, also after DNS rebinding.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{Request, StatusCode, Version, header};

/// Returns whether this host, with or without a port, is the loopback of this machine.
pub fn is_loopback(host: &Authority) -> bool {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Returns the host that a request names: in one header, except from HTTP/1.0 (RFC 9112, 3.2).
///
/// # Errors
/// 400: no host, several, or not a host.
pub fn named<T>(request: &Request<T>) -> Result<Option<Authority>, StatusCode> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().ok().and_then(authority).ok_or(StatusCode::BAD_REQUEST)?),
        (None, _) if request.version() == Version::HTTP_10 => None,
        (None, _) | (Some(_), Some(_)) => return Err(StatusCode::BAD_REQUEST),
    };
    // A request line with a whole URL takes precedence over the header.
    Ok(request.uri().authority().cloned().or(host))
}

fn authority(host: &str) -> Option<Authority> {
    let authority: Authority = host.parse().ok().filter(|_| !host.contains('@'))?;
    let port = host.strip_prefix(authority.host())?;
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    (!authority.host().is_empty() && (digits.is_empty() || is_port)).then_some(authority)
}

/// Checks whether a request may use a port. A port on loopback admits programs of this machine, but no pages
/// in its browsers.
///
/// # Errors
/// 400: no host, several, or not a host. 421: another host than loopback, for a port on loopback.
pub fn check<T>(request: &Request<T>, on_loopback: bool) -> Result<(), StatusCode> {
    let host = named(request)?;
    if on_loopback && host.is_some_and(|host| !is_loopback(&host)) {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: Version, uri: &str, hosts: &[&str], on_loopback: bool) -> u16 {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        check(&request.body(()).unwrap(), on_loopback).map_or_else(|status| status.as_u16(), |()| 200)
    }

    #[test]
    fn on_loopback_only_loopback_is_named() {
        for (host, anywhere, loopback) in [
            ("127.0.0.1:6795", 200, 200),
            ("127.9.9.9", 200, 200),
            ("LocalHost:1", 200, 200),
            ("[::1]:6795", 200, 200),
            ("evil.example", 200, 421),
            ("localhost.evil.example:6795", 200, 421),
            ("192.0.2.1:6795", 200, 421),
            ("a b/c@d", 400, 400),
            ("me@localhost", 400, 400),
            ("localhost:99999", 400, 400),
            ("localhost:x", 400, 400),
            ("localhost:", 200, 200),
            (":80", 400, 400),
            ("", 400, 400),
        ] {
            assert_eq!(status(Version::HTTP_11, "/metrics", &[host], false), anywhere, "{host:?}");
            assert_eq!(status(Version::HTTP_11, "/metrics", &[host], true), loopback, "{host:?}");
        }
        assert_eq!(status(Version::HTTP_11, "http://evil.example/metrics", &["localhost"], true), 421);
    }

    #[test]
    fn there_is_one_host() {
        assert_eq!(status(Version::HTTP_11, "/", &[], false), 400);
        assert_eq!(status(Version::HTTP_10, "/", &[], true), 200, "which had no such header");
        assert_eq!(status(Version::HTTP_11, "/", &["localhost", "localhost"], false), 400);
    }
}

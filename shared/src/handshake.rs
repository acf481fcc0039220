//! WebSocket handshakes (RFC 6455, 4.2.1), checked in the same way on every port.

use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{Method, Request, Version};

/// Why a request is no WebSocket handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another method than GET.
    #[error("a WebSocket handshake is a GET request")]
    Method,
    /// HTTP/1.0, which has no upgrades.
    #[error(
        "a WebSocket handshake is made over HTTP/1.1; a proxy on the way may speak HTTP/1.0, as nginx does without \
             proxy_http_version 1.1"
    )]
    HttpVersion,
    /// The request is no upgrade.
    #[error(
        "the headers Connection: Upgrade and Upgrade: websocket are not there; connect with a WebSocket client"
    )]
    NoUpgrade,
    /// The version of the protocol is another one, or it is given several times or not at all.
    #[error(
        "only version 13 of WebSocket (RFC 6455) is spoken here; send one header Sec-WebSocket-Version: 13"
    )]
    Version,
    /// The key is malformed, or it is given several times or not at all.
    #[error("there must be one Sec-WebSocket-Key, of 16 bytes in base64")]
    Key,
    /// A body follows the head, which would be taken for frames.
    #[error("a WebSocket handshake has no body; leave out Content-Length and Transfer-Encoding")]
    Body,
}

/// Checks a handshake with any path, and returns its key, from which the answer is computed.
///
/// # Errors
/// The request is no handshake.
pub fn check<T>(request: &Request<T>) -> Result<&HeaderValue, Fault> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Fault::Method);
    }
    if !names(headers, &CONNECTION, "upgrade") || !names(headers, &UPGRADE, "websocket") {
        return Err(Fault::NoUpgrade);
    }
    if request.version() != Version::HTTP_11 {
        return Err(Fault::HttpVersion);
    }
    if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Fault::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes())).ok_or(Fault::Key)?;
    let empty = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if !empty || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Fault::Body);
    }
    Ok(key)
}

/// Returns the value of a header that is given exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether a key is 16 bytes in base64. The bits behind the last byte are ignored.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

/// Returns whether a header lists this token, in any case.
fn names(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn request(version: Version, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// A handshake without one of its headers, and with this one.
    fn with(without: &str, name: &str, value: &str) -> Result<(), Fault> {
        let mut headers: Vec<_> = GOOD.into_iter().filter(|(known, _)| *known != without).collect();
        headers.push((name, value));
        check(&request(Version::HTTP_11, &headers)).map(|_| ())
    }

    #[test]
    fn a_handshake_is_a_get_request_of_http_1_1() {
        let good = request(Version::HTTP_11, &GOOD);
        assert_eq!(check(&good).unwrap(), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(check(&request(Version::HTTP_10, &GOOD)), Err(Fault::HttpVersion));
        let mut post = good;
        *post.method_mut() = Method::POST;
        assert_eq!(check(&post), Err(Fault::Method));
        assert_eq!(with("upgrade", "upgrade", "h2c"), Err(Fault::NoUpgrade));
        assert_eq!(with("connection", "connection", "close"), Err(Fault::NoUpgrade));
    }

    #[test]
    fn version_and_key_are_there_once_and_well_formed() {
        assert_eq!(with("sec-websocket-version", "sec-websocket-version", "8"), Err(Fault::Version));
        assert_eq!(with("", "sec-websocket-version", "13"), Err(Fault::Version), "twice");
        assert_eq!(with("sec-websocket-version", "x", "y"), Err(Fault::Version), "never");
        assert_eq!(with("", "sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), Err(Fault::Key), "twice");
        for key in
            ["", "abc", "AAAAAAAAAAAAAAAAAAAAAAAA", "!!!!!!!!!!!!!!!!!!!!!!==", "dGhlIHNhbXBsZSBub25jZQ==="]
        {
            assert_eq!(with("sec-websocket-key", "sec-websocket-key", key), Err(Fault::Key), "{key:?}");
        }
        assert_eq!(with("sec-websocket-key", "sec-websocket-key", "+/+/+/+/+/+/+/+/+/+/+x=="), Ok(()));
    }

    #[test]
    fn a_handshake_has_no_body() {
        assert_eq!(with("", "content-length", "0"), Ok(()));
        assert_eq!(with("", "content-length", "8"), Err(Fault::Body));
        assert_eq!(with("", "transfer-encoding", "chunked"), Err(Fault::Body));
    }
}

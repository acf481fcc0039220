//! One HTTP/1.1 request over plain TCP, for `probe` and `selftest`: the image has no curl.
//!
//! The caller sets the deadline. An answer is read until the server closes, up to 1 MiB.

use anyhow::{Context as _, bail, ensure};
use axum::http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The most bytes to read of an answer.
const MOST: u64 = 1 << 20;

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status, e.g. 200.
    pub(crate) status: u16,
    /// The body, as far as it is UTF-8.
    pub(crate) body: String,
}

/// Returns host, port and path of a URL with this scheme.
///
/// # Errors
/// Fails if `url` is no such URL; the text says what to write.
pub(crate) fn target(url: &str, scheme: &str) -> anyhow::Result<(String, u16, String)> {
    let hint = || format!("{url:?} can't be used: write {scheme}://HOST:PORT/PATH");
    let uri: Uri = url.parse().with_context(hint)?;
    ensure!(uri.scheme_str() == Some(scheme), hint());
    let host = uri.host().filter(|host| !host.is_empty()).with_context(hint)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80), path.to_owned()))
}

/// Connects to a host, given as a name or an address; an IPv6 address stands in brackets.
///
/// # Errors
/// Fails if the name is unknown, or if nothing listens at the port.
pub(crate) async fn connect(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((name, port)).await.with_context(|| format!("connecting to {host}:{port}"))
}

/// Sends a GET request.
///
/// # Errors
/// Fails if the URL is no `http` URL, or if the answer is not HTTP.
pub(crate) async fn get(url: &str) -> anyhow::Result<Answer> {
    let (host, port, path) = target(url, "http")?;
    exchange(&host, port, &format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"))
        .await
}

/// Sends a POST request with a JSON body, and with `key` as a Bearer token, if there is one.
///
/// # Errors
/// Fails like [`get`].
pub(crate) async fn post(url: &str, key: Option<&str>, body: &str) -> anyhow::Result<Answer> {
    let (host, port, path) = target(url, "http")?;
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{key}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    exchange(&host, port, &request).await
}

async fn exchange(host: &str, port: u16, request: &str) -> anyhow::Result<Answer> {
    let mut stream = connect(host, port).await?;
    stream.write_all(request.as_bytes()).await.context("sending the request")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.context("reading the answer")?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> anyhow::Result<Answer> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("what answers does not speak HTTP") };
    let mut words = head.split(' ');
    let status = match (words.next(), words.next().and_then(|status| status.parse().ok())) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) => status,
        _ => bail!("what answers does not speak HTTP"),
    };
    Ok(Answer { status, body: body.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{Answer, parse, target};

    #[test]
    fn a_url_is_taken_apart() {
        let whole = target("ws://edge:6790/message-center?a=1", "ws").expect("it is a good url");
        assert_eq!(whole, ("edge".to_owned(), 6790, "/message-center?a=1".to_owned()));
        let short = target("http://[::1]", "http").expect("it is a good url");
        assert_eq!(short, ("[::1]".to_owned(), 80, "/".to_owned()));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_answered_with_what_to_write() {
        for url in ["", "edge:6790", "https://edge/", "http:///livez", "http://"] {
            let error = target(url, "http").expect_err("it is no good url");
            assert!(format!("{error:#}").contains("write http://HOST:PORT/PATH"), "{url}: {error:#}");
        }
    }

    #[test]
    fn an_answer_that_is_not_http_is_an_error() {
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(parse(b"").is_err());
        let good = parse(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nwhy\n").expect("it is HTTP");
        assert_eq!(good, Answer { status: 503, body: "why".to_owned() });
    }
}

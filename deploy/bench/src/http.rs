//! The part of HTTP/1.1 that a publisher and a WebSocket handshake need: writes requests, and reads the head
//! of an answer.
//!
//! Pure. Publishers refuse answers without `Content-Length`, since message center never answers a publish
//! without it.

use std::fmt::Write as _;

use crate::target::Target;

/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 << 10;

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status, e.g. 200.
    pub(crate) status: u16,
    /// Bytes of the head, including the empty line.
    pub(crate) length: usize,
    /// Bytes of the body, if the head has `Content-Length`.
    pub(crate) body: Option<usize>,
    /// Whether the server closes the connection after this answer.
    pub(crate) closes: bool,
    /// Whether the counts of the answer are complete (`Mc-Complete` is not `false`).
    pub(crate) complete: bool,
}

/// Writes a request with a JSON body.
pub(crate) fn post(target: &Target, authorization: Option<&str>, body: &str) -> String {
    let mut request = head("POST", target, authorization);
    let _ = write!(request, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    request
}

/// Writes a request for an upgrade to WebSocket.
pub(crate) fn upgrade(target: &Target, authorization: Option<&str>, nonce: &str) -> String {
    let mut request = head("GET", target, authorization);
    let _ = write!(
        request,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n"
    );
    request
}

/// Writes a request without a body.
pub(crate) fn get(target: &Target) -> String {
    head("GET", target, None) + "\r\n"
}

fn head(method: &str, target: &Target, authorization: Option<&str>) -> String {
    let mut head = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: message-center-bench\r\n",
        target.path, target.host
    );
    if let Some(authorization) = authorization {
        let _ = write!(head, "Authorization: {authorization}\r\n");
    }
    head
}

impl Head {
    /// Reads the head at the beginning of `bytes`, once it is complete.
    ///
    /// # Errors
    /// Fails if the answer is not HTTP.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if bytes.len() > LONGEST_HEAD { Err("the answer's head does not end") } else { Ok(None) };
        };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "the answer's head is not text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| {
            let (_, rest) = line.split_once(' ')?;
            rest.get(..3)?.parse().ok()
        });
        let status = status.ok_or("the answer is not HTTP")?;
        let mut head = Self { status, length: end + 4, body: None, closes: false, complete: true };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.body = Some(value.parse().map_err(|_| "the answer's length is no number")?);
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("mc-complete") {
                head.complete = !value.eq_ignore_ascii_case("false");
            }
        }
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nMc-Complete: false\r\nconnection: close\r\n\r\nabc";
        for cut in 0..answer.len() - 3 {
            assert_eq!(Head::read(&answer[..cut]), Ok(None), "{cut}");
        }
        let head = Head::read(answer).unwrap().unwrap();
        let expected =
            Head { status: 200, length: answer.len() - 3, body: Some(3), closes: true, complete: false };
        assert_eq!(head, expected);
        let plain = Head::read(b"HTTP/1.1 503 Busy\r\n\r\n").unwrap().unwrap();
        assert_eq!((plain.status, plain.body, plain.closes, plain.complete), (503, None, false, true));
    }

    #[test]
    fn an_answer_that_is_not_http_is_an_error() {
        for bytes in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 abc\r\n\r\n", b"\xff\r\n\r\n", b"HTTP/1.1\r\n\r\n"]
        {
            Head::read(bytes).unwrap_err();
        }
        Head::read(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").unwrap_err();
        Head::read(&vec![b'x'; LONGEST_HEAD + 1]).unwrap_err();
    }

    #[test]
    fn a_request_names_host_length_and_key() {
        let target: Target = "http://127.0.0.1:6789/v1/mesh/publish".parse().unwrap();
        let request = post(&target, Some("Bearer x"), "{}");
        assert!(
            request.starts_with("POST /v1/mesh/publish HTTP/1.1\r\nHost: 127.0.0.1:6789\r\n"),
            "{request}"
        );
        assert!(request.contains("\r\nAuthorization: Bearer x\r\n"), "{request}");
        assert!(request.ends_with("\r\nContent-Length: 2\r\n\r\n{}"), "{request}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_panic(rest: Vec<u8>) {
            let mut answer = b"HTTP/1.1 200".to_vec();
            answer.extend(rest);
            let _ = Head::read(&answer);
        }
    }
}

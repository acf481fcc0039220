//! Writes the server's operations into a buffer.

use super::Publish;

/// The answer to PING.
pub(crate) const PONG: &[u8] = b"PONG\r\n";
/// The question whether the client is still there.
pub(crate) const PING: &[u8] = b"PING\r\n";
/// The acknowledgement of an operation in verbose mode.
pub(crate) const OK: &[u8] = b"+OK\r\n";

/// Returns -ERR with its text between quotes.
pub(crate) fn error(text: &str) -> Vec<u8> {
    format!("-ERR '{text}'\r\n").into_bytes()
}

/// Returns INFO with its JSON.
pub(crate) fn info(json: &str) -> Vec<u8> {
    format!("INFO {json} \r\n").into_bytes()
}

/// Returns an upper bound on the bytes that [`message`] appends.
pub(crate) fn message_bound(message: &Publish<'_>, sid: &[u8]) -> usize {
    // "HMSG", five blanks, two numbers of up to 20 digits and two line ends make 53 at most.
    let reply = message.reply.map_or(0, <[u8]>::len);
    message.subject.len() + sid.len() + reply + message.headers.len() + message.payload.len() + 64
}

/// Appends MSG or HMSG. Without `with_headers` the header block is left out.
pub(crate) fn message(out: &mut Vec<u8>, message: &Publish<'_>, sid: &[u8], with_headers: bool) {
    let headers = if with_headers { message.headers } else { &[] };
    out.reserve(message_bound(message, sid));
    out.extend_from_slice(if headers.is_empty() { b"MSG " } else { b"HMSG " });
    out.extend_from_slice(message.subject);
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
    if let Some(reply) = message.reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    if !headers.is_empty() {
        decimal(out, headers.len());
        out.push(b' ');
    }
    decimal(out, headers.len() + message.payload.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(message.payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends the 503 answer to a request on `subject` that nobody receives.
pub(crate) fn no_responders(out: &mut Vec<u8>, reply: &[u8], sid: &[u8], subject: &[u8]) {
    let headers = [b"NATS/1.0 503\r\nNats-Subject: ", subject, b"\r\n\r\n"].concat();
    let answer = Publish { subject: reply, reply: None, headers: &headers, payload: &[], with_headers: true };
    message(out, &answer, sid, true);
}

fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

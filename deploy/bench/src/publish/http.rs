//! A lane over HTTP: one connection that stays open, one request at a time.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Answer, Lane, Outcome, PAUSE};
use crate::http::{self, Head};
use crate::socket;

pub(super) async fn run(mut lane: Lane) -> Outcome {
    let task = std::sync::Arc::clone(&lane.task);
    let (address, stop) = (task.address, task.stop.clone());
    let mut connection = None;
    let mut buffer = Vec::with_capacity(1_024);
    // Connects before the first ticket, so that the first message does not wait for the connection.
    loop {
        let stream = match connection.take() {
            Some(stream) => stream,
            None => match lane.connected(|| socket::tcp(address, None)).await {
                Some(stream) => stream,
                None => break,
            },
        };
        let Some(ticket) = task.pace.take().await else { break };
        // A server closes connections that were idle for long.
        let stream = if is_closed(&stream) {
            match lane.connected(|| socket::tcp(address, None)).await {
                Some(stream) => stream,
                None => {
                    let (open, _) = lane.message(ticket);
                    lane.unanswered(open);
                    break;
                }
            }
        } else {
            stream
        };
        let (open, body) = lane.message(ticket);
        let request = http::post(&task.target, task.authorization.as_deref(), &body);
        let called = tokio::select! {
            biased;
            called = call(stream, request.as_bytes(), &mut buffer) => called,
            () = stop.cancelled() => {
                lane.unanswered(open);
                break;
            }
        };
        match called {
            Ok((stream, head)) => {
                match serde_json::from_slice::<Answer>(&buffer) {
                    Ok(answer) => lane.answered(open, &answer, head.complete),
                    Err(_) => {
                        lane.took(open);
                        lane.refused(open, format!("HTTP {}", head.status));
                    }
                }
                connection = (!head.closes).then_some(stream);
                if head.status >= 400 && !task.pace.is_open() {
                    // Real publishers pause after a refusal; a closed loop would ask again at once.
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => {
                lane.unanswered(open);
                lane.broke(&format!("publish: {error}"));
            }
        }
    }
    lane.end()
}

/// Returns whether the server has closed the connection. Anything to read means that: an answer needs a
/// request first.
fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Sends a request, and reads the body of the answer into `body`.
async fn call(mut stream: TcpStream, request: &[u8], body: &mut Vec<u8>) -> io::Result<(TcpStream, Head)> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    stream.write_all(request).await?;
    body.clear();
    let head = loop {
        if stream.read_buf(body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = Head::read(body).map_err(invalid)? {
            break head;
        }
    };
    let length = head.body.ok_or_else(|| invalid("the answer does not say its length"))?;
    body.drain(..head.length);
    while body.len() < length {
        if stream.read_buf(body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((stream, head))
}

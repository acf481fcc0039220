//! The session's task with a client that never pauses.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use sockets::Acknowledged;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::cooperative;

use super::*;
use crate::frame::Frame;
use crate::session;
use crate::transport::{FrameLimits, Transport};

const LIMITS: FrameLimits = FrameLimits { op: 4096, auth: 20 << 10 };

/// Ops a second, and pings.
const OPS: u32 = 20;

/// A stream that always has one more frame, and yields now and then like a socket.
struct Endless {
    frame: &'static [u8],
    next: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(pin!(cooperative(std::future::ready(()))).poll(context));
        while buffer.remaining() > 0 {
            buffer.put_slice(&self.frame[self.next..=self.next]);
            self.next = (self.next + 1) % self.frame.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl Acknowledged for Endless {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns all that a session with this client writes until it ends.
async fn talk_to_endless(frame: &'static [u8]) -> Vec<u8> {
    let rest = Drain::new();
    let limits = Limits { login_timeout: 3_600 * SECOND, ops_per_second: OPS, ..limits() };
    let (deps, hub) = deps(limits, &mut Registry::default(), &rest).await;
    let member = hub.admit(1 << 10).unwrap();
    let written = Arc::new(Mutex::new(Vec::new()));
    let stream = Endless { frame, next: 0, written: Arc::clone(&written) };
    let session = session::run(Transport::new(stream, &[], LIMITS), member, HERE, deps);
    tokio::time::timeout(20 * SECOND, session).await.expect("the session ends");
    assert_eq!(rest.finish(20 * SECOND).await, 0);
    std::mem::take(&mut *written.lock().unwrap())
}

#[tokio::test]
async fn who_sends_control_frames_without_a_pause_is_closed_soon() {
    let written = talk_to_endless(&[0x8a, 0x80, 0, 0, 0, 0]).await;
    assert_eq!(written[..1], [0x88], "nothing was said but the close");
    assert_eq!(u16::from_be_bytes([written[2], written[3]]), 4429);
}

#[tokio::test]
async fn who_pings_without_a_pause_is_closed_soon() {
    let written = talk_to_endless(&[0x89, 0x80, 0, 0, 0, 0]).await;
    let pongs = written.chunks(2).take_while(|frame| *frame == b"\x8a\x00").count();
    assert!(pongs <= bounded(), "{pongs}");
    let close = &written[pongs * 2..];
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 4429));
}

/// Returns how many keep-alives are answered or refused before a client counts as stubborn, even on a slow
/// machine: a second's worth at once, ten times as many refused, and those that fall due meanwhile.
fn bounded() -> usize {
    OPS as usize * (1 + 10 + 20)
}

#[tokio::test]
async fn who_sends_text_pings_without_a_pause_is_told_and_closed_soon() {
    let written = talk_to_endless(&[0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g']).await;
    let pongs = written.chunks(6).take_while(|frame| *frame == b"\x81\x04pong").count();
    assert!(pongs > 0 && pongs <= bounded(), "{pongs}");
    let refusal = Frame::text(r#"{"code":7,"msg":"Too Many Requests"}"#);
    let refused = written.windows(refusal.len()).filter(|bytes| *bytes == refusal.bytes()).count();
    assert!(refused >= 10 && refused <= bounded(), "{refused}");
    let close = Frame::close(CloseCode::TooManyOps);
    assert!(written.ends_with(close.bytes()));
}

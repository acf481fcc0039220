//! A stream that fails once its other end takes no data for too long.
//!
//! The connection is then reset, so that the system holds no data for it. Slow is not stalled: each byte that
//! the other end takes counts, however long the whole transfer lasts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::progress::{Acknowledged, Progress, reset_on_close};

/// A stream whose writes, flushes and shutdown fail with [`io::ErrorKind::TimedOut`] once the other end takes
/// no data for a limited time.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    limit: Duration,
    /// `Some` while a write waits for the other end.
    waiting: Option<Progress>,
    timer: Pin<Box<Sleep>>,
}

impl<S: Acknowledged> Patient<S> {
    /// Wraps a stream; `limit` is how long the other end may take no data.
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None, timer: Box::pin(sleep_until(Instant::now())) }
    }

    /// Polls, and fails once the limit is over.
    fn poll_bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = poll(&mut self.stream, context) {
            self.waiting = None;
            return Poll::Ready(done);
        }
        let progress = self.waiting.get_or_insert_with(|| {
            let progress = Progress::new(Instant::now());
            self.timer.as_mut().reset(progress.next_look(self.limit));
            progress
        });
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            progress.look(now, self.stream.acknowledged());
            if progress.since() + self.limit <= now {
                reset_on_close(&self.stream);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(progress.next_look(self.limit));
        }
    }
}

impl<S: Acknowledged> Acknowledged for Patient<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.stream.tcp()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Acknowledged + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_bounded(context, |stream, context| Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_bounded(context, |stream, context| Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_bounded(context, |stream, context| Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_bounded(context, |stream, context| Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::net::{TcpListener, TcpSocket};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_takes_a_byte_in_time_is_not() {
        let (stream, mut client) = duplex(1);
        let mut stream = Patient::new(stream, LIMIT);
        let began = Instant::now();
        let reading = async {
            for _ in 0..3 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                client.read_exact(&mut [0]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(b"1234567"), reading);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), 3 * (LIMIT - Duration::from_secs(1)) + LIMIT);
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_over_a_real_socket() {
        let limit = Duration::from_millis(300);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (client, mut server) = (client.unwrap(), Patient::new(server.unwrap().0, limit));
        let bytes = vec![0; 64 << 20];
        let written = tokio::time::timeout(60 * limit, server.write_all(&bytes)).await.expect("it ends");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    /// A socket that was full takes nothing more until a third of it is free, which is after the limit here.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_the_kernel_still_sends_is_taken() {
        let limit = Duration::from_secs(5);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket2::SockRef::from(&listener).set_send_buffer_size(256 << 10).unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let (client, server) =
            tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
        let (mut client, mut server) = (client.unwrap(), Patient::new(server.unwrap().0, limit));
        let writing = async { server.write_all(&vec![0; 4 << 20]).await };
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let reading = async {
            for _ in 0..120 {
                tick.tick().await;
                client.read_exact(&mut [0; 1 << 10]).await.unwrap();
            }
        };
        let began = Instant::now();
        tokio::select! {
            written = writing => panic!("given up after {:?}: {written:?}", began.elapsed()),
            () = reading => {}
        }
    }
}

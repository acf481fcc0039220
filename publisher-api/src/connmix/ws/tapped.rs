//! A caller's stream below its WebSocket. It notices the close frame, also behind bytes that the WebSocket
//! does not understand, and a message of too many frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sockets::Frames;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;

/// A caller's socket.
pub(super) type Socket = WebSocketStream<Tapped<TokioIo<Upgraded>>>;

/// The error of reading once a message has too many frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message came in too many frames")]
pub(super) struct TooManyFrames;

/// A stream that carries nothing but frames.
#[derive(Debug)]
pub(super) struct Tapped<S> {
    stream: S,
    frames: Frames,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tapped<S> {
    /// Watches a stream of messages of at most `largest` bytes.
    pub(super) fn new(stream: S, largest: usize) -> Self {
        Self { stream, frames: Frames::of_messages_up_to(largest) }
    }

    /// Reads until the other side has closed, by a frame or by its end, and then ends the connection. A
    /// connection dropped with unread bytes would take our last words away from the caller.
    pub(super) async fn end(&mut self) {
        let mut rest = [0; 512];
        while !self.frames.are_closed()
            && let Ok(bytes @ 1..) = self.stream.read(&mut rest).await
        {
            self.frames.feed(&rest[..bytes]);
        }
        // The connection may be broken already.
        let _ = self.shutdown().await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames.are_too_many() {
            return Poll::Ready(Err(io::Error::other(TooManyFrames)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.frames.feed(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

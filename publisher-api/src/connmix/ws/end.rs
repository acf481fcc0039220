//! Why a socket ends: the label of the counter, and the close frame.

use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::tapped::TooManyFrames;

/// Why a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The caller left.
    Left,
    /// The connection broke.
    Broken,
    /// The caller does not speak WebSocket.
    Protocol,
    /// Text was not UTF-8.
    NotUtf8,
    /// A frame was too large.
    TooLarge,
    /// A message came in too many frames.
    TooManyFrames,
    /// Nothing came for too long.
    Silent,
    /// The caller does not take its answers.
    Slow,
    /// The key is not valid any more.
    Revoked,
    /// This process leaves.
    Leaving,
}

impl End {
    /// The label of the counter.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Broken => "broken",
            Self::Protocol => "protocol",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => "too_large",
            Self::TooManyFrames => "too_many_frames",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Revoked => "revoked",
            Self::Leaving => "leaving",
        }
    }

    /// The code and the reason of the close frame, where a frame can still be sent. A reason fits 123 bytes.
    pub(super) const fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Left | Self::Broken | Self::Slow => None,
            Self::Protocol => Some((1002, "protocol error")),
            Self::NotUtf8 => Some((1007, "text must be UTF-8; send JSON made by a JSON library")),
            Self::TooLarge => Some((1009, "frame too large; see the error before")),
            Self::TooManyFrames => Some((1009, "too many frames; send a message in one")),
            Self::Silent => Some((4408, "nothing came for too long; answer pings, and connect again")),
            Self::Revoked => Some((4401, "the key is not valid any more; connect with another")),
            Self::Leaving => Some((1012, "restarting; connect again")),
        }
    }

    /// Returns what an error of the socket means.
    pub(super) fn of(error: &SocketError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else there is or will be, the socket is of no use"
        )]
        match error {
            SocketError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Self::Slow,
            SocketError::Io(error) if error.get_ref().is_some_and(|error| error.is::<TooManyFrames>()) => {
                Self::TooManyFrames
            }
            SocketError::Capacity(_) => Self::TooLarge,
            SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Broken,
            SocketError::Protocol(_) => Self::Protocol,
            SocketError::Utf8(_) => Self::NotUtf8,
            _ => Self::Broken,
        }
    }
}

//! WebSocket frames as a server sends them (RFC 6455, 5.2): whole, unmasked, and encoded once.
//!
//! A frame is one buffer, header and payload together, so that all sessions share it and writing it takes no copy.

use bytes::{BufMut as _, Bytes, BytesMut};
use shared::wire::Kind;
use tracing::Span;

use crate::code::CloseCode;
use crate::traced::{Write, Writes};

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
/// Bytes that the reason in a close frame may have.
const MAX_REASON: usize = 123;
/// The longest header of an unmasked frame.
const MAX_HEADER: usize = 10;

/// One of a session's subscriptions. A new one of the same channel has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionId(pub(crate) u32);

/// A whole frame, ready to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    /// What the session receives it for; none for what the server says itself.
    subscription: Option<SubscriptionId>,
    /// Only for a message whose trace is kept.
    mark: Option<Box<Mark>>,
}

/// What makes spans of its way to the sockets.
#[derive(Debug)]
enum Mark {
    /// The frame that all sessions are offered.
    Offered(Writes),
    /// The frame of one session.
    Writing(Write),
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Frame {}

impl Frame {
    /// A message as its publisher wrote it. Copies the payload, which may be a slice of a read buffer.
    pub(crate) fn message(kind: Kind, payload: &[u8]) -> Self {
        match kind {
            Kind::Text => Self::encode(TEXT, payload),
            Kind::Binary => Self::encode(BINARY, payload),
        }
    }

    /// Its way to the sockets becomes part of the trace of this delivery, if that is kept.
    pub(crate) fn traced(mut self, delivery: &Span) -> Self {
        self.mark = Writes::of(delivery).map(|writes| Box::new(Mark::Offered(writes)));
        self
    }

    /// The same frame for one subscription of one session. The bytes are shared.
    pub(crate) fn for_subscription(&self, subscription: SubscriptionId) -> Self {
        let mark = match self.mark.as_deref() {
            None | Some(Mark::Writing(_)) => None,
            Some(Mark::Offered(writes)) => writes.begin().map(|write| Box::new(Mark::Writing(write))),
        };
        Self { bytes: self.bytes.clone(), subscription: Some(subscription), mark }
    }

    /// A frame that only one session is given, for this subscription.
    pub(crate) fn of(mut self, subscription: SubscriptionId) -> Self {
        self.subscription = Some(subscription);
        self
    }

    /// Whether the session receives it for this subscription.
    pub(crate) fn is_of(&self, subscription: SubscriptionId) -> bool {
        self.subscription == Some(subscription)
    }

    /// Its last byte is with the system.
    pub(crate) fn written(self) {
        if let Some(Mark::Writing(write)) = self.mark.map(|mark| *mark) {
            write.done();
        }
    }

    /// Something that the server says itself.
    pub(crate) fn text(text: &str) -> Self {
        Self::encode(TEXT, text.as_bytes())
    }

    /// Asks the client's WebSocket library for a sign of life.
    pub(crate) const fn ping() -> Self {
        Self { bytes: Bytes::from_static(&[FIN | PING, 0]), subscription: None, mark: None }
    }

    /// The last frame.
    pub(crate) fn close(code: CloseCode) -> Self {
        Self::close_saying(code, code.reason())
    }

    /// The last frame, with a reason of its own, cut to what fits.
    pub(crate) fn close_saying(code: CloseCode, reason: &str) -> Self {
        let mut payload = code.number().to_be_bytes().to_vec();
        let end = reason.floor_char_boundary(MAX_REASON);
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        Self::encode(CLOSE, &payload)
    }

    /// Bytes with their headers, as the WebSocket library wrote them.
    pub(crate) fn already_encoded(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), subscription: None, mark: None }
    }

    /// All of its bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many bytes it has on the wire.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn encode(opcode: u8, payload: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(payload.len() + MAX_HEADER);
        frame.put_u8(FIN | opcode);
        match payload.len() {
            short @ 0..=125 => frame.put_u8(short as u8),
            medium @ 126..=0xffff => {
                frame.put_u8(126);
                frame.put_u16(medium as u16);
            }
            long => {
                frame.put_u8(127);
                frame.put_u64(long as u64);
            }
        }
        frame.put_slice(payload);
        Self { bytes: frame.freeze(), subscription: None, mark: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_kind_and_length() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Frame::message(Kind::Text, &vec![b'x'; length]);
            assert!(frame.bytes.starts_with(&header), "{length}");
            assert_eq!(frame.len(), header.len() + length);
        }
        assert_eq!(&Frame::message(Kind::Binary, b"\xff").bytes[..], b"\x82\x01\xff");
        assert_eq!(&Frame::ping().bytes[..], b"\x89\x00");
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_two_characters() {
        let bytes = Frame::close_saying(CloseCode::Disconnected, &"é".repeat(100)).bytes;
        assert_eq!(usize::from(bytes[1]), 2 + 122);
        assert!(std::str::from_utf8(&bytes[4..]).is_ok());
    }

    #[test]
    fn a_close_frame_holds_number_and_reason_and_is_as_short_as_a_control_frame_must_be() {
        for code in CloseCode::ALL {
            let bytes = Frame::close(code).bytes;
            assert_eq!((bytes[0], usize::from(bytes[1])), (0x88, bytes.len() - 2));
            assert!(bytes[1] <= 125);
            assert_eq!(bytes[2..4], code.number().to_be_bytes());
            assert_eq!(&bytes[4..], code.reason().as_bytes());
        }
    }
}

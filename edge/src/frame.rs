//! WebSocket frames as a server sends them (RFC 6455, 5.2): whole, unmasked, and encoded once.
//!
//! A frame is one buffer, header and payload together, so that all sessions share it and writing takes no
//! copy. The memory of a waiting frame is known up to the overhead of the allocator: see [`Frame::cost`] and
//! [`FrameMemory`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BufMut as _;
use shared::wire::Kind;
use tracing::Span;

use crate::code::CloseCode;
use crate::spans::{Write, Writes};

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
/// The most bytes of the reason in a close frame.
const MAX_REASON: usize = 123;

/// Returns the heap that a block of so many bytes takes in the allocators of glibc and musl on 64 bits.
pub(crate) const fn block(bytes: usize) -> usize {
    let rounded = (bytes + 8).next_multiple_of(16);
    if rounded < 32 { 32 } else { rounded }
}

/// Counts the memory of the frame bodies of an edge, each once, however many sessions share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FrameMemory(Arc<AtomicUsize>);

impl FrameMemory {
    /// Returns the memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The bytes of a frame, which all sessions share.
#[derive(Debug)]
struct Body {
    bytes: Box<[u8]>,
    /// Where the body is counted.
    memory: Option<FrameMemory>,
}

impl Body {
    const fn cost(&self) -> usize {
        // An `Arc` stores two counters next to its value.
        block(2 * size_of::<usize>() + size_of::<Self>()) + block(self.bytes.len())
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.0.fetch_sub(self.cost(), Ordering::Relaxed);
        }
    }
}

/// The number of one of a session's subscriptions. A new subscription of the same channel has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionId(pub(crate) u32);

/// A whole frame, ready to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    body: Arc<Body>,
    /// The subscription that the frame belongs to; none for frames of the server itself.
    subscription: Option<SubscriptionId>,
    /// Set only for a message whose trace is sampled.
    mark: Option<Box<Mark>>,
}

/// Makes spans of the frame's way to the sockets.
#[derive(Debug)]
enum Mark {
    /// The frame that all sessions are offered.
    Offered(Writes),
    /// The frame of one session.
    Writing(Write),
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Frame {}

impl Frame {
    /// Encodes a message as its publisher wrote it. Copies the payload, which may be a slice of a read
    /// buffer.
    pub(crate) fn message(kind: Kind, payload: &[u8]) -> Self {
        match kind {
            Kind::Text => Self::encode(TEXT, payload),
            Kind::Binary => Self::encode(BINARY, payload),
        }
    }

    /// Makes the frame's way to the sockets part of the trace of this delivery, if that is sampled.
    pub(crate) fn traced(mut self, delivery: &Span) -> Self {
        self.mark = Writes::of(delivery).map(|writes| Box::new(Mark::Offered(writes)));
        self
    }

    /// Returns the same frame for one subscription of one session. The bytes are shared.
    pub(crate) fn for_subscription(&self, subscription: SubscriptionId) -> Self {
        let mark = match self.mark.as_deref() {
            None | Some(Mark::Writing(_)) => None,
            Some(Mark::Offered(writes)) => writes.begin().map(|write| Box::new(Mark::Writing(write))),
        };
        Self { body: Arc::clone(&self.body), subscription: Some(subscription), mark }
    }

    /// Marks a frame that only one session gets as one of this subscription.
    pub(crate) fn of(mut self, subscription: SubscriptionId) -> Self {
        self.subscription = Some(subscription);
        self
    }

    /// Returns whether the frame belongs to this subscription.
    pub(crate) fn is_of(&self, subscription: SubscriptionId) -> bool {
        self.subscription == Some(subscription)
    }

    /// Ends the frame's span: its last byte is with the system.
    pub(crate) fn written(self) {
        if let Some(Mark::Writing(write)) = self.mark.map(|mark| *mark) {
            write.done();
        }
    }

    /// Encodes a text of the server itself.
    pub(crate) fn text(text: &str) -> Self {
        Self::encode(TEXT, text.as_bytes())
    }

    /// Encodes a ping, which asks the client's WebSocket library for a sign of life.
    pub(crate) fn ping() -> Self {
        Self::already_encoded(vec![FIN | PING, 0])
    }

    /// Encodes a close frame, the last one of a connection.
    pub(crate) fn close(code: CloseCode) -> Self {
        Self::close_saying(code, code.reason())
    }

    /// Encodes a close frame with a reason of its own, cut to what fits.
    pub(crate) fn close_saying(code: CloseCode, reason: &str) -> Self {
        let mut payload = code.number().to_be_bytes().to_vec();
        let end = reason.floor_char_boundary(MAX_REASON);
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        Self::encode(CLOSE, &payload)
    }

    /// Takes bytes with their headers, as the WebSocket library wrote them.
    pub(crate) fn already_encoded(bytes: Vec<u8>) -> Self {
        let body = Body { bytes: bytes.into(), memory: None };
        Self { body: Arc::new(body), subscription: None, mark: None }
    }

    /// Counts the frame in `memory` for as long as any session has it. To be called before the frame is
    /// shared.
    pub(crate) fn counted(mut self, memory: &FrameMemory) -> Self {
        if let Some(body) = Arc::get_mut(&mut self.body).filter(|body| body.memory.is_none()) {
            memory.0.fetch_add(body.cost(), Ordering::Relaxed);
            body.memory = Some(memory.clone());
        }
        self
    }

    /// Returns all bytes of the frame.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body.bytes
    }

    /// Returns the heap memory of the frame, without its slot in a queue and as if no other session had it.
    pub(crate) fn cost(&self) -> usize {
        self.body.cost()
    }

    /// Returns the bytes of the frame on the wire.
    pub(crate) fn len(&self) -> usize {
        self.body.bytes.len()
    }

    fn encode(opcode: u8, payload: &[u8]) -> Self {
        let header = match payload.len() {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        let mut frame = Vec::with_capacity(header + payload.len());
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
        Self::already_encoded(frame)
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
            assert!(frame.bytes().starts_with(&header), "{length}");
            assert_eq!(frame.len(), header.len() + length);
        }
        assert_eq!(Frame::message(Kind::Binary, b"\xff").bytes(), b"\x82\x01\xff");
        assert_eq!(Frame::ping().bytes(), b"\x89\x00");
    }

    #[test]
    fn a_body_is_counted_once_for_all_and_until_the_last_has_let_it_go() {
        let memory = FrameMemory::default();
        let frame = Frame::text("twenty bytes, or so..").counted(&memory);
        let cost = 48 + 32;
        assert_eq!((frame.cost(), memory.bytes()), (cost, cost));
        let (one, two) =
            (frame.for_subscription(SubscriptionId(1)), frame.for_subscription(SubscriptionId(2)));
        drop(frame.counted(&memory));
        drop(one);
        assert_eq!(memory.bytes(), cost);
        drop(two);
        assert_eq!(memory.bytes(), 0);
        assert_eq!(size_of::<Frame>(), 24, "what each slot in a queue takes");
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_two_characters() {
        let frame = Frame::close_saying(CloseCode::Disconnected, &"é".repeat(100));
        let bytes = frame.bytes();
        assert_eq!(usize::from(bytes[1]), 2 + 122);
        assert!(std::str::from_utf8(&bytes[4..]).is_ok());
    }

    #[test]
    fn a_close_frame_holds_number_and_reason_and_is_as_short_as_a_control_frame_must_be() {
        for code in CloseCode::ALL {
            let frame = Frame::close(code);
            let bytes = frame.bytes();
            assert_eq!((bytes[0], usize::from(bytes[1])), (0x88, bytes.len() - 2));
            assert!(bytes[1] <= 125);
            assert_eq!(bytes[2..4], code.number().to_be_bytes());
            assert_eq!(&bytes[4..], code.reason().as_bytes());
        }
    }
}

//! The borders of WebSocket frames in the bytes of a client, whatever the frames hold.
//!
//! After a violation a client is not understood any more, but its close frame must still be noticed: it ends
//! the closing handshake, and the server then ends the connection (RFC 6455, 5.5.1 and 7.1.1). A message may
//! also come in any number of frames, empty ones included, which no bound of its size notices: a client that
//! never ends its message sends nothing that a rate limit could count.

/// The bit of the first byte that marks the last frame of a message.
const FIN: u8 = 0x80;
/// The lowest opcode of control frames, which may come between the frames of a message.
const CONTROL: u8 = 0x8;
/// The opcode of a close frame.
const CLOSE: u8 = 0x8;
/// The most bytes of a header without the mask: two, and a length of eight.
const HEADER: usize = 10;
/// The number of frames that every message may have, and the number of bytes for which a message may have one
/// more.
const FRAGMENTS: usize = 64;
/// The bytes of a mask.
const MASK: u64 = 4;

/// Follows the frames of a client until its close frame is whole, and counts the frames of the present
/// message.
///
/// ```
/// let mut frames = sockets::Frames::default();
/// let text = [0x81, 0x02, b'h', b'i'];
/// let close = [0x88, 0x00];
/// assert!(!frames.feed(&text));
/// assert!(frames.feed(&close));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    /// The most frames of a message.
    most: usize,
    /// The frames of the present message so far.
    of_message: usize,
    too_many: bool,
    header: [u8; HEADER],
    /// The bytes of the header that have come.
    known: usize,
    /// The bytes behind the header that are still to come.
    left: u64,
    closed: bool,
}

/// Allows messages of any number of frames.
impl Default for Frames {
    fn default() -> Self {
        Self::of_messages(usize::MAX)
    }
}

impl Frames {
    /// Allows messages of at most so many frames.
    pub fn of_messages(most: usize) -> Self {
        Self { most, of_message: 0, too_many: false, header: [0; HEADER], known: 0, left: 0, closed: false }
    }

    /// Allows messages of at most so many bytes in a generous number of frames: 64, and one more per 64
    /// bytes.
    pub fn of_messages_up_to(bytes: usize) -> Self {
        Self::of_messages(FRAGMENTS + bytes / FRAGMENTS)
    }

    /// Takes the next bytes, and returns whether the close frame is whole. Bytes behind the close frame are
    /// ignored.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !self.closed && !bytes.is_empty() {
            if self.left == 0 {
                self.header[self.known] = bytes[0];
                self.known += 1;
                bytes = &bytes[1..];
                let Some(left) = self.behind_header() else { continue };
                self.left = left;
                self.count();
            } else {
                let part = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                bytes = &bytes[part..];
                self.left -= part as u64;
            }
            if self.left > 0 {
                continue;
            }
            self.closed = self.header[0] & 0xf == CLOSE;
            self.known = 0;
        }
        self.closed
    }

    /// Returns the bytes of the present frame that are still to come, once its header is known.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Returns whether the close frame has come.
    pub fn are_closed(&self) -> bool {
        self.closed
    }

    /// Returns whether a message had too many frames.
    pub fn are_too_many(&self) -> bool {
        self.too_many
    }

    fn count(&mut self) {
        let first = self.header[0];
        if first & 0xf >= CONTROL {
            return;
        }
        self.of_message = self.of_message.saturating_add(1);
        self.too_many |= self.of_message > self.most;
        if first & FIN != 0 {
            self.of_message = 0;
        }
    }

    /// Returns the bytes behind the header, mask and payload; `None` while the header is not whole.
    fn behind_header(&self) -> Option<u64> {
        let short = *self.header.get(1).filter(|_| self.known >= 2)?;
        let extended = |bytes: usize| {
            let length = self.header.get(2..2 + bytes).filter(|_| self.known >= 2 + bytes)?;
            Some(length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
        };
        let length = match short & 0x7f {
            126 => extended(2)?,
            127 => extended(8)?,
            short => u64::from(short),
        };
        Some(length.saturating_add(if short & 0x80 == 0 { 0 } else { MASK }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload {
            0..=125 => frame.push(mask | payload as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        // Bytes within a payload that look like a close frame are none.
        frame.extend([0x88, 0x80, 0, 0].iter().cycle().take(payload + if masked { 4 } else { 0 }));
        frame
    }

    #[test]
    fn lengths_that_nobody_can_send_are_waited_for() {
        let mut frames = Frames::default();
        assert!(!frames.feed(&[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
        assert!(!frames.feed(&[0x88; 1_000]));
    }

    proptest! {
        #[test]
        fn the_close_frame_is_noticed_with_its_last_byte_however_it_is_cut(
            before in prop::collection::vec((any::<u8>(), any::<bool>(), prop::sample::select(vec![0, 1, 125, 126, 300, 70_000])), 0..6),
            masked in any::<bool>(), reason in 0_usize..126, piece in 1_usize..2_000,
        ) {
            let mut bytes = Vec::new();
            for (first, masked, payload) in before {
                let first = if first & 0xf == CLOSE { first ^ 1 } else { first };
                bytes.extend(frame(first, masked, payload));
            }
            bytes.extend(frame(0x88, masked, reason));
            let (last, rest) = bytes.split_last().unwrap();
            let mut frames = Frames::default();
            for piece in rest.chunks(piece) {
                prop_assert!(!frames.feed(piece));
            }
            prop_assert!(frames.feed(&[*last]) && frames.are_closed());
            prop_assert!(frames.feed(&[0x81]), "nothing follows a close frame");
        }

        #[test]
        fn as_many_frames_as_a_message_may_have_pass_and_one_more_does_not(
            most in 1_usize..8,
            payload in prop::sample::select(vec![0, 1, 125, 126, 300, 70_000]),
            pings in 0_usize..4,
            piece in 1_usize..2_000,
        ) {
            let mut message = frame(0x1, true, payload);
            for _ in 2..most {
                message.extend(frame(0x0, true, payload));
                message.extend(frame(0x89, true, 5).repeat(pings));
            }
            let mut frames = Frames::of_messages(most);
            let whole = [&message[..], &if most > 1 { frame(0x80, true, payload) } else { Vec::new() }].concat();
            let single = frame(0x82, true, payload);
            for bytes in [if most > 1 { &whole } else { &single }, &single].into_iter().cycle().take(4) {
                bytes.chunks(piece).for_each(|piece| {
                    frames.feed(piece);
                });
                prop_assert!(!frames.are_too_many());
            }
            let mut endless = message.clone();
            endless.extend(frame(0x0, true, payload).repeat(2));
            endless.chunks(piece).for_each(|piece| {
                    frames.feed(piece);
                });
            prop_assert!(frames.are_too_many());
            frames.feed(&single);
            prop_assert!(frames.are_too_many(), "it stays so");
        }
    }
}

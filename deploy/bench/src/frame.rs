//! WebSocket frames (RFC 6455) as a client writes and reads them, without a buffer for idle sockets.
//!
//! Pure. A client must mask its frames. A mask of zeros is legal and costs nothing here, while the server's
//! work stays the same. Message centers send whole, unmasked frames; every other frame is an error.

use std::fmt;

/// The largest payload that the reader accepts, in bytes.
const LARGEST: u64 = 64 << 20;

/// The opcode of a frame (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn number(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }
}

/// The reason why bytes can't be read as frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Reserved bits, an unknown opcode, or a masked frame.
    NotWebSocket,
    /// A fragment.
    Fragment,
    /// A frame above [`LARGEST`].
    TooLarge,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWebSocket => "the server sent a frame that no WebSocket server sends",
            Self::Fragment => "the server sent a fragmented message",
            Self::TooLarge => "the server sent a frame above 64 MiB",
        })
    }
}

/// Appends a whole frame to `out`.
pub(crate) fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(0x80 | opcode.number());
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Returns the code in the payload of a close frame, or 1005 if it has none (RFC 6455, section 7.4.1).
pub(crate) fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// Reads frames from bytes that arrive in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    partial: Vec<u8>,
}

impl Reader {
    /// Adds bytes, and calls `on` for each frame that is complete.
    ///
    /// # Errors
    /// Fails if the bytes are no frames. The reader is of no use afterwards.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Opcode, &[u8])) -> Result<(), FrameError> {
        if self.partial.is_empty() {
            let used = frames(bytes, &mut on)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.partial.extend_from_slice(bytes);
        let used = frames(&self.partial, &mut on)?;
        if used == self.partial.len() {
            // Frees the memory of a large frame.
            self.partial = Vec::new();
        } else {
            self.partial.drain(..used);
        }
        Ok(())
    }
}

/// The header of a frame.
struct Header {
    opcode: Opcode,
    /// Length of the header, in bytes: the payload starts there.
    start: usize,
    /// Length of the payload, in bytes.
    length: usize,
}

/// Reads the complete frames at the beginning of `bytes`. Returns how many bytes these frames have.
fn frames(bytes: &[u8], on: &mut impl FnMut(Opcode, &[u8])) -> Result<usize, FrameError> {
    let mut used = 0;
    while let Some(Header { opcode, start, length }) = header(&bytes[used..])? {
        let Some(payload) = bytes.get(used + start..used + start + length) else { break };
        on(opcode, payload);
        used += start + length;
    }
    Ok(used)
}

/// Reads the header at the beginning of `bytes`, once it is complete.
fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(FrameError::NotWebSocket);
    }
    if first & 0x80 == 0 || first & 0x0f == 0 {
        return Err(FrameError::Fragment);
    }
    let opcode = Opcode::of(first & 0x0f).ok_or(FrameError::NotWebSocket)?;
    let (start, length) = match second {
        126 => match rest.first_chunk() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        length => (2, u64::from(length)),
    };
    if length > LARGEST {
        return Err(FrameError::TooLarge);
    }
    let length = usize::try_from(length).map_err(|_| FrameError::TooLarge)?;
    Ok(Some(Header { opcode, start, length }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a frame as a server writes it.
    fn unmasked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write(&mut frame, opcode, payload);
        frame[1] &= 0x7f;
        let mask = frame.len() - payload.len() - 4;
        frame.drain(mask..mask + 4);
        frame
    }

    fn opcode() -> impl Strategy<Value = Opcode> {
        prop_oneof![Just(Opcode::Text), Just(Opcode::Binary), Just(Opcode::Ping), Just(Opcode::Close)]
    }

    proptest! {
        #[test]
        fn any_pieces_read_the_same(
            frames in prop::collection::vec((opcode(), prop_oneof![
                9 => prop::collection::vec(any::<u8>(), 0..200),
                1 => prop::collection::vec(any::<u8>(), 65_530..65_540),
            ]), 0..5),
            piece in 1..3_000_usize,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(opcode, payload)| unmasked(*opcode, payload)).collect();
            let (mut reader, mut read) = (Reader::default(), Vec::new());
            for piece in wire.chunks(piece) {
                reader.feed(piece, |opcode, payload| read.push((opcode, payload.to_vec()))).unwrap();
            }
            prop_assert_eq!(read, frames);
            prop_assert!(reader.partial.is_empty());
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes: Vec<u8>) {
            let _ = Reader::default().feed(&bytes, |_, _| {});
        }
    }

    #[test]
    fn frames_that_no_message_center_sends_are_errors() {
        for (bytes, error) in [
            (&[0xc1_u8, 0][..], FrameError::NotWebSocket),
            (&[0x81, 0x80, 0, 0, 0, 0], FrameError::NotWebSocket),
            (&[0x83, 0], FrameError::NotWebSocket),
            (&[0x01, 0], FrameError::Fragment),
            (&[0x80, 0], FrameError::Fragment),
            (&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0], FrameError::TooLarge),
        ] {
            assert_eq!(Reader::default().feed(bytes, |_, _| {}), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_close_says_why() {
        assert_eq!(close_code(&[0x11, 0x31, b'x']), 4401);
        assert_eq!(close_code(&[]), 1005);
    }
}

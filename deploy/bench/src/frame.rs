//! WebSocket frames as a client writes and reads them, without a buffer for sockets that are idle.
//!
//! Pure. A client must mask; a mask of zeros is legal and costs nothing here, and the server takes it off all the same.
//! Message centers send whole, unmasked frames; anything else is a fault that says so.

use std::fmt;

/// The largest frame that is taken.
const LARGEST: u64 = 64 << 20;

/// What a frame is.
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

/// Why what came can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Reserved bits, an unknown opcode, or a masked frame.
    NotWebSocket,
    /// A fragment.
    Fragment,
    /// A frame above [`LARGEST`].
    TooLarge,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWebSocket => "the server sent a frame that no WebSocket server sends",
            Self::Fragment => "the server sent a fragmented message",
            Self::TooLarge => "the server sent a frame above 64 MiB",
        })
    }
}

/// Puts a whole frame behind `out`.
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

/// The code of a close frame's payload; 1005 if it has none.
pub(crate) fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// Takes frames out of what comes, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    partial: Vec<u8>,
}

impl Reader {
    /// Calls `on` for each frame that is whole now.
    ///
    /// # Errors
    /// What came can't be read; nothing that follows can.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Opcode, &[u8])) -> Result<(), Fault> {
        if self.partial.is_empty() {
            let used = frames(bytes, &mut on)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.partial.extend_from_slice(bytes);
        let used = frames(&self.partial, &mut on)?;
        if used == self.partial.len() {
            // Whatever a large frame took is given back.
            self.partial = Vec::new();
        } else {
            self.partial.drain(..used);
        }
        Ok(())
    }
}

/// Reads the whole frames at the beginning; returns how many bytes they take.
fn frames(bytes: &[u8], on: &mut impl FnMut(Opcode, &[u8])) -> Result<usize, Fault> {
    let mut used = 0;
    while let Some((opcode, start, length)) = head(&bytes[used..])? {
        let Some(payload) = bytes.get(used + start..used + start + length) else { break };
        on(opcode, payload);
        used += start + length;
    }
    Ok(used)
}

/// Opcode, length of the head and length of the payload, once the head is whole.
fn head(bytes: &[u8]) -> Result<Option<(Opcode, usize, usize)>, Fault> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(Fault::NotWebSocket);
    }
    if first & 0x80 == 0 || first & 0x0f == 0 {
        return Err(Fault::Fragment);
    }
    let opcode = Opcode::of(first & 0x0f).ok_or(Fault::NotWebSocket)?;
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
        return Err(Fault::TooLarge);
    }
    let length = usize::try_from(length).map_err(|_| Fault::TooLarge)?;
    Ok(Some((opcode, start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As a server writes it.
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
        fn rubbish_is_a_fault_and_no_panic(bytes: Vec<u8>) {
            let _ = Reader::default().feed(&bytes, |_, _| {});
        }
    }

    #[test]
    fn what_no_message_center_sends_is_named() {
        for (bytes, fault) in [
            (&[0xc1_u8, 0][..], Fault::NotWebSocket),
            (&[0x81, 0x80, 0, 0, 0, 0], Fault::NotWebSocket),
            (&[0x83, 0], Fault::NotWebSocket),
            (&[0x01, 0], Fault::Fragment),
            (&[0x80, 0], Fault::Fragment),
            (&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0], Fault::TooLarge),
        ] {
            assert_eq!(Reader::default().feed(bytes, |_, _| {}), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn a_close_says_why() {
        assert_eq!(close_code(&[0x11, 0x31, b'x']), 4401);
        assert_eq!(close_code(&[]), 1005);
    }
}

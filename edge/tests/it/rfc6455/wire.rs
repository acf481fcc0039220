//! Frames as a client writes them, good or bad, and frames as it reads them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::soon;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;

/// Any key does, as long as it changes something.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame: `first` is its first byte, which holds FIN, the reserved bits and the opcode.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame that is a whole message.
pub(super) fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(0x80 | opcode, payload)
}

/// A frame that another follows.
pub(super) fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(opcode, payload)
}

/// A message in frames of at most `size` bytes.
pub(super) fn fragmented(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(size).max(1);
    let mut frames = Vec::with_capacity(payload.len() + count * 8);
    for index in 0..count {
        let piece = &payload[index * size..payload.len().min((index + 1) * size)];
        let opcode = if index == 0 { opcode } else { CONTINUATION };
        let fin = if index + 1 == count { 0x80 } else { 0 };
        frames.extend(masked(fin | opcode, piece));
    }
    frames
}

/// A close frame.
pub(super) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A connection after the upgrade, with nothing between the test and the bytes.
pub(super) struct Wire {
    stream: TcpStream,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Writes in pieces of at most `chop` bytes. The edge may have ended the connection meanwhile.
    pub(super) async fn write(&mut self, bytes: &[u8], chop: usize) {
        for piece in bytes.chunks(chop) {
            if self.stream.write_all(piece).await.is_err() {
                return;
            }
        }
    }

    /// Says that nothing more will come.
    pub(super) async fn finish(&mut self) {
        // The edge may have ended the connection.
        let _ = self.stream.shutdown().await;
    }

    /// The next frame: opcode and payload. None: the connection ended.
    pub(super) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("a frame of the edge", self.read_frame()).await.ok()
    }

    async fn read_frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        assert_eq!(
            head[0] & 0xf0,
            0x80,
            "a server that compresses nothing sends whole frames without reserved bits"
        );
        let length = match head[1] {
            short @ 0..=125 => u64::from(short),
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            _ => panic!("a server masks nothing"),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[0] & 0xf, payload))
    }
}

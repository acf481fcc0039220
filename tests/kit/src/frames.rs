//! WebSocket frames of a client, byte for byte: valid and invalid ones to write, and those of a server to
//! read.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::soon;

/// Opcode of a frame that continues a message.
pub const CONTINUATION: u8 = 0x0;
/// Opcode of a text message.
pub const TEXT: u8 = 0x1;
/// Opcode of a binary message.
pub const BINARY: u8 = 0x2;
/// Opcode of a close frame.
pub const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub const PING: u8 = 0x9;
/// Opcode of a pong.
pub const PONG: u8 = 0xa;

/// Any key will do, as long as it changes every byte.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame. `first` is its first byte: FIN, the reserved bits and the opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
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

/// A whole message in one frame.
pub fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(0x80 | opcode, payload)
}

/// A frame of a message that continues in another frame.
pub fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(opcode, payload)
}

/// A message in frames of at most `size` bytes.
pub fn fragmented(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
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
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A connection after the upgrade, without a WebSocket library.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Wraps a connection after its upgrade.
    ///
    /// # Panics
    /// The connection is closed.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("the connection is open");
        Self { stream }
    }

    /// Writes in pieces of at most `chop` bytes. The server may have closed the connection.
    pub async fn write(&mut self, bytes: &[u8], chop: usize) {
        for piece in bytes.chunks(chop) {
            if self.stream.write_all(piece).await.is_err() {
                return;
            }
        }
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) {
        // The server may have closed the connection.
        let _ = self.stream.shutdown().await;
    }

    /// The opcode and payload of the next frame. `None`: the connection has ended.
    ///
    /// # Panics
    /// The frame is masked, fragmented or has reserved bits.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("a frame of the server", self.read_frame()).await.ok()
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
        let mut payload = vec![0; usize::try_from(length).expect("a test server sends small frames")];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[0] & 0xf, payload))
    }
}

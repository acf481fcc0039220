//! One case: the frames that are sent, the expected answers, and the state of the connection afterwards.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use test_kit::frames::{CLOSE, PING, PONG, TEXT, Wire, close, whole};

/// The op around a payload that the edge is to give back.
const WRAP: (&[u8], &[u8]) = (br#"{"op":"echo","i":""#, br#""}"#);
/// The edge ends a connection within this time once its closing handshake is over. Without an answer the edge
/// waits for 2 s.
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// The payload of a ping at the end of a case that leaves the connection open.
const ALIVE: &[u8] = b"alive?";

/// An answer of the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The answer to an op that does not exist, with this `i`.
    Echo(String),
    /// A pong.
    Pong(Vec<u8>),
    /// A refusal of a message.
    Refusal,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The connection goes on.
    Open,
    /// The edge closes it with this code.
    Closed(u16),
    /// The edge closes it with this code behind a frame that never ends, so that no answer to the close can
    /// be read.
    ClosedWithin(u16),
    /// The edge answers a close without a code by a close without a code.
    ClosedWithout,
}

/// One case.
pub(super) struct Case {
    pub(super) id: String,
    steps: Vec<Step>,
    chop: usize,
    end: End,
}

/// Frames to send, and the answers that must come before anything else is sent.
struct Step {
    sends: Vec<u8>,
    expects: Vec<Said>,
}

/// A text message that the edge answers with its payload.
pub(super) fn op(payload: &[u8]) -> Vec<u8> {
    [WRAP.0, payload, WRAP.1].concat()
}

/// Returns an op of this many bytes in all, and its payload.
pub(super) fn op_of(bytes: usize) -> (Vec<u8>, String) {
    let payload = "*".repeat(bytes - WRAP.0.len() - WRAP.1.len());
    (op(payload.as_bytes()), payload)
}

pub(super) fn echo(payload: &str) -> Said {
    Said::Echo(payload.to_owned())
}

pub(super) fn pong(payload: &[u8]) -> Said {
    Said::Pong(payload.to_vec())
}

impl Case {
    /// Returns a case whose frames are sent at once.
    pub(super) fn new(id: impl Into<String>, frames: &[Vec<u8>], expects: &[Said], end: End) -> Self {
        let case = Self { id: id.into(), steps: Vec::new(), chop: usize::MAX, end };
        case.then(frames, expects)
    }

    /// Sends these frames once everything before them is answered.
    pub(super) fn then(mut self, frames: &[Vec<u8>], expects: &[Said]) -> Self {
        self.steps.push(Step { sends: frames.concat(), expects: expects.to_vec() });
        self
    }

    /// Sends the frames in pieces of so many bytes instead.
    pub(super) fn chopped(mut self, bytes: usize) -> Self {
        self.chop = bytes;
        self
    }

    pub(super) async fn run(self, mut wire: Wire) -> Result<(), String> {
        for Step { sends, expects } in &self.steps {
            // A client that sends much must read meanwhile; the edge stops reading from a client that does
            // not. No case sends so much before its answers are due that both sides would wait.
            wire.write(sends, self.chop).await;
            for expected in expects {
                let (opcode, payload) = wire.read().await.ok_or(format!("it ended before {expected:?}"))?;
                let said = said(opcode, &payload);
                if said.as_ref() != Some(expected) {
                    let start = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
                    return Err(format!("expected {expected:.80?}, received opcode {opcode} with {start:?}"));
                }
            }
        }
        self.end.hold(&mut wire).await
    }
}

impl End {
    async fn hold(self, wire: &mut Wire) -> Result<(), String> {
        if self == Self::Open {
            wire.write(&whole(PING, ALIVE), usize::MAX).await;
            let answer = wire.read().await;
            if answer != Some((PONG, ALIVE.to_vec())) {
                return Err(format!("expected to go on, received {answer:?}"));
            }
            wire.write(&close(1000, b""), usize::MAX).await;
        }
        let code = match self {
            Self::Open => Some(1000),
            Self::Closed(code) | Self::ClosedWithin(code) => Some(code),
            Self::ClosedWithout => None,
        };
        match wire.read().await {
            Some((CLOSE, payload)) => {
                let got = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                if got != code {
                    return Err(format!("expected to be closed with {code:?}, was with {got:?}"));
                }
                if payload.len() > 125 || std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() {
                    return Err("the reason is too long or not UTF-8".into());
                }
            }
            other => return Err(format!("expected a close with {code:?}, received {other:?}")),
        }
        self.hold_end(wire, code).await
    }

    /// Checks that the edge ends the connection, and does so first: this side leaves its own half open.
    async fn hold_end(self, wire: &mut Wire, code: Option<u16>) -> Result<(), String> {
        match (self, code) {
            (Self::Closed(_), Some(code)) => wire.write(&close(code, b""), usize::MAX).await,
            (Self::ClosedWithin(_), _) => wire.finish().await,
            (Self::Open | Self::Closed(_) | Self::ClosedWithout, _) => {}
        }
        let began = Instant::now();
        match wire.read().await {
            None if began.elapsed() < AT_ONCE => Ok(()),
            None => Err(format!("ended {:?} after the closing handshake", began.elapsed())),
            Some(frame) => Err(format!("received {frame:?} behind the close")),
        }
    }
}

fn said(opcode: u8, payload: &[u8]) -> Option<Said> {
    match opcode {
        PONG => Some(Said::Pong(payload.to_vec())),
        TEXT => {
            let answer: Value = serde_json::from_slice(payload).ok()?;
            match (answer["code"].as_u64()?, answer["i"].as_str()) {
                (5, Some(i)) => Some(Said::Echo(i.to_owned())),
                (4, None) => Some(Said::Refusal),
                _ => None,
            }
        }
        _ => None,
    }
}

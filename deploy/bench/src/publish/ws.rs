//! A lane over `/ws/v1`: one socket, many messages in flight.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Answer, InFlight, Lane, Outcome, PAUSE};
use crate::frame::{self, Opcode};
use crate::socket::Socket;

/// The reason why a lane stopped using its socket.
enum End {
    /// There is nothing more to send, and every message is answered.
    Done,
    /// The run was stopped.
    Stopped,
    /// The socket broke.
    Broken(String),
}

pub(super) async fn run(mut lane: Lane, window: usize) -> Outcome {
    let task = Arc::clone(&lane.task);
    loop {
        let connect = || {
            let task = Arc::clone(&task);
            async move { Socket::connect(&task.target, task.address, None, task.authorization.as_deref()).await }
        };
        let Some(socket) = lane.connected(connect).await else { break };
        let mut open = HashMap::with_capacity(window);
        let end = converse(&mut lane, socket, &mut open, window).await;
        open.into_values().for_each(|open| lane.unanswered(open));
        match end {
            End::Done | End::Stopped => break,
            End::Broken(why) => lane.broke(&why),
        }
    }
    lane.end()
}

async fn converse(
    lane: &mut Lane,
    mut socket: Socket,
    open: &mut HashMap<u64, InFlight>,
    window: usize,
) -> End {
    let task = Arc::clone(&lane.task);
    let (mut exhausted, mut out) = (false, Vec::new());
    while !exhausted || !open.is_empty() {
        let mut received_now = Received::default();
        tokio::select! {
            biased;
            () = task.stop.cancelled() => return End::Stopped,
            received = socket.receive(|opcode, payload| received_now.take(opcode, payload)) => {
                if let Err(error) = received {
                    return End::Broken(format!("publish: {error}"));
                }
            }
            ticket = task.pace.take(), if !exhausted && open.len() < window => match ticket {
                Some(ticket) => {
                    let mut ticket = Some(ticket);
                    // Messages that are due already go out in the same write.
                    while let Some(next) = ticket {
                        let (message, parameters) = lane.message(next);
                        open.insert(next.number, message);
                        let call = format!(r#"{{"m":"mesh.publish","p":{parameters},"i":{}}}"#, next.number);
                        frame::write(&mut out, Opcode::Text, call.as_bytes());
                        ticket = if open.len() < window { task.pace.take_now() } else { None };
                    }
                }
                None => exhausted = true,
            }
        }
        let Received { answers, mut pongs, closed } = received_now;
        if let Some(why) = closed {
            return End::Broken(why);
        }
        let refused = answers.iter().any(|answer| answer.error.is_some());
        for answer in answers {
            match answer.i.and_then(|number| open.remove(&number)) {
                Some(message) => lane.answered(message, &answer, true),
                None => lane.broke("publish: an answer to nothing that was asked"),
            }
        }
        out.append(&mut pongs);
        if !out.is_empty() {
            let written = tokio::select! {
                () = task.stop.cancelled() => return End::Stopped,
                written = socket.write(&out) => written,
            };
            if let Err(error) = written {
                return End::Broken(format!("publish: {error}"));
            }
            out.clear();
        }
        if refused && !task.pace.is_open() {
            // Real publishers pause after a refusal; a closed loop would ask again at once.
            tokio::time::sleep(PAUSE).await;
        }
    }
    // Code 1000 (normal closure). The server needs nothing more from this connection.
    let _ = socket.send(Opcode::Close, &[0x03, 0xe8]).await;
    End::Done
}

/// The frames that one read brought.
#[derive(Default)]
struct Received {
    answers: Vec<Answer>,
    pongs: Vec<u8>,
    closed: Option<String>,
}

impl Received {
    fn take(&mut self, opcode: Opcode, payload: &[u8]) {
        match opcode {
            Opcode::Text => match serde_json::from_slice(payload) {
                Ok(answer) => self.answers.push(answer),
                Err(error) => self.closed = Some(format!("publish: the answer is not understood: {error}")),
            },
            Opcode::Ping => frame::write(&mut self.pongs, Opcode::Pong, payload),
            Opcode::Close => {
                self.closed = Some(format!("publish: closed with {}", frame::close_code(payload)))
            }
            Opcode::Binary | Opcode::Pong => {}
        }
    }
}

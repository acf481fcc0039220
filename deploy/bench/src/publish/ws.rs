//! A lane over `/ws/v1`: one socket, many messages without an answer yet.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Answer, Lane, Open, Outcome, PAUSE};
use crate::frame::{self, Opcode};
use crate::socket::Socket;

/// Why a lane stopped using its socket.
enum End {
    /// There is no more to send, and all is answered.
    Done,
    /// The run is over.
    Stopped,
    /// The socket is.
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

async fn converse(lane: &mut Lane, mut socket: Socket, open: &mut HashMap<u64, Open>, window: usize) -> End {
    let task = Arc::clone(&lane.task);
    let (mut exhausted, mut out) = (false, Vec::new());
    while !exhausted || !open.is_empty() {
        let mut said = Said::default();
        tokio::select! {
            biased;
            () = task.stop.cancelled() => return End::Stopped,
            received = socket.receive(|opcode, payload| said.take(opcode, payload)) => {
                if let Err(error) = received {
                    return End::Broken(format!("publish: {error}"));
                }
            }
            ticket = task.pace.take(), if !exhausted && open.len() < window => match ticket {
                Some(ticket) => {
                    let mut ticket = Some(ticket);
                    // What is due already goes out in the same write.
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
        if let Some(why) = said.closed {
            return End::Broken(why);
        }
        let refused = said.answers.iter().any(|answer| answer.error.is_some());
        for answer in said.answers {
            match answer.i.and_then(|number| open.remove(&number)) {
                Some(message) => lane.answered(message, &answer, true),
                None => lane.broke("publish: an answer to nothing that was asked"),
            }
        }
        out.append(&mut said.pongs);
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
            // A closed loop would ask again at once, as nobody does.
            tokio::time::sleep(PAUSE).await;
        }
    }
    // 1000; the publisher needs no more of us.
    let _ = socket.send(Opcode::Close, &[0x03, 0xe8]).await;
    End::Done
}

/// What one read brought.
#[derive(Default)]
struct Said {
    answers: Vec<Answer>,
    pongs: Vec<u8>,
    closed: Option<String>,
}

impl Said {
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

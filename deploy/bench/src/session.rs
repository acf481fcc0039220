//! One session of a client process: connects, logs in, subscribes, and records the messages that arrive.
//!
//! Idle sessions must be cheap: a socket, a task, and a tracker per publishing connection whose messages have
//! arrived.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::clock;
use crate::control::{Ledger, Open};
use crate::frame::{self, Opcode};
use crate::sequence::{Sent, Tracker};
use crate::socket::{Refusal, Socket};
use crate::stamp::Stamp;
use crate::target::Target;
use crate::worker::Counts;

/// The beginning of a positive answer; the answer to a recovering subscribe goes on with an id.
const YES: &[u8] = b"{\"result\":true";
/// The most bytes of a frame before the text of its message.
const HEAD_BYTES: usize = 512;
/// The bytes between the id of a message and its text.
const TEXT: &[u8] = b",\"d\":\"";

/// The stage of all sessions of a process.
#[derive(Debug, Clone, Default)]
pub(crate) enum Stage {
    /// Messages arrive.
    #[default]
    Running,
    /// Everything was published; the ledger lists the messages that must arrive.
    Settling(Arc<Ledger>),
    /// The sessions end.
    Over,
}

/// How long the steps of opening took, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) handshake: u64,
    pub(crate) login: u64,
}

/// Messages that a session received more than once, or out of order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disorder {
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
}

/// The reason why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The tool asked for the end.
    Asked,
    /// The server closed it, or the connection broke.
    Gone(String),
}

/// A session that is logged in and subscribed.
#[derive(Debug)]
pub(crate) struct Session {
    socket: Socket,
    channel: u64,
    run: u32,
    recovers: bool,
    /// The received numbers by publishing connection.
    trackers: BTreeMap<u16, Tracker>,
}

/// Opens session `number`.
///
/// # Errors
/// Fails with a reason in words that are the same for all sessions with the same fate, so that they can be
/// counted.
pub(crate) async fn open(target: &Target, plan: &Open, number: u64) -> Result<(Session, Steps), String> {
    let user = number % plan.users + 1;
    let began = clock::now();
    let mut socket =
        Socket::connect(target, plan.address, source(plan, number), None).await.map_err(|refusal| {
            match refusal {
                Refusal::Io(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    "connect: no free local port; use more loopback addresses with --sources".to_owned()
                }
                refusal @ (Refusal::Io(_) | Refusal::Status(_) | Refusal::NotHttp(_)) => refusal.to_string(),
            }
        })?;
    let connected = clock::now();
    let token = serde_json::Value::from(plan.token.replace("{uid}", &user.to_string()));
    ask(&mut socket, &format!(r#"{{"op":"auth","token":{token}}}"#), "login").await?;
    let steps = Steps { handshake: connected - began, login: clock::now() - connected };
    let name = serde_json::Value::from(plan.subscribe.as_str());
    let after = if plan.recover { r#","after":"""# } else { "" };
    ask(&mut socket, &format!(r#"{{"op":"subscribe","channel":{name}{after}}}"#), "subscribe").await?;
    let channel = if plan.broadcast { 0 } else { user };
    let (run, recovers) = (plan.run, plan.recover);
    Ok((Session { socket, channel, run, recovers, trackers: BTreeMap::new() }, steps))
}

/// Returns the local address of a session: each address has some 28,000 ports.
fn source(plan: &Open, number: u64) -> Option<IpAddr> {
    if plan.sources == 0 {
        return None;
    }
    let last = u8::try_from(number % u64::from(plan.sources)).unwrap_or(0) + 1;
    Some(Ipv4Addr::new(127, 0, 0, last).into())
}

/// Sends an op and waits for a positive answer.
async fn ask(socket: &mut Socket, op: &str, what: &str) -> Result<(), String> {
    let broken = |error: io::Error| format!("{what}: {error}");
    socket.send(Opcode::Text, op.as_bytes()).await.map_err(broken)?;
    let mut answer = None;
    while answer.is_none() {
        let mut ping = None;
        socket
            .receive(|opcode, payload| match opcode {
                Opcode::Ping => ping = Some(payload.to_vec()),
                // Frames after the answer in the same read do not matter here: a close follows every refusal.
                Opcode::Text | Opcode::Close if answer.is_some() => {}
                Opcode::Text if payload.starts_with(YES) => answer = Some(Ok(())),
                // A message of another publisher may come between.
                Opcode::Text if !payload.starts_with(b"{\"code\":") => {}
                Opcode::Text => answer = Some(Err(format!("{what}: {}", String::from_utf8_lossy(payload)))),
                Opcode::Close => {
                    answer = Some(Err(format!("{what}: closed with {}", frame::close_code(payload))))
                }
                Opcode::Binary | Opcode::Pong => {}
            })
            .await
            .map_err(broken)?;
        if let Some(ping) = ping {
            socket.send(Opcode::Pong, &ping).await.map_err(broken)?;
        }
    }
    answer.unwrap_or(Ok(()))
}

impl Session {
    /// Receives until the last stage, or until the session is gone.
    pub(crate) async fn receive(&mut self, counts: &Counts, mut stage: watch::Receiver<Stage>) -> End {
        let mut ledger: Option<Arc<Ledger>> = None;
        let mut whole = false;
        loop {
            let mut control = None;
            let (socket, trackers) = (&mut self.socket, &mut self.trackers);
            let (run, recovers) = (self.run, self.recovers);
            tokio::select! {
                biased;
                changed = stage.changed() => {
                    let now = stage.borrow_and_update().clone();
                    match now {
                        Stage::Settling(all) if changed.is_ok() => ledger = Some(all),
                        Stage::Running if changed.is_ok() => {}
                        Stage::Running | Stage::Settling(_) | Stage::Over => return End::Asked,
                    }
                }
                received = socket.receive(|opcode, payload| match opcode {
                    Opcode::Text | Opcode::Binary => {
                        let text = if recovers { inner(payload) } else { Some(payload) };
                        text.into_iter().for_each(|text| note(trackers, counts, run, text));
                    }
                    Opcode::Close | Opcode::Ping => control = Some((opcode, payload.to_vec())),
                    Opcode::Pong => {}
                }) => {
                    if let Err(error) = received {
                        return End::Gone(gone(&error));
                    }
                }
            }
            match control {
                Some((Opcode::Ping, payload)) => {
                    if let Err(error) = self.socket.send(Opcode::Pong, &payload).await {
                        return End::Gone(gone(&error));
                    }
                }
                Some((_, payload)) => {
                    return End::Gone(format!("closed with {}", frame::close_code(&payload)));
                }
                None => {}
            }
            if !whole && ledger.as_ref().is_some_and(|ledger| self.lost(ledger) == 0) {
                whole = true;
                counts.whole.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sends a close frame.
    pub(crate) async fn close(&mut self) {
        // Code 1000 (normal closure). A server that can't read the frame sees the end of the connection.
        let _ = self.socket.send(Opcode::Close, &[0x03, 0xe8]).await;
    }

    /// Returns how many messages of the ledger are missing.
    pub(crate) fn lost(&self, ledger: &Ledger) -> u64 {
        let nothing = Tracker::default();
        let lost = |sent: &Sent| self.trackers.get(&sent.lane).unwrap_or(&nothing).lost(sent);
        ledger.get(&self.channel).into_iter().flatten().map(lost).sum()
    }

    /// Returns how many messages were duplicates or out of order.
    pub(crate) fn disorder(&self) -> Disorder {
        self.trackers.values().fold(Disorder::default(), |sum, tracker| Disorder {
            duplicates: sum.duplicates + tracker.duplicates,
            reordered: sum.reordered + tracker.reordered,
        })
    }
}

/// Returns the published text, without the id that came with it. A stamp needs no escaping, so its bytes
/// arrive as they were published. `None`: the frame is no message but a `@position` event or another event of
/// message center.
fn inner(payload: &[u8]) -> Option<&[u8]> {
    if payload.starts_with(b"{\"event\":\"@") {
        return None;
    }
    // Id and channel name are short.
    let head = &payload[..payload.len().min(HEAD_BYTES)];
    let at = head.windows(TEXT.len()).position(|window| window == TEXT);
    Some(at.map_or(payload, |at| &payload[at + TEXT.len()..]))
}

/// Records a message.
fn note(trackers: &mut BTreeMap<u16, Tracker>, counts: &Counts, run: u32, payload: &[u8]) {
    match Stamp::read(payload) {
        Some(stamp) if stamp.run == run => {
            let now = clock::now();
            trackers.entry(stamp.lane).or_default().received(stamp.number);
            counts.received(now, now.saturating_sub(stamp.intended));
        }
        Some(_) | None => {
            counts.foreign.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn gone(error: &io::Error) -> String {
    let ended = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    if ended.contains(&error.kind()) { "the connection ended".into() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_an_id_is_taken_out_of_its_frame() {
        let stamp = Stamp { run: 1, lane: 2, number: 3, intended: 4 };
        let frame = format!(r#"{{"id":"00000000000000ff.7","channel":"@user","d":"{}"}}"#, stamp.payload(60));
        assert_eq!(Stamp::read(inner(frame.as_bytes()).unwrap()), Some(stamp));
        let position = br#"{"event":"@position","channel":"@user","id":"00000000000000ff.9"}"#;
        assert_eq!(inner(position), None);
        let foreign = br#"{"id":"00000000000000ff.7","channel":"@user","b":"AAE="}"#;
        assert_eq!(Stamp::read(inner(foreign).unwrap()), None);
    }
}

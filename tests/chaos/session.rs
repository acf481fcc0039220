//! A small client as the protocol describes it: names the last id it received, reconnects by itself, and
//! opens the new socket before it closes the old one when asked to reconnect.
//!
//! The client records every frame, and checks only the shape of frames.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use harness::recovering;
use serde_json::{Value, json};
use shared::history::Position;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::clock::{Clock, back_off, pass};
use crate::ledger::{Diary, Heard, Note};

type Socket = WebSocketStream<TcpStream>;

/// After this time without a login or an answer the connection is given up.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The diary of a session, written by the session's task and read by the judge.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Diary>>);

/// One session of a user, over as many connections as it takes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) user: u32,
    /// All edges; the session begins with the first, and goes on to the next when an edge refuses it.
    pub(crate) edges: Vec<SocketAddr>,
    pub(crate) random: fastrand::Rng,
    pub(crate) clock: Clock,
    pub(crate) diary: Shared,
    /// Counts the sessions that have subscribed once.
    pub(crate) online: watch::Sender<usize>,
    /// The id that a recovering session names when it comes back; `None` for a plain session.
    pub(crate) last: Option<String>,
    /// Consecutive failed attempts.
    pub(crate) failures: u32,
}

/// The client's next step after a frame.
enum Then {
    GoOn,
    Move,
    Leave,
}

impl Shared {
    /// An empty diary.
    pub(crate) fn new(user: u32, recovering: bool) -> Self {
        Self(Arc::new(Mutex::new(Diary::new(user, recovering))))
    }

    /// The diary; the lock is never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Diary> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Runs until the case drops the session.
    pub(crate) async fn run(mut self) {
        let mut first = true;
        loop {
            let opened = self.open().await;
            let Some(mut socket) = opened else {
                self.rest().await;
                continue;
            };
            self.failures = 0;
            if std::mem::take(&mut first) {
                self.online.send_modify(|count| *count += 1);
            }
            self.live(&mut socket).await;
            self.rest().await;
        }
    }

    async fn rest(&mut self) {
        let pause = back_off(&mut self.random, self.failures, LONGEST_PAUSE);
        self.failures += 1;
        if self.failures > 1 {
            self.edges.rotate_left(1);
        }
        pass(pause).await;
    }

    async fn open(&mut self) -> Option<Socket> {
        let mut socket = timeout(PATIENCE, log_in(self.edges[0], self.user)).await.ok()??;
        self.subscribe(&mut socket).await.then_some(socket)
    }

    async fn subscribe(&mut self, socket: &mut Socket) -> bool {
        let request = match &self.last {
            Some(last) => json!({ "op": "subscribe", "channel": "@user", "after": last }),
            None => json!({ "op": "subscribe", "channel": "@user" }),
        };
        let asked = async {
            socket.send(Message::text(request.to_string())).await.ok()?;
            next_text(socket).await
        };
        let Ok(Some(answer)) = timeout(PATIENCE, asked).await else { return false };
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        if answer["result"] != true {
            return false;
        }
        if self.last.is_none() {
            return true;
        }
        let (id, recovered) = (answer["id"].as_str().unwrap_or_default(), &answer["recovered"]);
        if id.parse::<Position>().is_err() || !recovered.is_boolean() {
            self.diary.lock().wonder(format!("a subscribe with ids was answered {answer}"));
            return false;
        }
        if recovered == false {
            let mut diary = self.diary.lock();
            diary.unrecovered += 1;
            diary.wonder(format!("not recovered: {request} was answered {answer}"));
            self.last = Some(id.to_owned());
        } else if self.last.as_deref() == Some("") {
            self.last = Some(id.to_owned());
        }
        true
    }

    /// Takes frames until the connection is of no more use.
    async fn live(&mut self, socket: &mut Socket) {
        while let Some(text) = next_text(socket).await {
            match self.take(&text) {
                Then::GoOn => {}
                Then::Leave => return,
                Then::Move => match self.change(socket).await {
                    Some(fresh) => *socket = fresh,
                    None => return,
                },
            }
        }
    }

    /// Make before break: logs in on another socket while still reading the old one, then subscribes there
    /// from the last id of the old one.
    async fn change(&mut self, old: &mut Socket) -> Option<Socket> {
        let mut logging_in = Box::pin(timeout(PATIENCE, log_in(self.edges[0], self.user)));
        let mut fresh = loop {
            tokio::select! {
                fresh = &mut logging_in => break fresh.ok()??,
                text = next_text(old) => match text.map(|text| self.take(&text)) {
                    Some(Then::GoOn | Then::Move) => {}
                    Some(Then::Leave) | None => break logging_in.await.ok()??,
                },
            }
        };
        self.subscribe(&mut fresh).await.then_some(fresh)
    }

    fn take(&mut self, text: &str) -> Then {
        if self.last.is_none() {
            return self.take_plain(text);
        }
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(message) = recovering::message("@user", &frame) {
            return self.take_message(&message);
        }
        let id = frame["id"].as_str().filter(|id| id.parse::<Position>().is_ok());
        match (frame["event"].as_str(), id) {
            (Some("@position"), Some(id)) => self.last = Some(id.to_owned()),
            (Some("@reload"), Some(id)) => {
                let mut diary = self.diary.lock();
                diary.reloads += 1;
                diary.wonder(format!("reload: {frame}"));
                self.last = Some(id.to_owned());
            }
            (Some("@reconnect"), _) => return self.take_reconnect(&frame),
            _ => return self.take_error(&frame, text),
        }
        Then::GoOn
    }

    fn take_message(&mut self, message: &recovering::Message) -> Then {
        let (note, position) = (Note::parse(&message.text), message.id.parse().ok());
        let mut diary = self.diary.lock();
        match note.filter(|_| position.is_some()) {
            Some(note) => diary.hear(Heard { at: self.clock.now(), note, position }),
            None => diary.wonder(format!("no message of ours: {message:?}")),
        }
        self.last = Some(message.id.clone());
        Then::GoOn
    }

    /// Takes the ids in a reconnect event as positions, as good as the last message's.
    fn take_reconnect(&mut self, frame: &Value) -> Then {
        let id = frame["ids"]["@user"].as_str();
        match id.filter(|id| id.parse::<Position>().is_ok() && frame["within_ms"].is_u64()) {
            Some(id) => self.last = Some(id.to_owned()),
            None => self.diary.lock().wonder(format!("a bad @reconnect: {frame}")),
        }
        Then::Move
    }

    fn take_plain(&mut self, text: &str) -> Then {
        match Note::parse(text) {
            Some(note) => self.diary.lock().hear(Heard { at: self.clock.now(), note, position: None }),
            None => return self.take_error(&serde_json::from_str(text).unwrap_or_default(), text),
        }
        Then::GoOn
    }

    fn take_error(&mut self, frame: &Value, text: &str) -> Then {
        if !frame["code"].is_u64() {
            self.diary.lock().wonder(format!("neither a message nor an event nor an error: {text:?}"));
        }
        Then::Leave
    }
}

/// The next text frame; `None`: the connection has ended.
async fn next_text(socket: &mut Socket) -> Option<String> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Binary(_) | Message::Close(_)) | Err(_) => return None,
        }
    }
}

async fn log_in(edge: SocketAddr, user: u32) -> Option<Socket> {
    let stream = TcpStream::connect(edge).await.ok()?;
    let request = format!("ws://{edge}{}", harness::device::PATH);
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.ok()?;
    let login = json!({ "op": "auth", "token": format!("user-{user}") }).to_string();
    socket.send(Message::text(login)).await.ok()?;
    let answer: Value = serde_json::from_str(&next_text(&mut socket).await?).ok()?;
    (answer["result"] == true).then_some(socket)
}

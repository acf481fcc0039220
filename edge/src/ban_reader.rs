//! Keeps up with the list of bans on the bus.
//!
//! Two invariants hold. Before the first client is taken, the whole list was read, up to the sequence that
//! the leader of its stream named after the subscription was proved. And every later ban is either heard or
//! found missing: by the gap before the next ban, at each new connection, and by a look at the stream every
//! `edge.sweep_interval`.
//!
//! The publisher's own command closes the sessions and counts them. A ban that came by the list alone closes
//! sessions too, [`PATIENCE`] later, whether the ban was heard as a copy or read.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bans::{Bans, StoredBan};
use shared::bus::async_nats::{Message, Subscriber};
use shared::bus::jetstream::ApiError;
use shared::bus::{self, Bus, RequestError};
use shared::clock::unix_ms;
use shared::ids::Uid;
use shared::subject;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ban_list::Owed;
use crate::code::CloseReason;
use crate::hub::Hub;
use crate::metrics::{Loss, Metrics};
use crate::node::Node;

/// How long a ban of the list waits for the publisher's own command, which counts the sessions that it
/// closes. Several times as long as a publisher waits for an edge.
const PATIENCE: Duration = Duration::from_secs(1);
/// When to look at the list after a copy came whose ban should be known already.
const SOON: Duration = Duration::from_secs(1);
/// The pause after a failed read of the list, less up to a half.
const PAUSE: Duration = Duration::from_millis(500);
/// After this many failed reads in a row the log warns; the first is no reason to.
const WORRYING: u32 = 4;

/// A time at which the sessions of bans are closed.
#[derive(Debug, Clone, Copy)]
struct Settle {
    /// The time, as [`Bus::awake`] counts.
    at: Instant,
    /// The sequence of the last ban that counts.
    up_to: u64,
}

/// Reads the list.
#[derive(Debug)]
pub(crate) struct Reader {
    bus: Bus,
    list: Bans,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Whether the whole list was read on the present connection.
    read: watch::Sender<bool>,
    /// When the stream that was read was created.
    created: Option<u64>,
    failures: u32,
    /// How often the list is compared with what was read of it.
    every: Duration,
    /// The next time to close sessions of bans that no publisher told here.
    settle: Option<Settle>,
}

impl Reader {
    /// Subscribes, and reads until the edge is gone, comparing at this interval. The returned receiver tells
    /// whether the list was read.
    pub(crate) async fn start(
        node: &Node,
        list: Bans,
        every: Duration,
    ) -> Result<watch::Receiver<bool>, RequestError> {
        let copies = node.bus.subscribe(subject::DENIED_ALL, None, bus::DEADLINE).await?;
        let (read, known) = watch::channel(false);
        let Node { bus, hub, metrics, drain, gone, .. } = node.clone();
        let reader = Self { bus, list, hub, metrics, read, created: None, failures: 0, every, settle: None };
        let state = (reader, copies, gone);
        drain.supervise("edge-bans", state, |(reader, copies, gone)| Box::pin(reader.keep_up(copies, gone)));
        Ok(known)
    }

    async fn keep_up(&mut self, copies: &mut Subscriber, gone: &CancellationToken) {
        let (mut state, hub) = (self.bus.state(), Arc::clone(&self.hub));
        let work = async {
            let mut look = Instant::now();
            loop {
                let settle = self.settle.map(|settle| self.bus.awake().real(settle.at));
                tokio::select! {
                    // A new connection comes first: its copies are worth nothing before it is proved.
                    biased;
                    changed = state.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.read.send_if_modified(|read| std::mem::replace(read, false));
                        look = Instant::now();
                    }
                    () = sleep_until(settle.unwrap_or(look)), if settle.is_some() => self.close_owed(),
                    () = sleep_until(look) => look = self.look().await,
                    () = hub.bans_stale().notified() => look = Instant::now(),
                    ban = copies.next() => match ban {
                        Some(message) => {
                            if let Some(time) = self.on_copy(&message) {
                                look = look.min(Instant::now() + time);
                            }
                        }
                        None => return tracing::error!("the bus client ended the subscription to the deny list"),
                    },
                }
            }
        };
        tokio::select! { () = work => {}, () = gone.cancelled() => {} }
    }

    /// Reads what is missing. Returns when to look again.
    async fn look(&mut self) -> Instant {
        let view = *self.bus.state().borrow();
        let outcome = self.read_rest().await;
        let now = Instant::now();
        match outcome {
            // If the connection has changed meanwhile, the proof is about another one.
            Ok(()) if *self.bus.state().borrow() == view && view.connected => {
                self.failures = 0;
                self.hub.bans().sweep(unix_ms());
                self.read.send_if_modified(|read| !std::mem::replace(read, true));
                now + self.every
            }
            Ok(()) => now + PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == WORRYING && view.connected {
                    tracing::warn!(%error, "the list of those who may not log in can't be read; trying again");
                }
                now + PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0)
            }
        }
    }

    async fn read_rest(&mut self) -> Result<(), ApiError> {
        self.bus.barrier(bus::DEADLINE).await?;
        let view = self.list.look().await?;
        let is_other = self.created.replace(view.created) != Some(view.created);
        let mut cursor = self.hub.bans().resume(is_other, view.last_seq, unix_ms());
        let mut found = 0;
        while cursor < view.last_seq {
            let page = self.list.after(cursor).await?;
            let Some(last) = page.last() else { break };
            cursor = last.seq;
            found += page.len();
            page.iter().for_each(|ban| self.take(ban));
        }
        self.hub.bans().read_up_to(view.last_seq);
        if found > 0 {
            tracing::debug!(found, "read the list of those who may not log in");
        }
        Ok(())
    }

    /// Takes the copy of a ban. Returns when to look at the list, if there is a reason to.
    fn on_copy(&mut self, message: &Message) -> Option<Duration> {
        let Some(ban) = StoredBan::of_copy(message.headers.as_ref(), &message.payload) else {
            self.metrics.lost(Loss::BadCommand, 1);
            return None;
        };
        let next = self.hub.bans().cursor() + 1;
        match ban.seq.cmp(&next) {
            Ordering::Equal => {
                self.take(&ban);
                None
            }
            Ordering::Greater => Some(Duration::ZERO),
            // The ban was read a moment ago, or the stream went back.
            Ordering::Less => Some(SOON),
        }
    }

    fn take(&mut self, StoredBan { seq, stored_ms, ban }: &StoredBan) {
        let read = ban.as_ref().and_then(|ban| Some((Uid::parse(&ban.uid).ok()?, ban)));
        let Some((uid, ban)) = read else {
            self.hub.bans().read_up_to(*seq);
            self.metrics.lost(Loss::BadCommand, 1);
            return tracing::error!(seq, "an order about who may not log in can't be read");
        };
        let reason: CloseReason = ban.reason.as_deref().map(Into::into);
        let mut list = self.hub.bans();
        let is_news = !list.was_commanded(&uid, *seq);
        let taken = list.read(&uid, *seq, ban.until_ms, reason.clone(), unix_ms());
        drop(list);
        if taken.is_err() {
            self.metrics.lost(Loss::Ban, 1);
            tracing::error!(seq, "a ban finds no place: too many users are banned on this edge");
        }
        // Sessions are looked up after the ban was taken: a login that comes later is refused by the ban.
        if is_news && self.hub.has(&uid) {
            self.hub.bans().owe(&uid, Owed { seq: *seq, stored: *stored_ms, reason });
            let at = self.bus.awake().now() + PATIENCE;
            self.settle.get_or_insert(Settle { at, up_to: *seq });
        }
    }

    /// Closes the sessions of bans that no publisher told here within [`PATIENCE`].
    fn close_owed(&mut self) {
        if self.settle.is_none_or(|settle| settle.at > self.bus.awake().now()) {
            // This process did not run for a while, and the publisher may not have run either.
            return;
        }
        let Some(Settle { up_to, .. }) = self.settle.take() else { return };
        let owed = self.hub.bans().take_owed(up_to);
        for (uid, Owed { stored, reason, .. }) in owed {
            let ban = self.hub.bans().banned(&uid, unix_ms());
            let closed = match ban {
                Some(reason) => self.hub.disconnect(&uid, &reason),
                // The ban has ended, or was lifted: sessions that came back since may stay.
                None => self.hub.disconnect_before(&uid, stored, &reason),
            };
            if closed > 0 {
                tracing::info!(closed, "the list of those who may not log in closes sessions of a user");
            }
        }
        let list = self.hub.bans();
        if list.owes() {
            self.settle = Some(Settle { at: self.bus.awake().now() + PATIENCE, up_to: list.cursor() });
        }
    }
}

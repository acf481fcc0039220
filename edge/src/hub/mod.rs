//! The sessions of one edge: which are subscribed to a channel, and which belong to a user.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Hub`]: sessions, users, bans |
//! | [`history`] | channels with history: live copies, fetches, cursors |
//! | [`guards`] | guards that keep a channel's cursor, a fetch, a replay |
//! | [`member`], `following` | what one session changes: its user, its subscriptions, those with ids |
//! | `refreshing` | refreshes: sessions that must renew their logins |
//! | [`gauges`], `sharded` | the gauges of all this; a map in shards |
//!
//! A session holds a [`Member`](member::Member); once the member is dropped, no map knows the session any
//! more. A message is offered to all sessions of its channel under the lock of the channel's shard, so a
//! session is counted exactly if it was subscribed when the message was handled. Locks are held for one
//! operation, never across an await, and never two at a time.

pub(crate) mod following;
pub(crate) mod gauges;
pub(crate) mod guards;
pub(crate) mod history;
pub(crate) mod member;
mod refreshing;
mod sharded;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::bans;
use shared::ids::{Channel, Uid};
use shared::wire::Counts;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::ban_list::BanList;
use crate::channel::ChannelState;
use crate::code::{CloseCode, CloseReason};
use crate::frame::{Frame, FrameMemory};
use crate::outbox::Load;
use crate::refreshes::Refreshes;
use crate::session_handle::SessionHandle;
use sharded::Sharded;

/// Bans that may hold at a time. The list of the bus holds fewer; that bound may be passed a little when
/// several publishers add to the list at once.
const MAX_BANS: usize = bans::MAX_BANNED + 1_024;
/// Users whose latest refresh is listed at a time.
const MAX_REFRESHES: usize = 65_536;

/// The policy when a user opens one session more than allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SessionPolicy {
    /// The oldest is closed with 4409.
    #[default]
    EvictOldest,
    /// The newest is refused with 4429.
    RefuseNewest,
}

/// The numbers of sessions that are allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    /// Sessions on this edge; 0 for no limit.
    pub(crate) sessions: usize,
    /// The edge is crowded from so many sessions on; 0 for never.
    pub(crate) watermark: usize,
    /// Sessions of one user.
    pub(crate) per_user: usize,
    /// The policy beyond the sessions of one user.
    pub(crate) policy: SessionPolicy,
}

/// Which sessions are asked to move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// At most so many sessions.
    pub(crate) most: usize,
    /// Whether sessions that don't recover may be chosen, after those that do.
    pub(crate) plain: bool,
    /// Only sessions that have reached their share of this age: from 80 to 100 %, depending on the session's
    /// number.
    pub(crate) older_than: Option<Duration>,
}

/// A session of a user.
#[derive(Debug)]
struct Login {
    handle: Arc<SessionHandle>,
    /// When the session logged in, in milliseconds since 1970.
    since: u64,
}

/// The amount that waits for sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Sessions that something waits for.
    pub(crate) sessions: usize,
    /// Frames.
    pub(crate) frames: usize,
    /// Memory of everything that waits, and of what sessions are just being sent: each body once, however
    /// many sessions share it.
    pub(crate) bytes: usize,
    /// The cost of the fullest outbox, as the bound counts.
    pub(crate) largest: usize,
}

impl Waiting {
    fn add(&mut self, load: Load) {
        self.sessions += usize::from(load.frames > 0);
        self.frames += load.frames;
        self.bytes += load.without_bodies;
        self.largest = self.largest.max(load.cost);
    }
}

/// All sessions of one edge.
#[derive(Debug)]
pub(crate) struct Hub {
    limits: SessionLimits,
    channels: Sharded<Channel, ChannelState>,
    /// The sessions of a user, the oldest login first.
    users: Sharded<Uid, Vec<Login>>,
    bans: Mutex<BanList>,
    /// Notified when the list of bans may be another one by now.
    bans_stale: Notify,
    refreshes: Mutex<Refreshes>,
    began: Instant,
    handles: Sharded<u64, Arc<SessionHandle>>,
    /// Sessions whose connection is not over. Counted down only after the last map forgot them.
    count: AtomicUsize,
    next_id: AtomicU64,
    /// Whether there are so many sessions that new ones should go elsewhere.
    crowded: watch::Sender<bool>,
    /// Sessions that receive messages with ids.
    following: AtomicUsize,
    /// Replays in progress.
    replays: AtomicUsize,
    /// Notified when a cursor has moved on.
    progress: Notify,
    /// Counts the memory of the frames that sessions have.
    memory: FrameMemory,
}

impl Hub {
    /// Returns a hub without sessions.
    pub(crate) fn new(limits: SessionLimits) -> Self {
        let (channels, users, handles) = (Sharded::new(), Sharded::new(), Sharded::new());
        Self {
            limits,
            channels,
            users,
            bans: Mutex::new(BanList::new(MAX_BANS)),
            bans_stale: Notify::new(),
            refreshes: Mutex::new(Refreshes::new(MAX_REFRESHES)),
            began: Instant::now(),
            handles,
            count: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            crowded: watch::Sender::new(false),
            following: AtomicUsize::new(0),
            replays: AtomicUsize::new(0),
            progress: Notify::new(),
            memory: FrameMemory::default(),
        }
    }

    /// Offers a message to every session of a channel; `frame` is called only if there is one.
    pub(crate) fn deliver(&self, channel: &str, frame: impl FnOnce() -> Frame) -> Counts {
        let frame = || frame().counted(&self.memory);
        self.channels.of(channel).get(channel).map(|state| state.deliver(frame)).unwrap_or_default()
    }

    /// Returns the limit of sessions; 0 for no limit.
    pub(crate) fn max_sessions(&self) -> usize {
        self.limits.sessions
    }

    /// Returns how many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Tells whether there are so many sessions that new ones should go elsewhere: from the watermark on, and
    /// until a tenth of them has left.
    pub(crate) fn crowded(&self) -> watch::Receiver<bool> {
        self.crowded.subscribe()
    }

    /// Compares with the watermark. Called after each change of the count.
    fn look_around(&self) {
        let high = self.limits.watermark;
        if high == 0 {
            return;
        }
        let low = high - high.div_ceil(10);
        let verdict = |crowded: bool| {
            let count = self.sessions();
            if crowded { count > low } else { count >= high }
        };
        let before = *self.crowded.borrow();
        if verdict(before) != before {
            // Counted once more under the lock, so that the last caller tells the last count.
            self.crowded.send_if_modified(|crowded| {
                let before = *crowded;
                *crowded = verdict(before);
                *crowded != before
            });
        }
    }

    /// Returns how many channels have a session, and how many users.
    pub(crate) fn channels_and_users(&self) -> (usize, usize) {
        (self.channels.len(), self.users.len())
    }

    /// Returns when the sessions of a user logged in, in milliseconds since 1970. Sessions that are ending
    /// are left out.
    pub(crate) fn logins_of(&self, uid: &Uid) -> Vec<u64> {
        let users = self.users.of(uid);
        let logins = users.get(uid).into_iter().flatten();
        logins.filter(|login| !login.handle.outbox.is_closed()).map(|login| login.since).collect()
    }

    /// Closes all sessions of a user. Returns how many were not ending already.
    pub(crate) fn disconnect(&self, uid: &Uid, reason: &CloseReason) -> u64 {
        self.disconnect_before(uid, u64::MAX, reason)
    }

    /// Closes the sessions of a user that logged in before this time, in milliseconds since 1970. Returns how
    /// many were not ending already.
    pub(crate) fn disconnect_before(&self, uid: &Uid, before: u64, reason: &CloseReason) -> u64 {
        let users = self.users.of(uid);
        let logins = users.get(uid).into_iter().flatten().filter(|login| login.since < before);
        let handles: Vec<_> = logins.map(|login| Arc::clone(&login.handle)).collect();
        drop(users);
        let close = |handle: &&Arc<SessionHandle>| {
            handle.outbox.close_saying(CloseCode::Disconnected, reason.clone())
        };
        handles.iter().filter(close).count() as u64
    }

    /// Returns whether a user has a session here.
    pub(crate) fn has(&self, uid: &Uid) -> bool {
        self.users.of(uid).contains_key(uid)
    }

    /// Returns the notification that a publisher's command does not fit the list of bans as it was read.
    pub(crate) fn bans_stale(&self) -> &Notify {
        &self.bans_stale
    }

    /// Locks the list of bans.
    pub(crate) fn bans(&self) -> MutexGuard<'_, BanList> {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a panic left something half changed: sessions, cursors, bans, refreshes.
    pub(crate) fn is_poisoned(&self) -> bool {
        let maps = self.channels.is_poisoned() || self.users.is_poisoned() || self.handles.is_poisoned();
        maps || self.bans.is_poisoned() || self.refreshes.is_poisoned()
    }

    /// Returns what waits for sessions, all together.
    pub(crate) fn waiting(&self) -> Waiting {
        let mut waiting = Waiting { bytes: self.memory.bytes(), ..Waiting::default() };
        for shard in self.handles.all() {
            shard.values().for_each(|handle| waiting.add(handle.outbox.load()));
        }
        waiting
    }

    /// Chooses sessions that shall move: those that recover first, then the oldest. None is chosen twice.
    pub(crate) fn choose(&self, choice: &Choice, now: Instant) -> Vec<Arc<SessionHandle>> {
        let age = now.saturating_duration_since(self.began);
        // Each handle is read once: sessions change whether they follow meanwhile, and no sort order survives
        // that.
        let known = self.handles().into_iter().map(|handle| (handle.follows(), handle));
        let mut chosen: Vec<_> = known
            .filter(|(follows, handle)| {
                (choice.plain || *follows)
                    && !handle.moves()
                    && choice.older_than.is_none_or(|limit| handle.has_reached(limit, age))
            })
            .collect();
        chosen.sort_unstable_by_key(|(follows, handle)| (!follows, handle.id()));
        chosen.truncate(choice.most);
        let handles = chosen.into_iter().map(|(_, handle)| handle);
        handles.filter(|handle| handle.begin_move()).collect()
    }

    /// Returns every session there is now.
    pub(crate) fn handles(&self) -> Vec<Arc<SessionHandle>> {
        self.handles.all().flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect()
    }
}

#[cfg(test)]
mod tests;

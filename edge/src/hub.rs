//! Who is here: which sessions receive a channel, and which belong to a user.
//!
//! A session holds a [`Member`]; once that is dropped, no map knows the session any more. A message is
//! offered to all sessions of its channel under the lock of the channel's map, so a session is counted
//! exactly if it was subscribed when the message was handled. Locks are held for one operation, never across
//! an await, and never two at a time.

mod audience;
pub(crate) mod kept;
mod parts;
mod room;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::bans;
use shared::ids::{Channel, Uid};
use shared::wire::Counts;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::admission::Seat;
use crate::code::CloseCode;
use crate::deny::{DenyList, Words};
use crate::frame::{Frame, FrameMemory, SubscriptionId};
use crate::session::outbox::{Held, Outbox};
use audience::Listener;
use parts::Parts;
use room::Room;

/// Users that may be kept out at a time. The list of the bus holds fewer; it may be passed a little when
/// several publishers add to it at once.
const MAX_DENIED: usize = bans::MAX_BANNED + 1_024;

/// What happens when a user opens one session more than allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionPolicy {
    /// The oldest is closed with 4409.
    #[default]
    EvictOldest,
    /// The newest is refused with 4429.
    RefuseNewest,
}

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// On this edge; 0: as many as come.
    pub(crate) sessions: usize,
    /// With so many it is crowded; 0: never.
    pub(crate) watermark: usize,
    /// Of one user.
    pub(crate) per_user: usize,
    /// Beyond that.
    pub(crate) policy: SessionPolicy,
}

/// What others know of a session.
#[derive(Debug)]
pub(crate) struct Peer {
    id: u64,
    /// When it began, in seconds since the hub did.
    since: u32,
    /// Whether it receives messages with ids, and so loses nothing when it moves.
    follows: AtomicBool,
    /// Whether it was asked to move.
    moves: AtomicBool,
    pub(crate) outbox: Outbox,
}

/// Which sessions are asked to move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// No more than so many.
    pub(crate) most: usize,
    /// Whether those that don't recover may be chosen, after those that do.
    pub(crate) plain: bool,
    /// Only those of this age, or 80 % of it, or what a session's number makes in between.
    pub(crate) older_than: Option<Duration>,
}

impl Peer {
    /// From 0.8 to 1, the same at every call, and spread evenly over sessions that began together.
    fn spread(&self) -> f64 {
        // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
        let place = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        0.8 + 0.2 * place as f64 / f64::from(u32::MAX)
    }
}

/// A session of a user.
#[derive(Debug)]
struct Login {
    peer: Arc<Peer>,
    /// When it logged in, in milliseconds since 1970.
    since: u64,
}

/// What became of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The session belongs to the user now.
    Admitted,
    /// The user has too many sessions; nothing has changed.
    TooMany,
    /// The user is kept out; the session is being closed.
    Denied,
}

/// What waits for sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Sessions that something waits for.
    pub(crate) sessions: usize,
    /// Frames.
    pub(crate) frames: usize,
    /// What all of it takes of memory, with what sessions are just being sent: each body once, however many
    /// share it.
    pub(crate) bytes: usize,
    /// What the fullest outbox costs, as the bound counts.
    pub(crate) largest: usize,
}

impl Waiting {
    fn add(&mut self, held: Held) {
        self.sessions += usize::from(held.frames > 0);
        self.frames += held.frames;
        self.bytes += held.without_bodies;
        self.largest = self.largest.max(held.cost);
    }
}

/// All sessions of one edge.
#[derive(Debug)]
pub(crate) struct Hub {
    places: Places,
    channels: Parts<Channel, Room>,
    /// The sessions of a user, the oldest login first.
    users: Parts<Uid, Vec<Login>>,
    denied: Mutex<DenyList>,
    /// The list may be another one by now.
    doubt: Notify,
    began: Instant,
    peers: Parts<u64, Arc<Peer>>,
    /// Sessions whose connection is not over. Counted down only after the last map forgot them.
    count: AtomicUsize,
    next_id: AtomicU64,
    /// Whether there are so many sessions that new ones should go elsewhere.
    crowded: watch::Sender<bool>,
    /// Sessions that receive messages with ids.
    following: AtomicUsize,
    /// Ways of sessions through what is stored.
    replays: AtomicUsize,
    /// A line has moved on.
    progress: Notify,
    /// Whether what is missing before a message is fetched; only a test says no.
    heals: bool,
    /// What the frames take that sessions have.
    memory: FrameMemory,
}

impl Hub {
    /// Nobody is here.
    pub(crate) fn new(places: Places) -> Self {
        let (channels, users, peers) = (Parts::new(), Parts::new(), Parts::new());
        let denied = Mutex::new(DenyList::new(MAX_DENIED));
        Self {
            places,
            channels,
            users,
            denied,
            doubt: Notify::new(),
            began: Instant::now(),
            peers,
            count: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            crowded: watch::Sender::new(false),
            following: AtomicUsize::new(0),
            replays: AtomicUsize::new(0),
            progress: Notify::new(),
            heals: true,
            memory: FrameMemory::default(),
        }
    }

    /// The same that delivers a message whatever is missing before it, for a test to show what that does.
    pub(crate) fn that_heals(mut self, heals: bool) -> Self {
        self.heals = heals;
        self
    }

    /// A place for one more session, whose outbox holds `outbox` bytes. None: the edge is full.
    pub(crate) fn admit(self: &Arc<Self>, outbox: usize) -> Option<Member> {
        let most = if self.places.sessions == 0 { usize::MAX } else { self.places.sessions };
        let add = |count: usize| (count < most).then_some(count + 1);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok()?;
        self.look_around();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let since = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        let (follows, moves) = (AtomicBool::new(false), AtomicBool::new(false));
        let peer = Arc::new(Peer { id, since, follows, moves, outbox: Outbox::new(outbox) });
        self.peers.of(&id).insert(id, Arc::clone(&peer));
        Some(Member {
            hub: Arc::clone(self),
            peer,
            uid: None,
            subscriptions: 0,
            channels: Vec::new(),
            follows: None,
            slot: Some(Slot { hub: Arc::clone(self), seat: None }),
        })
    }

    /// Offers a message to every session of a channel; `frame` is called only if there is one.
    pub(crate) fn deliver(&self, channel: &str, frame: impl FnOnce() -> Frame) -> Counts {
        let frame = || frame().counted(&self.memory);
        self.channels.of(channel).get(channel).map(|room| room.deliver(frame)).unwrap_or_default()
    }

    /// How many sessions there may be; 0: as many as come.
    pub(crate) fn max_sessions(&self) -> usize {
        self.places.sessions
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether there are so many sessions that new ones should go elsewhere: from the watermark on, and until
    /// a tenth of them has left.
    pub(crate) fn crowded(&self) -> watch::Receiver<bool> {
        self.crowded.subscribe()
    }

    /// Called after each change of the count.
    fn look_around(&self) {
        let high = self.places.watermark;
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
            // Counted once more under the lock, so that whoever comes last tells what is.
            self.crowded.send_if_modified(|crowded| {
                let before = *crowded;
                *crowded = verdict(before);
                *crowded != before
            });
        }
    }

    /// How many channels have a session, and how many users.
    pub(crate) fn channels_and_users(&self) -> (usize, usize) {
        (self.channels.len(), self.users.len())
    }

    /// When the sessions of a user logged in, in milliseconds since 1970; those that are ending are left out.
    pub(crate) fn logins_of(&self, uid: &Uid) -> Vec<u64> {
        let users = self.users.of(uid);
        let logins = users.get(uid).into_iter().flatten();
        logins.filter(|login| !login.peer.outbox.is_closed()).map(|login| login.since).collect()
    }

    /// Closes all sessions of a user. Says how many were not ending already.
    pub(crate) fn disconnect(&self, uid: &Uid, words: &Words) -> u64 {
        self.disconnect_before(uid, u64::MAX, words)
    }

    /// Closes the sessions of a user that logged in before this time, in milliseconds since 1970. Says how
    /// many were not ending already.
    pub(crate) fn disconnect_before(&self, uid: &Uid, before: u64, words: &Words) -> u64 {
        let users = self.users.of(uid);
        let logins = users.get(uid).into_iter().flatten().filter(|login| login.since < before);
        let peers: Vec<_> = logins.map(|login| Arc::clone(&login.peer)).collect();
        drop(users);
        let close = |peer: &&Arc<Peer>| peer.outbox.close_saying(CloseCode::Disconnected, words.clone());
        peers.iter().filter(close).count() as u64
    }

    /// Whether a user has a session here.
    pub(crate) fn has(&self, uid: &Uid) -> bool {
        self.users.of(uid).contains_key(uid)
    }

    /// Rung when what a publisher told does not fit the list of those who may not log in as it was read.
    pub(crate) fn doubt(&self) -> &Notify {
        &self.doubt
    }

    /// Who may not log in.
    pub(crate) fn denied(&self) -> MutexGuard<'_, DenyList> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a panic left something half changed: who is here, how far channels came, who is kept out.
    pub(crate) fn is_poisoned(&self) -> bool {
        let maps = self.channels.is_poisoned() || self.users.is_poisoned() || self.peers.is_poisoned();
        maps || self.denied.is_poisoned()
    }

    /// What waits for sessions, all together.
    pub(crate) fn waiting(&self) -> Waiting {
        let mut waiting = Waiting { bytes: self.memory.bytes(), ..Waiting::default() };
        for part in self.peers.all() {
            part.values().for_each(|peer| waiting.add(peer.outbox.waiting()));
        }
        waiting
    }

    /// Sessions that shall move: those that recover first, then the oldest. None is chosen twice.
    pub(crate) fn choose(&self, choice: &Choice, now: Instant) -> Vec<Arc<Peer>> {
        let age = now.saturating_duration_since(self.began);
        // Read once: sessions change it meanwhile, and no order survives that.
        let known = self.peers().into_iter().map(|peer| (peer.follows.load(Ordering::Relaxed), peer));
        let mut chosen: Vec<_> = known
            .filter(|(follows, peer)| {
                let old = |limit: Duration| {
                    age.saturating_sub(Duration::from_secs(peer.since.into())) >= limit.mul_f64(peer.spread())
                };
                (choice.plain || *follows)
                    && !peer.moves.load(Ordering::Relaxed)
                    && choice.older_than.is_none_or(old)
            })
            .collect();
        chosen.sort_unstable_by_key(|(follows, peer)| (!follows, peer.id));
        chosen.truncate(choice.most);
        let peers = chosen.into_iter().map(|(_, peer)| peer);
        peers.filter(|peer| !peer.moves.swap(true, Ordering::Relaxed)).collect()
    }

    /// Every session there is now.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.all().flat_map(|part| part.values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// Channels that a session receives with ids, by the names that it uses. Boxed where it is kept: plain
/// sessions have none, and there are many of them.
type Follows = Vec<(Channel, Arc<str>)>;

/// A session's place in the hub.
#[derive(Debug)]
pub(crate) struct Member {
    hub: Arc<Hub>,
    peer: Arc<Peer>,
    uid: Option<Uid>,
    /// How many subscriptions it has had; the number of the latest.
    subscriptions: u32,
    channels: Vec<Channel>,
    /// What it receives with ids, by the names that it uses.
    follows: Option<Box<Follows>>,
    /// Some until it has left.
    slot: Option<Slot>,
}

/// A session's place among all, and among those of its address where they are counted. Kept until its
/// connection is over.
#[derive(Debug)]
pub(crate) struct Slot {
    hub: Arc<Hub>,
    seat: Option<Box<Seat>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.hub.count.fetch_sub(1, Ordering::SeqCst);
        self.hub.look_around();
    }
}

impl Member {
    /// What others have for this session.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.peer.outbox
    }

    /// Where frames for this session are counted.
    pub(crate) fn memory(&self) -> &FrameMemory {
        &self.hub.memory
    }

    /// Keeps the seat for as long as the session is here.
    pub(crate) fn sit(&mut self, seat: Option<Seat>) {
        if let Some(slot) = &mut self.slot {
            slot.seat = seat.map(Box::new);
        }
    }

    /// Leaves all maps: no message is for this session any more. Gives what still counts it.
    pub(crate) fn leave_hub(mut self) -> Option<Slot> {
        self.slot.take()
    }

    /// The session's number, for logs; unlike that of every other session of this edge.
    pub(crate) fn id(&self) -> u64 {
        self.peer.id
    }

    /// Belongs to this user from now on, and to no other. `since` is the time of day in milliseconds since
    /// 1970.
    pub(crate) fn log_in(&mut self, uid: &Uid, since: u64) -> Entry {
        if self.uid.as_ref() == Some(uid) {
            return self.unless_denied(uid, since);
        }
        let evicted = {
            let mut users = self.hub.users.of(uid);
            let sessions = users.entry(uid.clone()).or_insert_with(|| Vec::with_capacity(1));
            let full = sessions.len() >= self.hub.places.per_user;
            if full && self.hub.places.policy == SessionPolicy::RefuseNewest {
                return Entry::TooMany;
            }
            let evicted = full.then(|| sessions.remove(0));
            sessions.push(Login { peer: Arc::clone(&self.peer), since });
            evicted
        };
        if let Some(oldest) = evicted {
            oldest.peer.outbox.close(CloseCode::Replaced);
        }
        self.log_out();
        self.uid = Some(uid.clone());
        // After the place was taken: who is denied from here on finds this session and closes it.
        self.unless_denied(uid, since)
    }

    /// The session is being closed if its user is kept out.
    fn unless_denied(&mut self, uid: &Uid, since: u64) -> Entry {
        let denial = self.hub.denied().denies(uid, since);
        if let Some(words) = denial {
            self.peer.outbox.close_saying(CloseCode::Disconnected, words);
            self.log_out();
            return Entry::Denied;
        }
        Entry::Admitted
    }

    /// Receives this channel from now on.
    pub(crate) fn watch(&mut self, channel: &Channel) {
        let listener = Listener { peer: Arc::clone(&self.peer), subscription: self.next_subscription() };
        let mut channels = self.hub.channels.of(channel.as_str());
        channels.entry(channel.clone()).or_default().plain.insert(listener);
        drop(channels);
        if !self.channels.contains(channel) {
            self.channels.push(channel.clone());
        }
    }

    /// Receives it no longer. Returns the subscription that ended.
    pub(crate) fn unwatch(&mut self, channel: &Channel) -> Option<SubscriptionId> {
        self.channels.retain(|watched| watched != channel);
        self.leave(channel)
    }

    /// Receives nothing any more.
    pub(crate) fn unsubscribe_all(&mut self) {
        for channel in std::mem::take(&mut self.channels) {
            self.leave(&channel);
        }
        self.unfollow_all();
    }

    /// A number for a subscription that begins.
    pub(crate) fn next_subscription(&mut self) -> SubscriptionId {
        self.subscriptions += 1;
        SubscriptionId(self.subscriptions)
    }

    fn leave(&self, channel: &Channel) -> Option<SubscriptionId> {
        let mut channels = self.hub.channels.of(channel.as_str());
        let room = channels.get_mut(channel.as_str())?;
        let left = room.plain.remove(self.peer.id);
        if room.is_empty() {
            channels.remove(channel.as_str());
        }
        left.map(|listener| listener.subscription)
    }

    fn log_out(&mut self) {
        let Some(uid) = self.uid.take() else { return };
        let mut users = self.hub.users.of(&uid);
        if let Some(sessions) = users.get_mut(&uid) {
            sessions.retain(|login| login.peer.id != self.peer.id);
            if sessions.is_empty() {
                users.remove(&uid);
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.unsubscribe_all();
        self.log_out();
        self.hub.peers.of(&self.peer.id).remove(&self.peer.id);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

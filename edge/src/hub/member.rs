//! The hub as one session changes it: its user, and its plain subscriptions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::ids::{Channel, Uid};

use super::{Hub, Login, SessionPolicy};
use crate::admission::AddressSlot;
use crate::code::CloseCode;
use crate::frame::{FrameMemory, SubscriptionId};
use crate::outbox::Outbox;
use crate::session_handle::SessionHandle;

/// The outcome of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginResult {
    /// The session belongs to the user now.
    Admitted,
    /// The user has too many sessions; nothing has changed.
    TooMany,
    /// The user is banned; the session is being closed.
    Banned,
}

/// Channels that a session receives with ids, by the names that it uses. Boxed where they are stored: plain
/// sessions have none, and there are many plain sessions.
type Follows = Vec<(Channel, Arc<str>)>;

/// A session's entry in the hub.
#[derive(Debug)]
pub(crate) struct Member {
    pub(super) hub: Arc<Hub>,
    pub(super) handle: Arc<SessionHandle>,
    uid: Option<Uid>,
    /// The number of the latest subscription.
    subscriptions: u32,
    /// The channels that the session receives as they were published.
    pub(super) channels: Vec<Channel>,
    /// The channels that the session receives with ids.
    pub(super) follows: Option<Box<Follows>>,
    /// Some until the session has left.
    slot: Option<SessionSlot>,
}

/// A session's slot among all, and among those of its address where they are counted. Held until the
/// connection is over.
#[derive(Debug)]
pub(crate) struct SessionSlot {
    hub: Arc<Hub>,
    of_address: Option<Box<AddressSlot>>,
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.hub.count.fetch_sub(1, Ordering::SeqCst);
        self.hub.look_around();
    }
}

impl Hub {
    /// Admits one more session, whose outbox holds `outbox` bytes. None: the edge is full.
    pub(crate) fn admit(self: &Arc<Self>, outbox: usize) -> Option<Member> {
        let most = if self.limits.sessions == 0 { usize::MAX } else { self.limits.sessions };
        let add = |count: usize| (count < most).then_some(count + 1);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok()?;
        self.look_around();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let since = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        let handle = Arc::new(SessionHandle::new(id, since, Outbox::new(outbox)));
        self.handles.of(&id).insert(id, Arc::clone(&handle));
        Some(Member {
            hub: Arc::clone(self),
            handle,
            uid: None,
            subscriptions: 0,
            channels: Vec::new(),
            follows: None,
            slot: Some(SessionSlot { hub: Arc::clone(self), of_address: None }),
        })
    }
}

impl Member {
    /// Returns what others have for this session.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.handle.outbox
    }

    /// Returns where frames for this session are counted.
    pub(crate) fn memory(&self) -> &FrameMemory {
        &self.hub.memory
    }

    /// Takes the slot among the sessions of an address for as long as the session is here.
    pub(crate) fn set_address_slot(&mut self, of_address: Option<AddressSlot>) {
        if let Some(slot) = &mut self.slot {
            slot.of_address = of_address.map(Box::new);
        }
    }

    /// Leaves all maps, so that no message is for this session any more. Returns the slot that still counts
    /// the session.
    pub(crate) fn leave_hub(mut self) -> Option<SessionSlot> {
        self.slot.take()
    }

    /// Returns the session's number, for logs; unlike that of every other session of this edge.
    pub(crate) fn id(&self) -> u64 {
        self.handle.id()
    }

    /// Makes the session belong to this user, and to no other. `since` is the time of day in milliseconds
    /// since 1970.
    pub(crate) fn log_in(&mut self, uid: &Uid, since: u64) -> LoginResult {
        if self.uid.as_ref() == Some(uid) {
            return self.unless_banned(uid, since);
        }
        let evicted = {
            let mut users = self.hub.users.of(uid);
            let sessions = users.entry(uid.clone()).or_insert_with(|| Vec::with_capacity(1));
            let full = sessions.len() >= self.hub.limits.per_user;
            if full && self.hub.limits.policy == SessionPolicy::RefuseNewest {
                return LoginResult::TooMany;
            }
            let evicted = full.then(|| sessions.remove(0));
            sessions.push(Login { handle: Arc::clone(&self.handle), since });
            evicted
        };
        if let Some(oldest) = evicted {
            oldest.handle.outbox.close(CloseCode::Replaced);
        }
        self.log_out();
        self.uid = Some(uid.clone());
        // Checked after the session was entered: a ban from here on finds this session and closes it.
        self.unless_banned(uid, since)
    }

    /// Closes the session if its user is banned.
    fn unless_banned(&mut self, uid: &Uid, since: u64) -> LoginResult {
        let ban = self.hub.bans().banned(uid, since);
        if let Some(reason) = ban {
            self.handle.outbox.close_saying(CloseCode::Disconnected, reason);
            self.log_out();
            return LoginResult::Banned;
        }
        LoginResult::Admitted
    }

    /// Receives this channel as it is published from now on.
    pub(crate) fn watch(&mut self, channel: &Channel) {
        let subscription = self.next_subscription();
        let mut channels = self.hub.channels.of(channel.as_str());
        channels.entry(channel.clone()).or_default().subscribe(&self.handle, subscription);
        drop(channels);
        if !self.channels.contains(channel) {
            self.channels.push(channel.clone());
        }
    }

    /// Receives this channel as it is published no longer. Returns the subscription that ended.
    pub(crate) fn unwatch(&mut self, channel: &Channel) -> Option<SubscriptionId> {
        self.channels.retain(|watched| watched != channel);
        self.leave(channel)
    }

    /// Ends all subscriptions.
    pub(crate) fn unsubscribe_all(&mut self) {
        for channel in std::mem::take(&mut self.channels) {
            self.leave(&channel);
        }
        self.unfollow_all();
    }

    /// Returns a number for a subscription that begins.
    pub(crate) fn next_subscription(&mut self) -> SubscriptionId {
        self.subscriptions += 1;
        SubscriptionId(self.subscriptions)
    }

    fn leave(&self, channel: &Channel) -> Option<SubscriptionId> {
        let mut channels = self.hub.channels.of(channel.as_str());
        let state = channels.get_mut(channel.as_str())?;
        let ended = state.unsubscribe(self.handle.id());
        if state.is_unneeded() {
            channels.remove(channel.as_str());
        }
        ended
    }

    fn log_out(&mut self) {
        let Some(uid) = self.uid.take() else { return };
        let mut users = self.hub.users.of(&uid);
        if let Some(sessions) = users.get_mut(&uid) {
            sessions.retain(|login| login.handle.id() != self.handle.id());
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
        self.hub.handles.of(&self.handle.id()).remove(&self.handle.id());
    }
}

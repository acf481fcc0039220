//! The whole way of recovering sessions through a hub, against a store that is a list. Whatever is lost,
//! repeated, late, trimmed or made anew: each follower gets everything after its position once and in order,
//! or is told before what follows.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use shared::history::{End, Epoch, Position};
use shared::ids::MessageId;
use shared::wire::{Kind, LiveMessage};
use tokio::time::Instant;
use tracing::Span;

use crate::channel::cursor::{Missing, Step};
use crate::channel::recoverable::{Leader, NotWhole, judge};
use crate::channel::{Arrival, LiveCopy, Trust};
use crate::frame::SubscriptionId;
use crate::hub::following::Join;
use crate::hub::guards::{ChannelGuard, Fetching};
use crate::hub::member::Member;
use crate::hub::*;
use crate::recovery::identity::StreamIdentity;

/// The one subscription of each session.
const ONE: SubscriptionId = SubscriptionId(1);
/// Sessions at a time.
const SESSIONS: usize = 3;
/// Messages of the channel that the store holds.
const LIMIT: usize = 6;

#[derive(Debug, Clone)]
enum Event {
    Publish,
    /// One of the live copies under way arrives; it may come again later.
    Arrive(Index, bool),
    Lose(Index),
    /// A fetch reads so many messages.
    Fetch(usize),
    /// Tails are compared.
    Sweep,
    /// A session comes back: with the last position that it knows, or as a new one.
    Return(usize, bool),
    /// A session in a replay reads so many messages.
    Read(usize, usize),
    Leave(usize),
    /// So many of the oldest messages expire.
    Expire(usize),
    /// The stream is made anew. Copies from before may still wait in the queue of the edge.
    Anew(bool),
    /// A message is said to exist so far beyond the last, or near the end of all numbers.
    Say(u64, bool),
    /// A fetch that runs ends halfway.
    Abandon,
}

fn event() -> impl Strategy<Value = Event> {
    let session = 0..SESSIONS;
    prop_oneof![
        8 => Just(Event::Publish),
        8 => (any::<Index>(), prop::bool::weighted(0.2)).prop_map(|(which, again)| Event::Arrive(which, again)),
        2 => any::<Index>().prop_map(Event::Lose),
        4 => (1_usize..4).prop_map(Event::Fetch),
        1 => Just(Event::Sweep),
        4 => (session.clone(), prop::bool::weighted(0.8)).prop_map(|(who, back)| Event::Return(who, back)),
        6 => (session.clone(), 1_usize..4).prop_map(|(who, most)| Event::Read(who, most)),
        2 => session.prop_map(Event::Leave),
        1 => (1_usize..4).prop_map(Event::Expire),
        1 => any::<bool>().prop_map(Event::Anew),
        1 => (0_u64..5, prop::bool::weighted(0.2)).prop_map(|(beyond, far)| Event::Say(beyond, far)),
        1 => Just(Event::Abandon),
    ]
}

/// The knowledge of a client: its position, and what it has seen.
#[derive(Default)]
struct Client {
    /// Everything up to here is behind the client.
    at: Option<Position>,
    /// The last message that the client has, or that was gone when the client began.
    seen: u64,
    session: Option<Session>,
}

struct Session {
    member: Member,
    /// The position of the client's replay, with the guard of the cursor.
    replay: Option<(ChannelGuard, Position)>,
}

/// A live copy.
#[derive(Debug, Clone, Copy)]
struct Copy {
    epoch: u64,
    seq: u64,
    /// The sequence of the channel's message before it.
    before: u64,
}

struct World {
    hub: Arc<Hub>,
    channel: Channel,
    name: Arc<str>,
    epoch: u64,
    identity: StreamIdentity,
    /// The stored messages, the oldest first; and all that ever were in this epoch.
    stored: VecDeque<u64>,
    ever: Vec<u64>,
    /// Live copies under way.
    coming: Vec<Copy>,
    /// The running fetch.
    fetching: Option<Fetching>,
    clients: Vec<Client>,
}

impl World {
    fn new() -> Self {
        let limits =
            SessionLimits { sessions: 0, watermark: 0, per_user: 9, policy: SessionPolicy::EvictOldest };
        let mut clients = Vec::new();
        clients.resize_with(SESSIONS, Client::default);
        Self {
            hub: Arc::new(Hub::new(limits)),
            channel: Channel::parse("user:1").unwrap(),
            name: "@user".into(),
            epoch: 1,
            identity: StreamIdentity::default(),
            stored: VecDeque::new(),
            ever: Vec::new(),
            coming: Vec::new(),
            fetching: None,
            clients,
        }
    }

    fn tail(&self) -> u64 {
        self.stored.back().copied().unwrap_or(0)
    }

    fn last(&self) -> u64 {
        self.ever.last().copied().unwrap_or(0)
    }

    fn leader(&self) -> Leader {
        let first = self.stored.front().copied().unwrap_or(self.last() + 1);
        Leader { epoch: Epoch(self.epoch), first, last: self.last() }
    }

    /// Returns at most so many stored messages after a sequence; none if a message after it is gone.
    fn page(&self, after: u64, most: usize) -> Option<Vec<u64>> {
        let after_it = |seq: &&u64| **seq > after;
        let whole = self.ever.iter().filter(after_it).count() == self.stored.iter().filter(after_it).count();
        whole.then(|| self.stored.iter().filter(after_it).take(most).copied().collect())
    }

    fn message(epoch: u64, seq: u64) -> LiveMessage {
        let id = MessageId(u128::from(epoch) << 64 | u128::from(seq));
        LiveMessage { id, kind: Kind::Text, payload: Bytes::from_static(b"x") }
    }

    fn publish(&mut self) {
        let (before, seq) = (self.tail(), self.last() + 1);
        self.stored.push_back(seq);
        self.ever.push(seq);
        if self.stored.len() > LIMIT {
            self.stored.pop_front();
        }
        self.coming.push(Copy { epoch: self.epoch, seq, before });
    }

    /// Begins a fetch.
    fn begin_fetch(&mut self, fetching: Option<Fetching>) {
        if fetching.is_some() {
            self.fetching = fetching;
        }
    }

    /// As `Recovery::ask_until_sure` does.
    fn make_sure(&mut self) {
        while let Some(question) = self.identity.doubt() {
            let epoch = question.known.id.unwrap().0 >> 64;
            if question.was_there || epoch == self.epoch.into() {
                self.identity.confirm(&question);
            } else {
                self.identity.dismiss(&question);
            }
        }
    }

    fn arrive(&mut self, which: usize, again: bool) {
        // Copies that waited in the queue when the stream was made anew come before newer copies.
        let which = self.coming.iter().position(|copy| copy.epoch != self.epoch).unwrap_or(which);
        let copy = self.coming[which];
        if !again || copy.epoch != self.epoch {
            self.coming.remove(which);
        }
        let message = Self::message(copy.epoch, copy.seq);
        let arrival = Arrival { seq: copy.seq, message: Some(&message), span: &Span::none() };
        let trust = self.identity.on_live("user:1", copy.seq, Some(message.id));
        assert!(trust != Trust::Sure || copy.epoch == self.epoch, "of another epoch");
        let copy = LiveCopy { arrival, before: copy.before, epoch: Some(Epoch(self.epoch)), trust };
        let handled = self.hub.on_live("user:1", &copy, Instant::now());
        // A fetch goes on at its own pace.
        assert!(trust == Trust::Sure || handled.counts == Counts::default());
        assert_eq!(handled.step == Step::Fetch, handled.fetching.is_some());
        self.begin_fetch(handled.fetching);
    }

    /// As `Recovery::catch_up` does, one page. `patient`: a message that is not there may still come.
    fn fetch(&mut self, most: usize, patient: bool) {
        let Some(fetching) = self.fetching.take() else { return };
        let Some(Missing { epoch, after, up_to }) = self.hub.missing(&fetching) else { return };
        if epoch != Epoch(self.epoch) {
            return;
        }
        self.make_sure();
        let Some(page) = self.page(after, most) else {
            self.hub.skip(&self.channel, self.tail(), NotWhole::TooFar, Instant::now());
            self.fetching = Some(fetching);
            return;
        };
        for seq in &page {
            let message = Self::message(self.epoch, *seq);
            let arrival = Arrival { seq: *seq, message: Some(&message), span: &Span::none() };
            self.hub.on_fetched(&self.channel, epoch, &arrival, Instant::now());
        }
        if !self.hub.settle(&self.channel) && page.len() < most {
            let end = End { epoch, tail: self.tail(), come: self.last() };
            if !self.hub.on_tail(&self.channel, up_to, &end) && !patient {
                self.hub.give_back(&fetching);
                self.sweep();
                return;
            }
        }
        self.fetching = Some(fetching);
    }

    fn sweep(&mut self) {
        if self.hub.epoch_of(&self.channel) == Some(Epoch(self.epoch)) {
            let taken_over = self.hub.abandoned(|_| true).pop();
            self.begin_fetch(taken_over);
            let fetching = self.hub.want(&self.channel, self.tail());
            self.begin_fetch(fetching);
        }
    }

    /// Fetches until the cursor has come to this sequence.
    fn catch_up_to(&mut self, seq: u64) {
        while !self.hub.has_come_to(&self.channel, Epoch(self.epoch), seq) {
            let fetching = self.hub.want(&self.channel, seq);
            self.begin_fetch(fetching);
            self.fetch(2, false);
        }
    }

    /// As `Recovery::attach` and `Session::follow` do.
    fn come(&mut self, who: usize, back: bool) {
        self.leave(who);
        let (epoch, tail, now) = (Epoch(self.epoch), self.tail(), Instant::now());
        let guard = self.hub.guard(&self.channel);
        let fetching = self.hub.open_cursor(&self.channel, epoch, tail, now);
        self.begin_fetch(fetching);
        self.catch_up_to(tail);
        let mut member = self.hub.admit(1 << 20).unwrap();
        let after = self.clients[who].at.filter(|_| back);
        let given =
            after.filter(|after| judge(*after, self.leader()).is_ok() && self.page(after.seq, 1).is_some());
        let Some(after) = given else {
            // A new client, or one that is told to reload.
            let followed = member.follow(&self.channel, (&self.name, ONE), false, 0, None, now);
            let position = followed.unwrap().position;
            assert_eq!(position.epoch, epoch);
            self.clients[who].session = Some(Session { member, replay: None });
            self.begin(who, position);
            return;
        };
        let replay = if after.seq < tail {
            Some((guard, after))
        } else {
            let joined = member.join(&self.channel, (&self.name, ONE), after, 0, None, now);
            assert!(matches!(joined, Join::Joined(_)), "{joined:?}");
            None
        };
        self.clients[who].session = Some(Session { member, replay });
    }

    /// As `Recovery::read_on` and `Session::on_read` do.
    fn read(&mut self, who: usize, most: usize) {
        let Some(session) = &mut self.clients[who].session else { return };
        let Some((guard, at)) = session.replay.take() else { return };
        let (epoch, now) = (Epoch(self.epoch), Instant::now());
        let page = if at.epoch == epoch { self.page(at.seq, most) } else { None };
        let Some(page) = page else {
            // The client is told to reload, at the position from which it follows.
            let fetching = self.hub.open_cursor(&self.channel, epoch, self.tail(), now);
            self.begin_fetch(fetching);
            self.catch_up_to(self.tail());
            let session = self.clients[who].session.as_mut().unwrap();
            let followed = session.member.follow(&self.channel, (&self.name, ONE), false, 0, None, now);
            let position = followed.unwrap().position;
            self.begin(who, position);
            return;
        };
        let mut at = at;
        for seq in page {
            at = self.got(who, Position { epoch, seq });
        }
        self.catch_up_to(at.seq.min(self.tail()));
        let session = self.clients[who].session.as_mut().unwrap();
        match session.member.join(&self.channel, (&self.name, ONE), at, 0, None, now) {
            Join::Joined(_) => {}
            Join::Behind | Join::OtherEpoch => session.replay = Some((guard, at)),
        }
    }

    /// Tells a client a position to begin at. Messages that are not stored at this time are gone for the
    /// client.
    fn begin(&mut self, who: usize, at: Position) {
        self.clients[who].at = Some(at);
        self.clients[who].seen = at.seq.max(self.leader().first - 1);
    }

    /// Checks a message that a client got: it must be the next after the client's position.
    fn got(&mut self, who: usize, message: Position) -> Position {
        let at = self.clients[who].at.unwrap();
        assert_eq!(at.epoch, message.epoch, "another life begins with @reload");
        let seen = std::mem::replace(&mut self.clients[who].seen, message.seq);
        assert_eq!(message.seq, seen + 1, "the one after {seen}");
        self.clients[who].at = Some(message);
        message
    }

    /// Lets the client take what waits for it.
    fn take(&mut self, who: usize) {
        let Some(session) = &self.clients[who].session else { return };
        for frame in session.member.outbox().take(usize::MAX) {
            let bytes = frame.bytes();
            let header = if bytes[1] < 126 { 2 } else { 4 };
            let frame: serde_json::Value = serde_json::from_slice(&bytes[header..]).unwrap();
            let position: Position = frame["id"].as_str().unwrap().parse().unwrap();
            if frame["event"] == "@reload" {
                self.begin(who, position);
            } else {
                self.got(who, position);
            }
        }
    }

    fn leave(&mut self, who: usize) {
        self.take(who);
        self.clients[who].session = None;
    }

    fn anew(&mut self, queued: bool) {
        // Frames of the epoch before come first: a connection preserves their order.
        for who in 0..SESSIONS {
            self.take(who);
        }
        self.epoch += 1;
        self.identity = StreamIdentity::default();
        self.stored.clear();
        self.ever.clear();
        self.coming.retain(|copy| queued && copy.epoch + 1 == self.epoch);
        self.hub.forget_cursor(&self.channel);
        let fetching = self.hub.open_cursor(&self.channel, Epoch(self.epoch), 0, Instant::now());
        self.begin_fetch(fetching);
        for who in 0..SESSIONS {
            self.take(who);
        }
    }

    fn on(&mut self, event: &Event) {
        match event {
            Event::Publish => self.publish(),
            Event::Arrive(..) | Event::Lose(_) if self.coming.is_empty() => {}
            Event::Arrive(which, again) => self.arrive(which.index(self.coming.len()), *again),
            Event::Lose(which) => {
                self.coming.remove(which.index(self.coming.len()));
            }
            Event::Fetch(most) => self.fetch(*most, true),
            Event::Sweep => self.sweep(),
            Event::Return(who, back) => self.come(*who, *back),
            Event::Read(who, most) => self.read(*who, *most),
            Event::Leave(who) => self.leave(*who),
            Event::Expire(some) => {
                // Messages live for much longer than tails stay uncompared or a copy is under way.
                self.sweep();
                self.stored.drain(..(*some).min(self.stored.len()));
                let first = self.leader().first;
                self.coming.retain(|copy| copy.seq >= first || copy.epoch != self.epoch);
            }
            Event::Anew(queued) => self.anew(*queued),
            Event::Say(beyond, far) => {
                let seq = if *far { u64::MAX - beyond } else { self.last() + beyond };
                let fetching = self.hub.want(&self.channel, seq);
                self.begin_fetch(fetching);
            }
            Event::Abandon => self.fetching = None,
        }
        for who in 0..SESSIONS {
            self.take(who);
        }
    }

    /// Lets everybody catch up: nothing is lost or late any more.
    fn settle(&mut self) {
        while !self.coming.is_empty() {
            self.arrive(0, false);
        }
        self.sweep();
        for _ in 0..100 {
            self.fetch(3, false);
            for who in 0..SESSIONS {
                self.read(who, 3);
                self.take(who);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn followers_get_everything_once_and_in_order_or_are_told(events in prop::collection::vec(event(), 0..80)) {
        let mut world = World::new();
        for event in &events {
            world.on(event);
        }
        world.settle();
        for client in world.clients.iter().filter(|client| client.session.is_some()) {
            let at = client.at.unwrap();
            prop_assert_eq!(at.epoch, Epoch(world.epoch));
            prop_assert!(at.seq >= world.tail(), "{} is behind {}", at, world.tail());
        }
    }
}

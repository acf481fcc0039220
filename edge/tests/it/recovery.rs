//! Sessions that receive messages with their ids, and go on where they left off.

use std::time::Duration;

use bytes::Bytes;
use edge::Edge;
use serde_json::{Value, json};
use shared::drain::Drain;
use shared::history::{Epoch, History, HistoryConfig, Role};
use shared::ids::{Channel, MessageId};
use shared::subject;
use shared::wire::{Answer, Ask, Envelope as _, Kind, LiveMessage, StoredRef};
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::{PATIENCE, World, soon};

/// Stores messages in the streams of a world.
pub(crate) struct Store {
    history: History,
    drain: Drain,
    pub(crate) channel: Channel,
    next: u128,
}

impl Store {
    pub(crate) async fn of(world: &World, channel: &str) -> Self {
        let drain = Drain::new();
        let history = History::open(&world.bus, &HistoryConfig::default(), Role::Publisher, &drain);
        let mut state = history.state();
        soon("history is ready", state.wait_for(|state| state.epochs().is_some())).await.unwrap();
        Self { history, drain, channel: Channel::parse(channel).unwrap(), next: 0 }
    }

    pub(crate) async fn publish(&mut self, text: &str) -> u64 {
        self.publish_to(&self.channel.clone(), text).await
    }

    pub(crate) async fn publish_to(&mut self, channel: &Channel, text: &str) -> u64 {
        self.next += 1;
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let message = LiveMessage { id: MessageId(self.next), kind: Kind::Text, payload };
        let deadline = Instant::now() + PATIENCE;
        self.history.store(channel, &message, Default::default(), deadline).await.unwrap().position.seq
    }

    /// Sends a forged live copy of a message that the stream has at `seq`, behind the message at `before`.
    async fn forge(&self, world: &World, (id, text): (u128, &str), seq: u64, before: u64) {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let message = LiveMessage { id: MessageId(id), kind: Kind::Text, payload };
        let mut headers = message.headers();
        headers.insert("Nats-Sequence", seq.to_string());
        headers.insert("Nats-Last-Sequence", before.to_string());
        let subject = subject::live(&self.channel, 1);
        world.bus.publish(subject, None, Some(headers), message.payload).await.unwrap();
    }

    pub(crate) async fn end(self, world: World) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0);
        world.end().await;
    }
}

impl Client {
    /// Connects, logs in, and subscribes without ids.
    async fn plain(edge: &Edge, token: &str) -> Self {
        let mut client = Self::of(edge, token).await;
        client.say(r#"{"op":"subscribe","channel":"@user"}"#).await;
        client.expect(r#"{"result":true}"#).await;
        client
    }

    pub(crate) async fn json(&mut self) -> Value {
        let frame = self.next().await.expect("the connection stands");
        serde_json::from_str(frame.to_text().unwrap()).unwrap()
    }

    /// Subscribes. Returns the answer's id, and whether everything after `after` follows.
    async fn recover(&mut self, after: &str) -> (String, bool) {
        self.say(&json!({"op": "subscribe", "channel": "@user", "after": after}).to_string()).await;
        let answer = self.json().await;
        assert_eq!(answer["result"], true, "{answer}");
        (answer["id"].as_str().unwrap().to_owned(), answer["recovered"].as_bool().unwrap())
    }

    /// Returns id and text of the next message.
    async fn message(&mut self) -> (String, String) {
        let message = self.json().await;
        assert_eq!(message["channel"], "@user", "{message}");
        (message["id"].as_str().unwrap().to_owned(), message["d"].as_str().unwrap().to_owned())
    }

    /// Checks that the next messages are these numbers. Returns the id of the last one.
    async fn numbers(&mut self, range: std::ops::Range<u32>) -> String {
        let mut last = String::new();
        for number in range {
            let (id, text) = self.message().await;
            assert_eq!(text, number.to_string());
            last = id;
        }
        last
    }

    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.message().await.1);
        }
        texts
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn who_comes_back_gets_what_came_meanwhile_once_and_in_order_and_then_goes_on() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    store.publish("before").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    let (_, recovered) = client.recover("").await;
    assert!(recovered);
    for number in 0..3 {
        store.publish(&number.to_string()).await;
    }
    let last = client.numbers(0..3).await;
    client.leave().await;
    for number in 3..1_000 {
        store.publish(&number.to_string()).await;
    }
    let mut client = Client::of(&world.edge, "user-1").await;
    assert_eq!(client.recover(&last).await, (last, true));
    store.publish("1000").await;
    assert_eq!(client.texts(998).await, numbers(3..1_001));
    store.publish("and on").await;
    let (id, text) = client.message().await;
    assert_eq!(text, "and on");
    let mut other = Client::of(&world.edge, "user-1").await;
    assert!(other.recover(&id).await.1, "nothing came after it");
    store.publish("to both").await;
    assert_eq!(
        (client.texts(1).await, other.texts(1).await),
        (vec!["to both".to_owned()], vec!["to both".to_owned()])
    );
    client.leave().await;
    other.leave().await;
    store.end(world).await;
}

#[tokio::test]
async fn what_can_not_be_given_whole_is_not_given_at_all() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    let (first, _) = client.recover("").await;
    for number in 0..1_000 {
        store.publish(&number.to_string()).await;
    }
    client.texts(1_000).await;
    let (epoch, seq) = first.split_once('.').unwrap();
    let seq: u64 = seq.parse().unwrap();
    for after in [
        first.clone(),
        format!("{:016x}.{seq}", u64::from_str_radix(epoch, 16).unwrap() ^ 1),
        format!("{epoch}.{}", seq + 5_000),
    ] {
        let mut other = Client::of(&world.edge, "user-1").await;
        let (id, recovered) = other.recover(&after).await;
        assert!(!recovered, "{after}");
        assert_eq!(id, format!("{epoch}.{}", seq + 1_000));
        other.leave().await;
    }
    let mut other = Client::of(&world.edge, "user-1").await;
    assert!(other.recover(&format!("{epoch}.{}", seq + 1)).await.1, "999 are all there");
    assert_eq!(other.texts(999).await, numbers(1..1_000));
    other.leave().await;
    client.leave().await;
    store.end(world).await;
}

#[tokio::test]
async fn what_was_erased_is_told_to_those_who_are_here_and_those_who_come_back() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    let (first, _) = client.recover("").await;
    store.publish("a").await;
    client.texts(1).await;
    let channel = store.channel.clone();
    let erased = store.history.erase(&channel, Instant::now() + PATIENCE).await.unwrap();
    let told = client.json().await;
    let expected = json!({"event": "@reload", "channel": "@user", "id": erased.position.to_string(), "reason": "erased"});
    assert_eq!(told, expected);
    store.publish("b").await;
    assert_eq!(client.texts(1).await, ["b"]);
    let mut other = Client::of(&world.edge, "user-1").await;
    assert!(!other.recover(&first).await.1);
    let mut third = Client::of(&world.edge, "user-1").await;
    assert!(third.recover(&erased.position.to_string()).await.1);
    assert_eq!(third.texts(1).await, ["b"]);
    for client in [client, other, third] {
        client.leave().await;
    }
    store.end(world).await;
}

#[tokio::test]
async fn plain_and_recovering_sessions_are_counted_and_repeated_copies_are_not() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut plain = Client::plain(&world.edge, "user-1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    client.recover("").await;
    let seq = store.publish("once").await;
    let nobodys = Channel::parse("user:2").unwrap();
    let unheard = store.publish_to(&nobodys, "for nobody").await;
    let ask = |stored: Vec<StoredRef>| Ask { v: 1, ids: vec![], stored };
    let stored = vec![
        StoredRef { channel: store.channel.clone(), seq, epoch: store.history.epoch(&store.channel) },
        // A publisher-api of an earlier version asks like this.
        StoredRef { channel: nobodys.clone(), seq: unheard, epoch: None },
    ];
    let answer = world.bus.request(subject::ASK, ask(stored).encode(), PATIENCE).await.unwrap();
    let counts = Answer::decode(&answer.payload).unwrap().stored;
    assert_eq!(counts.iter().map(|counts| counts.unwrap().sessions).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(client.texts(1).await, ["once"]);
    plain.expect("once").await;
    // A copy that comes again, and a copy that shows a gap where there is none.
    let other = store.publish_to(&nobodys, "for nobody").await;
    for (id, seq, before) in [(1, seq, 0), (3, other, unheard)] {
        store.forge(&world, (id, "twice"), seq, before).await;
    }
    store.publish("more").await;
    assert_eq!(client.texts(1).await, ["more"]);
    plain.expect("more").await;
    plain.leave().await;
    client.leave().await;
    store.end(world).await;
}

/// A publisher may be wrong about where a channel ends: it asked a leader that was cut off, it names an
/// earlier epoch, or it makes numbers up.
#[tokio::test]
async fn nobody_makes_a_channel_deaf_by_asking_beyond_its_end() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut plain = Client::plain(&world.edge, "user-1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    client.recover("").await;
    let seq = store.publish("before").await;
    assert_eq!(client.texts(1).await, ["before"]);
    plain.expect("before").await;
    let epoch = store.history.epoch(&store.channel);
    let earlier = Some(Epoch(1));
    let beyond = [(None, seq + 5), (epoch, seq + 9), (earlier, seq + 5), (None, u64::MAX), (earlier, seq)];
    for (number, (epoch, seq)) in beyond.into_iter().enumerate() {
        let stored = vec![StoredRef { channel: store.channel.clone(), seq, epoch }];
        let ask = Ask { v: 1, ids: vec![], stored };
        let answer = world.bus.request(subject::ASK, ask.encode(), PATIENCE).await.unwrap();
        assert_eq!(Answer::decode(&answer.payload).unwrap().stored, [None], "{epoch:?} {seq}");
        let text = number.to_string();
        store.publish(&text).await;
        assert_eq!(client.texts(1).await, std::slice::from_ref(&text), "after {epoch:?} {seq}");
        plain.expect(&text).await;
    }
    plain.leave().await;
    client.leave().await;
    store.end(world).await;
}

/// A queue may still hold copies of a stream that was made anew meanwhile.
#[tokio::test]
async fn copies_of_another_epoch_neither_stop_a_channel_nor_count_as_the_end_of_the_stream() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    let (first, _) = client.recover("").await;
    for (id, seq, before) in [(90, 500, 499), (91, 501, 500), (92, u64::MAX, 501)] {
        store.forge(&world, (id, "of before"), seq, before).await;
    }
    for number in 0..20 {
        store.publish(&number.to_string()).await;
    }
    let last = client.numbers(0..20).await;
    assert_eq!(last.split_once('.').unwrap().0, first.split_once('.').unwrap().0, "it is the same epoch");
    client.leave().await;
    let mut client = Client::of(&world.edge, "user-1").await;
    assert!(client.recover(&last).await.1);
    client.leave().await;
    store.end(world).await;
}

#[tokio::test]
async fn who_is_sent_away_learns_in_time_where_it_is() {
    let world = World::ready(|config| config.drain_window = Duration::from_secs(2)).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    client.recover("").await;
    store.publish("a").await;
    let (id, _) = client.message().await;
    world.drain.begin();
    let told = client.json().await;
    assert_eq!(told["event"], "@reconnect", "{told}");
    assert_eq!(told["ids"]["@user"], id, "{told}");
    let within = told["within_ms"].as_u64().unwrap();
    assert!((1..=2_000).contains(&within), "{told}");
    client.expect_close(1012).await;
    store.end(world).await;
}

#[tokio::test]
async fn a_second_subscription_with_a_position_begins_again_from_there() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    let (first, _) = client.recover("").await;
    store.publish("a").await;
    store.publish("b").await;
    assert_eq!(client.texts(2).await, ["a", "b"]);
    assert!(client.recover(&first).await.1);
    assert_eq!(client.texts(2).await, ["a", "b"]);
    store.publish("c").await;
    assert_eq!(client.texts(1).await, ["c"]);
    client.say(r#"{"op":"unsubscribe","channel":"@user"}"#).await;
    client.expect(r#"{"result":true}"#).await;
    store.publish("d").await;
    client.say("ping").await;
    client.expect("pong").await;
    client.leave().await;
    store.end(world).await;
}

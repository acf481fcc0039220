//! A session changes its user, or its way to receive a channel. No earlier message comes after the answer.

use std::time::Duration;

use serde_json::{Value, json};
use shared::config::ByteSize;
use shared::ids::Channel;
use shared::wire::{Answer, Ask, Envelope as _, StoredRef};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::recovery::Store;
use crate::support::client::Client;
use crate::support::{PATIENCE, World, eventually};

const YES: &str = r#"{"result":true}"#;
const EXPIRED: &str = r#"{"code":9,"msg":"Auth Expired"}"#;

/// Asks about a stored message until the answer is known. Returns how many sessions the message went to.
async fn sessions(world: &World, channel: &Channel, seq: u64) -> u64 {
    let stored = StoredRef { channel: channel.clone(), seq, epoch: None };
    let ask = Ask { v: 1, ids: vec![], stored: vec![stored] }.encode();
    let asked = async {
        loop {
            let answer = world.bus.request(shared::subject::ASK, ask.clone(), PATIENCE).await.unwrap();
            if let Some(counts) = Answer::decode(&answer.payload).unwrap().stored[0] {
                return counts.sessions;
            }
        }
    };
    timeout(PATIENCE, asked).await.expect("an answer that knows")
}

/// Returns how many messages were thrown away for this reason.
fn lost(world: &World, reason: &str) -> u64 {
    world.metric("mc_edge_losses_total", &format!("\"{reason}\""))
}

impl Client {
    /// Subscribes with ids. Returns the answer's id.
    async fn with_ids(&mut self, channel: &str, after: &str) -> String {
        self.say(&json!({"op": "subscribe", "channel": channel, "after": after}).to_string()).await;
        let answer = self.json().await;
        assert_eq!(answer["result"], true, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Logs in again for a moment, as the same user, and waits until that login has expired.
    async fn expire(&mut self, uid: u32) {
        self.auth(&format!("short-{uid}")).await;
        self.expect(YES).await;
        self.expect(EXPIRED).await;
    }

    /// Checks that nothing comes before the answer to one more op.
    async fn expect_nothing(&mut self) {
        self.say("ping").await;
        self.expect("pong").await;
    }

    async fn unsubscribe(&mut self, channel: &str) {
        self.say(&json!({"op": "unsubscribe", "channel": channel}).to_string()).await;
        self.expect(YES).await;
    }
}

#[tokio::test]
async fn messages_with_ids_held_back_for_one_user_are_not_given_to_the_next() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let mut client = Client::of(&world.edge, "user-1").await;
    client.with_ids("@user", "").await;
    client.expire(1).await;
    let seq = store.publish("for user 1").await;
    assert_eq!(sessions(&world, &store.channel, seq).await, 1);
    client.auth("user-2").await;
    client.expect(YES).await;
    client.expect_nothing().await;
    client.unsubscribe("@user").await;
    client.expect_nothing().await;
    assert_eq!(lost(&world, "other_user"), 1, "but it is counted");
    client.leave().await;
    store.end(world).await;
}

#[tokio::test]
async fn no_unsubscribing_brings_out_what_an_expired_login_holds_back() {
    let world = World::ready(|_| {}).await;
    let mut store = Store::of(&world, "user:1").await;
    let open = Channel::parse("open:1").unwrap();
    let mut client = Client::of(&world.edge, "user-1").await;
    client.with_ids("@user", "").await;
    client.with_ids("1@open", "").await;
    client.expire(1).await;
    for round in 0..3 {
        let own = store.publish(&format!("own {round}")).await;
        let all = store.publish_to(&open, &format!("open {round}")).await;
        assert_eq!(sessions(&world, &store.channel, own).await, 1);
        assert_eq!(sessions(&world, &open, all).await, 1);
        client.unsubscribe("1@open").await;
        client.expect_nothing().await;
        if round == 1 {
            client.say(r#"{"op":"subscribe","channel":"1@open"}"#).await;
            client.expect(YES).await;
        } else {
            client.with_ids("1@open", "").await;
        }
    }
    assert_eq!(lost(&world, "unsubscribed"), 3, "each is counted");
    client.auth("user-1").await;
    client.expect(YES).await;
    for round in 0..3 {
        let message = client.json().await;
        assert_eq!((&message["channel"], &message["d"]), (&json!("@user"), &json!(format!("own {round}"))));
    }
    let last = store.publish_to(&open, "open again").await;
    assert_eq!(sessions(&world, &open, last).await, 1);
    assert_eq!(client.json().await["d"], "open again");
    client.leave().await;
    store.end(world).await;
}

#[tokio::test]
async fn the_farewell_of_an_expired_login_waits_for_the_same_user_and_is_not_told_another() {
    for (user, is_told) in [("user-1", true), ("user-2", false)] {
        let world = World::ready(|config| config.drain_window = Duration::from_secs(3)).await;
        let mut store = Store::of(&world, "user:1").await;
        let mut client = Client::of(&world.edge, "user-1").await;
        client.with_ids("@user", "").await;
        client.expire(1).await;
        let before = store.publish("before").await;
        assert_eq!(sessions(&world, &store.channel, before).await, 1);
        world.drain.begin();
        client.expect_nothing().await;
        client.auth(user).await;
        client.expect(YES).await;
        if is_told {
            assert_eq!(client.json().await["d"], "before");
            assert_eq!(client.json().await["event"], "@reconnect");
        }
        client.expect_close(1012).await;
        store.end(world).await;
    }
}

/// The numbers of the messages that a slow reader was sent before and behind the answer to a subscription.
#[derive(Debug, Default)]
struct Seen {
    plain_before: Vec<u64>,
    ids_before: Vec<u64>,
    plain_behind: Vec<u64>,
    ids_behind: Vec<u64>,
}

/// A client that reads nothing until messages wait for it, then asks for another subscription and reads on.
struct Slow {
    client: Client,
    world: World,
    store: Store,
    sent: u64,
}

impl Slow {
    async fn new() -> Self {
        let world = World::ready(|config| config.outbox = ByteSize(16 << 20)).await;
        let store = Store::of(&world, "user:1").await;
        let client = Client::of(&world.edge, "user-1").await;
        Self { client, world, store, sent: 0 }
    }

    async fn publish(&mut self) {
        let text = format!("{} {}", self.sent, "x".repeat(64 << 10));
        self.store.publish(&text).await;
        self.sent += 1;
    }

    /// Publishes until so many messages wait in the outbox, and all published messages have reached the edge.
    async fn stuff(&mut self, waiting: u64) {
        while self.world.metric("mc_edge_outbox_messages", "") < waiting {
            self.publish().await;
        }
        let (world, sent) = (&self.world, self.sent);
        let come = || world.metric("mc_edge_deliveries_total", "accepted");
        eventually("every message has come", || come() >= sent).await;
    }

    /// Sends this op, and publishes one more message behind the answer. Reads until that message came.
    async fn turn(&mut self, op: &Value) -> Seen {
        let follows = || self.world.metric("mc_edge_following_sessions", "");
        let before = follows();
        self.client.say(&op.to_string()).await;
        let begins = || self.world.metric("mc_edge_replays", "") > 0 || follows() > before;
        eventually("the subscription has begun", begins).await;
        let (mut seen, mut answered) = (Seen::default(), false);
        loop {
            let Some(Message::Text(text)) = self.client.next().await else { panic!("it ended") };
            let number = |text: &str| text.split_once(' ').unwrap().0.parse::<u64>().unwrap();
            let (list, number) = match serde_json::from_str::<Value>(&text) {
                Ok(answer) if answer["i"] == "turn" => {
                    assert!(!std::mem::replace(&mut answered, true));
                    self.publish().await;
                    continue;
                }
                Ok(message) => {
                    let list = if answered { &mut seen.ids_behind } else { &mut seen.ids_before };
                    (list, number(message["d"].as_str().unwrap()))
                }
                Err(_) => {
                    let list = if answered { &mut seen.plain_behind } else { &mut seen.plain_before };
                    (list, number(&text))
                }
            };
            list.push(number);
            if answered && number + 1 == self.sent {
                return seen;
            }
        }
    }

    async fn end(self) {
        self.client.leave().await;
        self.store.end(self.world).await;
    }
}

fn all(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test]
async fn from_plain_to_ids_from_now_on_is_one_step_in_which_nothing_is_missing_or_twice() {
    let mut slow = Slow::new().await;
    slow.client.say(r#"{"op":"subscribe","channel":"@user"}"#).await;
    slow.client.expect(YES).await;
    slow.stuff(10).await;
    let sent = slow.sent;
    let seen = slow.turn(&json!({"op": "subscribe", "channel": "@user", "after": "", "i": "turn"})).await;
    let plain = u64::try_from(seen.plain_before.len()).unwrap();
    assert!(plain >= sent, "{seen:?}");
    assert_eq!(seen.plain_before, all(0..plain));
    assert_eq!(seen.ids_behind, all(plain..slow.sent));
    assert_eq!((seen.ids_before.len(), seen.plain_behind.len()), (0, 0));
    slow.end().await;
}

#[tokio::test]
async fn from_plain_to_ids_after_a_position_gives_each_of_them_with_its_id_and_no_plain_one_behind_the_answer()
 {
    let mut slow = Slow::new().await;
    let first = slow.client.with_ids("@user", "").await;
    slow.client.unsubscribe("@user").await;
    slow.client.say(r#"{"op":"subscribe","channel":"@user"}"#).await;
    slow.client.expect(YES).await;
    slow.stuff(10).await;
    let turn = json!({"op": "subscribe", "channel": "@user", "after": first, "i": "turn"});
    let seen = slow.turn(&turn).await;
    let plain = seen.plain_before.len();
    assert_eq!(seen.plain_before, all(0..plain as u64), "what was with the system already");
    assert_eq!(seen.ids_behind, all(0..slow.sent));
    assert_eq!((seen.ids_before.len(), seen.plain_behind.len()), (0, 0));
    assert!(lost(&slow.world, "resubscribed") >= 10, "what waited is counted");
    slow.end().await;
}

#[tokio::test]
async fn from_ids_to_ids_after_a_position_gives_nothing_of_the_first_behind_the_answer() {
    let mut slow = Slow::new().await;
    let first = slow.client.with_ids("@user", "").await;
    slow.stuff(10).await;
    let turn = json!({"op": "subscribe", "channel": "@user", "after": first, "i": "turn"});
    let seen = slow.turn(&turn).await;
    assert_eq!(seen.ids_behind, all(0..slow.sent), "{:?}", seen.ids_before.len());
    assert!(lost(&slow.world, "resubscribed") >= 10, "what waited is counted");
    slow.end().await;
}

#[tokio::test]
async fn from_ids_to_plain_nothing_comes_behind_the_answer_to_unsubscribe_but_plain_messages() {
    let mut slow = Slow::new().await;
    slow.client.with_ids("@user", "").await;
    slow.stuff(10).await;
    let sent = slow.sent;
    slow.client.say(r#"{"op":"unsubscribe","channel":"@user","i":"turn"}"#).await;
    slow.client.say(r#"{"op":"subscribe","channel":"@user","i":"plain"}"#).await;
    for number in 0..sent {
        let message = slow.client.json().await;
        assert!(message["d"].as_str().unwrap().starts_with(&format!("{number} ")), "{number}");
    }
    slow.client.expect(r#"{"result":true,"i":"turn"}"#).await;
    slow.client.expect(r#"{"result":true,"i":"plain"}"#).await;
    slow.publish().await;
    let Some(Message::Text(text)) = slow.client.next().await else { panic!("it ended") };
    assert!(text.starts_with(&format!("{sent} ")));
    slow.end().await;
}

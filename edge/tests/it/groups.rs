//! Channels for the members of a group: who is let in, what ends with the group, and refreshes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use shared::subject;
use shared::wire::{Command, Control, ControlAnswer, Envelope as _, UserAnswer};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::{PATIENCE, World};

const YES: &str = r#"{"result":true}"#;
const CLOSED: &str = r#"{"event":"@closed","channel":"@club/vip","reason":"not_member"}"#;
const SUBSCRIBE: &str = r#"{"op":"subscribe","channel":"@club/vip"}"#;
const NOT_ALLOWED: &str = r#"{"code":11,"msg":"Not Allowed"}"#;
const EXPIRED: &str = r#"{"code":9,"msg":"Auth Expired"}"#;

async fn refresh(world: &World, user: &str) -> Vec<UserAnswer> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let command = Command::Refresh { users: vec![user.to_owned()], newer_than_ms: now };
    let question = Control { v: 1, command }.encode();
    let answer = world.bus.request(subject::CONTROL_ALL, question, PATIENCE).await.unwrap();
    ControlAnswer::decode(&answer.payload).unwrap().users
}

/// Returns a session of user `vip` that is subscribed to the channel of the group.
async fn subscribed(world: &World, token: &str) -> Client {
    let mut client = Client::of(&world.edge, token).await;
    client.say(SUBSCRIBE).await;
    client.expect(YES).await;
    client
}

/// Expects that nothing is under way to the client.
async fn expect_nothing(client: &mut Client) {
    client.say("ping").await;
    client.expect("pong").await;
}

#[tokio::test]
async fn only_a_member_gets_what_is_for_the_group() {
    let world = World::ready(|_| {}).await;
    let mut stranger = Client::connect(&world.edge).await;
    stranger.say(SUBSCRIBE).await;
    stranger.expect(r#"{"code":1,"msg":"Not Auth"}"#).await;
    stranger.auth("stranger-vip").await;
    stranger.expect(YES).await;
    stranger.say(SUBSCRIBE).await;
    stranger.expect(NOT_ALLOWED).await;
    let mut member = subscribed(&world, "odd-vip").await;
    let id = world.publish("club:vip", "hello").await;
    assert_eq!(world.counts(id).await, (1, 0));
    member.expect("hello").await;
    expect_nothing(&mut stranger).await;
    assert_eq!(world.metric("mc_edge_groups_left_out_total", ""), 2, "those that no name can name");
    assert_eq!(world.metric("mc_edge_errors_total", "not_allowed"), 1);
    stranger.leave().await;
    member.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_refresh_takes_the_group_away_whatever_an_adapter_remembers() {
    let world = World::ready(|_| {}).await;
    let mut member = subscribed(&world, "remembered-vip").await;
    let other = Client::of(&world.edge, "user-1").await;
    assert_eq!(refresh(&world, "vip").await, [UserAnswer { sessions: 1, ..UserAnswer::default() }]);
    member.expect(EXPIRED).await;
    let id = world.publish("club:vip", "held back").await;
    assert_eq!(world.counts(id).await, (1, 0));
    member.auth("remembered-vip").await;
    member.expect(CLOSED).await;
    member.expect(YES).await;
    expect_nothing(&mut member).await;
    member.say(SUBSCRIBE).await;
    member.expect(NOT_ALLOWED).await;

    let mut anew = Client::of(&world.edge, "remembered-vip").await;
    anew.say(SUBSCRIBE).await;
    anew.expect(NOT_ALLOWED).await;
    let id = world.publish("club:vip", "for nobody").await;
    assert_eq!(world.counts(id).await, (0, 0));
    assert_eq!(world.metric("mc_edge_refreshes_total", ""), 1);
    assert_eq!(world.metric("mc_edge_memberships_ended_total", ""), 1);
    assert_eq!(world.metric("mc_edge_losses_total", "not_member"), 1);
    assert_eq!(refresh(&world, "nobody").await, [UserAnswer::default()]);
    for client in [member, other, anew] {
        client.leave().await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_refreshed_session_that_does_not_log_in_is_closed() {
    let world = World::ready(|config| config.reauth_timeout = Duration::from_millis(50)).await;
    let mut member = subscribed(&world, "member-vip").await;
    refresh(&world, "vip").await;
    member.expect(EXPIRED).await;
    member.expect_close(4401).await;
    world.end().await;
}

/// Reads frames of a session, in which messages may come only while the session is subscribed.
struct Reader {
    client: Client,
    subscribed: bool,
    messages: usize,
}

impl Reader {
    async fn next(&mut self) -> String {
        match self.client.next().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads up to this frame.
    async fn until(&mut self, wanted: &str) {
        loop {
            let text = self.next().await;
            if text == wanted {
                return;
            }
            assert!(self.subscribed && text.starts_with("message "), "{text} instead of {wanted}");
            self.messages += 1;
        }
    }

    /// Joins the group, receives something, loses the group, and receives nothing any more.
    async fn round(&mut self) {
        self.client.auth("member-vip").await;
        self.until(YES).await;
        self.client.say(SUBSCRIBE).await;
        self.until(YES).await;
        self.subscribed = true;
        for _ in 0..3 {
            let text = self.next().await;
            assert!(text.starts_with("message "), "{text}");
            self.messages += 1;
        }
        self.client.auth("stranger-vip").await;
        self.until(CLOSED).await;
        self.subscribed = false;
        self.until(YES).await;
        self.client.say("ping").await;
        self.until("pong").await;
    }
}

#[tokio::test]
async fn under_load_nothing_follows_the_end_of_a_membership() {
    const SESSIONS: usize = 20;
    const ROUNDS: usize = 20;
    let world = World::ready(|config| config.ops_per_second = 10_000).await;
    let running = AtomicUsize::new(SESSIONS);
    let session = async || {
        let client = Client::of(&world.edge, "stranger-vip").await;
        let mut reader = Reader { client, subscribed: false, messages: 0 };
        for _ in 0..ROUNDS {
            reader.round().await;
        }
        reader.client.leave().await;
        running.fetch_sub(1, Ordering::SeqCst);
        reader.messages
    };
    let publishing = async {
        let mut published = 0_usize;
        while running.load(Ordering::SeqCst) > 0 {
            let mut last = None;
            for _ in 0..10 {
                last = Some(world.publish("club:vip", &format!("message {published}")).await);
                published += 1;
            }
            // The edge has handled them all, so that no outbox grows without a bound.
            world.counts(last.unwrap()).await;
        }
    };
    let (messages, ()) = tokio::join!(join_all((0..SESSIONS).map(|_| session())), publishing);
    assert!(messages.iter().all(|messages| *messages >= 3 * ROUNDS));
    let ended = (SESSIONS * ROUNDS) as u64;
    assert_eq!(world.metric("mc_edge_memberships_ended_total", ""), ended);
    world.end().await;
}

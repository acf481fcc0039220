//! Questions of a back end about who is online, and its commands to disconnect.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::subject;
use shared::wire::{Command, Control, ControlAnswer, Envelope as _, UserAnswer};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::{PATIENCE, World, eventually};

fn users(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn order(world: &World, order: Command) -> Vec<UserAnswer> {
    let control = Control { v: 1, command: order };
    let answer = world.bus.request(subject::CONTROL_ALL, control.encode(), PATIENCE).await.unwrap();
    let answer = ControlAnswer::decode(&answer.payload).unwrap();
    assert_eq!(answer.edge, *world.edge.node());
    answer.users
}

async fn disconnect(world: &World, user: &str, reason: Option<&str>, deny_for_ms: Option<u64>) -> UserAnswer {
    let reason = reason.map(str::to_owned);
    let mut answers =
        order(world, Command::Disconnect { users: users(&[user]), reason, deny_for_ms, stored: None }).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

/// Reads up to the close frame; code and reason.
pub(crate) async fn close_of(client: &mut Client) -> (u16, String) {
    loop {
        match client.next().await {
            Some(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
            Some(_) => {}
            None => panic!("the connection ended without a close frame"),
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[tokio::test]
async fn an_edge_says_how_many_sessions_a_user_has_and_since_when() {
    let world = World::ready(|_| {}).await;
    let began = unix_ms();
    let one = Client::of(&world.edge, "user-1001").await;
    let two = Client::of(&world.edge, "user-1001").await;
    let bob = Client::of(&world.edge, "user-bob").await;
    let answers = order(&world, Command::Sessions { users: users(&["1001", "bob", "nobody"]) }).await;
    assert_eq!(answers.iter().map(|user| user.sessions).collect::<Vec<_>>(), [2, 1, 0]);
    let since = &answers[0].since;
    assert!(since.len() == 2 && since.is_sorted() && since[0] >= began && since[1] <= unix_ms(), "{since:?}");
    assert!(answers[2].since.is_empty());
    for client in [one, two, bob] {
        client.leave().await;
    }
    eventually("who left is not online", || world.edge.channels_and_users().1 == 0).await;
    assert_eq!(order(&world, Command::Sessions { users: users(&["1001"]) }).await, [UserAnswer::default()]);
    assert_eq!(world.metric("mc_edge_orders_total", ""), 2);
    world.end().await;
}

#[tokio::test]
async fn a_disconnect_closes_every_session_of_the_user_with_the_words_of_the_back_end_and_no_other() {
    let world = World::ready(|_| {}).await;
    let mut sessions =
        [Client::of(&world.edge, "user-1001").await, Client::of(&world.edge, "user-1001").await];
    let other = Client::of(&world.edge, "user-1002").await;
    let answer = disconnect(&world, "1001", Some("your account was closed"), None).await;
    assert_eq!((answer.sessions, answer.denied), (2, false));
    for session in &mut sessions {
        assert_eq!(close_of(session).await, (4410, "your account was closed".into()));
    }
    drop(sessions);
    assert_eq!(world.metric("mc_edge_sessions_closed_total", "disconnected"), 2);

    let mut again = Client::of(&world.edge, "user-1001").await;
    assert_eq!(disconnect(&world, "1001", None, None).await.sessions, 1, "nobody was kept out");
    let (code, reason) = close_of(&mut again).await;
    assert!(code == 4410 && reason.contains("do not come back"), "{code} {reason}");
    assert_eq!(order(&world, Command::Sessions { users: users(&["1002"]) }).await[0].sessions, 1);
    other.leave().await;
    drop(again);
    world.end().await;
}

#[tokio::test]
async fn a_ban_refuses_logins_until_it_is_lifted_or_its_time_is_over() {
    let world = World::ready(|_| {}).await;
    let answer = disconnect(&world, "1001", Some("paused"), Some(3_600_000)).await;
    assert_eq!((answer.sessions, answer.denied), (0, true));
    let mut refused = Client::connect(&world.edge).await;
    refused.auth("user-1001").await;
    assert_eq!(close_of(&mut refused).await, (4410, "paused".into()));
    assert_eq!(world.metric("mc_edge_logins_total", "denied"), 1);
    Client::of(&world.edge, "user-1002").await.leave().await;

    assert!(!disconnect(&world, "1001", None, Some(0)).await.denied, "it is lifted");
    Client::of(&world.edge, "user-1001").await.leave().await;
    assert!(disconnect(&world, "1001", None, Some(1)).await.denied);
    let over = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let mut client = Client::connect(&world.edge).await;
            client.auth("user-1001").await;
            if let Some(Message::Text(_)) = client.next().await {
                return client.leave().await;
            }
        }
    };
    crate::support::soon("the ban is over", over).await;
    drop(refused);
    world.end().await;
}

#[tokio::test]
async fn an_order_that_cannot_be_read_is_counted_and_not_answered() {
    let world = World::ready(|_| {}).await;
    let session = Client::of(&world.edge, "user-1").await;
    let bad = Control {
        v: 1,
        command: Command::Disconnect {
            users: users(&["1", "0"]),
            reason: None,
            deny_for_ms: None,
            stored: None,
        },
    };
    for payload in ["rubbish".into(), r#"{"order":"greet","users":[]}"#.into(), bad.encode()] {
        world.bus.publish(subject::CONTROL_ALL, Some("_INBOX.nowhere".into()), None, payload).await.unwrap();
    }
    eventually("all are counted", || world.metric("mc_edge_losses_total", "bad_order") == 3).await;
    assert_eq!(
        order(&world, Command::Sessions { users: users(&["1"]) }).await[0].sessions,
        1,
        "nobody was closed"
    );
    session.leave().await;
    world.end().await;
}

//! The list of bans on the bus.

use std::time::Duration;

use shared::bans::Bans;
use shared::clock::unix_ms;
use shared::ids::Uid;
use shared::subject;
use shared::wire::{Ban, Command, Control, ControlAnswer, Envelope as _, StoredAt};
use tokio::time::Instant;

use crate::control::close_of;
use crate::support::client::Client;
use crate::support::{Ground, PATIENCE, World, eventually, soon};

const HOUR: u64 = 3_600_000;

/// Writes to the list as a publisher does, and tells no edge.
async fn write(list: &Bans, user: &str, milliseconds: u64) -> u64 {
    let until_ms = if milliseconds == 0 { 0 } else { unix_ms() + milliseconds };
    let denial = Ban { v: 1, uid: user.into(), until_ms, reason: Some(format!("not {user}")) };
    list.store(&Uid::parse(user).unwrap(), &denial, Instant::now() + PATIENCE).await.unwrap()
}

/// Returns whether a login is let in.
async fn is_let_in(world: &World, user: &str) -> bool {
    let mut client = Client::connect(&world.edge).await;
    client.auth(&format!("user-{user}")).await;
    let let_in = matches!(client.next().await, Some(tokio_tungstenite::tungstenite::Message::Text(_)));
    if let_in {
        client.leave().await;
    }
    let_in
}

/// Logs in again and again until the login is let in, or is refused.
async fn until_let_in(world: &World, user: &str, let_in: bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    soon("the edge knows", async {
        while is_let_in(world, user).await != let_in {
            look.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_written_before_an_edge_started_holds() {
    let ground = Ground::new().await;
    let list = Bans::new(&ground.bus, 1);
    for user in 1..=1_200 {
        write(&list, &user.to_string(), HOUR).await;
    }
    write(&list, "7", 0).await;
    write(&list, "8", 1).await;
    let world = ground.start(|_| {}).await;
    soon("the edge is ready", world.health.wait_ready()).await;
    assert!(!is_let_in(&world, "1").await && !is_let_in(&world, "1200").await);
    assert!(is_let_in(&world, "7").await && is_let_in(&world, "8").await && is_let_in(&world, "1201").await);
    assert_eq!(world.metric("mc_edge_denied_users", ""), 1_198);
    world.end().await;
}

#[tokio::test]
async fn an_order_that_only_the_list_knows_is_heard() {
    let world = World::ready(|_| {}).await;
    let list = Bans::new(&world.bus, 1);
    assert!(is_let_in(&world, "1").await);
    write(&list, "1", HOUR).await;
    until_let_in(&world, "1", false).await;
    write(&list, "1", 0).await;
    until_let_in(&world, "1", true).await;
    eventually("nothing is remembered", || world.metric("mc_edge_denied_users", "") == 0).await;
    world.end().await;
}

/// A world whose bus sends out no copy of a ban, so that an edge learns bans only by reading the list.
async fn deaf_world() -> (World, Bans) {
    let ground = Ground::new().await;
    let list = Bans::new(&ground.bus, 1);
    list.look().await.unwrap();
    let mut config = ground.bus.stream_info(subject::DENY_STREAM, PATIENCE).await.unwrap().config;
    ground.bus.delete_stream(subject::DENY_STREAM, PATIENCE).await.unwrap();
    config.republish = None;
    config.metadata.clear();
    ground.bus.create_stream(&config, PATIENCE).await.unwrap();
    let world = ground.start(|config| config.sweep_interval = Duration::from_millis(100)).await;
    soon("the edge is ready", world.health.wait_ready()).await;
    (world, list)
}

/// Sends the edge a command that the list stores. Returns how many sessions it closed, and whether the user
/// is banned.
async fn tell(world: &World, user: &str, seq: u64, milliseconds: u64) -> (u64, bool) {
    let until_ms = if milliseconds == 0 { 0 } else { unix_ms() + milliseconds };
    let order = Command::Disconnect {
        users: vec![user.to_owned()],
        reason: Some("told".into()),
        deny_for_ms: Some(milliseconds),
        stored: Some(StoredAt { seq, until_ms }),
    };
    let question = Control { v: 1, command: order }.encode();
    let answer = world.bus.request(subject::CONTROL_ALL, question, PATIENCE).await.unwrap();
    let answer = ControlAnswer::decode(&answer.payload).unwrap();
    (answer.users[0].sessions, answer.users[0].denied)
}

#[tokio::test]
async fn a_ban_that_only_the_list_tells_closes_the_session_that_is_open() {
    let world = World::ready(|_| {}).await;
    let list = Bans::new(&world.bus, 1);
    let mut open = Client::of(&world.edge, "user-1").await;
    let other = Client::of(&world.edge, "user-2").await;
    write(&list, "1", HOUR).await;
    assert_eq!(close_of(&mut open).await, (4410, "not 1".into()));
    assert!(!is_let_in(&world, "1").await);
    // The ban is made longer, then lifted; the edge hears both as copies alone.
    write(&list, "1", 2 * HOUR).await;
    write(&list, "1", 0).await;
    until_let_in(&world, "1", true).await;
    other.leave().await;
    drop(open);
    world.end().await;
}

#[tokio::test]
async fn a_ban_whose_copy_is_lost_as_well_is_found_in_the_list() {
    let (world, list) = deaf_world().await;
    let mut open = Client::of(&world.edge, "user-1").await;
    let mut before = Client::of(&world.edge, "user-2").await;
    write(&list, "1", HOUR).await;
    // The ban is lifted before this edge knows of it: a session from before the ban goes, a session that came
    // after the lifting stays.
    write(&list, "2", HOUR).await;
    write(&list, "2", 0).await;
    let after = Client::of(&world.edge, "user-2").await;
    assert_eq!(close_of(&mut open).await, (4410, "not 1".into()));
    assert_eq!(close_of(&mut before).await, (4410, "not 2".into()));
    assert!(!is_let_in(&world, "1").await && is_let_in(&world, "2").await);
    let answer = world.sessions_of("2").await;
    assert_eq!(answer, 1, "who came back stays");
    after.leave().await;
    drop((open, before));
    world.end().await;
}

#[tokio::test]
async fn sessions_are_counted_by_the_order_though_the_list_was_faster_and_closed_once() {
    let world = World::ready(|_| {}).await;
    let list = Bans::new(&world.bus, 1);
    let mut open = Client::of(&world.edge, "user-1").await;
    let seq = write(&list, "1", HOUR).await;
    eventually("the copy is heard", || world.metric("mc_edge_denied_users", "") == 1).await;
    assert_eq!(tell(&world, "1", seq, HOUR).await, (1, true));
    assert_eq!(close_of(&mut open).await, (4410, "told".into()));
    world.end().await;

    let (world, list) = deaf_world().await;
    let mut open = Client::of(&world.edge, "user-1").await;
    let mut other = Client::of(&world.edge, "user-2").await;
    let banned = write(&list, "1", HOUR).await;
    assert_eq!(tell(&world, "1", banned, HOUR).await, (1, true));
    assert_eq!(close_of(&mut open).await, (4410, "told".into()));
    let lifted = write(&list, "1", 0).await;
    assert_eq!(tell(&world, "1", lifted, 0).await, (0, false));
    let back = Client::of(&world.edge, "user-1").await;
    // The ban that is read later is no news, so it closes nobody; by the time that the next ban closes a
    // session, it would have.
    write(&list, "2", HOUR).await;
    assert_eq!(close_of(&mut other).await, (4410, "not 2".into()));
    assert_eq!(world.sessions_of("1").await, 1, "who came back stays");
    back.leave().await;
    drop((open, other));
    world.end().await;
}

#[tokio::test]
async fn nobody_is_taken_while_the_list_cannot_be_read() {
    let ground = Ground::new().await;
    let list = Bans::new(&ground.bus, 1);
    write(&list, "1", HOUR).await;
    let mut other = ground.bus.stream_info(subject::DENY_STREAM, PATIENCE).await.unwrap().config;
    ground.bus.delete_stream(subject::DENY_STREAM, PATIENCE).await.unwrap();
    other.name = "OTHER".into();
    other.metadata.clear();
    ground.bus.create_stream(&other, PATIENCE).await.unwrap();
    let world = ground.start(|_| {}).await;
    eventually("it says why", || world.health.reasons().contains("MC_DENY")).await;
    assert_eq!(Client::try_connect(&world.edge).await.err().unwrap().0.as_u16(), 503);
    world.bus.delete_stream("OTHER", PATIENCE).await.unwrap();
    soon("the edge is ready", world.health.wait_ready()).await;
    Client::of(&world.edge, "user-1").await.leave().await;
    world.end().await;
}

#[tokio::test]
async fn a_list_that_is_made_anew_is_followed_and_who_was_kept_out_stays_out() {
    let world = World::ready(|_| {}).await;
    let list = Bans::new(&world.bus, 1);
    for user in 1..=5 {
        write(&list, &user.to_string(), HOUR).await;
    }
    until_let_in(&world, "5", false).await;
    world.bus.delete_stream(subject::DENY_STREAM, PATIENCE).await.unwrap();
    assert_eq!(write(&list, "6", HOUR).await, 1);
    write(&list, "2", 0).await;
    until_let_in(&world, "6", false).await;
    until_let_in(&world, "2", true).await;
    assert!(!is_let_in(&world, "1").await);
    world.end().await;
}

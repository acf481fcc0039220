//! Limits and timeouts of a session: each ends in an error or a close that says so, and costs nobody else
//! anything.

use std::time::Duration;

use harness::cluster::{Cluster, rule};
use harness::device::{Device, Received};
use harness::frames;
use harness::wait::eventually;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn ops_beyond_the_rate_are_refused_and_the_connection_stays() {
    let cluster =
        Cluster::plan().edge(|config| (config.ops_per_second, config.first_ops) = (5, 0)).start().await;
    let mut device = cluster.login(0, "user-1").await;
    for _ in 0..20 {
        device.send(r#"{"op":"subscribe","channel":"@user"}"#).await;
    }
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20 {
        let answer = device.next_json().await;
        if answer["code"] == 7 {
            refused += 1;
        } else {
            assert_eq!(answer, json!({ "result": true }));
            taken += 1;
        }
    }
    assert!(taken >= 4 && refused >= 5, "{taken} taken, {refused} refused");
    cluster.publisher(0).publish_to(1, "user:1", "still here").await;
    device.expect_text("still here").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_device_that_does_not_stop_asking_too_much_is_closed() {
    let cluster =
        Cluster::plan().edge(|config| (config.ops_per_second, config.first_ops) = (2, 0)).start().await;
    let mut device = cluster.login(0, "user-1").await;
    for _ in 0..200 {
        device.send_anyway(r#"{"op":"subscribe","channel":"@user"}"#).await;
    }
    loop {
        match device.next().await {
            Received::Text(_) => {}
            Received::Close(code, reason) => {
                assert_eq!(code, 4429, "{reason}");
                break;
            }
            other @ (Received::Binary(_) | Received::Gone) => panic!("{other:?}"),
        }
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_connection_that_does_nothing_useful_in_time_is_closed() {
    let cluster = Cluster::plan()
        .rules(vec![rule("@broadcast", "broadcast", false)])
        .edge(|config| config.login_timeout = Duration::from_millis(200))
        .start()
        .await;
    let mut listener = cluster.connect(0).await;
    listener.subscribe("@broadcast").await;
    let mut idle = cluster.connect(0).await;
    let mut busy = cluster.connect(0).await;
    busy.send(r#"{"op":"subscribe","channel":"@nothing"}"#).await;
    busy.expect_error(6).await;
    idle.expect_close(4408).await;
    busy.expect_close(4408).await;
    listener.expect_nothing().await;
    listener.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_session_that_answers_pings_stays_and_a_silent_one_is_closed() {
    let cluster = Cluster::plan()
        .edge(|config| {
            config.ping_interval = Duration::from_millis(100);
            config.silence = Duration::from_millis(400);
        })
        .start()
        .await;
    let mut answering = cluster.login(0, "user-1").await;
    let silent = cluster.login(0, "user-2").await;
    // A bare stream reads nothing, so the WebSocket library answers no pings either.
    let silent = silent.into_stream();
    // As many pings as the silent session gets before it is closed, and some more.
    let mut pings = 0;
    while cluster.sessions() > 1 || pings < 8 {
        answering.expect_ping().await;
        pings += 1;
        assert!(pings < 200, "the silent session is never closed");
    }
    drop(silent);
    answering.expect_nothing().await;
    answering.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn the_oldest_session_of_a_user_makes_room_for_a_new_one() {
    let cluster = Cluster::plan().edge(|config| config.sessions_per_user = 2).start().await;
    let mut oldest = cluster.online(0, "user-1").await;
    let mut second = cluster.online(0, "user-1").await;
    let mut newest = cluster.online(0, "user-1").await;
    let reason = oldest.expect_close(4409).await;
    assert!(!reason.is_empty());
    cluster.publisher(0).publish_to(2, "user:1", "hello").await;
    second.expect_text("hello").await;
    newest.expect_text("hello").await;
    second.close().await;
    newest.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn or_the_newest_is_refused_if_that_is_the_policy() {
    let cluster = Cluster::plan()
        .edge(|config| {
            config.sessions_per_user = 1;
            config.session_policy = edge::SessionPolicy::RefuseNewest;
        })
        .start()
        .await;
    let mut first = cluster.online(0, "user-1").await;
    let mut second = cluster.connect(0).await;
    second.send(r#"{"op":"auth","token":"user-1"}"#).await;
    second.expect_close(4429).await;
    first.expect_nothing().await;
    first.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_device_that_stops_reading_is_closed_while_the_others_get_everything() {
    let cluster = Cluster::plan()
        .rules(vec![rule("@broadcast", "broadcast", false)])
        .edge(|config| config.stalled_after = Duration::from_secs(2))
        .start()
        .await;
    let mut good = cluster.connect(0).await;
    good.subscribe("@broadcast").await;
    let mut stuck = Device::connect_narrow(cluster.edge(0)).await;
    stuck.subscribe("@broadcast").await;

    let text = "x".repeat(64 * 1024);
    let (mut took_both, mut failed) = (0, 0);
    // Far more than the kernel's buffers and the outbox hold together.
    let mut numbers = 0..400;
    while let Some(number) = numbers.next() {
        let text = format!("{number}:{text}");
        let answer = cluster.publisher(0).publish("broadcast", &text).await;
        good.expect_text(&text).await;
        match answer.counts() {
            Some((2, 0)) => took_both += 1,
            Some((1, 0 | 1)) => {
                failed += 1;
                // A few more; then the device must read again, before the edge closes the session as stalled.
                numbers.end = numbers.end.min(number + 10);
            }
            other => panic!("{other:?}"),
        }
        assert!(answer.is_complete());
    }
    assert!(took_both > 0 && failed > 0, "{took_both} went to both, {failed} to one");
    // The device reads again: it gets all accepted messages in order and without a gap, then the reason of
    // the close.
    for number in 0.. {
        match stuck.next().await {
            Received::Text(text) => assert!(text.starts_with(&format!("{number}:")), "{number}: {:.9}", text),
            Received::Close(code, reason) => {
                assert_eq!(code, 4503, "{reason}");
                break;
            }
            other @ (Received::Binary(_) | Received::Gone) => panic!("{other:?}"),
        }
    }
    eventually("the stuck session is closed", async || cluster.sessions() == 1).await;
    drop(stuck);
    good.expect_nothing().await;
    good.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_device_that_sends_and_never_reads_is_held_back_and_closed() {
    let cluster =
        Cluster::plan().edge(|config| config.stalled_after = Duration::from_millis(300)).start().await;
    let mut good = cluster.online(0, "user-2").await;
    let mut flood = Device::connect_narrow(cluster.edge(0)).await;
    flood.auth("user-1").await;
    let mut flood = flood.into_stream();
    let frames = largest_ping().repeat(100);
    let flooding = async {
        use tokio::io::AsyncWriteExt as _;
        // The edge closes the connection, because the device reads no pongs.
        while flood.write_all(&frames).await.is_ok() {}
    };
    harness::wait::soon("the edge closes a device that only sends", flooding).await;
    good.expect_nothing().await;
    good.close().await;
    cluster.end().await;
}

/// The largest allowed WebSocket ping, whose pong is as large.
fn largest_ping() -> Vec<u8> {
    frames::whole(frames::PING, &[b'x'; 125])
}

#[tokio::test]
async fn an_edge_that_is_full_refuses_and_welcomes_again_when_someone_left() {
    let cluster = Cluster::plan().edge(|config| config.max_sessions = 2).start().await;
    let first = cluster.login(0, "user-1").await;
    let second = cluster.login(0, "user-2").await;
    let refusal =
        Device::try_connect(cluster.edge(0), harness::device::PATH, None).await.expect_err("it is full");
    assert_eq!(refusal.status(), 503);
    assert!(refusal.headers().contains_key("retry-after"));
    first.close().await;
    eventually("there is room again", async || Device::is_welcome(cluster.edge(0)).await).await;
    second.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_message_as_large_as_allowed_arrives_and_a_larger_one_is_refused() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    let largest = "ä".repeat(128 * 1024);
    cluster.publisher(0).publish_to(1, "user:1", &largest).await;
    device.expect_text(&largest).await;
    let answer = cluster.publisher(0).publish("user:1", &format!("{largest}!")).await;
    answer.expect_error(200, 104);
    // The same text in its longest spelling: every byte escaped.
    let escaped = "\\u0001".repeat(256 * 1024);
    let answer = cluster.publisher(0).post(format!(r#"{{"c":"user:1","d":"{escaped}"}}"#)).await;
    answer.expect_counts(1, 0);
    device.expect_text(&"\u{1}".repeat(256 * 1024)).await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_ping_of_the_device_is_answered_with_a_pong() {
    let cluster = Cluster::start().await;
    let mut device = cluster.login(0, "user-1").await;
    device.send_frame(Message::Ping("are you there?".into())).await;
    device.expect_pong(b"are you there?").await;
    device.close().await;
    cluster.end().await;
}

//! The counts of a publish: exactly the sessions that the message went to, over any number of edges and
//! publisher-apis.

use std::collections::HashMap;

use futures_util::future::join_all;
use harness::cluster::{Cluster, Plan, rule};
use harness::device::{Device, Received};
use harness::nats::NatsServer;
use harness::publisher::PublishingSocket;
use harness::tools;
use harness::wait::eventually;
use serde_json::json;

#[tokio::test]
async fn counts_are_exact_with_no_one_and_many_sessions_on_one_edge() {
    let cluster = Cluster::start().await;
    let publisher = cluster.publisher(0);
    publisher.publish_to(0, "user:1", "nobody").await;
    let mut devices = Vec::new();
    for count in 1..=20 {
        devices.push(cluster.online(0, "user-1").await);
        publisher.publish_to(count, "user:1", "hello").await;
    }
    for (index, mut device) in devices.into_iter().enumerate() {
        // The first device subscribes before all twenty messages, the last device before one.
        for _ in index..20 {
            device.expect_text("hello").await;
        }
        device.expect_nothing().await;
        device.close().await;
    }
    publisher.publish_to(0, "user:1", "nobody any more").await;
    cluster.end().await;
}

#[tokio::test]
async fn a_user_on_several_edges_is_reached_and_counted_everywhere_by_any_publisher() {
    let cluster = Cluster::plan().edges(3).publishers(3).adapters(2).start().await;
    let mut devices = Vec::new();
    for edge in 0..3 {
        for _ in 0..=edge {
            devices.push(cluster.online(edge, "user-1").await);
        }
        devices.push(cluster.online(edge, "user-2").await);
    }
    for publisher in 0..3 {
        cluster.publisher(publisher).publish_to(6, "user:1", &format!("from {publisher}")).await;
        cluster.publisher(publisher).publish_to(3, "user:2", &format!("to 2 from {publisher}")).await;
        cluster.publisher(publisher).publish_to(0, "user:3", "nobody").await;
    }
    let mut received: HashMap<String, usize> = HashMap::new();
    for device in &mut devices {
        for _ in 0..3 {
            let Received::Text(text) = device.next().await else { panic!("three messages for everyone") };
            *received.entry(text).or_default() += 1;
        }
        device.expect_nothing().await;
    }
    for publisher in 0..3 {
        assert_eq!(received[&format!("from {publisher}")], 6);
        assert_eq!(received[&format!("to 2 from {publisher}")], 3);
    }
    close_all(devices).await;
    cluster.end().await;
}

async fn close_all(devices: Vec<Device>) {
    for device in devices {
        device.close().await;
    }
}

#[tokio::test]
async fn a_session_counts_from_the_answer_to_its_subscribe_until_that_to_its_unsubscribe() {
    let cluster = Cluster::plan().edges(2).publishers(2).start().await;
    let mut device = cluster.login(1, "user-1").await;
    for round in 0..50 {
        let publisher = cluster.publisher(round % 2);
        publisher.publish_to(0, "user:1", "too early").await;
        device.subscribe("@user").await;
        publisher.publish_to(1, "user:1", "in time").await;
        device.expect_text("in time").await;
        device.unsubscribe("@user").await;
        publisher.publish_to(0, "user:1", "too late").await;
        if round % 10 == 9 {
            // Ops are limited to twenty a second; a new session starts with a full allowance.
            device.close().await;
            device = cluster.login(1, "user-1").await;
        }
    }
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn binary_messages_arrive_as_binary_frames_with_the_same_bytes() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    for (base64, bytes) in [("", &b""[..]), ("AAEC/f7/", &[0, 1, 2, 253, 254, 255]), ("aGVsbG8=", b"hello")] {
        let answer = cluster.publisher(0).call(&json!({ "c": "user:1", "d": base64, "t": "binary" })).await;
        answer.expect_counts(1, 0);
        device.expect_binary(bytes).await;
    }
    let answer = cluster.publisher(0).call(&json!({ "c": "user:1", "d": "aGVsbG8=", "t": "text" })).await;
    answer.expect_counts(1, 0);
    device.expect_text("aGVsbG8=").await;
    cluster.publisher(0).publish_to(1, "user:1", "").await;
    device.expect_text("").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_concurrent_publishes_are_all_counted_exactly_and_delivered_once() {
    burst(Cluster::plan()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_the_real_nats_server() {
    let test = "two thousand concurrent publishes over the real nats-server";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    let server = NatsServer::start(&binary).await;
    burst(Cluster::plan().over(server.address())).await;
    server.stop().await;
}

async fn burst(plan: Plan) {
    const USERS: u64 = 20;
    const MESSAGES: u64 = 2000;
    let cluster = plan.edges(3).publishers(4).start().await;
    // User n has n % 4 sessions, spread over the edges.
    let sessions_of = |user: u64| user % 4;
    let mut devices = Vec::new();
    for user in 0..USERS {
        for session in 0..sessions_of(user) {
            let edge = usize::try_from((user + session) % 3).expect("a small number");
            devices.push((user, cluster.online(edge, &format!("user-u{user}")).await));
        }
    }
    let publishers: Vec<_> = (0..4).map(|index| cluster.publisher(index)).collect();
    let publishes = (0..MESSAGES).map(|number| {
        let publisher = &publishers[usize::try_from(number % 4).expect("a small number")];
        async move {
            let user = number % USERS;
            let answer = publisher.publish(&format!("user:u{user}"), &number.to_string()).await;
            let (sessions, failed) = answer.counts().expect("a success");
            // On a busy machine an edge may report its counts too late. A complete answer must be exact.
            let exact = (sessions, failed) == (sessions_of(user), 0);
            assert!(exact || (!answer.is_complete() && sessions <= sessions_of(user)), "{answer:?}");
        }
    });
    join_all(publishes).await;
    for (user, device) in &mut devices {
        let mut received = Vec::new();
        for _ in 0..MESSAGES / USERS {
            let Received::Text(text) = device.next().await else { panic!("a message for user {user}") };
            received.push(text.parse::<u64>().expect("a number was published"));
        }
        device.expect_nothing().await;
        received.sort_unstable();
        assert_eq!(received, (0..MESSAGES).filter(|number| number % USERS == *user).collect::<Vec<_>>());
    }
    close_all(devices.into_iter().map(|(_, device)| device).collect()).await;
    cluster.end().await;
}

#[tokio::test]
async fn messages_of_one_publishing_socket_keep_their_order_and_each_gets_its_answer() {
    const MESSAGES: u64 = 500;
    let cluster = Cluster::plan().edges(2).start().await;
    let mut first = cluster.online(0, "user-1").await;
    let mut second = cluster.online(1, "user-1").await;
    let mut socket = PublishingSocket::connect(cluster.publisher_address(0)).await;
    for number in 0..MESSAGES {
        socket.publish(&json!(number), "user:1", &number.to_string()).await;
    }
    let mut answered = Vec::new();
    for _ in 0..MESSAGES {
        let answer = socket.answer().await;
        assert_eq!(answer["r"], json!({ "s": 2, "f": 0 }), "{answer}");
        answered.push(answer["i"].as_u64().expect("i comes back"));
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..MESSAGES).collect::<Vec<_>>());
    for device in [&mut first, &mut second] {
        for number in 0..MESSAGES {
            device.expect_text(&number.to_string()).await;
        }
        device.expect_nothing().await;
    }
    socket.close().await;
    first.close().await;
    second.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn two_requests_one_after_the_other_are_delivered_in_that_order_whoever_takes_them() {
    let cluster = Cluster::plan().edges(2).publishers(3).start().await;
    let mut device = cluster.online(1, "user-1").await;
    for number in 0..60 {
        cluster.publisher(number % 3).publish_to(1, "user:1", &number.to_string()).await;
    }
    for number in 0..60 {
        device.expect_text(&number.to_string()).await;
    }
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn an_edge_that_joins_is_counted_from_its_first_session_on() {
    let mut cluster = Cluster::plan().edges(1).publishers(2).start().await;
    let mut devices = vec![cluster.online(0, "user-1").await];
    for edge in 1..4 {
        cluster.add_edge().await;
        // Waits for the first accepted device, not for readiness.
        let address = cluster.edge(edge);
        eventually("the new edge takes devices", async || Device::is_welcome(address).await).await;
        devices.push(cluster.online(edge, "user-1").await);
        for publisher in 0..2 {
            let publisher = cluster.publisher(publisher);
            publisher.publish_to(devices.len() as u64, "user:1", "hello").await;
        }
    }
    close_all(devices).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_publisher_that_joins_knows_all_edges_once_it_is_ready() {
    let mut cluster = Cluster::plan().edges(2).start().await;
    let devices = vec![cluster.online(0, "user-1").await, cluster.online(1, "user-1").await];
    cluster.add_publisher().await;
    eventually("the new publisher is ready", async || cluster.publisher_reasons(1).is_empty()).await;
    cluster.publisher(1).publish_to(2, "user:1", "hello").await;
    close_all(devices).await;
    cluster.end().await;
}

#[tokio::test]
async fn without_any_edge_nobody_is_online() {
    let cluster = Cluster::plan().edges(0).start().await;
    cluster.publisher(0).publish_to(0, "user:1", "nobody").await;
    cluster.end().await;
}

#[tokio::test]
async fn a_broadcast_reaches_hundreds_of_sessions_and_counts_them() {
    let rules = vec![rule("@broadcast", "broadcast", false)];
    let cluster = Cluster::plan().edges(2).rules(rules).start().await;
    let mut devices = Vec::new();
    for number in 0..300 {
        let mut device = cluster.connect(number % 2).await;
        device.subscribe("@broadcast").await;
        devices.push(device);
    }
    for number in 0..5 {
        cluster.publisher(0).publish_to(300, "broadcast", &format!("{number}")).await;
    }
    for device in &mut devices {
        for number in 0..5 {
            device.expect_text(&format!("{number}")).await;
        }
    }
    close_all(devices).await;
    cluster.end().await;
}

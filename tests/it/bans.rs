//! Bans: users whom a back end keeps out are known to edges that start later, whatever was restarted
//! meanwhile.

use std::net::SocketAddr;

use harness::bus::server_at;
use harness::cluster::Cluster;
use harness::device::Device;
use harness::fleet::{Fleet, Over};
use harness::publisher::{Published, Publisher};
use harness::tools;
use harness::wait::DEADLINE;
use reqwest::Method;
use serde_json::{Value, json};
use shared::bus::Bus;
use shared::drain::Drain;
use shared::subject;

pub(crate) async fn disconnect(publisher: &Publisher, user: &str, body: &Value) -> Published {
    let path = format!("/v1/users/{user}/disconnect");
    let request = publisher.request(Method::POST, &path).header("content-type", "application/json");
    publisher.send(request.body(body.to_string())).await
}

async fn expect_refused(fleet: &Fleet, edge: usize, token: &str, words: &str) {
    expect_refused_at(fleet.edge(edge), token, words).await;
}

pub(crate) async fn expect_refused_at(edge: SocketAddr, token: &str, words: &str) {
    let mut device = Device::connect(edge).await;
    device.send(&json!({ "op": "auth", "token": token }).to_string()).await;
    assert_eq!(device.expect_close(4410).await, words);
}

#[tokio::test]
async fn an_edge_that_starts_later_knows_whom_to_refuse_over_message_center_bus() {
    an_edge_that_starts_later_knows(Over::Bus).await;
}

#[tokio::test]
async fn an_edge_that_starts_later_knows_whom_to_refuse_over_the_real_nats_server() {
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", "who is refused, over the real nats-server") else {
        return;
    };
    an_edge_that_starts_later_knows(Over::NatsServer(binary)).await;
}

async fn an_edge_that_starts_later_knows(over: Over) {
    let mut fleet = Fleet::plan(over).publishers(2).start().await;
    // More than one page of the list, and user ids that are no subject tokens.
    let odd = ["a.b", "*", "ü>"];
    let many: Vec<String> = (1..=600).map(|uid| uid.to_string()).collect();
    for user in many.iter().map(String::as_str).chain(odd) {
        let path: String = user.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = json!({ "deny_for": "1h", "reason": format!("no {user}") });
        let answer = disconnect(&fleet.publisher(0), &path, &body).await.body;
        assert_eq!((&answer["user"], &answer["denied"]), (&json!(user), &json!(true)), "{answer}");
    }
    let answer = disconnect(&fleet.publisher(1), "7", &json!({ "deny_for": "0s" })).await.body;
    assert_eq!(answer["denied"], false, "{answer}");
    fleet.add_edge().await;
    fleet.ready().await;
    for (edge, user) in [(0, "1"), (1, "1"), (1, "600")] {
        expect_refused(&fleet, edge, &format!("user-{user}"), &format!("no {user}")).await;
    }
    for user in odd {
        fleet.business.add_token(user, json!({ "uid": user }));
        expect_refused(&fleet, 1, user, &format!("no {user}")).await;
    }
    for (edge, user) in [(0, "7"), (1, "7"), (1, "1001")] {
        fleet.online(edge, &format!("user-{user}")).await.close().await;
    }
    let lifted = disconnect(&fleet.publisher(1), "1", &json!({ "deny_for": "0s" })).await.body;
    assert_eq!(lifted["denied"], false, "{lifted}");
    for edge in 0..2 {
        fleet.online(edge, "user-1").await.close().await;
    }
    fleet.end().await;
}

#[tokio::test]
async fn an_edge_that_was_cut_off_while_somebody_was_refused_closes_his_sessions_once_it_is_back() {
    let cluster = Cluster::plan().edges(2).start().await;
    let mut far = cluster.online(1, "user-1").await;
    cluster.edge_link(1).cut();
    let answer =
        disconnect(&cluster.publisher(0), "1", &json!({ "deny_for": "1h", "reason": "no 1" })).await.body;
    assert_eq!((&answer["closed"], &answer["denied"]), (&json!(0), &json!(true)), "{answer}");
    cluster.edge_link(1).heal();
    assert_eq!(far.expect_close(4410).await, "no 1");
    expect_refused_at(cluster.edge(1), "user-1", "no 1").await;
    cluster.end().await;
}

#[tokio::test]
async fn what_is_not_stored_is_not_ordered() {
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", "what is not stored is not ordered") else {
        return;
    };
    let mut fleet = Fleet::plan(Over::NatsServer(binary)).start().await;
    let mut device = fleet.online(0, "user-1").await;
    let drain = Drain::new();
    let bus = Bus::connect(&server_at(fleet.bus_address()).await, "test", &drain).await.unwrap();
    bus.connected(DEADLINE).await.unwrap();
    // Another stream stands where the list of bans belongs.
    let mut other = bus.stream_info(subject::DENY_STREAM, DEADLINE).await.unwrap().config;
    other.name = "OTHER".into();
    other.metadata.clear();
    bus.delete_stream(subject::DENY_STREAM, DEADLINE).await.unwrap();
    bus.create_stream(&other, DEADLINE).await.unwrap();
    fleet.expect_errors();

    let answer = disconnect(&fleet.publisher(0), "1", &json!({ "deny_for": "1h" })).await;
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("unavailable")), "{answer:?}");
    device.send("ping").await;
    device.expect_text("pong").await;
    // A disconnect without a ban needs no list.
    let closed = disconnect(&fleet.publisher(0), "1", &json!({})).await.body;
    assert_eq!((&closed["closed"], &closed["denied"]), (&json!(1), &json!(false)), "{closed}");
    device.expect_close(4410).await;
    drop(device);
    bus.delete_stream("OTHER", DEADLINE).await.unwrap();
    let answer = disconnect(&fleet.publisher(0), "1", &json!({ "deny_for": "1h" })).await;
    assert_eq!((answer.status, &answer.body["denied"]), (200, &json!(true)), "{answer:?}");
    expect_refused(&fleet, 0, "user-1", "closed by the back end: do not come back by yourself").await;
    drop(bus);
    drain.finish(DEADLINE).await;
    fleet.end().await;
}

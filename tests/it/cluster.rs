//! A cluster of three nats-servers with TLS and passwords: any node may die, and no count is ever wrong.

use harness::certificate::Authority;
use harness::device::{Device, Received};
use harness::fleet::{Fleet, Member, Over};
use harness::nats_cluster::{NatsCluster, PASSWORD, USER};
use harness::program::Launch;
use harness::publisher::Publisher;
use harness::tools;
use harness::wait::eventually;
use serde_json::json;

use crate::bans::{disconnect, expect_refused_at};

/// Configuration by which the parts reach the cluster.
fn settings(cluster: &NatsCluster) -> [(&'static str, String); 5] {
    [
        ("bus.user", USER.to_owned()),
        ("bus.password", PASSWORD.to_owned()),
        ("bus.tls.ca", cluster.authority.file.display().to_string()),
        ("bus.tls.cert", cluster.client.cert.display().to_string()),
        ("bus.tls.key", cluster.client.key.display().to_string()),
    ]
}

/// A back end that publishes numbered messages to one user, and knows which of them surely reached every
/// session.
struct Numbered {
    next: usize,
    sessions: u64,
    /// Numbers whose answer was complete.
    sure: Vec<usize>,
}

impl Numbered {
    /// Publishes one message. Returns whether the answer was complete; a complete answer must be exact.
    async fn publish(&mut self, publisher: &Publisher) -> bool {
        let number = self.next;
        self.next += 1;
        let answer = publisher.publish("user:1", &number.to_string()).await;
        if answer.status == 503 || !answer.is_complete() {
            return false;
        }
        answer.expect_counts(self.sessions, 0);
        self.sure.push(number);
        true
    }

    /// Publishes through each publisher-api until its answers are complete again.
    async fn until_exact(&mut self, fleet: &Fleet) {
        for publisher in 0..fleet.publishers.len() {
            let publisher = fleet.publisher(publisher);
            eventually("counts are exact", async || self.publish(&publisher).await).await;
        }
    }
}

/// The numbers that a device receives before the text `last`.
async fn received_before(device: &mut Device, last: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        match device.next().await {
            Received::Text(text) if text == last => return numbers,
            Received::Text(text) => numbers.push(text.parse().expect("messages are numbers")),
            other @ (Received::Binary(_) | Received::Close(..) | Received::Gone) => {
                panic!("not a message: {other:?}")
            }
        }
    }
}

#[tokio::test]
async fn each_node_may_die_in_turn_and_sessions_stay_and_counts_are_exact_or_say_that_they_are_not() {
    let test = "parts over a cluster of nats-servers whose nodes die";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    let mut cluster = NatsCluster::start(&binary).await;
    let plan = Fleet::plan(Over::Url(cluster.url())).edges(3).publishers(2).adapters(2);
    let plan = settings(&cluster).into_iter().fold(plan, |plan, (key, value)| plan.set(key, value));
    // Any node may lead the stream; the publisher-api repeats a store that fails while a leader is elected.
    let plan = plan.set("history.replicas", 3).set("publisher_api.store_wait", "5s");
    let mut fleet = plan.start().await;
    fleet.expect_errors();
    let mut devices = Vec::new();
    for edge in 0..3 {
        devices.push(fleet.online(edge, "user-1").await);
    }
    let mut messages = Numbered { next: 0, sessions: 3, sure: Vec::new() };
    messages.until_exact(&fleet).await;
    for node in 0..3 {
        cluster.kill(node).await;
        messages.until_exact(&fleet).await;
        // A ban is stored while a node is down, and reaches edges that were not asked.
        let refused = format!("8{node}");
        let order = json!({ "deny_for": "1h", "reason": "no" });
        eventually("the order is stored", async || {
            disconnect(&fleet.publisher(1), &refused, &order).await.body["denied"] == true
        })
        .await;
        for edge in 0..3 {
            drop(fleet.online(edge, &format!("user-9{node}{edge}")).await);
        }
        cluster.restart(node).await;
        messages.until_exact(&fleet).await;
    }
    fleet.add_edge().await;
    fleet.ready().await;
    for (node, edge) in [(0, 0), (1, 3), (2, 3)] {
        expect_refused_at(fleet.edge(edge), &format!("user-8{node}"), "no").await;
    }
    fleet.publisher(0).publish_to(3, "user:1", "last").await;
    for device in &mut devices {
        let received = received_before(device, "last").await;
        assert!(received.is_sorted_by(|one, next| one < next), "doubled or reordered: {received:?}");
        let missing: Vec<_> = messages.sure.iter().filter(|number| !received.contains(number)).collect();
        assert!(missing.is_empty(), "counted but not received: {missing:?}");
    }
    drop(devices);
    fleet.end().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_part_that_the_cluster_does_not_let_in_says_so_and_comes_in_when_it_may() {
    let test = "a part that a cluster of nats-servers does not let in";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    let cluster = NatsCluster::start(&binary).await;
    let folder = tempfile::tempdir().expect("there is room for a folder");
    // The file gets the right authority later.
    let file = Authority::new(folder.path(), "stranger").file;
    let launch = || {
        let launch = Launch::of("auth-adapter")
            .argument("--auth-url")
            .argument("http://127.0.0.1:1/")
            .argument("--bus-url")
            .argument(&cluster.url());
        settings(&cluster).into_iter().fold(launch, |launch, (key, value)| launch.set(key, value))
    };
    let mut guessing = Member::start(launch().set("bus.password", "guessed"), "auth_adapter", None).await;
    let mut distrusting =
        Member::start(launch().set("bus.tls.ca", file.display()), "auth_adapter", None).await;
    for part in [&mut guessing, &mut distrusting] {
        part.program.expect_errors();
        part.unready("bus").await;
    }
    std::fs::copy(&cluster.authority.file, &file).expect("there is room for a file");
    distrusting.ready().await;
    assert_eq!(guessing.readiness().await.0, 503, "a wrong password is not let in");
    guessing.program.end().await;
    distrusting.program.end().await;
    cluster.stop().await;
}

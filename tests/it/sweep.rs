//! The messages that an edge missed while its bus was away reach every session, however many and however
//! large.

use std::time::Duration;

use futures_util::future::join_all;
use harness::cluster::Cluster;
use harness::device::Device;
use harness::nats::NatsServer;
use harness::tools;
use harness::wait::eventually;
use shared::config::ByteSize;

/// Together more than an answer of a bus may hold: 16 MiB for the embedded one.
const DEVICES: u64 = 100;
const BYTES: usize = 200_000;
/// Publishes in flight at once.
const AT_ONCE: usize = 10;

/// One cluster over the embedded bus, and one over the real nats-server if this run has the binary.
async fn each(test: &str) -> Vec<(Cluster, Option<NatsServer>)> {
    let plan = || {
        let plan = Cluster::plan().history(|history| history.max_bytes = ByteSize(256 << 20));
        plan.publisher(|config| config.answer_deadline = Duration::from_millis(100))
    };
    let mut clusters = vec![(plan().start().await, None)];
    if let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) {
        let server = NatsServer::start(&binary).await;
        clusters.push((plan().over(server.address()).start().await, Some(server)));
    }
    clusters
}

fn text(user: u64) -> String {
    format!("{user} {}", "x".repeat(BYTES))
}

#[tokio::test]
async fn large_messages_of_many_that_were_stored_while_the_bus_was_away_reach_everybody() {
    for (cluster, server) in each("large_messages_of_many").await {
        let edge = cluster.edge(0);
        let users: Vec<u64> = (1..=DEVICES).collect();
        let back = |user: &u64| {
            let token = format!("user-{user}");
            async move { Device::back(edge, &token, "").await }
        };
        let devices: Vec<_> = join_all(users.iter().map(back)).await;
        cluster.edge_link(0).cut();
        let publisher = cluster.publisher(0);
        for users in users.chunks(AT_ONCE) {
            let publish = async |user: &u64| publisher.publish(&format!("user:{user}"), &text(*user)).await;
            for answer in join_all(users.iter().map(publish)).await {
                assert!(answer.status == 200 && answer.body["E"].is_null(), "{answer:?}");
            }
        }
        cluster.edge_link(0).heal();
        let take = |((mut device, _), user): ((Device, _), &u64)| {
            let due = text(*user);
            async move {
                let id = device.expect_message(&due).await;
                device.close().await;
                id
            }
        };
        let ids = join_all(devices.into_iter().zip(&users).map(take)).await;
        // The id that a device names when it comes back is the position of that message.
        let mut device = Device::recovered(edge, "user-1", &ids[0]).await;
        device.expect_nothing().await;
        device.close().await;
        eventually("nobody is left", async || cluster.sessions() == 0).await;
        cluster.end().await;
        if let Some(server) = server {
            server.stop().await;
        }
    }
}

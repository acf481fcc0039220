//! A stream that does not answer delays only its own channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use harness::bus::{TestBus, server_at};
use harness::bus_proxy::{BusProxy, Frame};
use harness::cluster::Cluster;
use harness::device::Device;
use harness::wait::{eventually, until};
use serde_json::json;
use shared::bus::Bus;
use shared::drain::Drain;
use shared::history::{History, HistoryConfig, Role};
use shared::ids::Channel;
use shared::subject;

fn holds(frame: Frame<'_>, text: &str) -> bool {
    frame.body.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Whether the frame is the leader's answer about this stream.
fn is_about(frame: Frame<'_>, stream: &str) -> bool {
    holds(frame, "stream_info_response") && holds(frame, &format!("\"name\":\"{stream}\""))
}

/// A user whose channel is in this partition of two.
fn user_in(partition: u32) -> u64 {
    let of = |user: &u64| subject::partition(&Channel::parse(&format!("user:{user}")).expect("a channel"), 2);
    (1..).find(|user| of(user) == partition).expect("there are enough")
}

#[tokio::test]
async fn a_partition_whose_stream_does_not_answer_keeps_no_other_from_being_swept() {
    let cluster = Cluster::plan()
        .history(|history| history.partitions = 2)
        .edge(|edge| {
            edge.sweep_interval = Duration::from_secs(1);
            // Without the test switch, asks of publisher-apis would make the edge fetch.
            edge.faults = serde_json::from_value(json!(["ask-fetch"])).expect("a fault");
        })
        .publisher(|config| config.answer_deadline = Duration::from_millis(100))
        .start()
        .await;
    let proxy = BusProxy::to(cluster.bus()).await;
    let users = [user_in(0), user_in(1)];
    let mut devices = Vec::new();
    for user in users {
        devices.push(Device::back(cluster.edge(0), &format!("user-{user}"), "").await.0);
    }
    let link = cluster.edge_link(0);
    link.lead_to(proxy.address());
    link.cut();
    eventually("the edge has lost the bus", async || link.connections() == 0).await;
    link.heal();
    for (device, user) in devices.iter_mut().zip(users) {
        let answer = cluster.publisher(0).publish(&format!("user:{user}"), "first").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        device.expect_message("first").await;
    }
    // The live copies are lost. Once the edge has compared the first stream, the stream answers no more, so
    // its gap cannot be read.
    let (compared, stalled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (seen, count) = (Arc::clone(&compared), Arc::clone(&stalled));
    proxy.swallow(move |frame| {
        if holds(frame, "Nats-UpTo-Sequence") {
            seen.store(true, Ordering::SeqCst);
        }
        let stalls = seen.load(Ordering::SeqCst) && is_about(frame, "MC_LOG_0");
        count.fetch_add(u64::from(stalls), Ordering::SeqCst);
        stalls || (frame.line.contains(" mc.live.") && holds(frame, "lost"))
    });
    let lose = async |user: u64| {
        let answer = cluster.publisher(0).publish(&format!("user:{user}"), "lost").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    lose(users[0]).await;
    eventually("the first partition stalls", async || stalled.load(Ordering::SeqCst) > 0).await;
    lose(users[1]).await;
    devices[1].expect_message("lost").await;
    proxy.swallow(|_| false);
    devices[0].expect_message("lost").await;
    for device in devices {
        device.close().await;
    }
    cluster.end().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_without_an_answer_keeps_nobody_from_noticing_what_happens_to_another() {
    let (drain, embedded) = (Drain::new(), TestBus::start().await);
    let proxy = BusProxy::to(embedded.address()).await;
    let through = server_at(proxy.address()).await;
    let (direct, bus) =
        (Bus::connect(&embedded.server, "test", &drain).await, Bus::connect(&through, "part", &drain).await);
    let (direct, bus) = (direct.expect("an address"), bus.expect("an address"));
    let two = HistoryConfig { partitions: 2, ..HistoryConfig::default() };
    let history = History::open(&bus, &two, Role::Reader, &drain);
    let before = until("history is ready", async || history.epoch_of(0).zip(history.epoch_of(1))).await;
    proxy.swallow(|frame| is_about(frame, "MC_LOG_0"));
    direct.delete_stream("MC_LOG_1", Duration::from_secs(5)).await.expect("it is there");
    eventually("the other is known to be another", async || {
        history.epoch_of(1).is_some_and(|epoch| epoch != before.1)
    })
    .await;
    assert_eq!(history.epoch_of(0), Some(before.0), "what was known of the silent one still holds");
    assert_eq!(drain.finish(Duration::from_secs(5)).await, 0, "tasks are left");
    embedded.stop().await;
    proxy.stop().await;
}

#[tokio::test]
async fn new_leaders_of_many_streams_are_asked_once_each() {
    const PARTITIONS: u32 = 64;
    let cluster = Cluster::plan().history(|history| history.partitions = PARTITIONS).start().await;
    let drain = Drain::new();
    let bus = Bus::connect(&server_at(cluster.bus()).await, "test", &drain).await.expect("an address");
    let deadline = Duration::from_secs(5);
    bus.connected(deadline).await.expect("the bus is there");
    let mut asked = bus.subscribe("$JS.API.STREAM.INFO.>", None, deadline).await.expect("it can be heard");
    bus.barrier(deadline).await.expect("it is heard");
    for partition in 0..PARTITIONS {
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.MC_LOG_{partition}");
        bus.publish(subject, None, None, "{}".into()).await.expect("it can be told");
    }
    // The maintainers of both parts look every two seconds; the questions of six looks are counted.
    let (mut all, mut of_last) = (0, 0);
    let last = format!("$JS.API.STREAM.INFO.MC_LOG_{}", PARTITIONS - 1);
    let counting = async {
        while of_last < 6 {
            let Some(message) = asked.next().await else { return };
            all += 1;
            of_last += u32::from(message.subject.as_str() == last);
        }
    };
    harness::wait::soon("the streams are asked", counting).await;
    assert!(all < 12 * PARTITIONS, "{all} questions about {PARTITIONS} streams");
    assert_eq!(drain.finish(deadline).await, 0, "tasks are left");
    cluster.end().await;
}

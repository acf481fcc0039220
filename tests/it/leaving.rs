//! Leaving: sessions are closed gently, counts stay right, and every process exits with 0.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::alone::Alone;
use harness::cluster::Cluster;
use harness::device::{Device, Received};
use harness::fleet::{Fleet, Member, Over};
use harness::program::{Launch, Program};
use harness::tools;
use harness::wait::eventually;

#[tokio::test]
async fn an_edge_that_leaves_closes_its_sessions_paced_and_says_goodbye() {
    let mut fleet = Fleet::plan(Over::Bus).edges(2).set("edge.drain_window", "2s").start().await;
    let mut staying = fleet.online(0, "user-1").await;
    let mut leaving = Vec::new();
    for number in 0..240 {
        leaving.push(fleet.online(1, &format!("user-{}", number % 10 + 1)).await);
    }
    let publisher = fleet.publisher(0);
    publisher.publish_to(25, "user:1", "hello").await;

    let mut edge = fleet.edges.remove(1);
    edge.program.signal("TERM").await;
    let began = Instant::now();
    edge.unready("").await;
    assert!(!Device::is_welcome(edge.address.expect("edges listen")).await, "it takes no new device");
    let closes = leaving.into_iter().enumerate().map(async |(number, mut device)| {
        if number % 10 == 0 {
            device.expect_text("hello").await;
        }
        device.expect_close(1012).await;
        began.elapsed()
    });
    let mut closes = join_all(closes).await;
    closes.sort_unstable();
    // The closes spread over the window, so that the devices do not all come back at once.
    let (half, last) = (closes[120], closes[239]);
    assert!(half > Duration::from_millis(500) && last > Duration::from_millis(1500), "{half:?}, {last:?}");
    assert!(last < Duration::from_secs(4), "{last:?}");
    edge.program.expect_success().await;
    // The edge has said goodbye, so no publisher waits for it or takes a count for incomplete, which would
    // otherwise last for a minute.
    eventually("the publisher has heard the goodbye", async || {
        let answer = publisher.publish("user:1", "bye").await;
        assert_eq!(answer.counts(), Some((1, 0)), "{answer:?}");
        answer.is_complete()
    })
    .await;
    staying.expect_text("hello").await;
    staying.expect_text("bye").await;
    drop(staying);
    fleet.end().await;
}

#[tokio::test]
async fn while_an_edge_drains_its_sessions_still_receive_and_are_counted() {
    // Enough devices that leaving takes the whole second, so that some publishes fall into it on a busy
    // machine, too.
    const DEVICES: u64 = 100;
    let mut cluster = Cluster::plan()
        .edge(|config| (config.drain_window, config.sessions_per_user) = (Duration::from_secs(2), 100))
        .start()
        .await;
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(cluster.online(0, "user-1").await);
    }
    let publisher = cluster.publisher(0);
    cluster.drain_edge(0);
    let mut received = vec![0_u64; devices.len()];
    let (mut sent, mut counted, mut some) = (0, 0, 0);
    loop {
        let answer = publisher.publish("user:1", &sent.to_string()).await;
        assert!(answer.is_complete(), "{answer:?}");
        let (sessions, _) = answer.counts().expect("a success");
        assert!(sessions <= DEVICES, "{answer:?}");
        counted += sessions;
        some += u64::from(sessions > 0 && sessions < DEVICES);
        sent += 1;
        if sessions == 0 {
            break;
        }
    }
    for (device, received) in devices.iter_mut().zip(&mut received) {
        loop {
            match device.next().await {
                Received::Text(text) => {
                    assert_eq!(text, received.to_string(), "in order and without a gap");
                    *received += 1;
                }
                Received::Close(code, reason) => {
                    assert_eq!(code, 1012, "{reason}");
                    break;
                }
                other @ (Received::Binary(_) | Received::Gone) => panic!("{other:?}"),
            }
        }
    }
    // Every counted message has arrived: a closing session first sends the messages in its outbox.
    assert_eq!(received.iter().sum::<u64>(), counted);
    assert!(some > 0, "some were published while it drained: {received:?}");
    drop(devices);
    cluster.remove_edge(0).await;
    publisher.publish_to(0, "user:1", "nobody").await;
    cluster.end().await;
}

#[tokio::test]
async fn an_edge_without_sessions_leaves_at_once() {
    let mut fleet = Fleet::plan(Over::Bus).set("edge.drain_window", "60s").start().await;
    let began = Instant::now();
    fleet.edges.remove(0).program.end().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    fleet.end().await;
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let mut fleet = Fleet::plan(Over::Bus).set("edge.drain_window", "60s").start().await;
    let devices = [fleet.online(0, "user-1").await, fleet.online(0, "user-2").await];
    let mut edge = fleet.edges.remove(0);
    edge.program.signal("TERM").await;
    edge.program.logged("a second signal leaves at once").await;
    // Two signals at the same moment arrive as one, so the test repeats the second.
    eventually("a second signal ends it", async || {
        if edge.program.is_running() {
            edge.program.signal("INT").await;
        }
        !edge.program.is_running()
    })
    .await;
    assert_eq!(edge.program.exit().await.code(), Some(1));
    drop(devices);
    fleet.end().await;
}

#[tokio::test]
async fn everything_in_one_process_leaves_in_order() {
    let mut program = Launch::bare()
        .set("edge.listen", "127.0.0.1:0")
        .set("edge.admin", "127.0.0.1:0")
        .set("publisher_api.listen", "127.0.0.1:0")
        .set("demo.listen", "127.0.0.1:0")
        .set("edge.drain_window", "500ms")
        .start();
    let edge = program.address("edge listens").await;
    program.printed("message center is up").await;
    let mut devices = Vec::new();
    for number in 1..=4 {
        devices.push(Device::online(edge, &format!("user-{number}")).await);
    }
    program.signal("TERM").await;
    for device in &mut devices {
        device.expect_close(1012).await;
    }
    program.expect_success().await;
}

#[tokio::test]
async fn publishes_in_flight_are_answered_before_a_publisher_leaves() {
    let mut fleet = Fleet::plan(Over::Bus).edges(2).set("publisher_api.answer_deadline", "2s").start().await;
    let device = fleet.online(0, "user-1").await;
    let publisher = fleet.publisher(0);
    // The answer waits for the frozen edge while the publisher-api leaves.
    fleet.edges[1].program.signal("STOP").await;
    let publish = publisher.publish("user:1", "hello");
    let mut leaving = fleet.publishers.remove(0);
    let leave = async {
        eventually("the publish is under way", async || in_flight(&leaving).await > 0.0).await;
        leaving.program.signal("TERM").await;
        leaving.program.expect_success().await;
    };
    let (answer, ()) = tokio::join!(publish, leave);
    answer.expect_incomplete(1, 0);
    fleet.edges[1].program.signal("CONT").await;
    drop(device);
    fleet.end().await;
}

async fn in_flight(publisher: &Member) -> f64 {
    harness::raw::metric(publisher.admin, "mc_publisher_in_flight", "").await
}

/// Asks the program to leave, and expects exit code 0 and nothing at warning level.
async fn leave_quietly(program: &mut Program) {
    let before = program.logged_at(&["WARN", "ERROR"]).len();
    program.signal("TERM").await;
    program.expect_success().await;
    let complaints = program.logged_at(&["WARN", "ERROR"]).split_off(before);
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test]
async fn one_process_that_is_asked_to_leave_complains_of_nothing() {
    // The order in which the parts find each other gone depends on which task runs first.
    for _ in 0..3 {
        let mut alone = Alone::plan().in_memory().set("edge.drain_window", "200ms").start().await;
        let (device, _) = alone.begin().await;
        let plain = Device::online(alone.edge(), "user-2").await;
        alone.publish(1, 0..3).await;
        leave_quietly(&mut alone.program).await;
        drop((device, plain));
        alone.business.stop().await;
    }
}

#[tokio::test]
async fn parts_that_are_asked_to_leave_complain_of_nothing() {
    let test = "parts_that_are_asked_to_leave_complain_of_nothing";
    let Some(nats) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    for over in [Over::NatsServer(nats), Over::Bus] {
        let plan = Fleet::plan(over).edges(4).publishers(2).adapters(2).set("edge.drain_window", "200ms");
        let mut fleet = plan.start().await;
        let mut devices = Vec::new();
        for edge in 0..4 {
            devices.push(fleet.online(edge, "user-1").await);
            devices.push(Device::back(fleet.edge(edge), "user-1", "").await.0);
        }
        fleet.publisher(0).publish_to(8, "user:1", "before they leave").await;
        let edges = fleet.edges.iter_mut();
        for member in edges.chain(&mut fleet.adapters).chain(&mut fleet.publishers).chain(&mut fleet.bus) {
            leave_quietly(&mut member.program).await;
        }
        drop(devices);
        fleet.business.stop().await;
        if let Some(nats) = fleet.nats.take() {
            nats.stop().await;
        }
    }
}

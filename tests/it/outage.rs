//! Without a bus: parts keep trying and say so, sessions stay open, and no count is ever wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::bus::server_at;
use harness::bus_proxy::BusProxy;
use harness::cluster::Cluster;
use harness::device::Received;
use harness::fleet::{Fleet, Member, Over};
use harness::link::Link;
use harness::program::Launch;
use harness::wait::{DEADLINE, eventually, soon};
use shared::bus::Bus;
use shared::bus::jetstream::ApiError;
use shared::drain::Drain;

#[tokio::test]
async fn parts_that_find_no_bus_say_so_and_become_ready_when_it_comes() {
    // The link stands in for the address of a bus that does not run yet.
    let link = Link::to(([127, 0, 0, 1], 1).into()).await;
    link.cut();
    let url = format!("nats://{}", link.address());
    let mut parts = Vec::new();
    for (part, section, listens) in [
        ("edge", "edge", Some("edge listens")),
        ("publisher-api", "publisher_api", Some("publisher-api listens")),
        ("auth-adapter", "auth_adapter", None),
    ] {
        let mut launch = Launch::of(part).argument("--bus-url").argument(&url);
        if part == "auth-adapter" {
            launch = launch.argument("--auth-url").argument("http://127.0.0.1:1/");
        } else {
            launch = launch.set(&format!("{section}.listen"), "127.0.0.1:0");
        }
        let member = Member::start(launch, section, listens).await;
        member.unready("bus").await;
        parts.push(member);
    }
    let bus = Launch::of("bus").argument("--bus-listen").argument("127.0.0.1:0");
    let bus = Member::start(bus, "bus", Some("the embedded bus listens")).await;
    link.lead_to(bus.address.expect("a bus listens"));
    link.heal();
    for part in &parts {
        part.ready().await;
    }
    for mut part in parts {
        part.program.expect_errors();
        part.program.end().await;
    }
    bus.program.end().await;
    link.stop().await;
}

#[tokio::test]
async fn a_bus_that_is_restarted_costs_no_session_and_no_subscription() {
    let mut cluster = Cluster::plan()
        .edges(2)
        .edge(|config| config.bus_grace = Duration::from_millis(200))
        .publisher(|config| {
            config.bus_grace = Duration::from_millis(200);
            config.bus_wait = Duration::from_millis(100);
            config.store_wait = Duration::from_millis(300);
        })
        .start()
        .await;
    let mut first = cluster.online(0, "user-1").await;
    let mut second = cluster.online(1, "user-1").await;
    let publisher = cluster.publisher(0);
    publisher.publish_to(2, "user:1", "before").await;

    cluster.stop_bus().await;
    eventually("publishes are refused", async || publisher.publish("user:1", "lost").await.status == 503)
        .await;
    let refused = publisher.publish("user:1", "refused").await;
    refused.expect_error(503, 108);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    eventually("the edge says that the bus is gone", async || cluster.edge_reasons(0).contains("bus")).await;
    eventually("so does the publisher", async || cluster.publisher_reasons(0).contains("bus")).await;
    first.send("ping").await;

    cluster.restart_bus().await;
    // No count is ever wrong: answers before every edge is known again are marked incomplete. A session may
    // miss a message that was stored before its edge knew of the new streams; then that session is not
    // counted.
    let (mut tries, mut counted) = (0_u64, BTreeMap::new());
    eventually("counts are exact again", async || {
        let text = format!("back {tries}");
        tries += 1;
        let answer = publisher.publish("user:1", &text).await;
        match answer.counts().filter(|_| answer.is_complete()) {
            Some(counts) => counted.insert(text, counts.0),
            None => return false,
        };
        answer.counts() == Some((2, 0))
    })
    .await;
    cluster.ready().await;
    publisher.publish_to(2, "user:1", "last").await;

    first.expect_text("before").await;
    second.expect_text("before").await;
    first.expect_text("pong").await;
    let mut received = BTreeMap::<String, u64>::new();
    for device in [&mut first, &mut second] {
        loop {
            match device.next().await {
                Received::Text(text) if text == "last" => break,
                Received::Text(text) => *received.entry(text).or_default() += 1,
                other @ (Received::Binary(_) | Received::Close(..) | Received::Gone) => panic!("{other:?}"),
            }
        }
        device.expect_nothing().await;
    }
    for (text, sessions) in counted {
        assert_eq!(received.get(&text).copied().unwrap_or(0), sessions, "of {text:?}");
    }
    first.close().await;
    second.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_killed_bus_process_is_found_again_by_every_part() {
    let plan = Fleet::plan(Over::Bus).edges(2).publishers(2).set("publisher_api.store_wait", "300ms");
    let mut fleet = plan.start().await;
    fleet.expect_errors();
    let mut devices = [fleet.online(0, "user-1").await, fleet.online(1, "user-1").await];
    fleet.publisher(1).publish_to(2, "user:1", "before").await;
    let address = fleet.bus_address();
    let mut bus = fleet.bus.take().expect("the bus is a process");
    bus.program.kill().await;
    let refused = fleet.publisher(0).publish("user:1", "lost").await;
    assert!(refused.status == 503 || !refused.is_complete(), "{refused:?}");

    let launch = Launch::of("bus").argument("--bus-listen").argument(&address.to_string());
    fleet.bus = Some(Member::start(launch, "bus", Some("the embedded bus listens")).await);
    for publisher in 0..2 {
        let publisher = fleet.publisher(publisher);
        eventually("counts are exact again", async || {
            let answer = publisher.publish("user:1", "back").await;
            assert!(
                answer.status == 503 || !answer.is_complete() || answer.counts() == Some((2, 0)),
                "{answer:?}"
            );
            answer.status == 200 && answer.is_complete()
        })
        .await;
    }
    // Logins work again, too, through an adapter that ran all the time.
    drop(fleet.online(0, "user-2").await);
    fleet.publisher(0).publish_to(2, "user:1", "last").await;
    for device in &mut devices {
        device.expect_text("before").await;
        while device.next().await != Received::Text("last".into()) {}
        device.expect_nothing().await;
    }
    drop(devices);
    fleet.end().await;
}

#[tokio::test]
async fn an_edge_cut_off_from_the_bus_is_never_counted_wrongly() {
    let cluster = Cluster::plan()
        .edges(2)
        .publisher(|config| config.answer_deadline = Duration::from_millis(250))
        .start()
        .await;
    let mut near = cluster.online(0, "user-1").await;
    let mut far = cluster.online(1, "user-1").await;
    let publisher = cluster.publisher(0);
    publisher.publish_to(2, "user:1", "before").await;

    cluster.edge_link(1).cut();
    publisher.publish("user:1", "missed").await.expect_incomplete(1, 0);
    cluster.edge_link(1).heal();
    eventually("counts are exact again", async || {
        let answer = publisher.publish("user:1", "healed").await;
        assert!(!answer.is_complete() || answer.counts() == Some((2, 0)), "{answer:?}");
        answer.is_complete()
    })
    .await;
    near.expect_text("before").await;
    near.expect_text("missed").await;
    far.expect_text("before").await;
    // The edge fetches the messages it missed.
    far.expect_text("missed").await;
    far.expect_text("healed").await;
    drop((near, far));
    cluster.end().await;
}

#[tokio::test]
async fn a_publisher_whose_link_stalls_answers_incomplete_or_refuses() {
    let cluster =
        Cluster::plan().publisher(|config| config.store_wait = Duration::from_millis(300)).start().await;
    let mut device = cluster.online(0, "user-1").await;
    let publisher = cluster.publisher(0);
    publisher.publish_to(1, "user:1", "before").await;
    cluster.publisher_link(0).stall();
    let answer = publisher.publish("user:1", "stalled").await;
    assert!(answer.status == 503 || !answer.is_complete(), "{answer:?}");
    cluster.publisher_link(0).heal();
    eventually("counts are exact again", async || {
        let answer = publisher.publish("user:1", "healed").await;
        answer.is_complete() && answer.counts() == Some((1, 0))
    })
    .await;
    device.expect_text("before").await;
    drop(device);
    cluster.end().await;
}

#[tokio::test]
async fn a_login_while_the_bus_is_away_is_unavailable_and_a_subscribe_fails_honestly() {
    let mut cluster =
        Cluster::plan().edge(|config| config.bus_grace = Duration::from_millis(50)).start().await;
    let mut device = cluster.login(0, "user-1").await;
    let mut early = cluster.connect(0).await;
    cluster.stop_bus().await;
    eventually("the edge has noticed", async || cluster.edge_reasons(0).contains("bus")).await;
    early.send(r#"{"op":"auth","token":"user-2"}"#).await;
    early.expect_error(3).await;
    early.expect_close(1013).await;
    device.send(r#"{"op":"subscribe","channel":"@user"}"#).await;
    device.expect_error(10).await;
    cluster.restart_bus().await;
    cluster.ready().await;
    device.subscribe("@user").await;
    cluster.publisher(0).publish_to(1, "user:1", "hello").await;
    device.expect_text("hello").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn what_a_stream_was_asked_over_a_connection_that_broke_is_not_waited_for() {
    let bus_itself = Launch::of("bus").argument("--bus-listen").argument("127.0.0.1:0");
    let bus_itself = Member::start(bus_itself, "bus", Some("the embedded bus listens")).await;
    let proxy = BusProxy::to(bus_itself.address.expect("a bus listens")).await;
    let drain = Drain::new();
    let bus =
        Bus::connect(&server_at(proxy.address()).await, "test", &drain).await.expect("the address is one");
    bus.connected(DEADLINE).await.expect("the bus is there");
    proxy.swallow(|frame| String::from_utf8_lossy(frame.body).contains("stream_info_response"));
    let sever = async {
        eventually("the answer is lost", async || proxy.swallowed() == 1).await;
        proxy.sever();
    };
    // Far longer than this test runs.
    let asked = soon("there is no answer", bus.stream_info("MC_LOG_0", 100 * DEADLINE));
    let (answer, ()) = tokio::join!(asked, sever);
    assert!(matches!(answer, Err(ApiError::Disconnected)), "{answer:?}");
    proxy.swallow(|_| false);
    bus.connected(DEADLINE).await.expect("the bus is there again");
    let answer = bus.stream_info("MC_LOG_0", DEADLINE).await;
    assert!(matches!(answer, Err(ApiError::NoStream)), "{answer:?}");
    drop(bus);
    assert_eq!(drain.finish(DEADLINE).await, 0, "tasks are left");
    proxy.stop().await;
    bus_itself.program.end().await;
}

//! Channels with history: messages are acknowledged once stored, in order, never twice, whatever breaks
//! meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use shared::config::ByteSize;
use shared::history::{HistoryConfig, Position};
use test_kit::bus::server_at;
use test_kit::link::Link;
use test_kit::nats::NatsServer;
use test_kit::tools;

use crate::support::caller::{
    Answer, JSON, PUBLISH as MESH, Socket, call, mesh_publish, publish_to, request,
};
use crate::support::edge::FakeEdge;
use crate::support::{Bed, TestBus, eventually};

const PUBLISH: &str = "POST /v1/publish";
const BATCH: &str = "POST /v1/publish/batch";
const MESSAGES: &str = "/v1/channels/user:1001/messages";

async fn post(bed: &Bed, line: &str, body: &Value) -> Answer {
    call(bed.address, &request(line, &[JSON], &body.to_string())).await
}

async fn keyed(bed: &Bed, line: &str, key: &str, body: &Value) -> Answer {
    call(bed.address, &request(line, &[JSON, ("idempotency-key", key)], &body.to_string())).await
}

async fn kept(bed: &Bed, query: &str) -> Answer {
    call(bed.address, &request(&format!("GET {MESSAGES}{query}"), &[], "")).await
}

/// Returns the texts of all stored messages of a channel.
async fn texts(bed: &Bed, channel: &str) -> Vec<String> {
    let path = format!("GET /v1/channels/{channel}/messages?limit=1000");
    let answer = call(bed.address, &request(&path, &[], "")).await.json();
    assert_eq!(answer["more"], false, "{answer}");
    let messages = answer["messages"].as_array().unwrap_or_else(|| panic!("{answer}"));
    messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

fn to_user(text: &str) -> Value {
    json!({"to": {"users": [1001]}, "raw": text})
}

#[tokio::test]
async fn a_publish_answers_with_the_place_of_the_message_and_the_edges_are_asked_about_it() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:1001", 2, 1);
    edge.holds("broadcast", 7, 0);
    let body = json!({"to": {"users": [1001, "bob"], "channels": ["broadcast"]}, "raw": "x"});
    let told = post(&bed, PUBLISH, &body).await.json();
    let results = &told["results"];
    let place: Position = results[0]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!((&results[0]["sessions"], &results[0]["failed"]), (&json!(2), &json!(1)), "{told}");
    assert_eq!((&results[1]["sessions"], &told["complete"]), (&json!(0), &json!(true)));
    assert!(results[2]["id"].as_str().unwrap().parse::<Position>().is_err(), "no history, no place");
    assert_eq!(results[2]["sessions"], 7, "both kinds share an ask");
    let asked = edge.asked_about();
    assert!(asked.iter().any(|it| it.channel.as_str() == "user:1001" && it.seq == place.seq), "{asked:?}");
    assert_eq!(publish_to(bed.address, "user:1001", "y").await.counts(), (2, 1, true));
    assert_eq!(texts(&bed, "user:1001").await, ["x", "y"]);
    assert_eq!(bed.metric(r#"mc_publisher_stored_total{outcome="stored"}"#), 3);
    assert_eq!(bed.metric("mc_publisher_store_duration_seconds_count"), 3);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn batches_and_sockets_keep_the_order_of_each_channel() {
    let bed = Bed::start(|_| {}).await;
    let names = ["user:1", "user:2", "user:3", "lobby"];
    let message = |n: usize| json!({"to": {"channels": [names[n % 4]]}, "raw": n.to_string()});
    let body = json!({"messages": (0..200).map(message).collect::<Vec<_>>(), "receipt": false});
    let told = post(&bed, BATCH, &body).await.json();
    assert!(
        told["messages"].as_array().unwrap().iter().all(|one| one["results"][0]["id"].is_string()),
        "{told}"
    );
    let mut socket = Socket::connect(bed.address).await;
    for n in 200..400_usize {
        socket.send(&mesh_publish(names[n % 4], &n.to_string(), n as u64)).await;
    }
    for _ in 200..400 {
        assert_eq!(socket.json().await["E"], Value::Null);
    }
    for (place, name) in names.iter().enumerate().take(3) {
        let expected: Vec<String> = (0..400).filter(|n| n % 4 == place).map(|n| n.to_string()).collect();
        assert_eq!(texts(&bed, name).await, expected, "{name}");
    }
    bed.finish().await;
}

#[tokio::test]
async fn what_a_socket_has_sent_is_stored_though_its_caller_has_left() {
    let bed = Bed::start(|_| {}).await;
    let mut socket = Socket::connect(bed.address).await;
    for n in 0..50 {
        socket.send(&mesh_publish("user:1001", &n.to_string(), n)).await;
    }
    drop(socket);
    eventually("all are stored", || bed.metric(r#"mc_publisher_stored_total{outcome="stored"}"#) == 50).await;
    assert_eq!(texts(&bed, "user:1001").await, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    bed.finish().await;
}

#[tokio::test]
async fn a_call_that_is_repeated_with_its_key_stores_nothing_twice_and_another_body_is_refused() {
    let bed = Bed::start(|_| {}).await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    edge.holds("user:1001", 1, 0);
    let first = keyed(&bed, PUBLISH, "k1", &to_user("x")).await.json();
    assert_eq!(first.get("duplicate"), None, "{first}");
    edge.holds("user:1001", 3, 0);
    let again = keyed(&bed, PUBLISH, "k1", &to_user("x")).await.json();
    assert_eq!(again["results"][0]["id"], first["results"][0]["id"]);
    assert_eq!((&again["duplicate"], &again["results"][0]["duplicate"]), (&json!(true), &json!(true)));
    assert_eq!(again["results"][0]["sessions"], 3, "counts are asked anew");
    let other = keyed(&bed, PUBLISH, "k1", &to_user("y")).await;
    assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency_key_reused")));
    let path = keyed(&bed, BATCH, "k1", &json!({"messages": [to_user("x")]})).await;
    assert_eq!(path.status, 422, "another path is another call");
    for (line, body, key, code) in [
        (
            PUBLISH,
            json!({"to": {"users": [1], "channels": ["lobby"]}, "raw": "x"}),
            "k2",
            "idempotency_unavailable",
        ),
        (PUBLISH, to_user("x"), "", "invalid_request"),
        (PUBLISH, to_user("x"), "a b", "invalid_request"),
        (PUBLISH, to_user("x"), &*"k".repeat(256), "invalid_request"),
    ] {
        let refused = keyed(&bed, line, key, &body).await;
        assert_eq!((refused.status, &refused.json()["code"]), (400, &json!(code)), "{key}");
    }
    let mesh = json!({"c": "user:1001", "d": "m"});
    assert_eq!(keyed(&bed, MESH, "k3", &mesh).await.header("mc-duplicate"), None);
    assert_eq!(keyed(&bed, MESH, "k3", &mesh).await.header("mc-duplicate"), Some("true"));
    assert_eq!(keyed(&bed, MESH, "k3", &json!({"c": "user:1001", "d": "n"})).await.code(), (422, 101));
    assert_eq!(texts(&bed, "user:1001").await, ["x", "m"]);
    assert_eq!(bed.metric(r#"mc_publisher_idempotent_calls_total{outcome="conflict"}"#), 3);
    edge.leave().await;
    bed.finish().await;
}

#[tokio::test]
async fn repeats_at_once_and_at_another_publisher_find_the_first() {
    let bed = Bed::start(|_| {}).await;
    let other = bed.another(HistoryConfig::default()).await;
    other.ready().await;
    let messages: Vec<Value> = (0..20).map(|n| to_user(&n.to_string())).collect();
    let body = json!({"messages": messages, "receipt": false});
    let calls = (0..8).map(|n| keyed(if n % 2 == 0 { &bed } else { &other }, BATCH, "same", &body));
    let answers = futures_util::future::join_all(calls).await;
    let ids = |answer: &Answer| -> Vec<Value> {
        let told = answer.json();
        let messages = told["messages"].as_array().unwrap_or_else(|| panic!("{told}"));
        messages.iter().map(|one| one["results"][0]["id"].clone()).collect()
    };
    for answer in &answers[1..] {
        assert_eq!(ids(answer), ids(&answers[0]));
    }
    assert_eq!(texts(&bed, "user:1001").await, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(bed.metric("mc_publisher_idempotent_calls_open"), 0);
    other.finish().await;
    bed.finish().await;
}

#[tokio::test]
async fn what_is_kept_is_read_page_by_page_whole_or_not_at_all_and_can_be_erased() {
    let bed = Bed::start_with(HistoryConfig { per_channel: 5, ..HistoryConfig::default() }).await;
    let empty = kept(&bed, "").await.json();
    assert_eq!((&empty["messages"], &empty["more"]), (&json!([]), &json!(false)));
    let start = empty["next"].as_str().unwrap().to_owned();
    let binary = json!({"to": {"users": [1001]}, "raw_base64": "AQI="});
    for body in [to_user("1"), binary, to_user("3")] {
        assert_eq!(post(&bed, PUBLISH, &body).await.status, 200);
    }
    let page = kept(&bed, &format!("?after={start}&limit=2")).await.json();
    assert_eq!(
        (&page["messages"][0]["text"], &page["messages"][1]["base64"]),
        (&json!("1"), &json!("AQI=")),
        "{page}"
    );
    assert_eq!((&page["more"], &page["whole"]), (&json!(true), &json!(true)));
    let next = page["next"].as_str().unwrap();
    let rest = kept(&bed, &format!("?after={next}")).await.json();
    assert_eq!((&rest["messages"][0]["text"], &rest["more"]), (&json!("3"), &json!(false)));
    for n in 4..8 {
        assert_eq!(post(&bed, PUBLISH, &to_user(&n.to_string())).await.status, 200);
    }
    for after in [&*start, "00000000000000ff.1"] {
        let gone = kept(&bed, &format!("?after={after}")).await;
        assert_eq!((gone.status, &gone.json()["code"]), (410, &json!("history_not_whole")), "{after}");
    }
    for bad in ["?after=1", "?limit=0", "?limit=1001", "?limit=x", "?before=1"] {
        assert_eq!(kept(&bed, bad).await.status, 400, "{bad}");
    }
    let last = kept(&bed, "").await.json();
    assert_eq!(last["messages"].as_array().unwrap().len(), 5, "{last}");
    let before = last["messages"][3]["id"].as_str().unwrap();

    let erased = call(bed.address, &request(&format!("DELETE {MESSAGES}"), &[], "")).await.json();
    assert_eq!(erased["channel"], "user:1001", "{erased}");
    assert!(erased["erased"].as_u64().unwrap() >= 4, "{erased}");
    assert_eq!(kept(&bed, "").await.json()["messages"], json!([]));
    assert_eq!(kept(&bed, &format!("?after={before}")).await.status, 410, "nothing is skipped silently");
    let lobby = call(bed.address, &request("GET /v1/channels/lobby/messages", &[], "")).await;
    assert_eq!((lobby.status, &lobby.json()["code"]), (404, &json!("no_history")));
    bed.finish().await;
}

#[tokio::test]
async fn a_full_store_says_so_and_what_is_behind_in_the_batch_does_not_overtake() {
    let bed =
        Bed::start_with(HistoryConfig { max_bytes: ByteSize(1 << 20), ..HistoryConfig::default() }).await;
    let large = "x".repeat(200 << 10);
    let mut full = None;
    for _ in 0..8 {
        let answer = publish_to(bed.address, "user:1", &large).await;
        if answer.status != 200 {
            full = Some(answer);
            break;
        }
    }
    let full = full.expect("the store is full at some time");
    assert_eq!((full.code(), full.header("retry-after")), ((503, 108), Some("1")));
    assert!(full.body.contains("store is full"), "{full:?}");
    let messages = [("user:2", &*large), ("user:2", "small"), ("lobby", "live"), ("user:3", "small")];
    let message = |(to, text): (&str, &str)| json!({"to": {"channels": [to]}, "raw": text});
    let told = post(&bed, BATCH, &json!({"messages": messages.map(message)})).await.json();
    let code = |n: usize| told["messages"][n]["results"][0]["error"]["code"].clone();
    assert_eq!((code(0), code(1)), (json!("store_full"), json!("store_full")), "{told}");
    assert_eq!(code(2), Value::Null, "channels without history need no room: {told}");
    assert_eq!(texts(&bed, "user:2").await, [""; 0]);
    assert!(bed.metric(r#"mc_publisher_stored_total{outcome="full"}"#) >= 2);
    assert_eq!(bed.metric(r#"mc_publisher_stored_total{outcome="behind"}"#), 1);
    bed.finish().await;
}

#[tokio::test]
async fn a_store_that_stays_away_is_waited_for_and_then_refused_and_the_rest_of_the_batch_with_it() {
    let bed = Bed::start(|config| config.store_wait = Duration::from_millis(200)).await;
    bed.bus.stop().await;
    let refused = publish_to(bed.address, "user:1", "x").await;
    assert_eq!((refused.code(), refused.header("retry-after")), ((503, 108), Some("1")));
    assert!(refused.body.contains("did not answer within 0.2 s"), "{refused:?}");
    let batch = post(&bed, BATCH, &json!({"messages": [to_user("1"), to_user("2")]})).await;
    assert_eq!((batch.status, &batch.json()["code"]), (503, &json!("unavailable")));
    let claim = keyed(&bed, PUBLISH, "k", &to_user("x")).await;
    assert_eq!((claim.status, &claim.json()["code"]), (503, &json!("unavailable")));
    let mut socket = Socket::connect(bed.address).await;
    for i in 0..3 {
        socket.send(&mesh_publish("user:1", "x", i)).await;
    }
    for i in 0..3 {
        let answer = socket.json().await;
        assert_eq!(
            (&answer["E"]["c"], &answer["i"]),
            (&json!(108), &json!(i)),
            "in order, each with its answer"
        );
    }
    assert!(bed.metric(r#"mc_publisher_stored_total{outcome="unavailable"}"#) >= 5);
    assert_eq!(bed.drain.finish(crate::support::PATIENCE).await, 0);
}

/// Publishes while the answer of the store is lost, and returns how often the message is stored.
async fn stored_when_the_answer_is_lost(faults: &str) -> usize {
    let bus = TestBus::start().await;
    let link = Link::to(bus.address()).await;
    let faults = serde_json::from_str(faults).unwrap();
    let bed = Bed::start_over(bus, link.address(), |config| config.faults = faults).await;
    bed.ready().await;
    let edge = FakeEdge::start(&bed.bus.server, "e1", true).await;
    link.deafen();
    let publish = publish_to(bed.address, "user:1001", "x");
    let break_it = async {
        eventually("the message is stored", || !edge.seen().is_empty()).await;
        link.cut();
        link.heal();
    };
    let (answer, ()) = tokio::join!(publish, break_it);
    assert_eq!(answer.code(), (200, 0), "{answer:?}");
    assert!(bed.metric("mc_publisher_store_retries_total") >= 1);
    let stored = texts(&bed, "user:1001").await.len();
    edge.leave().await;
    bed.finish().await;
    link.stop().await;
    stored
}

#[tokio::test]
async fn a_message_whose_acknowledgement_was_lost_is_tried_again_and_stored_once() {
    assert_eq!(stored_when_the_answer_is_lost("[]").await, 1);
}

#[tokio::test]
async fn without_its_id_the_same_message_would_be_stored_twice() {
    assert_eq!(stored_when_the_answer_is_lost(r#"["message-id"]"#).await, 2);
}

#[tokio::test]
async fn another_number_of_partitions_makes_it_unready_and_says_what_to_do() {
    let bed = Bed::start(|_| {}).await;
    let other = bed.another(HistoryConfig { partitions: 2, ..HistoryConfig::default() }).await;
    eventually("it says so", || other.health.reasons().contains("history.partitions is 2")).await;
    let refused = publish_to(other.address, "user:1", "x").await;
    assert_eq!(refused.code(), (503, 108));
    assert!(refused.body.contains("history.partitions is 2"), "{refused:?}");
    other.finish().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_stores_what_is_repeated_with_its_key_once_and_in_order() {
    let name =
        "a_server_that_is_killed_again_and_again_stores_what_is_repeated_with_its_key_once_and_in_order";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", name) else { return };
    let mut nats = NatsServer::start(&binary).await;
    let bed =
        Bed::start_on(&server_at(nats.address()).await, |config| config.store_wait = Duration::from_secs(20))
            .await;
    bed.ready().await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let texts: Vec<String> = (0..100).map(|n| format!("{round}-{n}")).collect();
        let messages: Vec<Value> = texts.iter().map(|text| to_user(text)).collect();
        let body = json!({"messages": messages, "receipt": false});
        let key = format!("round-{round}");
        let before = bed.metric(r#"mc_publisher_stored_total{outcome="stored"}"#);
        let publish = keyed(&bed, BATCH, &key, &body);
        let stored = || bed.metric(r#"mc_publisher_stored_total{outcome="stored"}"#) > before + 10;
        let kill = async {
            eventually("some are stored", stored).await;
            nats.kill().await;
            nats.restart().await;
        };
        let (first, ()) = tokio::join!(publish, kill);
        assert_eq!(first.status, 200, "{first:?}");
        let again = keyed(&bed, BATCH, &key, &body).await.json();
        assert_eq!(again["duplicate"], true, "{again}");
        assert_eq!(again["messages"], {
            let mut told = first.json()["messages"].clone();
            for one in told.as_array_mut().unwrap() {
                one["results"][0]["duplicate"] = json!(true);
            }
            told
        });
        expected.extend(texts);
    }
    assert_eq!(texts(&bed, "user:1001").await, expected);
    bed.finish().await;
    nats.stop().await;
}

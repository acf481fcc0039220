//! Streams, with async-nats against the bus.

mod support;

use async_nats::{Client, HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use embedded_bus::{Config, EmbeddedBus, ServeError, StreamsConfig};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::{DEADLINE, Server};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;

async fn start() -> Server {
    Server::with(Config { streams: Some(StreamsConfig::default()), ..Config::default() }).await
}

async fn ask(client: &Client, call: &str, body: Value) -> Value {
    let answer = client.request(format!("$JS.API.{call}"), body.to_string().into()).await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

async fn make(client: &Client, config: Value) {
    let name = config["name"].as_str().expect("a name").to_owned();
    let answer = ask(client, &format!("STREAM.CREATE.{name}"), config).await;
    assert_eq!(answer["did_create"], true, "{answer}");
}

async fn publish(client: &Client, subject: &str, headers: &[(&str, &str)], payload: &str) -> Value {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let (subject, payload) = (subject.to_owned(), Bytes::copy_from_slice(payload.as_bytes()));
    let answer = if headers.is_empty() {
        client.request(subject, payload).await
    } else {
        client.request_with_headers(subject, map, payload).await
    };
    serde_json::from_slice(&answer.expect("an acknowledgement").payload).expect("JSON")
}

fn header(message: &Message, name: &str) -> String {
    let headers = message.headers.as_ref().unwrap_or_else(|| panic!("no headers in {message:?}"));
    headers.get(name).unwrap_or_else(|| panic!("no {name} in {headers:?}")).to_string()
}

/// Returns the sequences of a batch, and its closing status.
async fn direct(client: &Client, stream: &str, body: Value) -> (Vec<u64>, Message) {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.expect("subscribed");
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    client.publish_with_reply(subject, inbox, body.to_string().into()).await.expect("asked");
    let mut seqs = Vec::new();
    loop {
        let answer =
            timeout(DEADLINE, answers.next()).await.expect("no answer").expect("the subscription ended");
        if answer.status.is_some() {
            return (seqs, answer);
        }
        seqs.push(header(&answer, "Nats-Sequence").parse().expect("a number"));
    }
}

#[tokio::test]
async fn a_bus_with_streams_says_so_and_one_without_does_not() {
    let (with, without) = (start().await, Server::start().await);
    assert!(with.raw().await.info.contains(r#""jetstream":true"#));
    assert!(!without.raw().await.info.contains("jetstream"));
    let account = ask(&with.client().await, "INFO", json!(null)).await;
    assert_eq!((&account["streams"], &account["api"]["errors"]), (&json!(0), &json!(0)));
    let error = without.client().await.request("$JS.API.INFO", Bytes::new()).await.expect_err("nobody");
    assert_eq!(error.kind(), RequestErrorKind::NoResponders);
}

#[tokio::test]
async fn what_is_stored_is_acknowledged_copied_and_read_back() {
    let server = start().await;
    let client = server.client().await;
    let republish = json!({ "src": "log.>", "dest": "live.>" });
    make(
        &client,
        json!({ "name": "S", "subjects": ["log.>"], "allow_direct": true, "republish": republish }),
    )
    .await;
    let mut live = client.subscribe("live.>").await.expect("subscribed");
    client.flush().await.expect("flushed");

    assert_eq!(
        publish(&client, "log.a", &[("Nats-Msg-Id", "1")], "one").await,
        json!({ "stream": "S", "seq": 1 })
    );
    let again = publish(&client, "log.a", &[("Nats-Msg-Id", "1")], "one").await;
    assert_eq!(again, json!({ "stream": "S", "seq": 1, "duplicate": true }));
    assert_eq!(publish(&client, "log.b", &[], "two").await["seq"], 2);
    assert_eq!(publish(&client, "log.a", &[], "three").await["seq"], 3);

    for (subject, seq, last, payload) in
        [("live.a", "1", "0", "one"), ("live.b", "2", "0", "two"), ("live.a", "3", "1", "three")]
    {
        let copy = timeout(DEADLINE, live.next()).await.expect("no copy").expect("the subscription ended");
        assert_eq!((copy.subject.as_str(), &copy.payload[..]), (subject, payload.as_bytes()));
        assert_eq!(
            (header(&copy, "Nats-Sequence").as_str(), header(&copy, "Nats-Last-Sequence").as_str()),
            (seq, last)
        );
    }
    let last = ask(&client, "STREAM.MSG.GET.S", json!({ "last_by_subj": "log.a" })).await;
    assert_eq!((&last["message"]["seq"], &last["message"]["data"]), (&json!(3), &json!("dGhyZWU=")));
    let (seqs, end) = direct(&client, "S", json!({ "seq": 1, "next_by_subj": "log.a", "batch": 10 })).await;
    assert_eq!((seqs, header(&end, "Nats-Num-Pending").as_str()), (vec![1, 3], "0"));
    let (seqs, end) = direct(&client, "S", json!({ "multi_last": ["log.a", "log.b", "log.none"] })).await;
    assert_eq!((seqs, header(&end, "Nats-UpTo-Sequence").as_str()), (vec![2, 3], "3"));
    drop((client, live));
    server.stop().await;
}

#[tokio::test]
async fn a_message_for_no_stream_and_a_read_of_none_find_nobody() {
    let server = start().await;
    let client = server.client().await;
    make(&client, json!({ "name": "S", "subjects": ["log.>"] })).await;
    for subject in ["log", "other.a", "$JS.API.DIRECT.GET.S", "$JS.API.UNKNOWN", "$JS.API.STREAM.INFO.a.b"] {
        let error = client.request(subject, "{}".into()).await.expect_err("nobody answers");
        assert_eq!(error.kind(), RequestErrorKind::NoResponders, "{subject}");
    }
    assert_eq!(ask(&client, "STREAM.DELETE.S", json!({})).await["success"], true);
    let error = client.request("log.a", "x".into()).await.expect_err("it is gone");
    assert_eq!(error.kind(), RequestErrorKind::NoResponders);
}

#[tokio::test]
async fn what_was_published_before_the_end_is_acknowledged_before_the_connection_closes() {
    let server = start().await;
    let client = server.client().await;
    make(&client, json!({ "name": "S", "subjects": ["log.>"] })).await;
    let inbox = client.new_inbox();
    let mut acks = client.subscribe(inbox.clone()).await.expect("subscribed");
    for _ in 0..500 {
        client.publish_with_reply("log.a", inbox.clone(), vec![b'x'; 1000].into()).await.expect("published");
    }
    client.flush().await.expect("flushed");
    // The first answer says that the bus has begun to read the messages.
    timeout(DEADLINE, acks.next()).await.expect("no ack").expect("the subscription ended");
    let stats = server.stats.clone();
    server.stop().await;
    let stored = stats.snapshot().stream_stored;
    for number in 2..=stored {
        let ack =
            timeout(DEADLINE, acks.next()).await.expect("an ack is missing").expect("the subscription ended");
        let ack: Value = serde_json::from_slice(&ack.payload).expect("JSON");
        assert_eq!(ack["seq"], number);
    }
}

#[tokio::test]
async fn publishers_that_outrun_the_streams_wait_and_lose_nothing() {
    let streams = StreamsConfig { max_queued: 4, max_queued_bytes: MIB, ..StreamsConfig::default() };
    let server = Server::with(Config { streams: Some(streams), ..Config::default() }).await;
    let maker = server.client().await;
    make(&maker, json!({ "name": "S", "subjects": ["log.>"] })).await;
    let publishers = (0..4).map(|number| {
        let server = &server;
        async move {
            let client = server.client().await;
            for _ in 0..2000 {
                client.publish(format!("log.{number}"), "x".into()).await.expect("published");
            }
            client.flush().await.expect("flushed");
        }
    });
    futures_util::future::join_all(publishers).await;
    let stats = server.until(|stats| stats.stream_stored == 8000).await;
    assert!(stats.stream_publishers_held > 0, "{stats:?}");
    assert_eq!((stats.stream_refused, stats.stream_dropped), (0, 0));
    let info = ask(&maker, "STREAM.INFO.S", json!(null)).await;
    assert_eq!((&info["state"]["messages"], &info["state"]["last_seq"]), (&json!(8000), &json!(8000)));
}

#[tokio::test]
async fn a_bus_whose_streams_have_panicked_ends_and_says_so() {
    let mut config = Config { streams: Some(StreamsConfig::default()), ..Config::default() };
    config.listen.set_port(0);
    let bus = EmbeddedBus::bind(config).await.expect("a free port");
    bus.streams_panic()();
    let served = timeout(DEADLINE, bus.serve(CancellationToken::new())).await;
    assert_eq!(served.expect("it ends"), Err(ServeError::Streams));
}

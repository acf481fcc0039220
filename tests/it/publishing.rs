//! The publishing port: bad input is refused in the shape that publishers of the original expect.

use harness::cluster::Cluster;
use harness::publisher::PublishingSocket;
use harness::raw;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn an_answer_has_exactly_the_shape_of_the_original() {
    let cluster = Cluster::start().await;
    let device = cluster.online(0, "user-1").await;
    let publisher = cluster.publisher(0);
    assert_eq!(publisher.publish("user:1", "x").await.text, r#"{"E":null,"r":{"s":1,"f":0}}"#);
    assert_eq!(publisher.publish("user:2", "x").await.text, r#"{"E":null,"r":{"s":0,"f":0}}"#);
    let refused = publisher.publish("user 2", "x").await;
    assert!(refused.text.starts_with(r#"{"E":{"c":103,"m":""#), "{refused:?}");
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong_and_deliver_nothing() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    let publisher = cluster.publisher(0);
    let deep = format!(r#"{{"c":"user:1","d":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (body, code) in [
        ("", 101),
        ("rubbish", 101),
        ("[]", 101),
        ("null", 101),
        ("{}", 101),
        (r#"{"c":"user:1"}"#, 101),
        (r#"{"d":"x"}"#, 101),
        (r#"{"c":1,"d":"x"}"#, 101),
        (r#"{"c":"user:1","d":1}"#, 101),
        (r#"{"c":"user:1","d":{"event":"@user"}}"#, 101),
        (r#"{"c":"user:1","d":null}"#, 101),
        (r#"{"c":"user:1","d":"x","t":"smell"}"#, 101),
        (r#"{"c":"user:1","d":"x","t":1}"#, 101),
        (r#"{"c":"user:1","d":"not base64!","t":"binary"}"#, 101),
        (r#"{"c":"user:1","d":"\ud800"}"#, 101),
        (r#"{"c":"user:1","d":"x"} trailing"#, 101),
        (r#"{"c":"","d":"x"}"#, 103),
        (r#"{"c":"user 1","d":"x"}"#, 103),
        (r#"{"c":"user:\u0000","d":"x"}"#, 103),
        (deep.as_str(), 101),
    ] {
        let answer = publisher.post(body.to_owned()).await;
        answer.expect_error(200, code);
    }
    publisher.post(vec![b'{', 0xff, 0xfe, b'}']).await.expect_error(200, 101);
    publisher.publish(&"x".repeat(201), "x").await.expect_error(200, 103);
    publisher.publish("user:1", &"x".repeat(256 * 1024 + 1)).await.expect_error(200, 104);
    publisher.post("x".repeat(3 << 20)).await.expect_error(200, 104);
    publisher.publish_to(1, "user:1", "the only good one").await;
    device.expect_text("the only good one").await;
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_ignored() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    let body = json!({ "c": "user:1", "d": "x", "t": "text", "z": { "more": [1, 2] } });
    cluster.publisher(0).call(&body).await.expect_counts(1, 0);
    device.expect_text("x").await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn wrong_paths_methods_and_content_types_name_the_right_ones() {
    let cluster = Cluster::start().await;
    let publisher = cluster.publisher(0);
    let get = publisher.send(publisher.request(Method::GET, "/v1/mesh/publish")).await;
    assert_eq!(get.status, 405);
    assert!(get.text.contains("POST"), "{get:?}");
    let lost = publisher.send(publisher.request(Method::POST, "/v1/publish-it")).await;
    assert_eq!(lost.status, 404);
    assert!(lost.text.contains("/v1/mesh/publish"), "{lost:?}");
    let body = r#"{"c":"user:1","d":"x"}"#;
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let request =
            publisher.request(Method::POST, "/v1/mesh/publish").header("content-type", content_type);
        let answer = publisher.send(request.body(body)).await;
        assert!(answer.expect_error(200, 101).contains("application/json"), "{answer:?}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn foreign_pages_and_rebound_names_are_kept_out() {
    let cluster = Cluster::start().await;
    let publisher = cluster.publisher(0);
    let body = r#"{"c":"user:1","d":"x"}"#;
    for (name, value) in
        [("origin", "https://evil.example.com"), ("origin", "null"), ("host", "evil.example.com")]
    {
        let request =
            publisher.request(Method::POST, "/v1/mesh/publish").header("content-type", "application/json");
        publisher.send(request.header(name, value).body(body)).await.expect_error(403, 106);
    }
    // Without configured keys, a name and key in the URL change nothing.
    let request = publisher.request(Method::POST, "/v1/mesh/publish").basic_auth("name", Some("key"));
    publisher.send(request.header("content-type", "application/json").body(body)).await.expect_counts(0, 0);
    cluster.end().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_and_requests_that_never_end_hurt_nobody() {
    let cluster = Cluster::plan()
        .publisher(|config| {
            config.head_timeout = std::time::Duration::from_millis(300);
            config.body_timeout = std::time::Duration::from_millis(300);
        })
        .start()
        .await;
    let address = cluster.publisher_address(0);
    let answer = raw::exchange(address, b"\x16\x03\x01\x02\x00rubbish\r\n\r\n").await;
    assert_ne!(answer.status, 200, "{answer:?}");
    let answer =
        raw::exchange(address, b"POST /v1/mesh/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-").await;
    assert_ne!(answer.status, 200, "{answer:?}");
    let head = "POST /v1/mesh/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n";
    let short = format!("{head}Content-Length: 100\r\n\r\n{{\"c\":");
    let answer = raw::exchange(address, short.as_bytes()).await;
    assert_ne!(answer.status, 200, "{answer:?}");
    cluster.publisher(0).publish_to(0, "user:1", "x").await;
    cluster.end().await;
}

#[tokio::test]
async fn the_publishing_socket_answers_each_call_and_echoes_its_i() {
    let cluster = Cluster::start().await;
    let mut device = cluster.online(0, "user-1").await;
    let mut socket = PublishingSocket::connect(cluster.publisher_address(0)).await;
    socket.send(Message::text("ping")).await;
    assert_eq!(socket.next().await, Some(Message::text("pong")));
    for i in [json!(12345), json!("a"), json!(null), json!(true), json!(1.5)] {
        socket.publish(&i, "user:1", "hello").await;
        let answer = socket.answer().await;
        assert_eq!(answer, json!({ "E": null, "r": { "s": 1, "f": 0 }, "i": i }));
        device.expect_text("hello").await;
    }
    let call = json!({ "m": "mesh.publish", "p": { "c": "user:1", "d": "hello" }, "id": 7 });
    socket.send(Message::text(call.to_string())).await;
    assert_eq!(socket.answer().await["i"], 7);
    device.expect_text("hello").await;
    socket.close().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn the_publishing_socket_tells_what_is_wrong_and_stays_open() {
    let cluster = Cluster::start().await;
    let mut socket = PublishingSocket::connect(cluster.publisher_address(0)).await;
    for (text, code) in [
        ("rubbish".to_owned(), 101),
        ("[]".to_owned(), 101),
        (json!({ "i": 1 }).to_string(), 101),
        (json!({ "m": "mesh.publish", "i": 1 }).to_string(), 101),
        (json!({ "m": "mesh.publish", "p": [], "i": 1 }).to_string(), 101),
        (json!({ "m": "mesh.publish", "p": { "c": "user:1" }, "i": 1 }).to_string(), 101),
        (json!({ "m": "mesh.publish", "p": { "c": "user 1", "d": "x" }, "i": 1 }).to_string(), 103),
        (json!({ "m": "mesh.unknown", "p": {}, "i": 1 }).to_string(), 101),
        (json!({ "m": "mesh.send", "p": {}, "i": 1 }).to_string(), 109),
        (json!({ "m": "conn.call", "p": {}, "i": 1 }).to_string(), 109),
        (json!({ "m": "queue.pop", "p": {}, "i": 1 }).to_string(), 109),
        (format!("{}{}", "[".repeat(3000), "]".repeat(3000)), 101),
    ] {
        socket.send(Message::text(text.clone())).await;
        let answer = socket.answer().await;
        assert_eq!(answer["E"]["c"], code, "{text}: {answer}");
        assert!(answer["E"]["m"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        if text.starts_with('{') {
            assert_eq!(answer["i"], 1, "{answer}");
        }
    }
    socket.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(socket.answer().await["E"]["c"], 101);
    let large =
        json!({ "m": "mesh.publish", "p": { "c": "user:1", "d": "x".repeat(256 * 1024 + 1) }, "i": 9 });
    socket.send(Message::text(large.to_string())).await;
    let answer = socket.answer().await;
    assert_eq!((&answer["E"]["c"], &answer["i"]), (&json!(104), &json!(9)), "{answer}");
    socket.publish(&json!(2), "user:1", "still open").await;
    assert_eq!(socket.answer().await, json!({ "E": null, "r": { "s": 0, "f": 0 }, "i": 2 }));
    socket.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_publishing_frame_beyond_all_bounds_is_answered_and_closed() {
    let cluster = Cluster::start().await;
    let mut socket = PublishingSocket::connect(cluster.publisher_address(0)).await;
    socket.send(Message::text("x".repeat(2 << 20))).await;
    let answer = socket.answer().await;
    assert_eq!(answer["E"]["c"], 104, "{answer}");
    let Some(Message::Close(Some(close))) = socket.next().await else { panic!("it is closed") };
    assert_eq!(u16::from(close.code), 1009);
    cluster.end().await;
}

#[tokio::test]
async fn more_publishes_at_once_than_one_socket_may_have_are_held_back_not_lost() {
    let cluster = Cluster::plan().publisher(|config| config.max_in_flight_per_socket = 4).start().await;
    let mut socket = PublishingSocket::connect(cluster.publisher_address(0)).await;
    for number in 0..300 {
        socket.publish(&json!(number), "user:1", "x").await;
    }
    for _ in 0..300 {
        let answer: Value = socket.answer().await;
        assert_eq!(answer["r"], json!({ "s": 0, "f": 0 }), "{answer}");
    }
    socket.close().await;
    cluster.end().await;
}

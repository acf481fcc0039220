//! Bad input in both dialects: every code, with a text that helps.

use std::time::Duration;

use serde_json::json;

use crate::support::Bed;
use crate::support::caller::{Answer, Http, JSON, PUBLISH, Socket, call, mesh_publish, publish, request};

async fn post(bed: &Bed, body: &str) -> Answer {
    call(bed.address, &request(PUBLISH, &[JSON], body)).await
}

#[tokio::test]
async fn bad_bodies_are_refused_with_200_and_a_code() {
    let bed = Bed::start(|config| config.max_message = "1KiB".parse().unwrap()).await;
    for (body, code) in [
        ("", 101),
        ("rubbish", 101),
        ("\u{feff}{}", 101),
        ("{}", 101),
        ("[]", 101),
        (r#"{"c":"a"}"#, 101),
        (r#"{"c":"a","d":{"x":1}}"#, 101),
        (r#"{"c":7,"d":""}"#, 101),
        (r#"{"c":"a","d":"x","t":"image"}"#, 101),
        (r#"{"c":"a","d":"not base64!","t":"binary"}"#, 101),
        (r#"{"c":"two words","d":""}"#, 103),
        (&json!({"c": "x".repeat(201), "d": ""}).to_string(), 103),
        (&json!({"c": "a", "d": "x".repeat(1_025)}).to_string(), 104),
        (&json!({"c": "a", "d": "x".repeat(20_000)}).to_string(), 104),
        (&"[".repeat(8_000), 101),
        (&format!(r#"{{"c":"a","d":{}{}}}"#, "[".repeat(3_000), "]".repeat(3_000)), 101),
    ] {
        let answer = post(&bed, body).await;
        assert_eq!(answer.code(), (200, code), "{body:.80}\n{answer:?}");
        assert!(answer.json()["E"]["m"].as_str().is_some_and(|text| text.len() > 20), "{answer:?}");
    }
    let answer = post(&bed, r#"{"c":"a","d":"x","t":null,"later":{"deep":[[[]]]}}"#).await;
    assert_eq!(answer.counts(), (0, 0, true), "fields that are not known are ignored");
    assert_eq!(bed.metric(r#"mc_publisher_answers_total{via="http",code="103"}"#), 2);
    bed.finish().await;
}

#[tokio::test]
async fn a_body_that_is_not_utf8_is_refused() {
    let bed = Bed::start(|_| {}).await;
    let mut bytes = request(PUBLISH, &[JSON], r#"{"c":"a","d":"??"}"#);
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_eq!(call(bed.address, &bytes).await.code(), (200, 101));
    bed.finish().await;
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_is_accepted_however_it_is_escaped() {
    let bed = Bed::start(|_| {}).await;
    let whole = json!({"c": "a", "d": "\u{1}".repeat(256 << 10)});
    assert_eq!(publish(bed.address, &whole).await.counts(), (0, 0, true));
    let more = json!({"c": "a", "d": "x".repeat((256 << 10) + 1)});
    assert_eq!(publish(bed.address, &more).await.code(), (200, 104));
    bed.finish().await;
}

#[tokio::test]
async fn wrong_paths_methods_and_content_types_get_an_answer_with_e() {
    let bed = Bed::start(|_| {}).await;
    let body = r#"{"c":"a","d":"x"}"#;
    let wrong_type = call(bed.address, &request(PUBLISH, &[("content-type", "text/plain")], body)).await;
    assert_eq!(wrong_type.code(), (200, 101));
    assert!(wrong_type.body.contains("application/json"), "{wrong_type:?}");
    assert_eq!(call(bed.address, &request(PUBLISH, &[], body)).await.code(), (200, 101));

    let wrong_method = call(bed.address, &request("GET /v1/mesh/publish", &[JSON], "")).await;
    assert_eq!((wrong_method.code(), wrong_method.header("allow")), ((405, 101), Some("POST")));
    let wrong_method = call(bed.address, &request("POST /ws/v1", &[JSON], body)).await;
    assert_eq!((wrong_method.code(), wrong_method.header("allow")), ((405, 101), Some("GET")));

    for path in ["/", "/v1/mesh/publish/", "/v1/mesh/send/"] {
        let nothing = call(bed.address, &request(&format!("POST {path}"), &[JSON], body)).await;
        assert_eq!(nothing.code(), (404, 109), "{path}");
        assert!(nothing.body.contains("/v1/mesh/publish") && nothing.body.contains("/ws/v1"), "{nothing:?}");
    }
    // A call of the original connmix: its clients look only at `E`, so the answer is the same as over the
    // WebSocket.
    let send = call(bed.address, &request("POST /v1/mesh/send", &[JSON], r#"{"c":"146","d":"x"}"#)).await;
    assert_eq!(send.code(), (200, 109));
    assert!(send.body.contains("mesh.send is not offered") && send.body.contains("mesh.publish"), "{send:?}");
    let no_handshake = call(bed.address, &request("GET /ws/v1", &[], "")).await;
    assert_eq!(no_handshake.code(), (400, 101));
    bed.finish().await;
}

/// Sends the head of a request without its body, and returns the answer and the open connection.
async fn announced(bed: &Bed, line: &str, headers: &[(&str, &str)]) -> (Answer, Http) {
    let mut head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    let mut caller = Http::connect(bed.address).await;
    caller.send(format!("{head}\r\n").as_bytes()).await;
    (caller.answer().await, caller)
}

#[tokio::test]
async fn a_body_is_refused_before_it_has_come() {
    // A server that waited for the body would wait beyond the end of the test.
    let bed = Bed::start(|config| config.body_timeout = Duration::from_secs(3_600)).await;
    let large = ("content-length", "100000000");
    for (line, headers, status) in [
        // Clients of the original connmix look only at `E`.
        (PUBLISH, &[JSON, large][..], 200),
        (PUBLISH, &[JSON, large, ("expect", "100-continue")], 200),
        ("POST /v1/publish", &[JSON, large], 413),
        ("POST /v1/publish/batch", &[JSON, large], 413),
        ("POST /v1/users/sessions", &[JSON, large], 413),
        ("POST /v1/users/1/disconnect", &[JSON, large], 413),
        ("POST /v1/publish", &[large], 415),
        (PUBLISH, &[large], 200),
        ("POST /nothing", &[large], 404),
        (PUBLISH, &[JSON, large, ("origin", "https://evil.example")], 403),
        ("POST /v1/publish", &[JSON, large, ("origin", "https://evil.example")], 403),
    ] {
        let (answer, _caller) = announced(&bed, line, headers).await;
        assert_eq!(answer.status, status, "{line} {headers:?}: {answer:?}");
    }
    bed.finish().await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_while_it_comes() {
    let bed = Bed::start(|config| {
        config.max_message = "1KiB".parse().unwrap();
        config.body_timeout = Duration::from_secs(3_600);
    })
    .await;
    let line = "POST /v1/mesh/publish HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked";
    let head = format!("{line}\r\ncontent-type: application/json\r\n\r\n");
    let chunks = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(4);
    let mut caller = Http::connect(bed.address).await;
    caller.send(format!("{head}{chunks}").as_bytes()).await;
    assert_eq!(caller.answer().await.code(), (200, 104));
    // The rest of a body that ends is read and discarded, so that the connection can be used again.
    let next = request(PUBLISH, &[JSON], r#"{"c":"a","d":"x"}"#);
    let mut caller = Http::connect(bed.address).await;
    caller.send(&[format!("{head}{chunks}0\r\n\r\n").as_bytes(), &next].concat()).await;
    assert_eq!(caller.answer().await.code(), (200, 104));
    assert_eq!(caller.answer().await.counts(), (0, 0, true));
    bed.finish().await;
}

#[tokio::test]
async fn a_body_that_is_no_http_is_refused_with_400_and_the_connection_ended() {
    let bed = Bed::start(|_| {}).await;
    for line in [PUBLISH, "POST /v1/publish", "POST /v1/users/1/disconnect"] {
        for body in ["zz\r\n{\"c\"", "5\r\nabcdefgh\r\n0\r\n\r\n", "-1\r\n", "fffffffffffffffff\r\n"] {
            let mut caller = Http::connect(bed.address).await;
            let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json");
            caller.send(format!("{head}\r\ntransfer-encoding: chunked\r\n\r\n{body}").as_bytes()).await;
            assert_eq!(caller.answer().await.status, 400, "{line} {body:?}");
            assert!(caller.is_closed().await, "{line} {body:?}");
        }
    }
    bed.finish().await;
}

#[tokio::test]
async fn there_is_one_host() {
    let bed = Bed::start(|_| {}).await;
    for hosts in ["", "host: localhost\r\nhost: localhost\r\n", "host: a b/c@d\r\n", "host: localhost:x\r\n"]
    {
        for line in [PUBLISH, "POST /v1/publish"] {
            let head = format!("{line} HTTP/1.1\r\n{hosts}content-type: application/json\r\n");
            let answer = call(bed.address, format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await;
            assert_eq!(answer.status, 400, "{line} {hosts:?}: {answer:?}");
            assert!(answer.body.contains("Host"), "{answer:?}");
        }
    }
    bed.finish().await;
}

#[tokio::test]
async fn web_pages_and_foreign_hosts_are_refused_at_both_doors() {
    let bed = Bed::start(|config| config.allowed_origins = vec!["https://admin.example".into()]).await;
    let body = r#"{"c":"a","d":"x"}"#;
    for (header, code) in [
        (("origin", "https://evil.example"), (403, 106)),
        (("origin", "null"), (403, 106)),
        (("origin", "https://admin.example"), (200, 0)),
        (("host", "evil.example"), (403, 106)),
        (("host", "127.0.0.1:6789"), (200, 0)),
        (("host", "[::1]"), (200, 0)),
    ] {
        let answer = call(bed.address, &request(PUBLISH, &[JSON, header], body)).await;
        assert_eq!(answer.code(), code, "{header:?}");
        let socket = Socket::handshake(bed.address, &[header]).await;
        assert_eq!(socket.err(), (code.0 == 403).then_some(403), "{header:?}");
    }
    let rebound = b"POST http://evil.example/v1/mesh/publish HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(call(bed.address, rebound).await.code(), (403, 106));
    bed.finish().await;
}

#[tokio::test]
async fn a_socket_answers_bad_frames_and_stays_open() {
    let bed = Bed::start(|config| config.max_message = "1KiB".parse().unwrap()).await;
    let mut socket = Socket::connect(bed.address).await;
    let (too_large, big_echo) = (mesh_publish("a", &"x".repeat(1_025), 1), "x".repeat(300));
    for (frame, code, i) in [
        ("", 101, json!(null)),
        ("rubbish", 101, json!(null)),
        ("[1]", 101, json!(null)),
        (&"[".repeat(5_000), 101, json!(null)),
        (r#"{"i":1}"#, 101, json!(1)),
        (r#"{"m":"mesh.publish","i":"x"}"#, 101, json!("x")),
        (r#"{"m":"mesh.publish","p":{"c":"a","d":7},"i":1}"#, 101, json!(1)),
        (&mesh_publish("a", "x", json!([1])), 101, json!(null)),
        (&mesh_publish("a", "x", big_echo), 101, json!(null)),
        (&mesh_publish("two words", "x", 1), 103, json!(1)),
        (&too_large, 104, json!(1)),
        (r#"{"m":"mesh.send","i":1}"#, 109, json!(1)),
        (r#"{"m":"conn.call","i":1}"#, 109, json!(1)),
        (r#"{"m":"queue.consume","id":1}"#, 109, json!(1)),
        (r#"{"m":"no.such","i":1}"#, 101, json!(1)),
    ] {
        socket.send(frame).await;
        let answer = socket.json().await;
        assert_eq!((&answer["E"]["c"], &answer["i"]), (&json!(code), &i), "{frame:.80}\n{answer}");
    }
    socket.try_send(vec![1_u8, 2].into()).await.unwrap();
    let answer = socket.json().await;
    assert!(answer["E"]["c"] == 101 && answer["E"]["m"].as_str().unwrap().contains("binary"), "{answer}");
    socket.send(&mesh_publish("a", "x", 2)).await;
    assert_eq!(socket.text().await, r#"{"E":null,"r":{"s":0,"f":0},"i":2}"#);
    bed.finish().await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_and_the_socket_closed() {
    let bed = Bed::start(|config| config.max_message = "1KiB".parse().unwrap()).await;
    // A frame that the server reads as a whole, and one too large to be read.
    for size in [20_000, 200_000] {
        let mut socket = Socket::connect(bed.address).await;
        socket.send(&mesh_publish("a", "before", 1)).await;
        socket.send(&mesh_publish("a", &"x".repeat(size), 2)).await;
        let mut answers = [socket.json().await, socket.json().await];
        answers.sort_by_key(|answer| answer["E"]["c"].as_u64());
        assert_eq!((&answers[0]["i"], &answers[1]["E"]["c"]), (&json!(1), &json!(104)), "{size}");
        assert_eq!(socket.close_code().await, 1009, "{size}");
    }
    bed.finish().await;
}

#[tokio::test]
async fn what_is_no_http_is_not_served_and_hurts_nobody() {
    let bed = Bed::start(|_| {}).await;
    let mut rubbish = Http::connect(bed.address).await;
    rubbish.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 rubbish\r\n\r\n").await;
    let answer = publish(bed.address, &json!({"c": "a", "d": "x"})).await;
    assert_eq!(answer.counts(), (0, 0, true));
    let mut long = Http::connect(bed.address).await;
    long.send(format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(15_000)).as_bytes()).await;
    long.send("x".repeat(20_000).as_bytes()).await;
    let mut broken = Socket::connect(bed.address).await;
    broken.try_send(tokio_tungstenite::tungstenite::Message::Close(None)).await.unwrap();
    assert!(matches!(broken.frame().await, Some(tokio_tungstenite::tungstenite::Message::Close(_)) | None));
    assert_eq!(publish(bed.address, &json!({"c": "a", "d": "x"})).await.counts(), (0, 0, true));
    bed.finish().await;
}

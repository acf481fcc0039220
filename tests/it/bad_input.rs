//! Bad input on the client port: the client is told where that is possible, and nobody else notices.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::device::{Device, PATH, Received};
use harness::raw::{self, Raw};
use harness::wait::eventually;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_frame_that_is_no_op_is_answered_with_what_is_wrong_and_the_connection_closed() {
    let cluster = Cluster::start().await;
    let mut bystander = cluster.online(0, "user-1").await;
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let deep_op = format!(r#"{{"op":"auth","token":{}{}}}"#, "[".repeat(1500), "]".repeat(1500));
    for text in [
        "",
        "hello",
        "{",
        "[]",
        "5",
        "null",
        "\"ping\"",
        "{}",
        r#"{"channel":"@user"}"#,
        r#"{"op":5}"#,
        r#"{"op":null}"#,
        r#"{"op":"auth","token":"a"} trailing"#,
        r#"{"op":"auth","token":"a"}{"op":"auth"}"#,
        "{'op':'auth'}",
        "PING",
        "\u{feff}{\"op\":\"auth\"}",
        &deep,
        &deep_op,
    ] {
        let mut device = cluster.connect(0).await;
        device.send(text).await;
        device.expect_error(4).await;
        let reason = device.expect_close(4400).await;
        assert!(!reason.is_empty() && reason.len() <= 123, "{text}: {reason}");
    }
    bystander.expect_nothing().await;
    bystander.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_binary_frame_is_answered_and_closed() {
    let cluster = Cluster::start().await;
    let mut device = cluster.login(0, "user-1").await;
    device.send_frame(Message::binary(br#"{"op":"subscribe","channel":"@user"}"#.to_vec())).await;
    let text = device.expect_error(4).await;
    assert!(text.contains("binary"), "{text}");
    device.expect_close(4400).await;
    cluster.end().await;
}

#[tokio::test]
async fn an_oversized_frame_is_answered_and_closed_with_1009() {
    let cluster = Cluster::start().await;
    let largest = "x".repeat(4096 - r#"{"op":"none","pad":""}"#.len());
    let mut device = cluster.connect(0).await;
    device.send(&format!(r#"{{"op":"none","pad":"{largest}"}}"#)).await;
    device.expect_error(5).await;
    device.send(&format!(r#"{{"op":"none","pad":"{largest}!"}}"#)).await;
    device.expect_error(4).await;
    device.expect_close(1009).await;

    // A frame that only announces a huge length is refused at once.
    let device = cluster.connect(0).await;
    let mut raw = device.into_raw();
    raw.write(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await;
    let answer = raw.read_to_end().await;
    assert!(closes_with(&answer, 1009), "{answer:?}");
    cluster.end().await;
}

#[tokio::test]
async fn a_client_that_breaks_the_websocket_protocol_is_closed_with_its_code() {
    let cluster = Cluster::start().await;
    for (bytes, code, what) in [
        (&[0x81, 0x04, b'p', b'i', b'n', b'g'][..], 1002, "an unmasked frame"),
        (&[0xf1, 0x80, 0, 0, 0, 0], 1002, "reserved bits"),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002, "an unknown opcode"),
        (&[0x80, 0x80, 0, 0, 0, 0], 1002, "a continuation of nothing"),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002, "a fragmented ping"),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], 1007, "text that is not UTF-8"),
    ] {
        let mut raw = cluster.connect(0).await.into_raw();
        raw.write(bytes).await;
        let answer = raw.read_to_end().await;
        assert!(closes_with(&answer, code), "{what}: {answer:?}");
    }
    cluster.end().await;
}

/// Whether `bytes` end with a close frame of this code.
fn closes_with(bytes: &[u8], code: u16) -> bool {
    let code = code.to_be_bytes();
    (0..bytes.len().saturating_sub(3)).any(|at| {
        let length = usize::from(bytes[at + 1]);
        bytes[at] == 0x88 && at + 2 + length == bytes.len() && bytes[at + 2..at + 4] == code
    })
}

#[tokio::test]
async fn an_op_in_many_fragments_is_an_op() {
    let cluster = Cluster::start().await;
    let mut raw = cluster.connect(0).await.into_raw();
    let op = br#"{"op":"auth","token":"user-1"}"#;
    for (index, byte) in op.iter().enumerate() {
        let first = if index == 0 { 0x01 } else { 0x00 };
        let last = if index + 1 == op.len() { 0x80 } else { 0x00 };
        raw.write(&[first | last, 0x81, 0, 0, 0, 0, *byte]).await;
    }
    let expected = br#"{"result":true}"#;
    let answer = raw.read_exactly(2 + expected.len()).await;
    assert_eq!(&answer[2..], expected);
    drop(raw);
    cluster.end().await;
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_told_what_to_do() {
    let cluster = Cluster::start().await;
    let edge = cluster.edge(0);
    let answer = raw::get(edge, "/").await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.body.contains(PATH), "{answer:?}");
    let answer = raw::get(edge, PATH).await;
    assert_eq!(answer.status, 426, "{answer:?}");
    assert!(answer.body.contains("ws"), "{answer:?}");
    for (request, statuses) in [
        (
            format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            405..=426,
        ),
        (
            format!(
                "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            400..=426,
        ),
        (
            format!(
                "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\n\r\n"
            ),
            400..=426,
        ),
    ] {
        let answer = raw::exchange(edge, request.as_bytes()).await;
        assert!(statuses.contains(&answer.status), "{request}: {answer:?}");
    }
    for rubbish in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\r\n\r\n\r\n", b"HELO x\r\n\r\n", &[0; 600]]
    {
        let mut raw = Raw::connect(edge).await;
        raw.write(rubbish).await;
        raw.write(b"\r\n\r\n").await;
        let answer = raw.read_to_end().await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    }
    Device::connect(edge).await.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn a_request_head_without_end_is_refused() {
    let cluster = Cluster::start().await;
    let mut raw = Raw::connect(cluster.edge(0)).await;
    raw.write(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n").as_bytes()).await;
    for number in 0..2000 {
        raw.write(format!("X-{number}: {}\r\n", "y".repeat(1000)).as_bytes()).await;
    }
    let answer = raw.read_to_end().await;
    assert!(!answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    cluster.end().await;
}

#[tokio::test]
async fn half_open_and_slow_handshakes_end_in_time_and_keep_nobody_out() {
    let cluster =
        Cluster::plan().edge(|config| config.handshake_timeout = Duration::from_millis(300)).start().await;
    let edge = cluster.edge(0);
    let mut half_open = Vec::new();
    for number in 0..100 {
        let mut raw = Raw::connect(edge).await;
        if number % 2 == 0 {
            raw.write(format!("GET {PATH} HTTP/1.1\r\nHost:").as_bytes()).await;
        }
        half_open.push(raw);
    }
    Device::connect(edge).await.close().await;
    for raw in &mut half_open {
        raw.read_to_end().await;
    }

    // A client that sends a byte at a time is never silent, and is closed as well.
    let mut slow = Raw::connect(edge).await;
    slow.trickle(b'G', Duration::from_millis(20)).await;
    cluster.end().await;
}

#[tokio::test]
async fn too_many_handshakes_at_once_are_told_to_come_back() {
    let cluster = Cluster::plan()
        .edge(|config| {
            config.max_handshakes = 10;
            config.handshake_timeout = Duration::from_secs(5);
        })
        .start()
        .await;
    let edge = cluster.edge(0);
    let mut half_open = Vec::new();
    eventually("one more is refused", async || {
        // Silent connections yield their slots to the device.
        for _ in 0..10 {
            let mut raw = Raw::connect(edge).await;
            raw.write(b"GET ").await;
            half_open.push(raw);
        }
        match Device::try_connect(edge, PATH, None).await {
            Ok(_) => false,
            Err(refusal) => {
                assert_eq!(refusal.status(), 503);
                assert!(refusal.headers().contains_key("retry-after"));
                true
            }
        }
    })
    .await;
    drop(half_open);
    eventually("there is room again", async || Device::is_welcome(edge).await).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_list_of_origins_keeps_foreign_pages_out() {
    let cluster =
        Cluster::plan().edge(|config| config.origins = vec!["https://app.example.com".into()]).start().await;
    let edge = cluster.edge(0);
    for origin in
        ["https://evil.example.com", "http://app.example.com", "null", "https://app.example.com.evil.com"]
    {
        let refusal = Device::try_connect(edge, PATH, Some(origin)).await.expect_err(origin);
        assert_eq!(refusal.status(), 403, "{origin}");
    }
    let welcome = Device::try_connect(edge, PATH, Some("https://app.example.com")).await;
    welcome.expect("its origin is listed").close().await;
    // A client that is not a browser sends no origin.
    Device::connect(edge).await.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn without_a_list_any_page_may_connect() {
    let cluster = Cluster::start().await;
    let device = Device::try_connect(cluster.edge(0), PATH, Some("https://anywhere.example")).await;
    device.expect("any origin is let in").close().await;
    cluster.end().await;
}

#[tokio::test]
async fn connections_that_break_at_any_point_leave_nothing_behind() {
    let cluster = Cluster::start().await;
    let edge = cluster.edge(0);
    for stage in 0..20 {
        let mut device = Device::connect(edge).await;
        if stage % 4 > 0 {
            device.send(r#"{"op":"auth","token":"user-1"}"#).await;
        }
        if stage % 4 > 1 {
            device.send(r#"{"op":"subscribe","channel":"@user"}"#).await;
        }
        if stage % 4 > 2 {
            assert_eq!(device.next().await, Received::Text(r#"{"result":true}"#.into()));
        }
        drop(device);
    }
    eventually("all sessions are gone", async || cluster.sessions() == 0).await;
    cluster.publisher(0).publish_to(0, "user:1", "nobody").await;
    cluster.end().await;
}

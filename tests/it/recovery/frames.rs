//! The frames of a recovering subscription, byte for byte.

use harness::alone::Alone;
use harness::device::{Device, Received};
use harness::recovering::message;
use serde_json::json;

#[tokio::test]
async fn an_empty_after_gives_ids_from_now_on() {
    let alone = Alone::start().await;
    alone.publish(0, [1]).await;
    let (mut device, begin) = alone.begin().await;
    device.expect_nothing().await;
    alone.publish(1, [2, 3]).await;
    let second = device.expect_message("2").await;
    let third = device.expect_message("3").await;
    assert!(begin != second && second != third, "{begin}, {second}, {third}");
    device.close().await;
    let mut device = Device::recovered(alone.edge(), "user-1", &begin).await;
    assert_eq!(device.expect_messages([2, 3]).await, third);
    device.expect_nothing().await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_message_with_an_id_looks_exactly_so() {
    let alone = Alone::start().await;
    let (mut device, _) = alone.begin().await;
    let text = "{\"event\":\"@user\",\"data\":{\"msg\":\"Grüße \\ \u{1f30d} \u{7f}\u{2028}\n\"}}";
    alone.publisher().publish_to(1, "user:1", text).await;
    let received = device.next().await;
    let Received::Text(frame) = &received else { panic!("{received:?}") };
    let value: serde_json::Value = serde_json::from_str(frame).unwrap();
    let id = message("@user", &value).expect("a message").id;
    let quoted = serde_json::to_string(text).unwrap();
    assert_eq!(*frame, format!("{{\"id\":\"{id}\",\"channel\":\"@user\",\"d\":{quoted}}}"));

    let binary = json!({ "c": "user:1", "d": "AP+AgA==", "t": "binary" });
    alone.publisher().call(&binary).await.expect_counts(1, 0);
    let received = device.next().await;
    let Received::Text(frame) = &received else { panic!("{received:?}") };
    let value: serde_json::Value = serde_json::from_str(frame).unwrap();
    let second = message("@user", &value).expect("a message").id;
    assert_eq!(*frame, format!("{{\"id\":\"{second}\",\"channel\":\"@user\",\"b\":\"AP+AgA==\"}}"));
    device.close().await;

    // Replayed frames equal the live ones, byte for byte.
    let mut device = Device::recovered(alone.edge(), "user-1", &id).await;
    assert_eq!(device.next().await, received);
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_plain_session_is_sent_frames_as_published_beside_a_recovering_one_of_the_same_user() {
    let alone = Alone::start().await;
    let (mut recovering, begin) = alone.begin().await;
    let mut plain = Device::online(alone.edge(), "user-1").await;
    alone.publish(2, 1..=3).await;
    let binary = json!({ "c": "user:1", "d": "AAE=", "t": "binary" });
    alone.publisher().call(&binary).await.expect_counts(2, 0);
    recovering.expect_messages(["1", "2", "3", "AAE="]).await;
    for number in 1..=3 {
        plain.expect_text(&number.to_string()).await;
    }
    plain.expect_binary(&[0, 1]).await;
    // A replay to one session changes nothing for the others.
    let mut third = Device::recovered(alone.edge(), "user-1", &begin).await;
    third.expect_messages(["1", "2", "3", "AAE="]).await;
    alone.publish(3, [4]).await;
    plain.expect_text("4").await;
    recovering.expect_message("4").await;
    third.expect_message("4").await;
    for device in [plain, recovering, third] {
        device.close().await;
    }
    alone.end().await;
}

#[tokio::test]
async fn the_id_that_the_publisher_is_told_is_the_one_that_clients_see() {
    let alone = Alone::start().await;
    let (mut device, _) = alone.begin().await;
    let body = json!({ "to": { "users": [1] }, "raw": "one" }).to_string();
    let publisher = alone.publisher();
    let request = publisher.request(reqwest::Method::POST, "/v1/publish");
    let answer = publisher.send(request.header("content-type", "application/json").body(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["results"][0]["id"], json!(device.expect_message("one").await), "{answer:?}");
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn an_id_that_was_never_given_out_is_bad_input_and_the_session_stays() {
    let alone = Alone::start().await;
    let mut device = Device::login(alone.edge(), "user-1").await;
    for after in [json!("nonsense"), json!("1.2"), json!("00000000000000FF.1"), json!(7), json!(["x"])] {
        device.send(&json!({ "op": "subscribe", "channel": "@user", "after": after }).to_string()).await;
        let why = device.expect_error(4).await;
        assert!(why.contains("after"), "it names the field: {why}");
    }
    // None of the requests subscribed anything.
    alone.publish(0, [1]).await;
    device.subscribe_after("@user", "").await;
    alone.publish(1, [2]).await;
    device.expect_message("2").await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_channel_without_history_has_no_ids_to_ask_for() {
    let rules = r#"[{ name = "@live", channel = "live", login = false, history = false }]"#;
    let alone = Alone::plan().set("channels", rules).start().await;
    let mut device = Device::connect(alone.edge()).await;
    for after in ["", "00000000000000ff.1"] {
        device.send(&json!({ "op": "subscribe", "channel": "@live", "after": after }).to_string()).await;
        let why = device.expect_error(4).await;
        assert!(why.contains("history"), "it says why: {why}");
    }
    device.subscribe("@live").await;
    alone.publisher().publish_to(1, "live", "now").await;
    device.expect_text("now").await;
    device.close().await;
    alone.end().await;
}

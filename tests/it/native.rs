//! The native calls over two edges, with a device on each.

use harness::alone::Alone;
use harness::device::{Device, Received};
use harness::fleet::{Fleet, Over};
use harness::publisher::{Published, Publisher};
use harness::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use shared::history::Position;

async fn post(publisher: &Publisher, path: &str, body: &Value) -> Published {
    let request = publisher.request(Method::POST, path).header("content-type", "application/json");
    publisher.send(request.body(body.to_string())).await
}

async fn sessions(publisher: &Publisher, user: &str) -> Value {
    publisher.send(publisher.request(Method::GET, &format!("/v1/users/{user}/sessions"))).await.body
}

#[tokio::test]
async fn one_call_reaches_users_and_channels_on_all_edges_and_says_how_many_sessions() {
    let fleet = Fleet::plan(Over::Bus).edges(2).start().await;
    let mut devices = [
        fleet.online(0, "user-1001").await,
        fleet.online(1, "user-1001").await,
        fleet.online(1, "user-bob").await,
    ];
    let publisher = fleet.publisher(0);
    let body = json!({"to": {"users": [1001, "bob", "nobody"]}, "event": "@user", "data": {"msg": "hi"}});
    let answer = post(&publisher, "/v1/publish", &body).await.body;
    let counts: Vec<_> =
        answer["results"].as_array().into_iter().flatten().map(|one| &one["sessions"]).collect();
    assert_eq!(counts, [2, 1, 0], "{answer}");
    assert_eq!(answer["edges"], json!({"expected": 2, "answered": 2, "silent": []}));
    for device in &mut devices {
        device.expect_text(r#"{"event":"@user","data":{"msg":"hi"}}"#).await;
    }
    let message = |text: String| json!({"to": {"users": [1001]}, "raw": text});
    let batch: Vec<_> = (0..50).map(|number| message(number.to_string())).collect();
    let answer = post(&publisher, "/v1/publish/batch", &json!({ "messages": batch })).await.body;
    assert_eq!(answer["complete"], true, "{answer}");
    for number in 0..50 {
        devices[0].expect_text(&number.to_string()).await;
        devices[1].expect_text(&number.to_string()).await;
    }
    let online = sessions(&publisher, "1001").await;
    assert_eq!(
        (&online["online"], &online["sessions"], &online["complete"]),
        (&json!(true), &json!(2), &json!(true))
    );
    let on = online["on"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(on.len() == 2 && on.iter().all(|edge| edge["since"][0].is_string()), "{online}");
    let many = post(&publisher, "/v1/users/sessions", &json!({"users": ["bob", "nobody"]})).await.body;
    assert_eq!((&many["users"][0]["sessions"], &many["users"][1]["online"]), (&json!(1), &json!(false)));
    for device in devices {
        device.close().await;
    }
    fleet.end().await;
}

#[tokio::test]
async fn an_announcement_is_one_stored_message_that_reaches_everyone_who_is_logged_in() {
    let fleet = Fleet::plan(Over::Bus).edges(2).start().await;
    let mut devices = Vec::new();
    for user in 0..20 {
        let mut device = Device::login(fleet.edge(user % 2), &format!("user-{}", user + 1)).await;
        device.subscribe_after("@all", "").await;
        devices.push(device);
    }
    let publisher = fleet.publisher(0);
    let body = json!({"to": {"all": true, "channels": ["all"], "groups": ["nobody"]}, "raw": "noon"});
    let answer = post(&publisher, "/v1/publish", &body).await.body;
    let results = &answer["results"];
    let told: Vec<_> =
        results.as_array().into_iter().flatten().map(|one| (&one["to"], &one["sessions"])).collect();
    let (all, group) = (json!("all"), json!("group:nobody"));
    assert_eq!(told, [(&all, &json!(20)), (&group, &json!(0)), (&all, &json!(20))], "{answer}");
    assert_eq!(results[0], results[2], "one message, named twice");
    let id = results[0]["id"].as_str().expect("it is stored");
    for device in &mut devices {
        let message = device.next_message("@all").await;
        assert_eq!((message.text.as_str(), message.id.as_str()), ("noon", id));
    }
    let stored = publisher.request(Method::GET, "/v1/channels/all/messages");
    assert_eq!(publisher.send(stored).await.body["messages"].as_array().map(Vec::len), Some(1));
    for mut device in devices {
        device.expect_nothing().await;
        device.close().await;
    }
    fleet.end().await;
}

/// The text between `before` and `after` in the manual.
fn manual<'m>(manual: &'m str, before: &str, after: &str) -> &'m str {
    let (_, rest) = manual.split_once(before).expect("the manual has it");
    rest.split_once(after).expect("the manual has it").0
}

/// Replaces each id by its kind.
fn kinds(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(id) if name == "id" && id.parse::<Position>().is_ok() => {
                        *value = json!("a position")
                    }
                    Some(_) if name == "id" => *value = json!("a message id"),
                    Some(_) | None => kinds(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(kinds),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_example_of_the_manual_is_answered_as_the_manual_says() {
    let alone = Alone::plan().in_memory().start().await;
    let device = Device::online(alone.edge(), "user-1001").await;
    let text =
        include_str!("../../deploy/docs/publishing.md").split_once("### Publish\n").expect("it is there").1;
    let call: Value = serde_json::from_str(manual(text, "--data '", "'\n")).expect("the call is JSON");
    let mut expected: Value =
        serde_json::from_str(manual(text, "```json\n", "```")).expect("so is the answer");
    let mut answer = post(&alone.publisher(), "/v1/publish", &call).await.body;
    kinds(&mut expected);
    kinds(&mut answer);
    assert_eq!(answer, expected);
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_disconnect_closes_a_user_everywhere_and_keeps_out_even_a_login_under_way() {
    let fleet = Fleet::plan(Over::Bus).edges(2).start().await;
    let publisher = fleet.publisher(0);
    let mut devices = [fleet.online(0, "user-1001").await, fleet.online(1, "user-1001").await];
    let mut other = fleet.online(1, "user-1002").await;
    fleet.business.add_token("late", json!({"uid": 1001}));
    fleet.business.hold();
    let mut late = Device::connect(fleet.edge(0)).await;
    late.send(r#"{"op":"auth","token":"late"}"#).await;
    eventually("the token is being checked", async || fleet.business.calls_for("late") == 1).await;

    let body = json!({"reason": "signed out everywhere", "deny_for": "1h"});
    let answer = post(&publisher, "/v1/users/1001/disconnect", &body).await.body;
    assert_eq!(
        (&answer["closed"], &answer["denied"], &answer["complete"]),
        (&json!(2), &json!(true), &json!(true))
    );
    for device in &mut devices {
        assert_eq!(device.expect_close(4410).await, "signed out everywhere");
    }
    fleet.business.open();
    assert_eq!(late.expect_close(4410).await, "signed out everywhere");
    let mut again = Device::connect(fleet.edge(1)).await;
    again.send(r#"{"op":"auth","token":"user-1001"}"#).await;
    again.expect_close(4410).await;
    publisher.publish_to(1, "user:1002", "still here").await;
    other.expect_text("still here").await;

    let lifted = post(&publisher, "/v1/users/1001/disconnect", &json!({"deny_for": "0s"})).await.body;
    assert_eq!((&lifted["closed"], &lifted["denied"]), (&json!(0), &json!(false)), "{lifted}");
    fleet.online(0, "user-1001").await.close().await;
    drop((devices, late, again));
    other.close().await;
    fleet.end().await;
}

#[tokio::test]
async fn a_refresh_has_a_user_log_in_again_everywhere_and_the_business_system_is_asked_once() {
    let fleet = Fleet::plan(Over::Bus).edges(2).start().await;
    let publisher = fleet.publisher(0);
    let mut devices = [fleet.online(0, "user-1001").await, fleet.online(1, "user-1001").await];
    let mut other = fleet.online(1, "user-1002").await;
    assert_eq!(fleet.business.calls_for("user-1001"), 1, "the answer is remembered");
    let answer = post(&publisher, "/v1/users/1001/refresh", &json!({})).await.body;
    assert_eq!((&answer["sessions"], &answer["complete"]), (&json!(2), &json!(true)), "{answer}");
    for device in &mut devices {
        device.expect_error(9).await;
    }
    publisher.publish_to(2, "user:1001", "held back").await;
    fleet.business.hold();
    for device in &mut devices {
        device.send(r#"{"op":"auth","token":"user-1001"}"#).await;
    }
    eventually("the business system is asked", async || fleet.business.calls_for("user-1001") == 2).await;
    fleet.business.open();
    for device in &mut devices {
        device.expect_text(r#"{"result":true}"#).await;
        device.expect_text("held back").await;
    }
    fleet.online(0, "user-1001").await.close().await;
    assert_eq!(fleet.business.calls_for("user-1001"), 2, "one call for all, remembered from then on");
    publisher.publish_to(1, "user:1002", "not concerned").await;
    other.expect_text("not concerned").await;
    for device in devices {
        device.close().await;
    }
    other.close().await;
    fleet.end().await;
}

#[tokio::test]
async fn a_frozen_edge_makes_every_answer_incomplete_and_is_named() {
    let fleet = Fleet::plan(Over::Bus).edges(2).start().await;
    let publisher = fleet.publisher(0);
    let (device, frozen) = (fleet.online(0, "user-1").await, fleet.online(1, "user-1").await);
    let whole = sessions(&publisher, "1").await;
    assert_eq!((&whole["sessions"], &whole["complete"]), (&json!(2), &json!(true)), "{whole}");
    fleet.edges[1].program.signal("STOP").await;
    let body = json!({"to": {"users": [1, 2]}, "raw": "x"});
    let published = post(&publisher, "/v1/publish", &body).await.body;
    for (answer, found) in [
        (&published, &published["results"][0]["sessions"]),
        (&sessions(&publisher, "1").await, &json!(1)),
        (&post(&publisher, "/v1/users/nobody/disconnect", &json!({})).await.body, &json!(1)),
    ] {
        assert_eq!((&answer["complete"], found), (&json!(false), &json!(1)), "{answer}");
        assert_eq!(answer["edges"]["silent"].as_array().map(Vec::len), Some(1), "{answer}");
    }
    fleet.edges[1].program.signal("CONT").await;
    eventually("answers are whole again", async || {
        let answer = sessions(&publisher, "1").await;
        answer["complete"] == true && answer["sessions"] == 2
    })
    .await;
    drop((device, frozen));
    fleet.end().await;
}

#[tokio::test]
async fn ten_thousand_targets_are_one_call_and_others_are_served_meanwhile() {
    let fleet = Fleet::plan(Over::Bus)
        .set("publisher_api.max_in_flight", 8)
        // Each wave waits for its counts; the default deadline of a quarter of a second is not under test.
        .set("publisher_api.answer_deadline", "30s")
        .set("publisher_api.silent_after", "30s")
        .start()
        .await;
    let publisher = fleet.publisher(0);
    let mut device = fleet.online(0, "user-10000").await;
    let users: Vec<u32> = (1..=10_000).collect();
    let body = json!({"to": {"users": users}, "raw": "to all"});
    let (many, single) =
        tokio::join!(post(&publisher, "/v1/publish", &body), publisher.publish("user:10000", "to one"),);
    // On a busy machine an edge may report its counts too late. A complete answer must be exact.
    assert!(single.counts() == Some((1, 0)) || !single.is_complete(), "{single:?}");
    let results = many.body["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(results.len(), 10_000);
    assert!(results[9_999]["sessions"] == 1 || many.body["complete"] == false, "{}", results[9_999]);
    let received = [device.next().await, device.next().await];
    for text in ["to all", "to one"] {
        assert!(received.contains(&Received::Text(text.into())), "{received:?}");
    }
    device.close().await;
    fleet.end().await;
}

#[tokio::test]
async fn whoever_can_log_in_can_be_named_in_every_call() {
    let fleet = Fleet::plan(Over::Bus).start().await;
    let publisher = fleet.publisher(0);
    for uid in ["a b", " ", "\u{2003}x\u{a0}", "a/b", "a%20b", "a+b c", "*", "\u{fc} >", "\"q\" {}"] {
        let path: String = uid.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut device = fleet.online(0, &format!("user-{uid}")).await;
        assert_eq!(sessions(&publisher, &path).await["sessions"], 1, "{uid:?}");
        let many = post(&publisher, "/v1/users/sessions", &json!({ "users": [uid] })).await.body;
        assert_eq!(many["users"][0]["sessions"], 1, "{many}");
        let channel = format!("user:{uid}");
        let answer =
            post(&publisher, "/v1/publish", &json!({ "to": { "users": [uid] }, "raw": "one" })).await;
        assert_eq!(answer.body["results"][0]["sessions"], 1, "{:?}", answer.body);
        let to = json!({ "to": { "channels": [channel] }, "raw": "two" });
        let answer = post(&publisher, "/v1/publish/batch", &json!({ "messages": [to] })).await;
        assert_eq!(answer.body["messages"][0]["results"][0]["sessions"], 1, "{:?}", answer.body);
        publisher.publish(&channel, "three").await.expect_counts(1, 0);
        for text in ["one", "two", "three"] {
            device.expect_text(text).await;
        }
        let messages = format!("/v1/channels/user:{path}/messages");
        let kept = publisher.send(publisher.request(Method::GET, &messages)).await.body;
        assert_eq!(kept["messages"].as_array().map(Vec::len), Some(3), "{kept}");
        let erased = publisher.send(publisher.request(Method::DELETE, &messages)).await.body;
        assert_eq!((&erased["channel"], &erased["erased"]), (&json!(channel), &json!(3)), "{erased}");
        let body = json!({ "reason": "out", "deny_for": "1h" });
        let answer = post(&publisher, &format!("/v1/users/{path}/disconnect"), &body).await.body;
        assert_eq!((&answer["closed"], &answer["denied"]), (&json!(1), &json!(true)), "{answer}");
        assert_eq!(device.expect_close(4410).await, "out");
        let mut again = Device::connect(fleet.edge(0)).await;
        again.send(&json!({ "op": "auth", "token": format!("user-{uid}") }).to_string()).await;
        assert_eq!(again.expect_close(4410).await, "out", "{uid:?}");
    }
    fleet.end().await;
}

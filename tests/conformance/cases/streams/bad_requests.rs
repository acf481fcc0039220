//! Requests that no client makes.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        what_is_no_json_is_10025,
        wrong_types_are_10025,
        unknown_fields_are_10025,
        numbers_out_of_range_are_10025,
        deep_and_long_json_is_refused,
        a_delete_with_a_body_is_refused,
        requests_without_a_reply_are_done_in_silence,
        calls_that_do_not_exist_are_not_answered,
        names_of_any_length_are_answered,
        a_flood_of_requests_is_answered_in_full,
    ]
}

async fn what_is_no_json_is_10025(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for body in ["no JSON", "{", "{\"name\":", "[]", "\u{0}", "\"NOJSON\""] {
        for path in ["STREAM.CREATE.NOJSON", "STREAM.UPDATE.NOJSON"] {
            streams.refused(path, body, (400, 10025), "invalid JSON").await?;
        }
    }
    Ok(())
}

async fn wrong_types_are_10025(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let settings = [
        json!({"subjects": "types.>"}),
        json!({"subjects": [1]}),
        json!({"max_msgs": "5"}),
        json!({"max_msgs": 1.5}),
        json!({"retention": "bogus"}),
        json!({"discard": "bogus"}),
        json!({"storage": "bogus"}),
        json!({"storage": 7}),
        json!({"allow_direct": "yes"}),
        json!({"metadata": ["a"]}),
        json!({"republish": "types.live.>"}),
    ];
    for setting in settings {
        let config = streams.config("TYPES", setting);
        streams.refused("STREAM.CREATE.TYPES", config, (400, 10025), "invalid JSON").await?;
    }
    Ok(())
}

async fn unknown_fields_are_10025(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("FIELDS", json!({})).await?;
    let config = streams.config("FIELDS", json!({"max_messages": 5}));
    for (path, body) in [
        ("STREAM.CREATE.FIELDS", config.clone()),
        ("STREAM.UPDATE.FIELDS", config),
        ("STREAM.INFO.FIELDS", json!({"subject_filter": ">"})),
        ("STREAM.NAMES", json!({"limit": 2})),
    ] {
        streams.refused(path, body, (400, 10025), "invalid JSON").await?;
    }
    Ok(())
}

async fn numbers_out_of_range_are_10025(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let settings = [
        json!({"max_msgs": 9_223_372_036_854_775_808_u64}),
        json!({"max_msg_size": 4_294_967_296_u64}),
        json!({"first_seq": -1}),
    ];
    for setting in settings {
        let config = streams.config("RANGE", setting);
        let outcome = streams.refused("STREAM.CREATE.RANGE", config, (400, 10025), "invalid JSON").await;
        // If the stream was created after all, it must not appear in the lists of other cases.
        streams.api("STREAM.DELETE.RANGE", "").await?;
        outcome?;
    }
    Ok(())
}

async fn deep_and_long_json_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for body in ["[".repeat(200_000), "{\"a\":".repeat(100_000), "1".repeat(500_000)] {
        streams.refused("STREAM.CREATE.DEEP", body, (400, 10025), "invalid JSON").await?;
    }
    Ok(())
}

async fn a_delete_with_a_body_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("BODIED", json!({})).await?;
    streams
        .refused("STREAM.DELETE.BODIED", "no JSON", (400, 10038), "expected an empty request payload")
        .await?;
    // async-nats sends an empty object.
    streams.done("STREAM.DELETE.BODIED", "{}").await?;
    Ok(())
}

async fn requests_without_a_reply_are_done_in_silence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("UNASKED", json!({})).await?;
    streams.fill("UNASKED", 0, &["unasked.a"]).await?;
    streams.client.publish("$JS.API.STREAM.PURGE.UNASKED", "").await?;
    streams.client.publish("$JS.API.STREAM.INFO.UNASKED", "no JSON").await?;
    streams.client.publish("$JS.API.DIRECT.GET.UNASKED", "no JSON").await?;
    streams.until_state("UNASKED", [0, 2, 1]).await?;
    streams.client.settle().await
}

async fn calls_that_do_not_exist_are_not_answered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for subject in
        ["$JS.API.BOGUS", "$JS.API.STREAM.INFO", "$JS.API.STREAM.INFO.a.b", "$JS.API.STREAM.BOGUS.X"]
    {
        streams.send(subject, &[], "").await?;
    }
    // The answer comes after those to the other requests.
    streams.send("$JS.API.INFO", &[], "").await?;
    let answer = streams.client.message().await?;
    ensure!(answer.json()?["limits"].is_object(), "{answer:?}");
    ensure!(streams.client.message_within(Duration::from_millis(50)).await?.is_none(), "more was answered");
    Ok(())
}

async fn names_of_any_length_are_answered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let name = "N".repeat(3000);
    for path in ["STREAM.INFO", "STREAM.DELETE", "STREAM.PURGE"] {
        streams.refused(&format!("{path}.{name}"), "", (404, 10059), "stream not found").await?;
    }
    Ok(())
}

async fn a_flood_of_requests_is_answered_in_full(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("FLOOD", json!({})).await?;
    streams.fill("FLOOD", 0, &["flood.a"]).await?;
    let request = r#"{"seq":1}"#;
    let one = format!("PUB $JS.API.DIRECT.GET.FLOOD {} {}\r\n{request}\r\n", streams.inbox, request.len());
    streams.client.send(one.repeat(2000)).await?;
    for answer in streams.client.messages(2000).await? {
        ensure!(answer.field("Nats-Sequence") == "1", "{answer:?}");
    }
    Ok(())
}

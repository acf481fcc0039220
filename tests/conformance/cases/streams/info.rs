//! STREAM.INFO: configuration, state, subjects.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        info_tells_the_state,
        info_takes_what_clients_send,
        a_body_that_begins_like_no_object_is_ignored,
        info_counts_the_messages_of_each_subject,
        info_pages_through_subjects,
        info_counts_and_tells_deleted_messages,
        info_of_a_missing_stream_is_10059,
        info_tells_times_of_first_and_last_message,
        info_of_a_cluster_names_the_leader,
    ]
}

async fn info_tells_the_state(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("INFO", json!({})).await?;
    streams.fill("INFO", 0, &["info.a", "info.b", "info.a"]).await?;
    let info = streams.done("STREAM.INFO.INFO", "").await?;
    ensure!(info["type"] == "io.nats.jetstream.api.v1.stream_info_response", "{info}");
    ensure!(
        info["config"]["name"] == "INFO" && info["ts"].is_string() && info["created"].is_string(),
        "{info}"
    );
    let state = streams.expect_state("INFO", [3, 1, 3]).await?;
    ensure!(state["num_subjects"] == 2 && state["consumer_count"] == 0, "{state}");
    ensure!(state["subjects"].is_null() && state["num_deleted"].is_null(), "only when asked for: {state}");
    Ok(())
}

async fn info_takes_what_clients_send(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ASKED", json!({})).await?;
    for body in ["", "{}", "null", r#"{"offset":0,"deleted_details":false,"subjects_filter":""}"#] {
        ensure!(streams.done("STREAM.INFO.ASKED", body).await?["state"]["messages"] == 0, "{body:?}");
    }
    Ok(())
}

async fn a_body_that_begins_like_no_object_is_ignored(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("LENIENT", json!({})).await?;
    for path in ["STREAM.INFO.LENIENT", "STREAM.NAMES", "STREAM.LIST", "STREAM.PURGE.LENIENT"] {
        for body in ["  ", "no json", "null", "\"x\"", "5", "{}{}"] {
            streams.done(path, body).await?;
        }
        for body in ["{", "[]", "[1]", "{x}", r#"{"unheard_of":1}"#, " {"] {
            streams.refused(path, body, (400, 10025), "invalid JSON").await?;
        }
    }
    for body in ["  ", "no json", "null", "{", "[]", "5", r#"{"a":1}"#] {
        streams.refused("STREAM.DELETE.LENIENT", body, (400, 10038), "empty request payload").await?;
    }
    streams.done("STREAM.DELETE.LENIENT", "{}").await?;
    Ok(())
}

async fn info_counts_the_messages_of_each_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("COUNTED", json!({})).await?;
    streams.fill("COUNTED", 0, &["counted.a", "counted.b", "counted.a", "counted.b.c"]).await?;
    let due = [
        (">", json!({"counted.a": 2, "counted.b": 1, "counted.b.c": 1})),
        ("counted.>", json!({"counted.a": 2, "counted.b": 1, "counted.b.c": 1})),
        ("counted.*", json!({"counted.a": 2, "counted.b": 1})),
        ("counted.a", json!({"counted.a": 2})),
        ("counted.z", Value::Null),
        ("other.>", Value::Null),
    ];
    for (filter, subjects) in due {
        let info = streams.done("STREAM.INFO.COUNTED", json!({"subjects_filter": filter})).await?;
        ensure!(info["state"]["subjects"] == subjects, "{filter} gives {info}");
        ensure!(info["state"]["num_subjects"] == 3 && info["state"]["messages"] == 4, "{info}");
    }
    Ok(())
}

async fn info_pages_through_subjects(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("PAGED", json!({})).await?;
    streams.fill("PAGED", 0, &["paged.a", "paged.b", "paged.c"]).await?;
    let info = streams.done("STREAM.INFO.PAGED", json!({"subjects_filter": ">", "offset": 1})).await?;
    ensure!(info["total"] == 3 && info["offset"] == 1 && info["limit"] == 100_000, "{info}");
    ensure!(info["state"]["subjects"].as_object().is_some_and(|subjects| subjects.len() == 2), "{info}");
    let info = streams.done("STREAM.INFO.PAGED", json!({"subjects_filter": ">", "offset": 9})).await?;
    ensure!(info["total"] == 3 && info["state"]["subjects"].is_null(), "{info}");
    Ok(())
}

async fn info_counts_and_tells_deleted_messages(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("HOLES", json!({})).await?;
    streams.fill("HOLES", 0, &["holes.a", "holes.b", "holes.c", "holes.d", "holes.e"]).await?;
    for seq in [2, 4] {
        streams.done("STREAM.MSG.DELETE.HOLES", json!({"seq": seq})).await?;
    }
    let state = streams.expect_state("HOLES", [3, 1, 5]).await?;
    ensure!(state["num_deleted"] == 2 && state["deleted"].is_null(), "{state}");
    let info = streams.done("STREAM.INFO.HOLES", json!({"deleted_details": true})).await?;
    ensure!(info["state"]["deleted"] == json!([2, 4]) && info["state"]["num_deleted"] == 2, "{info}");
    // Deleting the first message makes no gap: the first sequence moves instead.
    streams.done("STREAM.MSG.DELETE.HOLES", json!({"seq": 1})).await?;
    let state = streams.expect_state("HOLES", [2, 3, 5]).await?;
    ensure!(state["num_deleted"] == 1 && state["num_subjects"] == 2, "{state}");
    Ok(())
}

async fn info_of_a_missing_stream_is_10059(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.refused("STREAM.INFO.MISSING", "", (404, 10059), "stream not found").await?;
    let answer = streams.api("STREAM.INFO.MISSING", "null").await?;
    ensure!(answer["type"] == "io.nats.jetstream.api.v1.stream_info_response", "{answer}");
    Ok(())
}

async fn info_tells_times_of_first_and_last_message(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("TIMES", json!({})).await?;
    streams.fill("TIMES", 0, &["times.a", "times.b", "times.c"]).await?;
    let state = streams.state("TIMES").await?;
    for (key, seq) in [("first_ts", 1), ("last_ts", 3)] {
        let message = streams.direct("TIMES", json!({"seq": seq})).await?.remove(0);
        ensure!(state[key] == message.field("Nats-Time-Stamp"), "{key} in {state} is not of {message:?}");
    }
    ensure!(state["first_ts"].as_str() <= state["last_ts"].as_str(), "{state}");
    Ok(())
}

/// On one node the field is absent, and clients take the absence as such.
async fn info_of_a_cluster_names_the_leader(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("LED", json!({})).await?;
    let info = streams.done("STREAM.INFO.LED", "").await?;
    if fixture.kind().replicas() == 1 {
        ensure!(info["cluster"]["replicas"].is_null(), "{info}");
        return Ok(());
    }
    ensure!(info["cluster"]["leader"].is_string(), "{info}");
    ensure!(info["cluster"]["replicas"].as_array().is_some_and(|others| others.len() == 2), "{info}");
    Ok(())
}

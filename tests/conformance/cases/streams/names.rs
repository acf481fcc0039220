//! STREAM.NAMES and STREAM.LIST, with filter and paging.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        names_are_found_by_subject,
        names_are_paged_through_in_order,
        no_names_are_told_as_none,
        lists_tell_whole_streams,
        lists_are_paged_through,
    ]
}

async fn three(fixture: &Fixture, name: &str) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    // Created out of order.
    for letter in ["B", "A", "C"] {
        let subject = format!("{}.{letter}", name.to_lowercase());
        streams.create(&format!("{name}{letter}"), json!({"subjects": [subject]})).await?;
    }
    Ok(streams)
}

async fn names_are_found_by_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = three(fixture, "NAMED").await?;
    let due = [("named.A", vec!["NAMEDA"]), ("named.*", vec!["NAMEDA", "NAMEDB", "NAMEDC"])];
    for (subject, names) in due {
        let answer = streams.done("STREAM.NAMES", json!({"subject": subject})).await?;
        ensure!(answer["type"] == "io.nats.jetstream.api.v1.stream_names_response", "{answer}");
        ensure!(answer["streams"] == json!(names) && answer["total"] == names.len(), "{subject}: {answer}");
        ensure!(answer["offset"] == 0 && answer["limit"] == 1024, "{answer}");
    }
    let all = streams.done("STREAM.NAMES", "").await?;
    ensure!(all["streams"].as_array().is_some_and(|names| names.contains(&json!("NAMEDB"))), "{all}");
    Ok(())
}

async fn names_are_paged_through_in_order(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = three(fixture, "ORDERED").await?;
    let answer = streams.done("STREAM.NAMES", json!({"subject": "ordered.*", "offset": 2})).await?;
    ensure!(answer["total"] == 3 && answer["offset"] == 2, "{answer}");
    ensure!(answer["streams"] == json!(["ORDEREDC"]), "{answer}");
    let answer = streams.done("STREAM.NAMES", json!({"subject": "ordered.*", "offset": 99})).await?;
    ensure!(answer["total"] == 3 && is_empty(&answer["streams"]), "{answer}");
    Ok(())
}

/// One node says null, a cluster null or an empty list.
fn is_empty(names: &Value) -> bool {
    names.is_null() || names.as_array().is_some_and(Vec::is_empty)
}

async fn no_names_are_told_as_none(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let answer = streams.done("STREAM.NAMES", json!({"offset": 0, "subject": "no.stream.has.this"})).await?;
    ensure!(answer["total"] == 0 && is_empty(&answer["streams"]), "{answer}");
    Ok(())
}

async fn lists_tell_whole_streams(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = three(fixture, "LISTED").await?;
    streams.publish("listed.A", "x").await?;
    let answer = streams.done("STREAM.LIST", json!({"subject": "listed.A"})).await?;
    ensure!(answer["type"] == "io.nats.jetstream.api.v1.stream_list_response", "{answer}");
    ensure!(answer["total"] == 1 && answer["offset"] == 0 && answer["limit"] == 256, "{answer}");
    let one = &answer["streams"][0];
    ensure!(one["config"]["name"] == "LISTEDA" && one["state"]["messages"] == 1, "{answer}");
    ensure!(one["created"].is_string(), "{answer}");
    Ok(())
}

async fn lists_are_paged_through(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = three(fixture, "LEAFED").await?;
    let answer = streams.done("STREAM.LIST", json!({"subject": "leafed.*", "offset": 1})).await?;
    let names: Vec<_> =
        answer["streams"].as_array().into_iter().flatten().map(|one| one["config"]["name"].clone()).collect();
    ensure!(answer["total"] == 3 && json!(names) == json!(["LEAFEDB", "LEAFEDC"]), "{answer}");
    let answer = streams.done("STREAM.LIST", json!({"subject": "leafed.*", "offset": 99})).await?;
    ensure!(answer["streams"] == json!([]), "{answer}");
    Ok(())
}

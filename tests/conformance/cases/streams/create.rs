//! STREAM.CREATE (of new streams) and STREAM.DELETE.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        what_is_left_open_gets_its_default,
        a_stream_without_subjects_takes_its_name,
        limits_below_zero_mean_none,
        the_duplicate_window_is_never_longer_than_the_age,
        an_equal_configuration_is_created_again,
        another_configuration_of_the_same_name_is_refused,
        metadata_of_the_creator_is_kept,
        the_first_sequence_can_be_chosen,
        file_and_memory_are_both_kept,
        a_name_may_have_255_bytes_and_no_more,
        a_deleted_stream_is_gone,
        a_stream_created_again_begins_at_1,
    ]
}

async fn what_is_left_open_gets_its_default(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let settings = json!({
        "max_bytes": 0, "max_msgs": 0, "max_consumers": 0, "max_msgs_per_subject": 0, "max_msg_size": 0,
        "consumer_limits": null, "storage": "file",
    });
    let answer = streams.create("DEFAULTS", settings).await?;
    ensure!(answer["type"] == "io.nats.jetstream.api.v1.stream_create_response", "{answer}");
    let due = json!({
        "name": "DEFAULTS", "subjects": ["defaults.>"], "retention": "limits", "max_consumers": -1, "max_msgs": -1,
        "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1, "discard": "old",
        "storage": "file", "num_replicas": fixture.kind().replicas(), "duplicate_window": 120_000_000_000_u64,
        "compression": "none", "allow_direct": true, "mirror_direct": false, "sealed": false, "deny_delete": false,
        "deny_purge": false, "allow_rollup_hdrs": false,
    });
    for (key, value) in due.as_object().into_iter().flatten() {
        ensure!(answer["config"][key] == *value, "{key} is {} instead of {value}", answer["config"][key]);
    }
    let state = json!({
        "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "0001-01-01T00:00:00Z", "last_seq": 0,
        "last_ts": "0001-01-01T00:00:00Z", "consumer_count": 0,
    });
    ensure!(answer["state"] == state, "{answer}");
    ensure!(answer["created"].as_str().is_some_and(|time| time.ends_with('Z')), "{answer}");
    ensure!(answer["config"]["republish"].is_null(), "{answer}");
    Ok(())
}

async fn a_stream_without_subjects_takes_its_name(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let answer = streams.done("STREAM.CREATE.BARE", json!({"name": "BARE", "storage": "memory"})).await?;
    ensure!(answer["config"]["subjects"] == json!(["BARE"]), "{answer}");
    Ok(())
}

async fn limits_below_zero_mean_none(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let answer =
        streams.create("BELOW", json!({"max_msgs": -7, "max_bytes": -9, "max_msg_size": -5})).await?;
    for key in ["max_msgs", "max_bytes", "max_msg_size"] {
        ensure!(answer["config"][key] == -1, "{answer}");
    }
    Ok(())
}

async fn the_duplicate_window_is_never_longer_than_the_age(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let minute = 60_000_000_000_u64;
    let answer = streams.create("SHORTWINDOW", json!({"max_age": minute})).await?;
    ensure!(answer["config"]["duplicate_window"] == minute, "{answer}");
    let answer = streams.create("LONGAGE", json!({"max_age": 60 * minute})).await?;
    ensure!(answer["config"]["duplicate_window"] == 2 * minute, "{answer}");
    Ok(())
}

async fn an_equal_configuration_is_created_again(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let first = streams.create("EQUAL", json!({"max_msgs": 10})).await?;
    streams.fill("EQUAL", 0, &["equal.a"]).await?;
    // Defaults spelled out make the same configuration.
    let again =
        streams.create("EQUAL", json!({"max_msgs": 10, "max_bytes": -1, "retention": "limits"})).await?;
    ensure!(
        again["created"] == first["created"] && again["config"] == first["config"],
        "{again} is not {first}"
    );
    let again_too = again["did_create"] == true || fixture.kind().replicas() > 1;
    ensure!(first["did_create"] == true && again_too, "{again} and {first}");
    streams.expect_state("EQUAL", [1, 1, 1]).await?;
    Ok(())
}

async fn another_configuration_of_the_same_name_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ONCE", json!({"metadata": {"mc-partitions": "8"}})).await?;
    let others = [
        json!({"metadata": {"mc-partitions": "16"}}),
        json!({"metadata": {"mc-partitions": "8"}, "max_msgs": 1}),
        json!({"metadata": {"mc-partitions": "8"}, "allow_direct": false}),
        json!({"metadata": {"mc-partitions": "8"}, "subjects": ["once.a"]}),
        json!({"metadata": {"mc-partitions": "8"}, "republish": {"src": "once.>", "dest": "once-live.>"}}),
    ];
    for settings in others {
        let config = streams.config("ONCE", settings);
        let words = "stream name already in use with a different configuration";
        streams.refused("STREAM.CREATE.ONCE", config, (400, 10058), words).await?;
    }
    Ok(())
}

async fn metadata_of_the_creator_is_kept(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let answer =
        streams.create("META", json!({"metadata": {"mc-generation": "3"}, "description": "d"})).await?;
    let info = streams.done("STREAM.INFO.META", "").await?;
    for config in [&answer["config"], &info["config"]] {
        ensure!(config["metadata"]["mc-generation"] == "3" && config["description"] == "d", "{config}");
    }
    Ok(())
}

async fn the_first_sequence_can_be_chosen(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("FIRST", json!({"first_seq": 100})).await?;
    streams.expect_state("FIRST", [0, 100, 99]).await?;
    streams.fill("FIRST", 99, &["first.a", "first.b"]).await?;
    streams.expect_state("FIRST", [2, 100, 101]).await?;
    Ok(())
}

async fn file_and_memory_are_both_kept(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for (name, storage) in [("KEPTFILE", "file"), ("KEPTMEMORY", "memory")] {
        let answer = streams.create(name, json!({"storage": storage})).await?;
        ensure!(answer["config"]["storage"] == storage, "{answer}");
        let subject = format!("{}.a", name.to_lowercase());
        streams.fill(name, 0, &[&subject, &subject]).await?;
        let state = streams.expect_state(name, [2, 1, 2]).await?;
        // The store decides how many bytes a message takes, but it takes some.
        ensure!(state["bytes"].as_u64().is_some_and(|bytes| bytes > 20), "{state}");
        let found = streams.direct(name, json!({"seq": 2})).await?;
        ensure!(found[0].text() == format!("{subject} 2"), "{found:?}");
    }
    Ok(())
}

async fn a_name_may_have_255_bytes_and_no_more(fixture: &Fixture) -> anyhow::Result<()> {
    // With three replicas the stream's name is part of other names, which may not fit into a file name.
    if fixture.kind().replicas() == 1 {
        let mut streams = Streams::open(fixture).await?;
        let name = "L".repeat(255);
        streams.create(&name, json!({"subjects": ["long.fits"]})).await?;
        streams.done(&format!("STREAM.DELETE.{name}"), "").await?;
    }
    let mut streams = Streams::open(fixture).await?;
    let name = "L".repeat(256);
    let config = streams.config(&name, json!({"subjects": ["long.over"]}));
    streams.refused(&format!("STREAM.CREATE.{name}"), config, (500, 10052), "maximum allowed is 255").await
}

async fn a_deleted_stream_is_gone(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("DELETED", json!({})).await?;
    streams.fill("DELETED", 0, &["deleted.a"]).await?;
    let answer = streams.done("STREAM.DELETE.DELETED", "").await?;
    ensure!(
        answer == json!({"type": "io.nats.jetstream.api.v1.stream_delete_response", "success": true}),
        "{answer}"
    );
    if fixture.kind().replicas() > 1 {
        streams.settle_deleted("DELETED").await?;
    }
    for path in ["STREAM.DELETE.DELETED", "STREAM.INFO.DELETED", "STREAM.PURGE.DELETED"] {
        streams.refused(path, "", (404, 10059), "stream not found").await?;
    }
    // Nobody listens on the stream's subjects and direct gets any more.
    for subject in ["deleted.a", "$JS.API.DIRECT.GET.DELETED"] {
        let mut poll = tokio::time::interval(std::time::Duration::from_millis(5));
        while streams.ask(subject, "").await?.status_line() != "503" {
            poll.tick().await;
            ensure!(fixture.kind().replicas() > 1, "somebody answers on {subject}");
        }
    }
    Ok(())
}

async fn a_stream_created_again_begins_at_1(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let settings = || json!({"storage": "file", "duplicate_window": 60_000_000_000_u64});
    let first = streams.create("AGAIN", settings()).await?;
    let id = [("Nats-Msg-Id", "again-1")];
    ensure!(streams.publish_with("again.a", &id, "one").await?["seq"] == 1, "the first is not 1");
    streams.done("STREAM.DELETE.AGAIN", "").await?;
    let second = streams.create("AGAIN", settings()).await?;
    ensure!(first["created"] != second["created"], "{second}");
    streams.expect_state("AGAIN", [0, 0, 0]).await?;
    let ack = streams.publish_with("again.a", &id, "one").await?;
    ensure!(ack == json!({"stream": "AGAIN", "seq": 1}), "{ack}");
    Ok(())
}

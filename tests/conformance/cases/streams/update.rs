//! STREAM.UPDATE: the settings that may change, and the effect.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        limits_and_metadata_can_be_changed,
        a_lower_limit_drops_what_is_over_it,
        subjects_can_be_added,
        subjects_of_another_stream_cannot_be_taken,
        a_republish_can_be_added_and_removed,
        storage_cannot_be_changed,
        retention_cannot_become_a_work_queue,
        denied_deletes_stay_denied,
        a_sealed_stream_refuses_new_messages,
        a_first_sequence_is_left_out_or_changed_and_sequences_go_on,
        a_missing_stream_cannot_be_updated,
        an_update_of_another_name_is_refused,
        a_refused_update_changes_nothing,
    ]
}

async fn update(streams: &mut Streams, name: &str, settings: Value) -> anyhow::Result<Value> {
    let config = streams.config(name, settings);
    streams.done(&format!("STREAM.UPDATE.{name}"), config).await
}

async fn refuse(
    streams: &mut Streams,
    name: &str,
    settings: Value,
    code: (u64, u64),
    words: &str,
) -> anyhow::Result<()> {
    let config = streams.config(name, settings);
    streams.refused(&format!("STREAM.UPDATE.{name}"), config, code, words).await
}

async fn limits_and_metadata_can_be_changed(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let created = streams.create("CHANGED", json!({"metadata": {"mc-generation": "1"}})).await?;
    streams.fill("CHANGED", 0, &["changed.a", "changed.b"]).await?;
    let settings = json!({
        "max_msgs": 50, "max_bytes": 1_000_000, "max_age": 3_600_000_000_000_u64, "max_msgs_per_subject": 7,
        "max_msg_size": 5000, "duplicate_window": 30_000_000_000_u64, "discard": "new", "allow_direct": true,
        "metadata": {"mc-generation": "2"}, "description": "changed",
    });
    let answer = update(&mut streams, "CHANGED", settings.clone()).await?;
    ensure!(answer["type"] == "io.nats.jetstream.api.v1.stream_update_response", "{answer}");
    let info = streams.done("STREAM.INFO.CHANGED", "").await?;
    for (key, value) in settings.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata") {
        ensure!(
            answer["config"][key] == *value && info["config"][key] == *value,
            "{key} in {answer} and {info}"
        );
    }
    ensure!(info["config"]["metadata"]["mc-generation"] == "2", "{info}");
    ensure!(info["created"] == created["created"], "{info}");
    streams.expect_state("CHANGED", [2, 1, 2]).await?;
    Ok(())
}

async fn a_lower_limit_drops_what_is_over_it(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("LOWERED", json!({})).await?;
    streams.fill("LOWERED", 0, &["lowered.a", "lowered.a", "lowered.b", "lowered.a", "lowered.b"]).await?;
    update(&mut streams, "LOWERED", json!({"max_msgs_per_subject": 1})).await?;
    streams.until_state("LOWERED", [2, 4, 5]).await?;
    update(&mut streams, "LOWERED", json!({"max_msgs_per_subject": 1, "max_msgs": 1})).await?;
    streams.until_state("LOWERED", [1, 5, 5]).await
}

async fn subjects_can_be_added(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("WIDENED", json!({})).await?;
    update(&mut streams, "WIDENED", json!({"subjects": ["widened.>", "wider.>"]})).await?;
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(5));
    loop {
        poll.tick().await;
        let answer = streams.ask("wider.a", "x").await?;
        if answer.status_line() != "503" {
            ensure!(answer.json()? == json!({"stream": "WIDENED", "seq": 1}), "{answer:?}");
            return Ok(());
        }
        ensure!(fixture.kind().replicas() > 1, "nobody listens to the new subject");
    }
}

async fn subjects_of_another_stream_cannot_be_taken(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("OWNER", json!({})).await?;
    streams.create("TAKER", json!({})).await?;
    let settings = json!({"subjects": ["taker.>", "owner.a"]});
    refuse(&mut streams, "TAKER", settings, (400, 10065), "subjects overlap with an existing stream").await
}

async fn a_republish_can_be_added_and_removed(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("LATER", json!({})).await?;
    let settings = json!({"republish": {"src": "later.>", "dest": "later-live.>"}});
    let answer = update(&mut streams, "LATER", settings).await?;
    ensure!(answer["config"]["republish"]["dest"] == "later-live.>", "{answer}");
    let mut leader = Streams::open_at_leader(fixture, "LATER").await?;
    leader.client.send("SUB later-live.> 9\r\n").await?;
    leader.send("later.a", &[], "x").await?;
    let messages = leader.client.messages(2).await?;
    ensure!(messages[0].subject == "later-live.a" && messages[1].subject == leader.inbox, "{messages:?}");
    update(&mut streams, "LATER", json!({})).await?;
    // A live copy would come before the acknowledgement.
    ensure!(
        leader.publish("later.a", "y").await? == json!({"stream": "LATER", "seq": 2}),
        "no acknowledgement"
    );
    Ok(())
}

async fn storage_cannot_be_changed(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("STAYS", json!({"storage": "memory"})).await?;
    refuse(&mut streams, "STAYS", json!({"storage": "file"}), (500, 10052), "can not change storage type")
        .await
}

async fn retention_cannot_become_a_work_queue(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("RETAINS", json!({})).await?;
    refuse(&mut streams, "RETAINS", json!({"retention": "workqueue"}), (500, 10052), "").await
}

async fn denied_deletes_stay_denied(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("DENIES", json!({"deny_delete": true})).await?;
    streams.fill("DENIES", 0, &["denies.a"]).await?;
    refuse(&mut streams, "DENIES", json!({"deny_delete": false}), (500, 10052), "deny message deletes")
        .await?;
    streams.refused("STREAM.MSG.DELETE.DENIES", json!({"seq": 1}), (500, 10057), "not permitted").await?;
    update(&mut streams, "DENIES", json!({"deny_delete": true, "deny_purge": true})).await?;
    streams.refused("STREAM.PURGE.DENIES", "", (500, 10110), "not permitted").await?;
    streams.expect_state("DENIES", [1, 1, 1]).await?;
    Ok(())
}

async fn a_sealed_stream_refuses_new_messages(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("SEALS", json!({"allow_rollup_hdrs": true})).await?;
    streams.fill("SEALS", 0, &["seals.a"]).await?;
    let answer = update(&mut streams, "SEALS", json!({"sealed": true})).await?;
    let due = json!({
        "sealed": true, "discard": "new", "deny_delete": true, "deny_purge": true, "allow_rollup_hdrs": false,
        "max_age": 0,
    });
    for (key, value) in due.as_object().into_iter().flatten() {
        ensure!(answer["config"][key] == *value, "{key} is not {value} in {answer}");
    }
    let refused = streams.publish("seals.a", "x").await?;
    ensure!(refused["error"]["err_code"] == 10109, "{refused}");
    Ok(())
}

async fn a_first_sequence_is_left_out_or_changed_and_sequences_go_on(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("FIRSTSEQ", json!({"first_seq": 100})).await?;
    let answer = update(&mut streams, "FIRSTSEQ", json!({"max_msgs": 5})).await?;
    ensure!(answer["config"]["first_seq"].is_null(), "{answer}");
    streams.fill("FIRSTSEQ", 99, &["firstseq.a"]).await?;
    let answer = update(&mut streams, "FIRSTSEQ", json!({"first_seq": 7})).await?;
    ensure!(answer["config"]["first_seq"] == 7, "{answer}");
    streams.fill("FIRSTSEQ", 100, &["firstseq.a"]).await
}

async fn a_missing_stream_cannot_be_updated(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    refuse(&mut streams, "MISSINGUPDATE", json!({}), (404, 10059), "stream not found").await
}

async fn an_update_of_another_name_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("RENAMED", json!({})).await?;
    refuse(&mut streams, "RENAMED", json!({"name": "OTHERNAME"}), (400, 10056), "does not match request")
        .await
}

async fn a_refused_update_changes_nothing(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("UNCHANGED", json!({"max_msgs": 5})).await?;
    let settings = json!({"max_msgs": 1, "max_age": 5});
    refuse(&mut streams, "UNCHANGED", settings, (500, 10052), "max age needs to be >= 100ms").await?;
    let info = streams.done("STREAM.INFO.UNCHANGED", "").await?;
    ensure!(info["config"]["max_msgs"] == 5 && info["config"]["max_age"] == 0, "{info}");
    streams.fill("UNCHANGED", 0, &["unchanged.a", "unchanged.a"]).await?;
    streams.expect_state("UNCHANGED", [2, 1, 2]).await?;
    Ok(())
}

//! STREAM.PURGE, and the sequences afterwards.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_purge_takes_all,
        a_purge_takes_one_subject,
        a_purge_takes_subjects_by_wildcard,
        a_purge_takes_up_to_a_sequence,
        a_purge_leaves_so_many,
        a_purge_of_one_subject_leaves_so_many,
        a_purge_of_one_subject_goes_up_to_a_sequence,
        a_purge_by_sequence_and_number_is_refused,
        a_purge_past_the_end_moves_the_sequences,
        purging_nothing_succeeds,
        a_purge_of_a_missing_stream_is_10059,
    ]
}

/// A stream with a, b, a, b, a, c as 1 to 6.
async fn filled(fixture: &Fixture, name: &str) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    streams.create(name, json!({})).await?;
    let subjects = ["a", "b", "a", "b", "a", "c"].map(|end| format!("{}.{end}", name.to_lowercase()));
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    streams.fill(name, 0, &subjects).await?;
    Ok(streams)
}

async fn purge(streams: &mut Streams, name: &str, request: Value, count: u64) -> anyhow::Result<()> {
    let answer = streams.done(&format!("STREAM.PURGE.{name}"), &request).await?;
    let due =
        json!({"type": "io.nats.jetstream.api.v1.stream_purge_response", "success": true, "purged": count});
    ensure!(answer == due, "{request} is answered {answer}");
    Ok(())
}

async fn subjects(streams: &mut Streams, name: &str) -> anyhow::Result<Value> {
    let info = streams.done(&format!("STREAM.INFO.{name}"), json!({"subjects_filter": ">"})).await?;
    Ok(info["state"]["subjects"].clone())
}

async fn a_purge_takes_all(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGEALL").await?;
    let answer = streams.done("STREAM.PURGE.PURGEALL", "").await?;
    ensure!(answer["success"] == true && answer["purged"] == 6, "{answer}");
    let state = streams.expect_state("PURGEALL", [0, 7, 6]).await?;
    ensure!(state["first_ts"] == "0001-01-01T00:00:00Z" && state["bytes"] == 0, "{state}");
    // No sequence is given again.
    streams.fill("PURGEALL", 6, &["purgeall.a"]).await?;
    streams.expect_state("PURGEALL", [1, 7, 7]).await?;
    streams.direct_status("PURGEALL", json!({"seq": 1}), "404 Message Not Found").await
}

async fn a_purge_takes_one_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGEONE").await?;
    purge(&mut streams, "PURGEONE", json!({"filter": "purgeone.a"}), 3).await?;
    let state = streams.expect_state("PURGEONE", [3, 2, 6]).await?;
    ensure!(state["num_deleted"] == 2 && state["num_subjects"] == 2, "{state}");
    streams.fill("PURGEONE", 6, &["purgeone.c"]).await?;
    streams.direct_status("PURGEONE", json!({"last_by_subj": "purgeone.a"}), "404 Message Not Found").await
}

async fn a_purge_takes_subjects_by_wildcard(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("PURGEWILD", json!({})).await?;
    streams.fill("PURGEWILD", 0, &["purgewild.a.x", "purgewild.b.x", "purgewild.a.y", "purgewild.a"]).await?;
    purge(&mut streams, "PURGEWILD", json!({"filter": "purgewild.a.*"}), 2).await?;
    ensure!(
        subjects(&mut streams, "PURGEWILD").await? == json!({"purgewild.a": 1, "purgewild.b.x": 1}),
        "the wrong ones are gone"
    );
    Ok(())
}

async fn a_purge_takes_up_to_a_sequence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGESEQ").await?;
    purge(&mut streams, "PURGESEQ", json!({"seq": 4}), 3).await?;
    streams.expect_state("PURGESEQ", [3, 4, 6]).await?;
    purge(&mut streams, "PURGESEQ", json!({"seq": 2}), 0).await
}

async fn a_purge_leaves_so_many(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGEKEEP").await?;
    purge(&mut streams, "PURGEKEEP", json!({"keep": 2}), 4).await?;
    streams.expect_state("PURGEKEEP", [2, 5, 6]).await?;
    purge(&mut streams, "PURGEKEEP", json!({"keep": 5}), 0).await
}

async fn a_purge_of_one_subject_leaves_so_many(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGESOME").await?;
    purge(&mut streams, "PURGESOME", json!({"filter": "purgesome.a", "keep": 1}), 2).await?;
    ensure!(
        subjects(&mut streams, "PURGESOME").await?
            == json!({"purgesome.a": 1, "purgesome.b": 2, "purgesome.c": 1}),
        "the wrong ones are gone"
    );
    streams.expect_state("PURGESOME", [4, 2, 6]).await?;
    Ok(())
}

/// The message with that sequence stays.
async fn a_purge_of_one_subject_goes_up_to_a_sequence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGEUPTO").await?;
    purge(&mut streams, "PURGEUPTO", json!({"filter": "purgeupto.a", "seq": 5}), 2).await?;
    let state = streams.expect_state("PURGEUPTO", [4, 2, 6]).await?;
    ensure!(state["num_deleted"] == 1, "{state}");
    Ok(())
}

async fn a_purge_by_sequence_and_number_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGEBOTH").await?;
    streams
        .refused("STREAM.PURGE.PURGEBOTH", json!({"seq": 2, "keep": 2}), (400, 10003), "bad request")
        .await?;
    for wrong in [json!({"seq": -1}), json!({"keep": "2"}), json!([]), json!({"fitler": "typing.error"})] {
        streams.refused("STREAM.PURGE.PURGEBOTH", wrong, (400, 10025), "invalid JSON").await?;
    }
    streams.expect_state("PURGEBOTH", [6, 1, 6]).await?;
    Ok(())
}

async fn a_purge_past_the_end_moves_the_sequences(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGEPAST").await?;
    purge(&mut streams, "PURGEPAST", json!({"seq": 1000}), 6).await?;
    streams.expect_state("PURGEPAST", [0, 1000, 999]).await?;
    streams.fill("PURGEPAST", 999, &["purgepast.a"]).await
}

async fn purging_nothing_succeeds(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "PURGENONE").await?;
    for filter in ["purgenone.z", "not.of.this.stream"] {
        purge(&mut streams, "PURGENONE", json!({"filter": filter}), 0).await?;
    }
    streams.expect_state("PURGENONE", [6, 1, 6]).await?;
    Ok(())
}

async fn a_purge_of_a_missing_stream_is_10059(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.refused("STREAM.PURGE.MISSINGPURGE", "{}", (404, 10059), "stream not found").await
}

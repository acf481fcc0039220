//! Limits of number and size, and messages that exceed them.
//!
//! The store decides how many bytes a message takes, and the kinds of servers differ, so cases of `max_bytes`
//! check only what holds for every kind.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::{Streams, check_error};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_full_stream_drops_the_oldest,
        a_full_stream_that_discards_new_refuses,
        a_full_subject_drops_its_oldest,
        a_full_subject_that_discards_new_refuses,
        discard_new_without_per_subject_drops_within_the_subject,
        too_many_bytes_drop_the_oldest,
        too_many_bytes_that_discard_new_are_refused,
        room_made_is_room_to_publish,
        a_message_over_the_size_is_refused,
    ]
}

async fn a_full_stream_drops_the_oldest(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("FULL", json!({"max_msgs": 3})).await?;
    streams.fill("FULL", 0, &["full.a", "full.b", "full.c", "full.a", "full.b"]).await?;
    let state = streams.expect_state("FULL", [3, 3, 5]).await?;
    ensure!(state["num_deleted"].is_null() && state["num_subjects"] == 3, "{state}");
    for seq in [1, 2] {
        streams.direct_status("FULL", json!({"seq": seq}), "404 Message Not Found").await?;
    }
    Ok(())
}

async fn a_full_stream_that_discards_new_refuses(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("FULLNEW", json!({"max_msgs": 2, "discard": "new"})).await?;
    streams.fill("FULLNEW", 0, &["fullnew.a", "fullnew.a"]).await?;
    for _ in 0..2 {
        let ack = streams.publish_with("fullnew.a", &[("Nats-Msg-Id", "f-1")], "x").await?;
        check_error(&ack, (503, 10077), "maximum messages exceeded")?;
        ensure!(ack["stream"] == "FULLNEW" && ack["seq"] == 0, "{ack}");
    }
    streams.expect_state("FULLNEW", [2, 1, 2]).await?;
    // A refused message is no duplicate later.
    streams.done("STREAM.PURGE.FULLNEW", "").await?;
    let ack = streams.publish_with("fullnew.a", &[("Nats-Msg-Id", "f-1")], "x").await?;
    ensure!(ack == json!({"stream": "FULLNEW", "seq": 3}), "{ack}");
    Ok(())
}

async fn a_full_subject_drops_its_oldest(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("PERSUB", json!({"max_msgs_per_subject": 2})).await?;
    let (a, b) = ("persub.a", "persub.b");
    streams.fill("PERSUB", 0, &[b, a, a, a, b, a, a]).await?;
    // b has 1 and 5, a has 6 and 7: an idle subject holds the first sequence back, and deleted sequences lie
    // in between.
    let info =
        streams.done("STREAM.INFO.PERSUB", json!({"subjects_filter": ">", "deleted_details": true})).await?;
    let state = &info["state"];
    ensure!(state["subjects"] == json!({a: 2, b: 2}) && state["messages"] == 4, "{state}");
    ensure!(state["first_seq"] == 1 && state["last_seq"] == 7, "{state}");
    ensure!(state["deleted"] == json!([2, 3, 4]) && state["num_deleted"] == 3, "{state}");
    // Once b moves on, so does the first sequence, past the deleted ones.
    streams.fill("PERSUB", 7, &[b]).await?;
    let state = streams.expect_state("PERSUB", [4, 5, 8]).await?;
    ensure!(state["num_deleted"].is_null(), "{state}");
    let answers = streams.direct("PERSUB", json!({"seq": 1, "next_by_subj": a, "batch": 9})).await?;
    let seqs: Vec<_> = answers.iter().map(|answer| answer.field("Nats-Sequence")).collect();
    ensure!(seqs == ["6", "7", ""] && answers[0].field("Nats-Num-Pending") == "1", "{answers:?}");
    Ok(())
}

async fn a_full_subject_that_discards_new_refuses(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let settings = json!({"max_msgs_per_subject": 2, "discard": "new", "discard_new_per_subject": true});
    streams.create("SUBNEW", settings).await?;
    streams.fill("SUBNEW", 0, &["subnew.a", "subnew.a"]).await?;
    let ack = streams.publish("subnew.a", "x").await?;
    check_error(&ack, (503, 10077), "maximum messages per subject exceeded")?;
    streams.fill("SUBNEW", 2, &["subnew.b"]).await?;
    streams.expect_state("SUBNEW", [3, 1, 3]).await?;
    Ok(())
}

async fn discard_new_without_per_subject_drops_within_the_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("SUBOLD", json!({"max_msgs_per_subject": 2, "discard": "new"})).await?;
    streams.fill("SUBOLD", 0, &["subold.a", "subold.a", "subold.a"]).await?;
    streams.expect_state("SUBOLD", [2, 2, 3]).await?;
    Ok(())
}

async fn too_many_bytes_drop_the_oldest(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for storage in ["file", "memory"] {
        let name = format!("BYTES{}", storage.to_uppercase());
        streams.create(&name, json!({"max_bytes": 10_000, "storage": storage})).await?;
        for seq in 1..=30 {
            let ack = streams.publish(&format!("{}.a", name.to_lowercase()), [b'x'; 1000]).await?;
            ensure!(ack["seq"] == seq, "{ack}");
        }
        let state = streams.state(&name).await?;
        let [bytes, messages, first] =
            ["bytes", "messages", "first_seq"].map(|key| state[key].as_u64().unwrap_or(0));
        ensure!(bytes <= 10_000 && (7..=9).contains(&messages), "{state}");
        ensure!(first == 31 - messages && state["last_seq"] == 30, "{state}");
    }
    Ok(())
}

async fn too_many_bytes_that_discard_new_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for storage in ["file", "memory"] {
        let name = format!("BYTESNEW{}", storage.to_uppercase());
        let subject = format!("{}.a", name.to_lowercase());
        streams.create(&name, json!({"max_bytes": 10_000, "storage": storage, "discard": "new"})).await?;
        let mut stored = 0;
        let refused = loop {
            let ack = streams.publish(&subject, [b'x'; 1000]).await?;
            if !ack["error"].is_null() {
                break ack;
            }
            stored += 1;
            ensure!(stored < 30 && ack["seq"] == stored, "{ack}");
        };
        check_error(&refused, (503, 10077), "maximum bytes exceeded")?;
        let state = streams.expect_state(&name, [stored, 1, stored]).await?;
        ensure!((7..=10).contains(&stored), "{state}");
        let ack = streams.publish(&subject, vec![b'x'; 20_000]).await?;
        check_error(&ack, (503, 10077), "maximum bytes exceeded")?;
    }
    Ok(())
}

async fn room_made_is_room_to_publish(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ROOM", json!({"max_msgs": 2, "discard": "new"})).await?;
    streams.fill("ROOM", 0, &["room.a", "room.b"]).await?;
    ensure!(streams.publish("room.c", "x").await?["error"].is_object(), "it is full");
    streams.done("STREAM.MSG.DELETE.ROOM", json!({"seq": 1})).await?;
    let ack = streams.publish("room.c", "x").await?;
    ensure!(ack == json!({"stream": "ROOM", "seq": 3}), "{ack}");
    Ok(())
}

/// Headers count towards the size.
async fn a_message_over_the_size_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("SIZE", json!({"max_msg_size": 100})).await?;
    ensure!(streams.publish("size.a", [b'x'; 100]).await?["seq"] == 1, "100 bytes fit");
    let ack = streams.publish("size.a", [b'x'; 101]).await?;
    check_error(&ack, (400, 10054), "message size exceeds maximum allowed")?;
    let ack = streams.publish_with("size.a", &[("X", "y")], [b'x'; 95]).await?;
    check_error(&ack, (400, 10054), "message size exceeds maximum allowed")?;
    streams.expect_state("SIZE", [1, 1, 1]).await?;
    Ok(())
}

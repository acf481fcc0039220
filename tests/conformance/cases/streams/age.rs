//! `max_age`: messages expire by the clock. The cases wait for an expiry, however long it takes.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        old_messages_leave_by_themselves,
        the_last_sequence_stays_when_all_have_left,
        a_shorter_age_takes_what_is_older,
        an_expired_message_is_not_read,
    ]
}

async fn old_messages_leave_by_themselves(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for storage in ["file", "memory"] {
        let name = format!("AGE{}", storage.to_uppercase());
        streams.create(&name, json!({"max_age": 300_000_000, "storage": storage})).await?;
        let subject = format!("{}.a", name.to_lowercase());
        for seq in 1..=2 {
            ensure!(streams.publish(&subject, "x").await?["seq"] == seq, "{seq} was due");
        }
        streams.until_state(&name, [0, 3, 2]).await?;
    }
    Ok(())
}

async fn the_last_sequence_stays_when_all_have_left(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("LEFTALL", json!({"max_age": 200_000_000})).await?;
    streams.publish("leftall.a", "x").await?;
    streams.until_state("LEFTALL", [0, 2, 1]).await?;
    let ack = streams.publish("leftall.a", "x").await?;
    ensure!(ack == json!({"stream": "LEFTALL", "seq": 2}), "{ack}");
    Ok(())
}

async fn a_shorter_age_takes_what_is_older(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("SHORTER", json!({"max_age": 3_600_000_000_000_u64})).await?;
    streams.fill("SHORTER", 0, &["shorter.a", "shorter.b"]).await?;
    let config = streams.config("SHORTER", json!({"max_age": 200_000_000}));
    streams.done("STREAM.UPDATE.SHORTER", config).await?;
    streams.until_state("SHORTER", [0, 3, 2]).await
}

async fn an_expired_message_is_not_read(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EXPIRED", json!({"max_age": 200_000_000})).await?;
    streams.publish("expired.a", "x").await?;
    streams.until_state("EXPIRED", [0, 2, 1]).await?;
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(10));
    for request in
        [json!({"seq": 1}), json!({"last_by_subj": "expired.a"}), json!({"multi_last": ["expired.a"]})]
    {
        // A replica may expire its messages later.
        loop {
            poll.tick().await;
            let answer = streams.direct("EXPIRED", request.clone()).await?.remove(0);
            if answer.status_line().starts_with("404") {
                break;
            }
            ensure!(fixture.kind().replicas() > 1, "{request} gets {answer:?}");
        }
    }
    Ok(())
}

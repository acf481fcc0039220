//! Promises about replicas that may be behind; on one node the same cases hold trivially.
//!
//! Facts that the edge and the publisher-api rely on:
//! - The leader answers STREAM.MSG.GET: an acknowledged message is found at once. The replica of the client's
//!   own node answers a direct get, and may miss the message.
//! - A multi_last is whole up to its `Nats-UpTo-Sequence`: every tail that it misses is above that.
//! - While a stream has no leader, a publish gets 503 at once, and may be repeated with the same id.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::server::Settings;
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_leader_tells_at_once_what_was_acknowledged,
        a_multi_last_is_whole_up_to_its_up_to_sequence,
        what_was_acknowledged_survives_the_leader,
        without_a_majority_a_publish_is_not_acknowledged,
    ]
}

/// A node that does not lead the stream, if there is one.
fn follower(fixture: &Fixture, leader: usize) -> usize {
    (leader + 1) % fixture.shared.addresses().len()
}

async fn the_leader_tells_at_once_what_was_acknowledged(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ATONCE", json!({})).await?;
    let leader = streams.leader("ATONCE").await?;
    let mut publisher = Streams::open_at_leader(fixture, "ATONCE").await?;
    let reader = fixture.shared.addresses()[follower(fixture, leader)];
    let mut reader = Streams::open_at(fixture, reader).await?;
    for seq in 1..=200 {
        ensure!(publisher.publish("atonce.a", "x").await?["seq"] == seq, "{seq} was due");
        let answer = reader.done("STREAM.MSG.GET.ATONCE", json!({"last_by_subj": "atonce.a"})).await?;
        ensure!(answer["message"]["seq"] == seq, "{seq} was acknowledged: {answer}");
    }
    Ok(())
}

async fn a_multi_last_is_whole_up_to_its_up_to_sequence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("WHOLE", json!({})).await?;
    streams.fill("WHOLE", 0, &["whole.a"]).await?;
    let leader = streams.leader("WHOLE").await?;
    let mut publisher = Streams::open_at_leader(fixture, "WHOLE").await?;
    let reader = fixture.shared.addresses()[follower(fixture, leader)];
    let mut reader = Streams::open_at(fixture, reader).await?;
    reader.settle("WHOLE", 1).await?;
    for seq in 2..=300_u64 {
        ensure!(publisher.publish("whole.a", "x").await?["seq"] == seq, "{seq} was due");
        let answers = reader.direct("WHOLE", json!({"multi_last": ["whole.a"]})).await?;
        let [tail, end] = &answers[..] else { anyhow::bail!("one tail was due: {answers:?}") };
        let (tail, up_to) = (tail.number("Nats-Sequence")?, end.number("Nats-UpTo-Sequence")?);
        ensure!(tail == up_to && up_to <= seq, "{seq} was acknowledged, {tail} told, up to {up_to}");
        ensure!(up_to == seq || fixture.kind().replicas() > 1, "one node is never behind: {up_to} of {seq}");
    }
    Ok(())
}

async fn what_was_acknowledged_survives_the_leader(fixture: &Fixture) -> anyhow::Result<()> {
    if fixture.kind().replicas() == 1 {
        return Ok(());
    }
    let mut server = fixture.server(Settings::default()).await?;
    let mut any = Streams::open_at(fixture, server.address()).await?;
    any.create("SURVIVES", json!({"storage": "file"})).await?;
    let leader = any.leader("SURVIVES").await?;
    let other = server.addresses()[(leader + 1) % 3];
    let mut streams = Streams::open_at(fixture, other).await?;
    streams.settle_listening("survives.heard").await?;
    for seq in 1..=50 {
        let ack = streams.publish_with("survives.a", &[("Nats-Msg-Id", &seq.to_string())], "x").await?;
        ensure!(ack["seq"] == seq, "{ack}");
    }
    server.kill_node(leader).await?;
    // Without a leader nobody listens: 503, at once. The publish is repeated with the same id until a leader
    // answers.
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(20));
    let mut refusals = 0;
    let ack = loop {
        poll.tick().await;
        streams.send("survives.a", &[("Nats-Msg-Id", "51")], "x").await?;
        match streams.client.message_within(std::time::Duration::from_secs(2)).await? {
            Some(answer) if answer.status_line() == "503" => refusals += 1,
            Some(answer) => break answer.json()?,
            // The publish was on its way to the leader that died.
            None => {}
        }
    };
    ensure!(ack["seq"] == 51, "{ack} after {refusals} times 503");
    for id in ["50", "51"] {
        let again = streams.publish_with("survives.a", &[("Nats-Msg-Id", id)], "x").await?;
        ensure!(again["duplicate"] == true && again["seq"] == id.parse::<u64>()?, "{again}");
    }
    streams.expect_state("SURVIVES", [51, 1, 51]).await?;
    server.stop().await
}

async fn without_a_majority_a_publish_is_not_acknowledged(fixture: &Fixture) -> anyhow::Result<()> {
    if fixture.kind().replicas() == 1 {
        return Ok(());
    }
    let mut server = fixture.server(Settings::default()).await?;
    let mut streams = Streams::open_at(fixture, server.address()).await?;
    streams.create("MINORITY", json!({"storage": "file"})).await?;
    streams.fill("MINORITY", 0, &["minority.a"]).await?;
    for node in [1, 2] {
        server.kill_node(node).await?;
    }
    // No answer while the last node thinks that it may still lead; after that nobody listens: 503.
    for _ in 0..20 {
        streams.send("minority.a", &[], "x").await?;
        match streams.client.message_within(std::time::Duration::from_millis(500)).await? {
            Some(answer) if answer.status_line() == "503" => break,
            Some(answer) => {
                let answer: Value = answer.json()?;
                ensure!(answer["error"].is_object(), "acknowledged by one of three: {answer}");
            }
            None => {}
        }
    }
    // A former leader serves no direct gets any more, another node still does. A connection of its own,
    // because answers to the publishes may still come on the first one.
    let mut reader = Streams::open_at(fixture, server.address()).await?;
    let found = reader.direct("MINORITY", json!({"seq": 1})).await?.remove(0);
    ensure!(found.text() == "minority.a 1" || found.status_line() == "503", "{found:?}");
    server.stop().await
}

//! The acknowledgement of a publish, and the duplicate window.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        an_acknowledgement_names_stream_and_sequence,
        acknowledgements_come_in_the_order_of_the_publishes,
        what_is_published_without_a_reply_is_stored_all_the_same,
        a_subject_of_no_stream_gets_503,
        a_subscriber_hears_the_publish_as_well,
        a_second_message_of_the_same_id_is_a_duplicate,
        a_duplicate_is_known_on_another_subject_too,
        an_id_may_be_used_again_after_the_window,
        an_id_is_known_though_its_message_is_gone,
        an_empty_id_is_none,
        long_ids_are_compared_whole,
        headers_and_payload_are_stored_as_they_came,
        two_streams_count_for_themselves,
        many_publishers_get_a_sequence_each,
    ]
}

async fn an_acknowledgement_names_stream_and_sequence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ACKED", json!({})).await?;
    for seq in 1..=3 {
        let answer = streams.ask("acked.a", "x").await?;
        // Equal to the byte: other clients may read the acknowledgement without a JSON parser.
        ensure!(answer.text() == format!(r#"{{"stream":"ACKED","seq":{seq}}}"#), "{answer:?}");
        ensure!(answer.headers.is_none(), "{answer:?}");
    }
    Ok(())
}

async fn acknowledgements_come_in_the_order_of_the_publishes(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ACKORDER", json!({})).await?;
    let bytes: String =
        (0..500).map(|number| format!("PUB ackorder.{} {} 1\r\nx\r\n", number % 7, streams.inbox)).collect();
    streams.client.send(bytes).await?;
    for (seq, ack) in (1..).zip(streams.client.messages(500).await?) {
        ensure!(ack.json()? == json!({"stream": "ACKORDER", "seq": seq}), "{seq} was due, {ack:?} came");
    }
    Ok(())
}

async fn what_is_published_without_a_reply_is_stored_all_the_same(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("SILENT", json!({})).await?;
    for _ in 0..3 {
        streams.client.publish("silent.a", "x").await?;
    }
    streams.until_state("SILENT", [3, 1, 3]).await?;
    streams.client.settle().await
}

async fn a_subject_of_no_stream_gets_503(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let answer = streams.ask("nostream.at.all", "x").await?;
    ensure!(answer.status_line() == "503" && answer.payload.is_empty(), "{answer:?}");
    Ok(())
}

async fn a_subscriber_hears_the_publish_as_well(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("HEARD", json!({})).await?;
    streams.client.send("SUB heard.a 9\r\n").await?;
    streams.send("heard.a", &[], "x").await?;
    let messages = streams.client.messages(2).await?;
    let heard = messages.iter().find(|message| message.sid == "9");
    ensure!(heard.is_some_and(|message| message.reply.as_deref() == Some(&*streams.inbox)), "{messages:?}");
    ensure!(messages.iter().any(|message| message.sid == "1"), "{messages:?}");
    Ok(())
}

const DUPLICATE: &str = r#""duplicate": true"#;

async fn a_second_message_of_the_same_id_is_a_duplicate(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("DUPLICATE", json!({})).await?;
    let id = [("Nats-Msg-Id", "d-1")];
    streams.publish("duplicate.a", "before").await?;
    let first = streams.publish_with("duplicate.a", &id, "one").await?;
    ensure!(first == json!({"stream": "DUPLICATE", "seq": 2}), "{first}");
    for _ in 0..2 {
        streams.send("duplicate.a", &id, "another payload").await?;
        let again = streams.client.message().await?;
        ensure!(again.json()? == json!({"stream": "DUPLICATE", "seq": 2, "duplicate": true}), "{again:?}");
        ensure!(again.text().contains(DUPLICATE), "{again:?}");
    }
    let next = streams.publish("duplicate.a", "after").await?;
    ensure!(next["seq"] == 3, "a duplicate takes no sequence: {next}");
    let stored = streams.done("STREAM.MSG.GET.DUPLICATE", json!({"seq": 2})).await?;
    ensure!(stored["message"]["data"] == "b25l", "the first one stays: {stored}");
    streams.expect_state("DUPLICATE", [3, 1, 3]).await?;
    Ok(())
}

async fn a_duplicate_is_known_on_another_subject_too(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ACROSS", json!({})).await?;
    let id = [("Nats-Msg-Id", "x-1")];
    streams.publish_with("across.a", &id, "").await?;
    let again = streams.publish_with("across.b", &id, "").await?;
    ensure!(again == json!({"stream": "ACROSS", "seq": 1, "duplicate": true}), "{again}");
    Ok(())
}

async fn an_id_may_be_used_again_after_the_window(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("WINDOW", json!({"duplicate_window": 500_000_000})).await?;
    let id = [("Nats-Msg-Id", "w-1")];
    streams.publish_with("window.a", &id, "").await?;
    let again = streams.publish_with("window.a", &id, "").await?;
    ensure!(again["duplicate"] == true, "{again}");
    // A duplicate does not prolong the window, so this loop ends.
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        poll.tick().await;
        let ack = streams.publish_with("window.a", &id, "").await?;
        if ack.get("duplicate").is_none() {
            ensure!(ack == json!({"stream": "WINDOW", "seq": 2}), "{ack}");
            return Ok(());
        }
    }
}

async fn an_id_is_known_though_its_message_is_gone(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("GONEID", json!({"max_msgs_per_subject": 1})).await?;
    let id = [("Nats-Msg-Id", "g-1")];
    streams.publish_with("goneid.a", &id, "").await?;
    streams.publish("goneid.a", "pushes the first one out").await?;
    let again = streams.publish_with("goneid.a", &id, "").await?;
    ensure!(again == json!({"stream": "GONEID", "seq": 1, "duplicate": true}), "{again}");
    Ok(())
}

async fn an_empty_id_is_none(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EMPTYID", json!({})).await?;
    for seq in 1..=2 {
        let ack = streams.publish_with("emptyid.a", &[("Nats-Msg-Id", "")], "").await?;
        ensure!(ack == json!({"stream": "EMPTYID", "seq": seq}), "{ack}");
    }
    Ok(())
}

async fn long_ids_are_compared_whole(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("LONGID", json!({})).await?;
    let long = "i".repeat(1000);
    for (seq, end) in [(1, "a"), (2, "b"), (1, "a")] {
        let ack = streams.publish_with("longid.a", &[("Nats-Msg-Id", &(long.clone() + end))], "").await?;
        ensure!(ack["seq"] == seq, "{ack}");
    }
    Ok(())
}

async fn headers_and_payload_are_stored_as_they_came(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ASITCAME", json!({})).await?;
    let payload: Vec<u8> = (0..=255).chain(*b"\r\nPING\r\n").collect();
    streams.publish_with("asitcame.a", &[("B", "2"), ("A", "1"), ("B", "3")], &payload).await?;
    streams.settle("ASITCAME", 1).await?;
    let found = streams.direct("ASITCAME", json!({"seq": 1})).await?.remove(0);
    ensure!(found.payload == payload, "the payload came back changed");
    let fields: Vec<_> = found.fields().into_iter().take(3).map(|(name, value)| name + &value).collect();
    ensure!(fields == ["B2", "A1", "B3"], "{fields:?}");
    Ok(())
}

async fn two_streams_count_for_themselves(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("TWINA", json!({})).await?;
    streams.create("TWINB", json!({})).await?;
    let id = [("Nats-Msg-Id", "t-1")];
    for (subject, due) in [("twina.x", ("TWINA", 1)), ("twinb.x", ("TWINB", 1)), ("twina.y", ("TWINA", 2))] {
        let ack = streams.publish(subject, "").await?;
        ensure!(ack == json!({"stream": due.0, "seq": due.1}), "{ack}");
    }
    // An id counts only within its stream.
    for (subject, seq) in [("twina.x", 3), ("twinb.x", 2)] {
        let ack = streams.publish_with(subject, &id, "").await?;
        ensure!(ack["seq"] == seq && ack["duplicate"] == Value::Null, "{ack}");
    }
    Ok(())
}

async fn many_publishers_get_a_sequence_each(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("CROWD", json!({})).await?;
    let publishers = (0..8).map(|number| async move {
        let mut publisher = Streams::open(fixture).await?;
        let mut seqs = Vec::new();
        for _ in 0..25 {
            let ack = publisher.publish(&format!("crowd.{number}"), "x").await?;
            seqs.push(ack["seq"].as_u64().unwrap_or(0));
        }
        ensure!(seqs.is_sorted(), "{seqs:?}");
        anyhow::Ok(seqs)
    });
    let mut all = futures_util::future::try_join_all(publishers).await?.concat();
    all.sort_unstable();
    ensure!(all == (1..=200).collect::<Vec<u64>>(), "{all:?}");
    streams.expect_state("CROWD", [200, 1, 200]).await?;
    Ok(())
}

//! DIRECT.GET with `batch`: many messages for one request, ended by `204 EOB`.
//!
//! Facts that the edge relies on, over every kind of server:
//! - `Nats-Num-Pending` counts the messages that match the filter after the message that carries it. In the
//!   `204` it counts those after the last message sent, so 0 means that the page is whole, as far as the
//!   answering replica knows.
//! - `Nats-Last-Sequence` is the sequence of the previous message *in the answer*, 0 for the first; in the
//!   `204` it is that of the last message sent. It is not the predecessor within the subject.
//! - The `204` of a batch has no `Nats-UpTo-Sequence`, and a batch that finds nothing is a single `404`
//!   without any sequence: neither tells how far the answering replica has come.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::raw::Message;
use crate::stream::{Streams, subjects_and_sequences};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_batch_of_one_subject_ends_with_204,
        a_batch_says_how_many_are_left,
        a_batch_continues_where_the_last_one_ended,
        a_batch_without_subject_takes_all,
        a_batch_by_wildcard_keeps_the_order_of_the_stream,
        a_batch_that_finds_nothing_is_404,
        a_batch_skips_what_is_deleted,
        a_batch_from_a_time_on_is_read,
        a_batch_stops_at_its_bytes,
        a_batch_sends_one_message_however_few_bytes_it_may,
        bytes_without_a_batch_get_one_message,
        a_batch_below_zero_is_empty,
        a_huge_batch_ends_with_the_stream,
    ]
}

/// A stream with a, b, c, a, b, c, a, b, c as 1 to 9.
async fn filled(fixture: &Fixture, name: &str) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    streams.create(name, json!({})).await?;
    let subjects = ["a", "b", "c"].map(|end| format!("{}.{end}", name.to_lowercase()));
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).cycle().take(9).collect();
    streams.fill(name, 0, &subjects).await?;
    Ok(streams)
}

/// Sequence, pending and previous sequence of each message and of the end.
fn numbers(answers: &[Message]) -> anyhow::Result<Vec<(String, u64, u64)>> {
    answers
        .iter()
        .map(|answer| {
            let seq = answer.field("Nats-Sequence");
            Ok((seq, answer.number("Nats-Num-Pending")?, answer.number("Nats-Last-Sequence")?))
        })
        .collect()
}

async fn expect(
    streams: &mut Streams,
    name: &str,
    request: Value,
    due: &[(&str, u64, u64)],
) -> anyhow::Result<()> {
    let answers = streams.direct(name, request.clone()).await?;
    let due: Vec<_> = due.iter().map(|(seq, pending, last)| ((*seq).to_owned(), *pending, *last)).collect();
    ensure!(numbers(&answers)? == due, "{due:?} was due for {request}, {answers:?} came");
    ensure!(answers.last().is_some_and(|end| end.status_line() == "204 EOB"), "{answers:?}");
    Ok(())
}

async fn a_batch_of_one_subject_ends_with_204(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "BATCH").await?;
    let answers = streams.direct("BATCH", json!({"seq": 1, "next_by_subj": "batch.a", "batch": 50})).await?;
    ensure!(answers.len() == 4, "{answers:?}");
    ensure!(answers[0].text() == "batch.a 1" && answers[2].text() == "batch.a 7", "{answers:?}");
    let names: Vec<_> = answers[0].fields().into_iter().map(|field| field.0).collect();
    let due = [
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
    ];
    ensure!(names == due, "{names:?}");
    let end = &answers[3];
    ensure!(end.status_line() == "204 EOB" && end.payload.is_empty(), "{end:?}");
    let fields = [("Nats-Num-Pending", "0"), ("Nats-Last-Sequence", "7")];
    ensure!(end.fields() == fields.map(|field| (field.0.to_owned(), field.1.to_owned())), "{end:?}");
    Ok(())
}

async fn a_batch_says_how_many_are_left(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "LEFT").await?;
    let request = json!({"seq": 1, "next_by_subj": "left.a", "batch": 2});
    expect(&mut streams, "LEFT", request, &[("1", 2, 0), ("4", 1, 1), ("", 1, 4)]).await?;
    let request = json!({"seq": 1, "next_by_subj": "left.a", "batch": 3});
    expect(&mut streams, "LEFT", request, &[("1", 2, 0), ("4", 1, 1), ("7", 0, 4), ("", 0, 7)]).await
}

async fn a_batch_continues_where_the_last_one_ended(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "CONTINUES").await?;
    let request = |seq| json!({"seq": seq, "next_by_subj": "continues.b", "batch": 2});
    expect(&mut streams, "CONTINUES", request(1), &[("2", 2, 0), ("5", 1, 2), ("", 1, 5)]).await?;
    expect(&mut streams, "CONTINUES", request(6), &[("8", 0, 0), ("", 0, 8)]).await?;
    streams.direct_status("CONTINUES", request(9), "404 Message Not Found").await
}

async fn a_batch_without_subject_takes_all(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TAKESALL").await?;
    let request = json!({"seq": 4, "batch": 2});
    expect(&mut streams, "TAKESALL", request, &[("4", 5, 0), ("5", 4, 4), ("", 4, 5)]).await
}

async fn a_batch_by_wildcard_keeps_the_order_of_the_stream(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "WILD").await?;
    let request = json!({"seq": 2, "next_by_subj": "wild.*", "batch": 3});
    let answers = streams.direct("WILD", request).await?;
    let due = [("wild.b", 2), ("wild.c", 3), ("wild.a", 4)].map(|place| (place.0.to_owned(), place.1));
    ensure!(subjects_and_sequences(&answers[..3])? == due, "{answers:?}");
    ensure!(answers[3].number("Nats-Num-Pending")? == 5, "{answers:?}");
    Ok(())
}

async fn a_batch_that_finds_nothing_is_404(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "FINDSNONE").await?;
    let requests = [
        json!({"seq": 8, "next_by_subj": "findsnone.a", "batch": 5}),
        json!({"seq": 99, "next_by_subj": "findsnone.a", "batch": 5}),
        json!({"seq": 1, "next_by_subj": "findsnone.z", "batch": 5}),
        json!({"start_time": "2120-01-01T00:00:00Z", "next_by_subj": "findsnone.a", "batch": 5}),
    ];
    for request in requests {
        let answers = streams.direct("FINDSNONE", request).await?;
        ensure!(answers.len() == 1 && answers[0].status_line() == "404 Message Not Found", "{answers:?}");
        ensure!(answers[0].fields().is_empty(), "a 404 carries no sequence: {answers:?}");
    }
    Ok(())
}

async fn a_batch_skips_what_is_deleted(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "SKIPS").await?;
    streams.done("STREAM.MSG.DELETE.SKIPS", json!({"seq": 4})).await?;
    streams.fill("SKIPS", 9, &["skips.z"]).await?;
    let request = json!({"seq": 1, "next_by_subj": "skips.a", "batch": 9});
    expect(&mut streams, "SKIPS", request, &[("1", 1, 0), ("7", 0, 1), ("", 0, 7)]).await?;
    // A page that starts at a deleted sequence begins with the next message.
    let request = json!({"seq": 4, "batch": 1});
    expect(&mut streams, "SKIPS", request, &[("5", 5, 0), ("", 5, 5)]).await
}

async fn a_batch_from_a_time_on_is_read(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "SINCE").await?;
    let fourth = streams.direct("SINCE", json!({"seq": 4})).await?.remove(0);
    let request =
        json!({"start_time": fourth.field("Nats-Time-Stamp"), "next_by_subj": "since.a", "batch": 9});
    expect(&mut streams, "SINCE", request, &[("4", 1, 0), ("7", 0, 4), ("", 0, 7)]).await
}

/// Counts subject, headers and payload as stored, not the headers that the server adds.
async fn a_batch_stops_at_its_bytes(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("BYTES", json!({})).await?;
    for _ in 0..5 {
        streams.publish("bytes.a", [b'x'; 1000]).await?;
    }
    streams.settle("BYTES", 5).await?;
    for (bytes, due) in [(500, 1), (2500, 3), (4500, 5), (100_000, 5)] {
        let request = json!({"seq": 1, "next_by_subj": "bytes.a", "batch": 50, "max_bytes": bytes});
        let answers = streams.direct("BYTES", request).await?;
        ensure!(
            answers.len() == due + 1,
            "{due} messages were due for {bytes} bytes, not {}",
            answers.len() - 1
        );
        let end = &answers[due];
        ensure!(
            end.status_line() == "204 EOB" && end.number("Nats-Num-Pending")? == 5 - due as u64,
            "{end:?}"
        );
    }
    Ok(())
}

async fn a_batch_sends_one_message_however_few_bytes_it_may(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "ONEBYTE").await?;
    let request = json!({"seq": 1, "next_by_subj": "onebyte.a", "batch": 50, "max_bytes": 1});
    expect(&mut streams, "ONEBYTE", request, &[("1", 2, 0), ("", 2, 1)]).await
}

async fn bytes_without_a_batch_get_one_message(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "ONLYBYTES").await?;
    let request = json!({"seq": 1, "next_by_subj": "onlybytes.b", "max_bytes": 100_000});
    let answers = streams.direct("ONLYBYTES", request).await?;
    ensure!(
        answers[0].field("Nats-Sequence") == "2" && answers[0].field("Nats-Num-Pending").is_empty(),
        "{answers:?}"
    );
    streams.client.settle().await
}

async fn a_batch_below_zero_is_empty(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "BELOWZERO").await?;
    let answers = streams.direct("BELOWZERO", json!({"seq": 1, "batch": -1})).await?;
    ensure!(answers.len() == 1 && answers[0].status_line() == "204 EOB", "{answers:?}");
    Ok(())
}

async fn a_huge_batch_ends_with_the_stream(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "HUGE").await?;
    let answers =
        streams.direct("HUGE", json!({"seq": 1, "next_by_subj": "huge.>", "batch": 2_000_000_000})).await?;
    ensure!(answers.len() == 10 && answers[9].number("Nats-Num-Pending")? == 0, "{answers:?}");
    Ok(())
}

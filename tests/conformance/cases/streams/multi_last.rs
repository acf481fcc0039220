//! DIRECT.GET with `multi_last`: the last message of each of many subjects for one request.
//!
//! Facts that the edge relies on, over every kind of server:
//! - The `204` carries `Nats-UpTo-Sequence`: the requested `up_to_seq`, otherwise the last sequence of the
//!   answering replica, taken before its lookup. So the answer is whole up to exactly that sequence.
//! - An empty result is a single `404 No Results` without any sequence: it does not tell how far the replica
//!   has come.
//! - An `up_to_seq` above the replica's last sequence has different answers: a stream in memory repeats the
//!   number as if the replica knew everything up to there, a stream on disk finds nothing. Never ask for
//!   that.
//! - An answer cut short by its bytes, or by `batch`, says so only in the `Nats-Num-Pending` of its `204`,
//!   which counts the messages found and not sent; its `Nats-UpTo-Sequence` is that of a whole answer. The
//!   messages sent have the lowest sequences, so the rest must be asked for by name.
//! - With `seq`, messages below count neither as found nor as pending, but a `404` comes only if the stream
//!   has no matching message at all: otherwise the `204` tells how far the replica looked.
//! - More than 1024 subjects *found* are `413 Too Many Results`; the number of subjects named does not
//!   matter. `batch` does not change that.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::{Streams, subjects_and_sequences};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_last_message_of_each_subject_comes_in_order,
        a_multi_last_says_up_to_which_sequence_it_knows,
        subjects_by_wildcard_and_twice_come_once,
        a_multi_last_up_to_a_sequence_looks_back,
        a_multi_last_up_to_a_time_looks_back,
        a_multi_last_that_finds_nothing_is_404,
        a_multi_last_can_be_read_in_batches,
        a_multi_last_stops_at_its_bytes,
        a_multi_last_that_is_cut_off_says_what_is_pending_and_the_rest_can_be_asked_for,
        a_multi_last_from_a_sequence_on_leaves_out_what_is_before,
        a_multi_last_of_1024_subjects_is_answered,
        a_multi_last_of_1025_subjects_is_413,
        subjects_that_are_not_there_do_not_count,
    ]
}

/// A stream with a, b, c, a, b, c as 1 to 6, then d as 7.
async fn filled(fixture: &Fixture, name: &str) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    streams.create(name, json!({})).await?;
    let subjects = ["a", "b", "c", "a", "b", "c", "d"].map(|end| format!("{}.{end}", name.to_lowercase()));
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    streams.fill(name, 0, &subjects).await?;
    Ok(streams)
}

/// Expects these sequences, then an end with this pending count and up-to sequence.
async fn expect(
    streams: &mut Streams,
    name: &str,
    request: Value,
    due: &[u64],
    end: (u64, u64),
) -> anyhow::Result<()> {
    let answers = streams.direct(name, request.clone()).await?;
    let (last, found) = answers.split_last().expect("there is an end");
    let seqs: Vec<u64> = subjects_and_sequences(found)?.into_iter().map(|(_, seq)| seq).collect();
    ensure!(seqs == due, "{due:?} was due for {request}, {answers:?} came");
    let names: Vec<_> = last.fields().into_iter().map(|field| field.0).collect();
    ensure!(
        last.status_line() == "204 EOB"
            && names == ["Nats-Num-Pending", "Nats-Last-Sequence", "Nats-UpTo-Sequence"]
            && (last.number("Nats-Num-Pending")?, last.number("Nats-UpTo-Sequence")?) == end
            && Some(last.number("Nats-Last-Sequence")?) == due.last().copied(),
        "{last:?} ends {request}"
    );
    Ok(())
}

async fn the_last_message_of_each_subject_comes_in_order(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TAILS").await?;
    let answers = streams.direct("TAILS", json!({"multi_last": ["tails.c", "tails.a"]})).await?;
    ensure!(
        answers.len() == 3 && answers[0].text() == "tails.a 4" && answers[1].text() == "tails.c 6",
        "{answers:?}"
    );
    let numbers: Vec<_> = answers[..2]
        .iter()
        .map(|one| (one.field("Nats-Num-Pending"), one.field("Nats-Last-Sequence")))
        .collect();
    ensure!(numbers == [("1".to_owned(), "0".to_owned()), ("0".to_owned(), "4".to_owned())], "{answers:?}");
    Ok(())
}

async fn a_multi_last_says_up_to_which_sequence_it_knows(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "KNOWS").await?;
    // 7 is the last sequence of the stream, though no message of these subjects has it.
    expect(&mut streams, "KNOWS", json!({"multi_last": ["knows.a", "knows.b"]}), &[4, 5], (0, 7)).await?;
    streams.fill("KNOWS", 7, &["knows.d"]).await?;
    expect(&mut streams, "KNOWS", json!({"multi_last": ["knows.a"]}), &[4], (0, 8)).await
}

async fn subjects_by_wildcard_and_twice_come_once(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "WILDTAILS").await?;
    let request = json!({"multi_last": ["wildtails.a", "wildtails.*", "wildtails.a"]});
    expect(&mut streams, "WILDTAILS", request, &[4, 5, 6, 7], (0, 7)).await
}

async fn a_multi_last_up_to_a_sequence_looks_back(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "LOOKSBACK").await?;
    let request = json!({"multi_last": ["looksback.a", "looksback.c"], "up_to_seq": 4});
    expect(&mut streams, "LOOKSBACK", request, &[3, 4], (0, 4)).await
}

async fn a_multi_last_up_to_a_time_looks_back(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TIMEBACK").await?;
    let request = json!({"multi_last": ["timeback.>"], "up_to_time": "2020-01-01T00:00:00Z"});
    streams.direct_status("TIMEBACK", request, "404 No Results").await?;
    let request = json!({"multi_last": ["timeback.a"], "up_to_time": "2120-01-01T00:00:00Z"});
    expect(&mut streams, "TIMEBACK", request, &[4], (0, 7)).await
}

async fn a_multi_last_that_finds_nothing_is_404(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "NOTAILS").await?;
    for subjects in [vec!["notails.z"], vec!["other.a", "notails.y", "notails.z.*"]] {
        let answers = streams.direct("NOTAILS", json!({"multi_last": subjects})).await?;
        ensure!(answers.len() == 1 && answers[0].status_line() == "404 No Results", "{answers:?}");
        ensure!(answers[0].fields().is_empty(), "a 404 carries no sequence: {answers:?}");
    }
    Ok(())
}

async fn a_multi_last_can_be_read_in_batches(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TAILBATCH").await?;
    let subjects = ["tailbatch.a", "tailbatch.b", "tailbatch.c"];
    let request = json!({"multi_last": subjects, "batch": 2});
    expect(&mut streams, "TAILBATCH", request, &[4, 5], (1, 7)).await?;
    let request = json!({"multi_last": subjects, "batch": 2, "seq": 6, "up_to_seq": 7});
    expect(&mut streams, "TAILBATCH", request, &[6], (0, 7)).await
}

async fn a_multi_last_stops_at_its_bytes(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("TAILBYTES", json!({})).await?;
    for end in ["a", "b", "c"] {
        streams.publish(&format!("tailbytes.{end}"), [b'x'; 1000]).await?;
    }
    streams.settle("TAILBYTES", 3).await?;
    let request = json!({"multi_last": ["tailbytes.*"], "max_bytes": 1500});
    expect(&mut streams, "TAILBYTES", request, &[1, 2], (1, 3)).await
}

async fn a_multi_last_that_is_cut_off_says_what_is_pending_and_the_rest_can_be_asked_for(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("TAILCUT", json!({})).await?;
    for end in 1..=9 {
        streams.publish(&format!("tailcut.{end}"), vec![b'x'; 100_000]).await?;
    }
    streams.settle("TAILCUT", 9).await?;
    let mut open: Vec<_> = (1..=9).map(|end| format!("tailcut.{end}")).collect();
    for (due, pending) in [([1, 2, 3], 6), ([4, 5, 6], 3), ([7, 8, 9], 0)] {
        let request = json!({"multi_last": open, "max_bytes": 250_000});
        expect(&mut streams, "TAILCUT", request, &due, (pending, 9)).await?;
        open.drain(..3);
    }
    // At least one message comes, however small the limit.
    let request = json!({"multi_last": ["tailcut.*"], "max_bytes": 1});
    expect(&mut streams, "TAILCUT", request, &[1], (8, 9)).await
}

async fn a_multi_last_from_a_sequence_on_leaves_out_what_is_before(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TAILSFROM").await?;
    let subjects = ["a", "b", "c", "z"].map(|end| format!("tailsfrom.{end}"));
    let request = |seq| json!({"multi_last": subjects, "seq": seq, "max_bytes": 100_000});
    expect(&mut streams, "TAILSFROM", request(1), &[4, 5, 6], (0, 7)).await?;
    expect(&mut streams, "TAILSFROM", request(5), &[5, 6], (0, 7)).await?;
    expect(&mut streams, "TAILSFROM", request(6), &[6], (0, 7)).await?;
    // The replica knows that no message is that late.
    for late in [7, 8, 1_000] {
        let answers = streams.direct("TAILSFROM", request(late)).await?;
        ensure!(
            answers.len() == 1
                && answers[0].status_line() == "204 EOB"
                && (answers[0].number("Nats-Num-Pending")?, answers[0].number("Nats-UpTo-Sequence")?)
                    == (0, 7)
                && answers[0].number("Nats-Last-Sequence")? == 0,
            "{answers:?}"
        );
    }
    let request = json!({"multi_last": subjects, "seq": 4, "max_bytes": 1});
    expect(&mut streams, "TAILSFROM", request, &[4], (2, 7)).await
}

/// One message each on `count` subjects.
async fn wide(fixture: &Fixture, name: &str, count: u64) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    streams.create(name, json!({})).await?;
    let mut bytes = String::new();
    for number in 1..=count {
        bytes += &format!("PUB {}.{number} {} 1\r\nx\r\n", name.to_lowercase(), streams.inbox);
    }
    streams.client.send(bytes).await?;
    for ack in streams.client.messages(usize::try_from(count)?).await? {
        ensure!(ack.json()?["seq"].is_u64(), "{ack:?}");
    }
    streams.settle(name, count).await?;
    Ok(streams)
}

async fn a_multi_last_of_1024_subjects_is_answered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = wide(fixture, "FITS", 1100).await?;
    let subjects: Vec<_> = (1..=1024).map(|number| format!("fits.{number}")).collect();
    let answers = streams.direct("FITS", json!({"multi_last": subjects})).await?;
    ensure!(answers.len() == 1025, "{} answers", answers.len());
    let end = &answers[1024];
    ensure!(end.status_line() == "204 EOB" && end.number("Nats-UpTo-Sequence")? == 1100, "{end:?}");
    Ok(())
}

async fn a_multi_last_of_1025_subjects_is_413(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = wide(fixture, "OVER", 1025).await?;
    let subjects: Vec<_> = (1..=1025).map(|number| format!("over.{number}")).collect();
    let requests = [
        json!({"multi_last": subjects}),
        json!({"multi_last": ["over.*"]}),
        json!({"multi_last": ["over.*"], "batch": 5}),
    ];
    for request in requests {
        streams.direct_status("OVER", request, "413 Too Many Results").await?;
    }
    Ok(())
}

async fn subjects_that_are_not_there_do_not_count(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "ABSENT").await?;
    let mut subjects: Vec<_> = (0..3000).map(|number| format!("absent.nobody.{number}")).collect();
    subjects.push("absent.b".to_owned());
    expect(&mut streams, "ABSENT", json!({"multi_last": subjects}), &[5], (0, 7)).await
}

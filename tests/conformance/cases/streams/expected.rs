//! `Nats-Expected-*`: publishes that are stored only if the stream is in the expected state.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::{Streams, check_error};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_expected_stream_is_checked,
        the_expected_last_sequence_is_checked,
        the_expected_last_sequence_of_the_subject_is_checked,
        the_expected_last_sequence_of_another_subject_is_checked,
        a_sequence_that_can_not_be_is_refused_with_the_last_of_the_subject,
        the_expected_last_id_is_checked,
        an_unexpected_publish_is_not_stored,
        rollups_and_lifetimes_are_refused_where_not_allowed,
    ]
}

/// Publishes with one header, and checks the error, if one is due, or else the sequence.
async fn publish(
    streams: &mut Streams,
    subject: &str,
    header: (&str, &str),
    due: Result<u64, (u64, &str)>,
) -> anyhow::Result<()> {
    let ack = streams.publish_with(subject, &[header], "x").await?;
    match due {
        Ok(seq) => ensure!(ack["seq"] == seq && ack["error"].is_null(), "{header:?} gets {ack}"),
        Err((code, words)) => {
            check_error(&ack, (400, code), words)?;
            ensure!(ack["seq"] == 0 && ack["stream"].is_string(), "{header:?} gets {ack}");
        }
    }
    Ok(())
}

async fn the_expected_stream_is_checked(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EXPECTED", json!({})).await?;
    let name = "Nats-Expected-Stream";
    let wrong = Err((10060, "expected stream does not match"));
    publish(&mut streams, "expected.a", (name, "OTHER"), wrong).await?;
    publish(&mut streams, "expected.a", (name, "EXPECTED"), Ok(1)).await
}

async fn the_expected_last_sequence_is_checked(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EXPLAST", json!({})).await?;
    let name = "Nats-Expected-Last-Sequence";
    publish(&mut streams, "explast.a", (name, "0"), Ok(1)).await?;
    publish(&mut streams, "explast.b", (name, "1"), Ok(2)).await?;
    let wrong = Err((10071, "wrong last sequence: 2"));
    for value in ["0", "1", "99"] {
        publish(&mut streams, "explast.a", (name, value), wrong).await?;
    }
    publish(&mut streams, "explast.a", (name, "2"), Ok(3)).await
}

async fn the_expected_last_sequence_of_the_subject_is_checked(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EXPSUBJ", json!({})).await?;
    let name = "Nats-Expected-Last-Subject-Sequence";
    publish(&mut streams, "expsubj.a", (name, "0"), Ok(1)).await?;
    publish(&mut streams, "expsubj.b", (name, "0"), Ok(2)).await?;
    publish(&mut streams, "expsubj.a", (name, "0"), Err((10071, "wrong last sequence: 1"))).await?;
    publish(&mut streams, "expsubj.a", (name, "2"), Err((10071, "wrong last sequence: 1"))).await?;
    publish(&mut streams, "expsubj.a", (name, "1"), Ok(3)).await?;
    publish(&mut streams, "expsubj.c", (name, "3"), Err((10071, "wrong last sequence: 0"))).await
}

/// How the parts ask for a channel's last sequence without reading its last message.
async fn a_sequence_that_can_not_be_is_refused_with_the_last_of_the_subject(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    // The second message fills the stream.
    streams.create("EXPNEVER", json!({ "max_msgs": 2, "discard": "new" })).await?;
    let never = ("Nats-Expected-Last-Subject-Sequence", "9223372036854775807");
    publish(&mut streams, "expnever.a", never, Err((10071, "wrong last sequence: 0"))).await?;
    streams.fill("EXPNEVER", 0, &["expnever.a"]).await?;
    publish(&mut streams, "expnever.a", never, Err((10071, "wrong last sequence: 1"))).await?;
    publish(&mut streams, "expnever.b", never, Err((10071, "wrong last sequence: 0"))).await?;
    streams.fill("EXPNEVER", 1, &["expnever.b"]).await?;
    publish(&mut streams, "expnever.a", never, Err((10071, "wrong last sequence: 1"))).await?;
    publish(&mut streams, "expnever.b", never, Err((10071, "wrong last sequence: 2"))).await?;
    streams.expect_state("EXPNEVER", [2, 1, 2]).await?;
    Ok(())
}

async fn the_expected_last_sequence_of_another_subject_is_checked(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EXPFILTER", json!({})).await?;
    streams.fill("EXPFILTER", 0, &["expfilter.a", "expfilter.b"]).await?;
    let headers = |seq| {
        [
            ("Nats-Expected-Last-Subject-Sequence", seq),
            ("Nats-Expected-Last-Subject-Sequence-Subject", "expfilter.a"),
        ]
    };
    let ack = streams.publish_with("expfilter.c", &headers("2"), "x").await?;
    check_error(&ack, (400, 10071), "wrong last sequence: 1")?;
    let ack = streams.publish_with("expfilter.c", &headers("1"), "x").await?;
    ensure!(ack["seq"] == 3, "{ack}");
    Ok(())
}

async fn the_expected_last_id_is_checked(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("EXPID", json!({})).await?;
    let name = "Nats-Expected-Last-Msg-Id";
    publish(&mut streams, "expid.a", ("Nats-Msg-Id", "e-1"), Ok(1)).await?;
    // With replicas, nats-server 2.15.1 drops such a publish without an answer: a caller needs a deadline.
    if fixture.kind().replicas() == 1 {
        publish(&mut streams, "expid.a", (name, "e-2"), Err((10070, "wrong last msg ID: e-1"))).await?;
    }
    publish(&mut streams, "expid.a", (name, "e-1"), Ok(2)).await
}

async fn an_unexpected_publish_is_not_stored(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("UNEXPECTED", json!({})).await?;
    streams.fill("UNEXPECTED", 0, &["unexpected.a"]).await?;
    let headers = [("Nats-Expected-Last-Sequence", "7"), ("Nats-Msg-Id", "u-1")];
    check_error(
        &streams.publish_with("unexpected.a", &headers, "x").await?,
        (400, 10071),
        "wrong last sequence: 1",
    )?;
    streams.expect_state("UNEXPECTED", [1, 1, 1]).await?;
    // The refused publish did not use up its id.
    publish(&mut streams, "unexpected.a", ("Nats-Msg-Id", "u-1"), Ok(2)).await
}

async fn rollups_and_lifetimes_are_refused_where_not_allowed(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("PLAIN", json!({})).await?;
    let ack = streams.publish_with("plain.a", &[("Nats-Rollup", "sub")], "x").await?;
    check_error(&ack, (500, 10111), "rollup not permitted")?;
    let ack = streams.publish_with("plain.a", &[("Nats-TTL", "5s")], "x").await?;
    check_error(&ack, (400, 10166), "per-message TTL is disabled")?;
    streams.expect_state("PLAIN", [0, 0, 0]).await?;
    Ok(())
}

//! `$JS.EVENT.ADVISORY.>`: the advisories about streams.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases, within};
use crate::raw::RawClient;
use crate::stream::Streams;

/// Bound for an advisory; over the embedded bus, one case waits for all of it.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn cases() -> Vec<Case> {
    cases![a_stream_that_is_made_changed_and_deleted_is_told_of, a_call_of_the_api_is_told_in_an_advisory]
}

async fn a_stream_that_is_made_changed_and_deleted_is_told_of(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let mut listener = RawClient::connect(fixture.shared.address()).await?;
    listener.send("SUB $JS.EVENT.ADVISORY.STREAM.*.ADVISED 1\r\n").await?;
    listener.settle().await?;
    streams.create("ADVISED", json!({})).await?;
    let same = streams.config("ADVISED", json!({}));
    streams.done("STREAM.CREATE.ADVISED", same).await?;
    let config = streams.config("ADVISED", json!({"max_msgs": 5}));
    streams.done("STREAM.UPDATE.ADVISED", config).await?;
    streams.done("STREAM.PURGE.ADVISED", "").await?;
    streams.done("STREAM.DELETE.ADVISED", "").await?;
    for (token, action) in [("CREATED", "create"), ("UPDATED", "modify"), ("DELETED", "delete")] {
        let told = loop {
            let told = listener.message().await?;
            // A cluster also sends advisories of its own about the stream.
            if fixture.kind().replicas() == 1 || told.subject.contains(token) {
                break told;
            }
        };
        ensure!(told.subject == format!("$JS.EVENT.ADVISORY.STREAM.{token}.ADVISED"), "{told:?}");
        let advisory = told.json()?;
        ensure!(advisory["type"] == "io.nats.jetstream.advisory.v1.stream_action", "{advisory}");
        ensure!(advisory["stream"] == "ADVISED" && advisory["action"] == action, "{advisory}");
        ensure!(advisory["id"].is_string() && advisory["timestamp"].is_string(), "{advisory}");
    }
    Ok(())
}

async fn a_call_of_the_api_is_told_in_an_advisory(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let mut listener = RawClient::connect(fixture.shared.address()).await?;
    listener.send("SUB $JS.EVENT.ADVISORY.API 1\r\n").await?;
    listener.settle().await?;
    streams.create("CALLED", json!({})).await?;
    let told = within(PATIENCE, "an advisory", listener.message()).await?.json()?;
    ensure!(told["type"] == "io.nats.jetstream.advisory.v1.api_audit", "{told}");
    Ok(())
}

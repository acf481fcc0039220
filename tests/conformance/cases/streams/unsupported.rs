//! What nats-server has and the embedded bus does not, and what both do not have.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_consumer_can_be_created,
        a_stream_has_no_consumers_at_first,
        a_missing_consumer_is_10014,
        a_mirror_can_be_created,
        a_work_queue_can_be_created,
        a_rollup_keeps_only_itself,
    ]
}

async fn a_consumer_can_be_created(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("CONSUMED", json!({})).await?;
    let request = json!({
        "stream_name": "CONSUMED", "action": "", "config": {"name": "c", "durable_name": "c", "ack_policy": "explicit"},
    });
    let answer = streams.done("CONSUMER.CREATE.CONSUMED.c", request).await?;
    ensure!(answer["name"] == "c", "{answer}");
    Ok(())
}

async fn a_stream_has_no_consumers_at_first(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ALONE", json!({})).await?;
    for path in ["CONSUMER.NAMES.ALONE", "CONSUMER.LIST.ALONE"] {
        let answer = streams.done(path, "").await?;
        ensure!(answer["total"] == 0 && answer["consumers"] == json!([]), "{answer}");
    }
    Ok(())
}

async fn a_missing_consumer_is_10014(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("NOCONSUMER", json!({})).await?;
    for path in ["CONSUMER.INFO.NOCONSUMER.c", "CONSUMER.DELETE.NOCONSUMER.c"] {
        streams.refused(path, "", (404, 10014), "consumer not found").await?;
    }
    Ok(())
}

async fn a_mirror_can_be_created(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ORIGINAL", json!({})).await?;
    let mut config = streams.config("MIRROR", json!({"mirror": {"name": "ORIGINAL"}}));
    config["subjects"] = json!(null);
    streams.done("STREAM.CREATE.MIRROR", config).await?;
    Ok(())
}

async fn a_work_queue_can_be_created(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let answer = streams.create("WORKQUEUE", json!({"retention": "workqueue"})).await?;
    ensure!(answer["config"]["retention"] == "workqueue", "{answer}");
    Ok(())
}

async fn a_rollup_keeps_only_itself(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ROLLUP", json!({"allow_rollup_hdrs": true})).await?;
    streams.fill("ROLLUP", 0, &["rollup.a", "rollup.b", "rollup.a"]).await?;
    let ack = streams.publish_with("rollup.a", &[("Nats-Rollup", "sub")], "x").await?;
    ensure!(ack["seq"] == 4, "{ack}");
    streams.until_state("ROLLUP", [2, 2, 4]).await
}

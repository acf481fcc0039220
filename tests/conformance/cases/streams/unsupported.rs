//! Features that nats-server has and the embedded bus lacks, and features that both lack.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_consumer_can_be_created,
        a_stream_has_no_consumers_at_first,
        a_missing_consumer_is_10014,
        what_is_asked_of_a_missing_consumer_is_10014,
        what_is_asked_of_consumers_of_a_missing_stream_is_10059,
        a_key_value_bucket_of_nats_py_can_be_created,
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

async fn what_is_asked_of_a_missing_consumer_is_10014(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("NOPAUSE", json!({})).await?;
    let path = "CONSUMER.PAUSE.NOPAUSE.c";
    streams.refused(path, "{}", (404, 10014), "consumer not found").await?;
    let answer = streams.api(path, "{}").await?;
    ensure!(answer["paused"] == false && answer["pause_until"] == "0001-01-01T00:00:00Z", "{answer}");
    streams
        .refused("CONSUMER.UNPIN.NOPAUSE.c", json!({"group": "g"}), (404, 10014), "consumer not found")
        .await
}

async fn what_is_asked_of_consumers_of_a_missing_stream_is_10059(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let create = json!({"stream_name": "NOSTREAM", "config": {"name": "c", "ack_policy": "explicit"}});
    let calls = [
        ("CONSUMER.CREATE.NOSTREAM.c", create.to_string()),
        ("CONSUMER.INFO.NOSTREAM.c", String::new()),
        ("CONSUMER.NAMES.NOSTREAM", String::new()),
        ("CONSUMER.LIST.NOSTREAM", String::new()),
        ("CONSUMER.DELETE.NOSTREAM.c", String::new()),
        ("CONSUMER.PAUSE.NOSTREAM.c", "{}".to_owned()),
    ];
    for (path, body) in calls {
        // A cluster answers no list for a stream that does not exist.
        if path.contains("LIST") && fixture.kind().replicas() > 1 {
            continue;
        }
        streams.refused(path, body, (404, 10059), "stream not found").await?;
    }
    Ok(())
}

/// Sends the request of `create_key_value` in nats.py 2.15.
async fn a_key_value_bucket_of_nats_py_can_be_created(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    let settings = json!({
        "subjects": ["$KV.nobucket.>"], "max_msgs_per_subject": 1, "discard": "new", "allow_rollup_hdrs": true,
        "deny_delete": true, "allow_msg_ttl": true,
    });
    let answer = streams.create("KV_nobucket", settings).await?;
    ensure!(answer["config"]["allow_msg_ttl"] == true, "{answer}");
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

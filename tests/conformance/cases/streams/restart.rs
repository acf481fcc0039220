//! State after a server was killed and started again over the same folder.
//!
//! Each case has a server of its own, so these are about one node; `replicas.rs` shows a cluster whose node
//! dies.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::server::{Server, Settings};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        streams_and_messages_survive_a_restart,
        the_last_sequence_survives_a_purge_and_a_restart,
        the_duplicate_window_survives_a_restart,
        deleted_messages_stay_deleted_over_a_restart,
        limits_hold_after_a_restart,
    ]
}

/// A stream on disk at a server of this case's own, with a, b, a, b as 1 to 4.
struct OnDisk {
    server: Server,
    streams: Streams,
}

impl OnDisk {
    /// `None` on a cluster.
    async fn start(fixture: &Fixture, settings: Value) -> anyhow::Result<Option<Self>> {
        if fixture.kind().replicas() > 1 {
            return Ok(None);
        }
        let server = fixture.server(Settings::with_streams()?).await?;
        let mut streams = Streams::open_at(fixture, server.address()).await?;
        let mut all = settings;
        all["storage"] = json!("file");
        streams.create("KEPT", all).await?;
        streams.fill("KEPT", 0, &["kept.a", "kept.b", "kept.a", "kept.b"]).await?;
        Ok(Some(Self { server, streams }))
    }

    async fn restart(self, fixture: &Fixture) -> anyhow::Result<Self> {
        let server = self.server.restart().await?;
        let streams = Streams::open_at(fixture, server.address()).await?;
        Ok(Self { server, streams })
    }
}

async fn streams_and_messages_survive_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let settings = json!({"max_msgs": 100, "republish": {"src": "kept.>", "dest": "kept-live.>"}});
    let Some(mut server) = OnDisk::start(fixture, settings).await? else { return Ok(()) };
    server.streams.publish_with("kept.c", &[("X", "y")], "with headers").await?;
    let before = server.streams.done("STREAM.INFO.KEPT", "").await?;
    let first = server.streams.direct("KEPT", json!({"seq": 1})).await?.remove(0);
    let mut server = server.restart(fixture).await?;
    let after = server.streams.done("STREAM.INFO.KEPT", "").await?;
    for key in ["config", "created", "state"] {
        ensure!(before[key] == after[key], "{key} was {} and is {}", before[key], after[key]);
    }
    let again = server.streams.direct("KEPT", json!({"seq": 1})).await?.remove(0);
    ensure!(again.headers == first.headers && again.payload == first.payload, "{again:?} is not {first:?}");
    let fifth = server.streams.direct("KEPT", json!({"seq": 5})).await?.remove(0);
    ensure!(fifth.field("X") == "y" && fifth.text() == "with headers", "{fifth:?}");
    server.streams.client.send("SUB kept-live.> 9\r\n").await?;
    server.streams.send("kept.a", &[], "x").await?;
    let copy = server.streams.client.message().await?;
    ensure!(copy.field("Nats-Sequence") == "6" && copy.field("Nats-Last-Sequence") == "3", "{copy:?}");
    Ok(())
}

async fn the_last_sequence_survives_a_purge_and_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let Some(mut server) = OnDisk::start(fixture, json!({})).await? else { return Ok(()) };
    server.streams.done("STREAM.PURGE.KEPT", "").await?;
    let mut server = server.restart(fixture).await?;
    server.streams.expect_state("KEPT", [0, 5, 4]).await?;
    server.streams.fill("KEPT", 4, &["kept.a"]).await
}

async fn the_duplicate_window_survives_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let Some(mut server) = OnDisk::start(fixture, json!({})).await? else { return Ok(()) };
    let id = [("Nats-Msg-Id", "r-1")];
    ensure!(server.streams.publish_with("kept.a", &id, "x").await?["seq"] == 5, "not 5");
    let mut server = server.restart(fixture).await?;
    let ack = server.streams.publish_with("kept.a", &id, "x").await?;
    ensure!(ack == json!({"stream": "KEPT", "seq": 5, "duplicate": true}), "{ack}");
    Ok(())
}

async fn deleted_messages_stay_deleted_over_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let Some(mut server) = OnDisk::start(fixture, json!({})).await? else { return Ok(()) };
    for seq in [2, 4] {
        server.streams.done("STREAM.MSG.DELETE.KEPT", json!({"seq": seq})).await?;
    }
    let mut server = server.restart(fixture).await?;
    server.streams.expect_state("KEPT", [2, 1, 4]).await?;
    for seq in [2, 4] {
        server.streams.direct_status("KEPT", json!({"seq": seq}), "404 Message Not Found").await?;
    }
    server.streams.fill("KEPT", 4, &["kept.a"]).await
}

async fn limits_hold_after_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let settings = json!({"max_msgs_per_subject": 2});
    let Some(server) = OnDisk::start(fixture, settings).await? else { return Ok(()) };
    let mut server = server.restart(fixture).await?;
    server.streams.fill("KEPT", 4, &["kept.a", "kept.a"]).await?;
    let info = server.streams.done("STREAM.INFO.KEPT", json!({"subjects_filter": ">"})).await?;
    ensure!(info["state"]["subjects"] == json!({"kept.a": 2, "kept.b": 2}), "{info}");
    let due = (info["state"]["first_seq"].as_u64(), info["state"]["last_seq"].as_u64());
    ensure!(due == (Some(2), Some(6)), "{info}");
    Ok(())
}

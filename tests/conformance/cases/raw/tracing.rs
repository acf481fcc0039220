//! Traced messages: `Nats-Trace-Dest` and `Nats-Trace-Only`.

use std::time::Duration;

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases, within};
use crate::raw::RawClient;

/// Bound for a trace; over the embedded bus, cases wait for all of it.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_message_that_is_only_to_be_traced_is_not_delivered,
        a_message_without_a_trace_destination_is_delivered,
        a_traced_message_leaves_a_trace,
    ]
}

/// Publishes with these headers.
async fn publish(client: &mut RawClient, subject: &str, headers: &[(&str, &str)]) -> anyhow::Result<()> {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let block = format!("NATS/1.0\r\n{lines}\r\n");
    client.send(format!("HPUB {subject} {} {}\r\n{block}x\r\n", block.len(), block.len() + 1)).await
}

async fn a_message_that_is_only_to_be_traced_is_not_delivered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB traced.only.> 1\r\n").await?;
    for on in ["true", "TRUE", "1", "on"] {
        let headers = [("Nats-Trace-Dest", "traced.dest"), ("Nats-Trace-Only", on)];
        publish(&mut client, &format!("traced.only.{on}"), &headers).await?;
    }
    let came = client.sync_messages().await?;
    ensure!(came.is_empty(), "{came:?} came");
    Ok(())
}

async fn a_message_without_a_trace_destination_is_delivered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB traced.not.> 1\r\n").await?;
    let due: [&[(&str, &str)]; 6] = [
        &[("Nats-Trace-Only", "true")],
        &[("Nats-Trace-Dest", ""), ("Nats-Trace-Only", "true")],
        &[("Nats-Trace-Dest", "trace disabled"), ("Nats-Trace-Only", "true")],
        &[("Nats-Trace-Dest", "traced.dest"), ("Nats-Trace-Only", "false")],
        &[("Nats-Trace-Dest", "traced.dest"), ("Nats-Trace-Only", "yes")],
        &[("nats-trace-dest", "traced.dest"), ("nats-trace-only", "true")],
    ];
    for headers in due {
        publish(&mut client, "traced.not.x", headers).await?;
    }
    let came = client.sync_messages().await?;
    ensure!(came.len() == due.len(), "{} of {} came", came.len(), due.len());
    Ok(())
}

async fn a_traced_message_leaves_a_trace(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB traced.trail 1\r\n").await?;
    publish(&mut client, "traced.trail.x", &[("Nats-Trace-Dest", "traced.trail")]).await?;
    let trace = within(PATIENCE, "a trace", client.message()).await?;
    ensure!(trace.subject == "traced.trail", "{trace:?}");
    Ok(())
}

//! `$JS.API.INFO`: usage and limits of the account.

use anyhow::ensure;
use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::RawClient;
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![info_says_that_there_are_streams, the_account_counts_its_streams, the_account_takes_any_body]
}

async fn info_says_that_there_are_streams(fixture: &Fixture) -> anyhow::Result<()> {
    let client = RawClient::open(fixture.shared.address()).await?;
    ensure!(client.info["jetstream"] == true, "{}", client.info);
    Ok(())
}

async fn the_account_counts_its_streams(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("ACCOUNT", json!({})).await?;
    let info = streams.done("INFO", "").await?;
    ensure!(info["type"] == "io.nats.jetstream.api.v1.account_info_response", "{info}");
    ensure!(info["streams"].as_u64().is_some_and(|count| count >= 1) && info["consumers"].is_u64(), "{info}");
    for key in ["memory", "storage", "reserved_memory", "reserved_storage"] {
        ensure!(info[key].is_u64(), "{key} in {info}");
    }
    for key in ["max_memory", "max_storage", "max_streams", "max_consumers", "max_ack_pending"] {
        ensure!(info["limits"][key].is_i64(), "limits.{key} in {info}");
    }
    ensure!(info["limits"]["max_bytes_required"] == false, "{info}");
    ensure!(info["api"]["total"].is_u64() && info["api"]["errors"].is_u64(), "{info}");
    Ok(())
}

/// async-nats sends `[]`, nats.py nothing.
async fn the_account_takes_any_body(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for body in ["", "[]", "{}", "null", "no JSON"] {
        ensure!(streams.done("INFO", body).await?["limits"].is_object(), "{body:?}");
    }
    Ok(())
}

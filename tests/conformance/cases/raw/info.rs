//! INFO field by field: the embedded bus has every field of nats-server.
//!
//! Each case lists the required fields, and allows no other: a field that a newer nats-server adds fails the
//! case over nats-server, so that the embedded bus follows.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::Value;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::RawClient;
use crate::server::{Access, Server, Settings};

/// The fields of every INFO.
const ALWAYS: &[&str] = &[
    "server_id",
    "server_name",
    "version",
    "proto",
    "git_commit",
    "go",
    "host",
    "port",
    "headers",
    "max_payload",
    "client_id",
    "client_ip",
    "api_lvl",
];
/// A field that the embedded bus lacks; another case tests that difference.
const CALLOUT_KEY: &str = "xkey";

pub(crate) fn cases() -> Vec<Case> {
    cases![
        info_has_the_fields_of_nats_server,
        info_with_streams_has_the_fields_of_nats_server,
        info_with_credentials_has_the_fields_of_nats_server,
        info_names_a_key_for_auth_callouts,
    ]
}

/// The INFO of a server, without the key for auth callouts.
async fn info(server: &Server, more: &[&str]) -> anyhow::Result<Value> {
    let mut info = RawClient::open(server.address()).await?.info;
    if let Some(fields) = info.as_object_mut() {
        fields.remove(CALLOUT_KEY);
    }
    let due: BTreeSet<&str> = ALWAYS.iter().chain(more).copied().collect();
    let found: BTreeSet<&str> =
        info.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    ensure!(found == due, "INFO has {found:?}, due is {due:?}");
    for field in ["server_id", "server_name", "version", "git_commit", "go", "host", "client_ip"] {
        ensure!(info[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is no text in {info}");
    }
    for field in ["proto", "port", "max_payload", "client_id", "api_lvl"] {
        ensure!(info[field].as_u64().is_some_and(|number| number > 0), "{field} is no number in {info}");
    }
    ensure!(info["client_ip"] == "127.0.0.1" && info["host"] == "127.0.0.1", "{info}");
    Ok(info)
}

async fn info_has_the_fields_of_nats_server(fixture: &Fixture) -> anyhow::Result<()> {
    info(&fixture.shared, &[]).await.map(drop)
}

async fn info_with_streams_has_the_fields_of_nats_server(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings::with_streams()?).await?;
    let info = info(&server, &["jetstream"]).await?;
    ensure!(info["jetstream"] == true, "{info}");
    server.stop().await
}

async fn info_with_credentials_has_the_fields_of_nats_server(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings::with_access(Access::Token)).await?;
    let info = info(&server, &["auth_required"]).await?;
    ensure!(info["auth_required"] == true, "{info}");
    server.stop().await
}

async fn info_names_a_key_for_auth_callouts(fixture: &Fixture) -> anyhow::Result<()> {
    let client = RawClient::open(fixture.shared.address()).await?;
    ensure!(client.info[CALLOUT_KEY].is_string(), "xkey is missing in {}", client.info);
    Ok(())
}

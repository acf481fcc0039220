//! Corners of the protocol that few clients touch, kept equal so that none is surprised.

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{Message, Operation, RawClient};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        until_connect_a_connection_is_verbose,
        pedantic_complains_and_still_delivers,
        lines_may_end_with_a_line_feed_alone,
        info_and_ok_from_a_client_are_ignored,
        an_error_from_a_client_ends_the_connection,
        a_wildcard_in_publish_is_literal,
        unsub_with_zero_ends_at_once,
        the_503_names_the_subject_that_nobody_hears,
        headers_from_a_client_that_declared_none_end_the_connection,
        a_header_block_is_not_interpreted,
        unknown_fields_in_connect_are_ignored,
        a_subscription_made_before_connect_stays,
    ]
}

async fn until_connect_a_connection_is_verbose(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("SUB corner.loud 1\r\nPUB corner.none 0\r\n\r\n").await?;
    let seen = client.sync().await?;
    ensure!(seen == [Operation::Ok, Operation::Ok], "two +OK were due, {seen:?} came");
    Ok(())
}

async fn pedantic_complains_and_still_delivers(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false,\"pedantic\":true}\r\nSUB corner.ped.> 1\r\n").await?;
    client.send("PUB corner.ped.* 1\r\nx\r\n").await?;
    let seen = client.sync().await?;
    let complaint = Operation::Error("Invalid Publish Subject".to_owned());
    ensure!(seen.len() == 2 && seen[0] == complaint, "a complaint and a message were due, {seen:?} came");
    Ok(())
}

async fn lines_may_end_with_a_line_feed_alone(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB corner.lf 1\nPUB corner.lf 2\nhi\r\n").await?;
    let texts: Vec<String> = client.sync_messages().await?.iter().map(Message::text).collect();
    ensure!(texts == ["hi"], "{texts:?}");
    Ok(())
}

async fn info_and_ok_from_a_client_are_ignored(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("INFO {}\r\n+OK\r\n").await?;
    client.settle().await
}

async fn an_error_from_a_client_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("-ERR 'no more'\r\n").await?;
    client.expect_closed().await
}

async fn a_wildcard_in_publish_is_literal(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB corner.lit.a 1\r\nSUB corner.lit.* 2\r\nSUB corner.lit.> 3\r\n").await?;
    client.publish("corner.lit.*", "x").await?;
    let mut sids: Vec<String> =
        client.sync_messages().await?.into_iter().map(|message| message.sid).collect();
    sids.sort();
    ensure!(sids == ["2", "3"], "a published * matches only wildcards: {sids:?}");
    Ok(())
}

async fn unsub_with_zero_ends_at_once(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB corner.zero 1\r\nUNSUB 1 0\r\nPUB corner.zero 0\r\n\r\n").await?;
    client.settle().await
}

async fn the_503_names_the_subject_that_nobody_hears(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB corner.inbox 1\r\nPUB corner.deaf corner.inbox 0\r\n\r\n").await?;
    let headers = client.message().await?.headers.unwrap_or_default();
    let due = b"NATS/1.0 503\r\nNats-Subject: corner.deaf\r\n\r\n".as_slice();
    ensure!(headers == due, "{headers:?}");
    Ok(())
}

async fn headers_from_a_client_that_declared_none_end_the_connection(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false}\r\nHPUB corner.headers 12 13\r\nNATS/1.0\r\n\r\nx\r\n").await?;
    client.expect_closed().await
}

async fn a_header_block_is_not_interpreted(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB corner.block 1\r\nHPUB corner.block 12 13\r\nXATS/1.0\r\n\r\nx\r\n").await?;
    let message = client.message().await?;
    ensure!(message.headers.as_deref() == Some(b"XATS/1.0\r\n\r\n".as_slice()), "{message:?}");
    Ok(())
}

async fn unknown_fields_in_connect_are_ignored(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client
        .send("CONNECT {\"verbose\":false,\"flavour\":[1,{\"a\":null}],\"lang\":null,\"name\":\"x\"}\r\n")
        .await?;
    client.settle().await
}

async fn a_subscription_made_before_connect_stays(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("SUB corner.early 1\r\n").await?;
    client.send(crate::raw::CONNECT).await?;
    client.send("PUB corner.early 2\r\nhi\r\n").await?;
    let messages =
        client.sync().await?.into_iter().filter(|seen| matches!(seen, Operation::Message(_))).count();
    ensure!(messages == 1, "the subscription did not outlive CONNECT");
    Ok(())
}

//! Headers: carried byte for byte, and stripped for clients that cannot read them.

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::RawClient;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        headers_arrive_byte_for_byte,
        duplicates_order_and_case_of_headers_stay,
        headers_with_an_empty_payload_are_delivered,
        a_client_without_headers_gets_the_payload_alone,
        a_plain_publish_stays_plain,
        a_header_longer_than_the_message_ends_the_connection,
        a_header_length_that_is_no_number_ends_the_connection,
    ]
}

fn publish(subject: &str, headers: &str, payload: &str) -> String {
    format!("HPUB {subject} {} {}\r\n{headers}{payload}\r\n", headers.len(), headers.len() + payload.len())
}

async fn headers_arrive_byte_for_byte(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let headers = "NATS/1.0\r\ntraceparent: 00-aa-bb-01\r\nX-Umlaut: \u{e4}\u{f6}\r\nSpace:  kept \r\n\r\n";
    client.send("SUB headers.bytes 1\r\n").await?;
    client.send(publish("headers.bytes", headers, "body")).await?;
    let message = client.message().await?;
    ensure!(message.headers.as_deref() == Some(headers.as_bytes()), "{message:?}");
    ensure!(message.text() == "body", "{message:?}");
    Ok(())
}

async fn duplicates_order_and_case_of_headers_stay(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let headers = "NATS/1.0\r\nB: 1\r\na: 2\r\nA: 3\r\na: 4\r\nB: 1\r\n\r\n";
    client.send("SUB headers.twice 1\r\n").await?;
    client.send(publish("headers.twice", headers, "")).await?;
    ensure!(
        client.message().await?.headers.as_deref() == Some(headers.as_bytes()),
        "the headers came back changed"
    );
    Ok(())
}

async fn headers_with_an_empty_payload_are_delivered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB headers.only 1\r\n").await?;
    client.send(publish("headers.only", "NATS/1.0\r\nA: b\r\n\r\n", "")).await?;
    let message = client.message().await?;
    ensure!(message.payload.is_empty() && message.headers.is_some(), "{message:?}");
    Ok(())
}

async fn a_client_without_headers_gets_the_payload_alone(fixture: &Fixture) -> anyhow::Result<()> {
    let mut old = RawClient::open(fixture.shared.address()).await?;
    old.send("CONNECT {\"verbose\":false,\"headers\":false}\r\nSUB headers.old 1\r\n").await?;
    old.settle().await?;
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    publisher.send(publish("headers.old", "NATS/1.0\r\nA: b\r\n\r\n", "body")).await?;
    let message = old.message().await?;
    ensure!(message.headers.is_none() && message.text() == "body", "{message:?}");
    Ok(())
}

async fn a_plain_publish_stays_plain(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB headers.none 1\r\nPUB headers.none 1\r\nx\r\n").await?;
    ensure!(client.message().await?.headers.is_none(), "a message without headers came with some");
    Ok(())
}

async fn a_header_longer_than_the_message_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("HPUB headers.long 13 12\r\nNATS/1.0\r\n\r\n\r\n").await?;
    client.expect_closed().await
}

async fn a_header_length_that_is_no_number_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("HPUB headers.long x 12\r\nNATS/1.0\r\n\r\n\r\n").await?;
    client.expect_closed().await
}

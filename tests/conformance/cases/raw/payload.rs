//! Payloads of every size and content, and input split anywhere.

use std::fmt::Write as _;

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{CONNECT, Operation, RawClient};
use crate::server::Settings;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_message_reaches_its_subscriber,
        an_empty_payload_is_delivered,
        a_payload_of_protocol_text_is_only_payload,
        every_byte_value_survives,
        a_payload_of_exactly_the_limit_is_delivered,
        a_payload_one_byte_over_the_limit_ends_the_connection,
        headers_count_towards_the_limit,
        input_cut_into_single_bytes_means_the_same,
        many_operations_in_one_write_are_all_done,
        verbs_may_be_lower_case_and_blanks_may_repeat,
        own_messages_come_before_the_pong,
        a_message_cut_off_by_a_close_is_not_delivered,
    ]
}

async fn a_message_reaches_its_subscriber(fixture: &Fixture) -> anyhow::Result<()> {
    let mut subscriber = RawClient::connect(fixture.shared.address()).await?;
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    subscriber.send("SUB payload.plain abc1\r\n").await?;
    subscriber.settle().await?;
    publisher.publish("payload.plain", "hello").await?;
    let message = subscriber.message().await?;
    ensure!(message.subject == "payload.plain" && message.sid == "abc1", "{message:?}");
    ensure!(message.reply.is_none() && message.headers.is_none() && message.text() == "hello", "{message:?}");
    Ok(())
}

async fn an_empty_payload_is_delivered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB payload.empty 1\r\nPUB payload.empty 0\r\n\r\n").await?;
    ensure!(client.message().await?.payload.is_empty(), "the payload is not empty");
    client.settle().await
}

async fn a_payload_of_protocol_text_is_only_payload(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let text = "\r\nPUB payload.text 1\r\nx\r\nPING\r\n\r\n";
    client.send("SUB payload.text 1\r\n").await?;
    client.publish("payload.text", text).await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 1 && messages[0].text() == text, "{messages:?}");
    Ok(())
}

async fn every_byte_value_survives(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    client.send("SUB payload.bytes 1\r\n").await?;
    client.publish("payload.bytes", &bytes).await?;
    ensure!(client.message().await?.payload == bytes, "the payload came back changed");
    Ok(())
}

/// A server with a limit small enough to reach quickly, and that limit.
async fn small(fixture: &Fixture) -> anyhow::Result<(crate::server::Server, usize)> {
    let limit = 10_000;
    Ok((fixture.server(Settings { max_payload: limit, ..Settings::default() }).await?, limit))
}

async fn a_payload_of_exactly_the_limit_is_delivered(fixture: &Fixture) -> anyhow::Result<()> {
    let (server, limit) = small(fixture).await?;
    let mut client = RawClient::connect(server.address()).await?;
    ensure!(client.info["max_payload"] == limit, "INFO does not tell the limit: {}", client.info);
    client.send("SUB payload.limit 1\r\n").await?;
    client.publish("payload.limit", vec![b'x'; limit]).await?;
    ensure!(client.message().await?.payload.len() == limit, "the payload was cut");
    Ok(())
}

async fn a_payload_one_byte_over_the_limit_ends_the_connection(fixture: &Fixture) -> anyhow::Result<()> {
    let (server, limit) = small(fixture).await?;
    let mut watcher = RawClient::connect(server.address()).await?;
    watcher.send("SUB payload.limit 1\r\n").await?;
    watcher.settle().await?;
    let mut client = RawClient::connect(server.address()).await?;
    client.send(format!("PUB payload.limit {}\r\n", limit + 1)).await?;
    client.expect_fatal("Maximum Payload Violation").await?;
    watcher.settle().await
}

async fn headers_count_towards_the_limit(fixture: &Fixture) -> anyhow::Result<()> {
    let (server, limit) = small(fixture).await?;
    let mut client = RawClient::connect(server.address()).await?;
    client.send(format!("HPUB payload.limit 12 {}\r\n", limit + 1)).await?;
    client.expect_fatal("Maximum Payload Violation").await
}

async fn input_cut_into_single_bytes_means_the_same(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    let input = format!(
        "{CONNECT}SUB payload.cut q 1\r\nPUB payload.cut answer.to 5\r\na\r\nbc\r\n\
         HPUB payload.cut 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\nUNSUB 1\r\nPUB payload.cut 0\r\n\r\n"
    );
    for byte in input.as_bytes() {
        client.send([*byte]).await?;
    }
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 2, "two messages were due: {messages:?}");
    ensure!(
        messages[0].text() == "a\r\nbc" && messages[0].reply.as_deref() == Some("answer.to"),
        "{messages:?}"
    );
    ensure!(messages[1].headers.as_deref() == Some(b"NATS/1.0\r\nA: b\r\n\r\n".as_slice()), "{messages:?}");
    Ok(())
}

async fn many_operations_in_one_write_are_all_done(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    let mut input = format!("{CONNECT}SUB payload.many.* 1\r\n");
    for number in 0..1_000 {
        write!(input, "PUB payload.many.{number} 3\r\nabc\r\n")?;
    }
    client.send(input).await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 1_000, "1000 messages were due, {} came", messages.len());
    for (number, message) in messages.iter().enumerate() {
        ensure!(
            message.subject == format!("payload.many.{number}"),
            "out of order: {message:?} as number {number}"
        );
    }
    Ok(())
}

async fn verbs_may_be_lower_case_and_blanks_may_repeat(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("connect {\"verbose\":false,\"headers\":true}\r\n").await?;
    client.send("sub   payload.blank \t  1  \r\nSuB\tpayload.blank  group  2 \r\n").await?;
    client
        .send("pUb  payload.blank\t 2 \r\nhi\r\nhpub payload.blank   reply  12   13\r\nNATS/1.0\r\n\r\nx\r\n")
        .await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 4, "four messages were due: {messages:?}");
    client.send("unsub   1  \r\nUnSub 2\t\r\npub payload.blank 0\r\n\r\nping\r\n").await?;
    let answer = client.next().await?;
    ensure!(answer == Operation::Pong, "PONG was due, {answer:?} came");
    Ok(())
}

async fn own_messages_come_before_the_pong(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB payload.pong 1\r\n").await?;
    for _ in 0..100 {
        client.publish("payload.pong", "x").await?;
        ensure!(client.sync_messages().await?.len() == 1, "PONG overtook a message");
    }
    Ok(())
}

async fn a_message_cut_off_by_a_close_is_not_delivered(fixture: &Fixture) -> anyhow::Result<()> {
    let mut subscriber = RawClient::connect(fixture.shared.address()).await?;
    subscriber.send("SUB payload.half 1\r\n").await?;
    subscriber.settle().await?;
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    publisher.send("SUB payload.half.own 9\r\nPUB payload.half 10\r\nhalf").await?;
    publisher.close().await?;
    let mut other = RawClient::connect(fixture.shared.address()).await?;
    other.until_nobody_listens("payload.half.own").await?;
    other.publish("payload.half", "whole").await?;
    ensure!(subscriber.message().await?.text() == "whole", "a half message was delivered");
    subscriber.settle().await
}

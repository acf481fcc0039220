//! Publishing and what arrives.

use anyhow::ensure;
use async_nats::{HeaderMap, PublishErrorKind};

use super::{connect, connect_with, next, settle, text};
use crate::fixture::{Case, Fixture, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_message_reaches_another_client,
        an_empty_payload_arrives,
        a_binary_payload_arrives,
        a_message_of_1_mib_arrives,
        a_message_over_the_limit_is_refused_by_the_client,
        headers_with_duplicates_arrive,
        a_reply_subject_arrives,
        flush_hands_everything_to_the_server,
        no_echo_keeps_own_messages_away,
        an_invalid_subject_is_refused,
        server_info_is_understood,
    ]
}

async fn a_message_reaches_another_client(fixture: &Fixture) -> anyhow::Result<()> {
    let (one, other) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut subscriber = one.subscribe("rs.plain").await?;
    settle(&one).await?;
    other.publish("rs.plain", "hello".into()).await?;
    let message = next(&mut subscriber).await?;
    ensure!(text(&message) == "hello" && message.subject.as_str() == "rs.plain", "{message:?}");
    ensure!(message.reply.is_none() && message.headers.is_none(), "{message:?}");
    Ok(())
}

async fn an_empty_payload_arrives(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.empty").await?;
    client.publish("rs.empty", "".into()).await?;
    ensure!(next(&mut subscriber).await?.payload.is_empty(), "the payload is not empty");
    Ok(())
}

async fn a_binary_payload_arrives(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.binary").await?;
    let bytes: Vec<u8> = (0..=255).collect();
    client.publish("rs.binary", bytes.clone().into()).await?;
    ensure!(next(&mut subscriber).await?.payload == bytes, "the payload came back changed");
    Ok(())
}

async fn a_message_of_1_mib_arrives(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.large").await?;
    client.publish("rs.large", vec![7; 1 << 20].into()).await?;
    ensure!(next(&mut subscriber).await?.payload == vec![7; 1 << 20], "the payload came back changed");
    Ok(())
}

async fn a_message_over_the_limit_is_refused_by_the_client(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    match client.publish("rs.over", vec![7; (1 << 20) + 1].into()).await {
        Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => settle(&client).await,
        other => anyhow::bail!("the limit that INFO tells was not kept: {other:?}"),
    }
}

async fn headers_with_duplicates_arrive(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.headers").await?;
    let mut headers = HeaderMap::new();
    headers.append("Accept", "one");
    headers.append("Accept", "two");
    headers.insert("traceparent", "00-aa-bb-01");
    client.publish_with_headers("rs.headers", headers.clone(), "body".into()).await?;
    let message = next(&mut subscriber).await?;
    ensure!(message.headers == Some(headers) && text(&message) == "body", "{message:?}");
    Ok(())
}

async fn a_reply_subject_arrives(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut subscriber = client.subscribe("rs.reply").await?;
    client.publish_with_reply("rs.reply", "some.where.else", "x".into()).await?;
    let message = next(&mut subscriber).await?;
    ensure!(message.reply.as_deref() == Some("some.where.else"), "{message:?}");
    Ok(())
}

async fn flush_hands_everything_to_the_server(fixture: &Fixture) -> anyhow::Result<()> {
    let (one, other) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut subscriber = one.subscribe("rs.flush").await?;
    settle(&one).await?;
    for _ in 0..100 {
        other.publish("rs.flush", "x".into()).await?;
    }
    other.flush().await?;
    drop(other);
    for _ in 0..100 {
        next(&mut subscriber).await?;
    }
    Ok(())
}

async fn no_echo_keeps_own_messages_away(fixture: &Fixture) -> anyhow::Result<()> {
    let quiet = connect_with(&fixture.shared, async_nats::ConnectOptions::new().no_echo()).await?;
    let other = connect(&fixture.shared).await?;
    let mut subscriber = quiet.subscribe("rs.echo").await?;
    quiet.publish("rs.echo", "mine".into()).await?;
    settle(&quiet).await?;
    other.publish("rs.echo", "theirs".into()).await?;
    ensure!(text(&next(&mut subscriber).await?) == "theirs", "no_echo let an own message through");
    Ok(())
}

async fn an_invalid_subject_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let refused = client.publish("rs.has blank", "x".into()).await.is_err();
    ensure!(refused, "a subject with a blank was sent");
    settle(&client).await
}

async fn server_info_is_understood(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let info = client.server_info();
    ensure!(info.max_payload == 1 << 20 && info.headers && info.proto == 1, "{info:?}");
    ensure!(info.port == fixture.shared.address().port() && !info.server_id.is_empty(), "{info:?}");
    ensure!(client.is_server_compatible(2, 10, 0), "version {} is too old for clients", info.version);
    Ok(())
}

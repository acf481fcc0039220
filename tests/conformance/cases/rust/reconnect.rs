//! A server that stops and starts: the client must find its subscriptions restored.

use std::time::Duration;

use anyhow::ensure;
use async_nats::{Client, ConnectOptions, RequestErrorKind};

use super::{connect, connect_with, next, settle, text};
use crate::fixture::{Case, Fixture, cases};
use crate::server::{Access, Settings, TOKEN};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        subscriptions_are_restored_after_a_restart,
        a_queue_group_is_restored_after_a_restart,
        credentials_are_presented_again_after_a_restart,
        a_forced_reconnect_restores_subscriptions,
    ]
}

fn eager() -> ConnectOptions {
    ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(10))
}

/// Asks until the server answers; it answers only after it has the restored subscriptions.
async fn until_back(client: &Client) -> anyhow::Result<()> {
    loop {
        let request = async_nats::Request::new().timeout(Some(Duration::from_millis(200)));
        match client.send_request("reconnect.nobody", request).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => return Ok(()),
            Err(error) if error.kind() == RequestErrorKind::TimedOut => {}
            other => anyhow::bail!("no responders was due, {other:?} came"),
        }
    }
}

async fn subscriptions_are_restored_after_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings::default()).await?;
    let client = connect_with(&server, eager()).await?;
    let mut plain = client.subscribe("back.plain").await?;
    let mut wild = client.subscribe("back.*").await?;
    let mut limited = client.subscribe("back.plain").await?;
    limited.unsubscribe_after(3).await?;
    client.publish("back.plain", "before".into()).await?;
    for subscriber in [&mut plain, &mut wild, &mut limited] {
        ensure!(text(&next(subscriber).await?) == "before", "the first message is missing");
    }
    let server = server.restart().await?;
    until_back(&client).await?;
    let other = connect(&server).await?;
    for number in 0..5 {
        other.publish("back.plain", number.to_string().into()).await?;
    }
    for number in 0..5 {
        for subscriber in [&mut plain, &mut wild] {
            ensure!(text(&next(subscriber).await?) == number.to_string(), "{number} was due");
        }
    }
    let left = super::rest(&mut limited).await?.len();
    ensure!(left == 2, "3 were allowed in all, 1 came before the restart, {left} after it");
    Ok(())
}

async fn a_queue_group_is_restored_after_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings::default()).await?;
    let client = connect_with(&server, eager()).await?;
    let mut one = client.queue_subscribe("back.queue", "g".to_owned()).await?;
    let mut two = client.queue_subscribe("back.queue", "g".to_owned()).await?;
    let _server = server.restart().await?;
    until_back(&client).await?;
    for _ in 0..50 {
        client.publish("back.queue", "x".into()).await?;
    }
    settle(&client).await?;
    one.unsubscribe().await?;
    two.unsubscribe().await?;
    let count = super::rest(&mut one).await?.len() + super::rest(&mut two).await?.len();
    ensure!(count == 50, "50 were due in the group, {count} came");
    Ok(())
}

async fn credentials_are_presented_again_after_a_restart(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings::with_access(Access::Token)).await?;
    let client = connect_with(&server, eager().token(TOKEN.to_owned())).await?;
    let mut subscriber = client.subscribe("back.token").await?;
    settle(&client).await?;
    let _server = server.restart().await?;
    until_back(&client).await?;
    client.publish("back.token", "again".into()).await?;
    ensure!(text(&next(&mut subscriber).await?) == "again", "the wrong message came");
    Ok(())
}

async fn a_forced_reconnect_restores_subscriptions(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect_with(&fixture.shared, eager()).await?;
    let mut subscribers = Vec::new();
    for number in 0..100 {
        subscribers.push(client.subscribe(format!("back.forced.{number}")).await?);
    }
    settle(&client).await?;
    client.force_reconnect().await?;
    until_back(&client).await?;
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        client.publish(format!("back.forced.{number}"), number.to_string().into()).await?;
        ensure!(text(&next(subscriber).await?) == number.to_string(), "{number} was due");
    }
    Ok(())
}

//! Limits on connections, subscriptions and silence.

use std::time::Duration;

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{Operation, RawClient};
use crate::server::{Access, Settings};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_silent_connection_is_pinged_and_then_closed_as_stale,
        a_connection_that_answers_pings_stays,
        a_connection_too_many_is_told_so,
        a_slot_is_free_again_after_a_close,
        a_subscription_too_many_is_refused_and_the_connection_stays,
        who_presents_nothing_in_time_is_closed,
    ]
}

fn impatient() -> Settings {
    Settings { ping_interval: Duration::from_millis(200), ..Settings::default() }
}

async fn a_silent_connection_is_pinged_and_then_closed_as_stale(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(impatient()).await?;
    let mut client = RawClient::connect(server.address()).await?;
    let mut pings = 0;
    let last = loop {
        match client.next().await? {
            Operation::Ping => pings += 1,
            Operation::Info(_) => {}
            other @ (Operation::Message(_) | Operation::Pong | Operation::Ok | Operation::Error(_)) => {
                break other;
            }
        }
    };
    ensure!(last == Operation::Error("Stale Connection".to_owned()), "an error was due, {last:?} came");
    ensure!(pings == 2, "2 pings may go unanswered, {pings} were sent");
    client.expect_closed().await
}

async fn a_connection_that_answers_pings_stays(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(impatient()).await?;
    let mut client = RawClient::connect(server.address()).await?;
    // More PINGs than the two that may go unanswered.
    for _ in 0..5 {
        while client.next().await? != Operation::Ping {}
        client.send("PONG\r\n").await?;
    }
    client.settle().await
}

async fn a_connection_too_many_is_told_so(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings { max_connections: 2, ..Settings::default() }).await?;
    let mut first = RawClient::connect(server.address()).await?;
    let mut second = RawClient::connect(server.address()).await?;
    let seen = match RawClient::open(server.address()).await {
        Ok(mut third) => third.until_closed().await?,
        // The refusal comes before INFO.
        Err(error) => {
            ensure!(format!("{error:#}").contains("maximum connections exceeded"), "{error:#}");
            vec![Operation::Error("maximum connections exceeded".to_owned())]
        }
    };
    ensure!(seen == [Operation::Error("maximum connections exceeded".to_owned())], "{seen:?}");
    first.settle().await?;
    second.settle().await
}

async fn a_slot_is_free_again_after_a_close(fixture: &Fixture) -> anyhow::Result<()> {
    let server = fixture.server(Settings { max_connections: 1, ..Settings::default() }).await?;
    for _ in 0..10 {
        // The server may notice a close late; the deadline of the case bounds the rounds.
        let mut client = loop {
            let Ok(mut client) = RawClient::connect(server.address()).await else { continue };
            if client.settle().await.is_ok() {
                break client;
            }
        };
        client.settle().await?;
        client.close().await?;
    }
    Ok(())
}

async fn a_subscription_too_many_is_refused_and_the_connection_stays(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let server = fixture.server(Settings { max_subscriptions: 3, ..Settings::default() }).await?;
    let mut client = RawClient::connect(server.address()).await?;
    client.send("SUB limits.a 1\r\nSUB limits.b 2\r\nSUB limits.c 3\r\n").await?;
    client.settle().await?;
    client.send("SUB limits.d 4\r\n").await?;
    let seen = client.sync().await?;
    let due = [Operation::Error("maximum subscriptions exceeded".to_owned())];
    ensure!(seen == due, "{due:?} was due, {seen:?} came");
    client.send("UNSUB 1\r\nSUB limits.d 5\r\nPUB limits.d 0\r\n\r\n").await?;
    ensure!(client.sync_messages().await?.len() == 1, "a place that is free again was not given");
    Ok(())
}

async fn who_presents_nothing_in_time_is_closed(fixture: &Fixture) -> anyhow::Result<()> {
    let settings =
        Settings { auth_timeout: Duration::from_millis(300), ..Settings::with_access(Access::Token) };
    let server = fixture.server(settings).await?;
    let mut client = RawClient::open(server.address()).await?;
    client.expect_fatal("Authentication Timeout").await
}

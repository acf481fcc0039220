//! UNSUB: at once, after a number of messages, and during a flow of messages.

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::RawClient;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        nothing_comes_after_unsub,
        unsub_touches_only_its_own_sid,
        unsub_with_a_number_ends_after_so_many,
        messages_before_unsub_count_towards_its_number,
        unsub_with_a_number_already_reached_ends_at_once,
        unsub_of_an_unknown_sid_is_ignored,
        a_sid_is_free_again_after_unsub,
        unsub_while_messages_flow_is_final_at_the_pong,
        a_closed_connection_leaves_no_interest,
    ]
}

async fn nothing_comes_after_unsub(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client
        .send("SUB unsub.plain 1\r\nPUB unsub.plain 1\r\na\r\nUNSUB 1\r\nPUB unsub.plain 1\r\nb\r\n")
        .await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 1 && messages[0].text() == "a", "{messages:?}");
    Ok(())
}

async fn unsub_touches_only_its_own_sid(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client
        .send("SUB unsub.own 1\r\nSUB unsub.own 2\r\nSUB unsub.* 3\r\nUNSUB 2\r\nPUB unsub.own 1\r\na\r\n")
        .await?;
    let mut sids: Vec<String> =
        client.sync_messages().await?.into_iter().map(|message| message.sid).collect();
    sids.sort();
    ensure!(sids == ["1", "3"], "{sids:?}");
    Ok(())
}

/// Number of the `after` messages that arrive when UNSUB with `max` follows `before` messages.
async fn delivered(
    fixture: &Fixture,
    subject: &str,
    before: usize,
    max: usize,
    after: usize,
) -> anyhow::Result<usize> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send(format!("SUB {subject} 1\r\n")).await?;
    for _ in 0..before {
        client.publish(subject, "before").await?;
    }
    ensure!(client.sync_messages().await?.len() == before, "messages before UNSUB are missing");
    client.send(format!("UNSUB 1 {max}\r\n")).await?;
    for _ in 0..after {
        client.publish(subject, "after").await?;
    }
    Ok(client.sync_messages().await?.len())
}

async fn unsub_with_a_number_ends_after_so_many(fixture: &Fixture) -> anyhow::Result<()> {
    let count = delivered(fixture, "unsub.max", 0, 3, 10).await?;
    ensure!(count == 3, "3 were due, {count} came");
    Ok(())
}

async fn messages_before_unsub_count_towards_its_number(fixture: &Fixture) -> anyhow::Result<()> {
    let count = delivered(fixture, "unsub.total", 4, 6, 10).await?;
    ensure!(count == 2, "6 in all, so 2 more were due, {count} came");
    Ok(())
}

async fn unsub_with_a_number_already_reached_ends_at_once(fixture: &Fixture) -> anyhow::Result<()> {
    for max in [1, 4, 5] {
        let count = delivered(fixture, "unsub.reached", 5, max, 10).await?;
        ensure!(count == 0, "5 had come and the number was {max}, yet {count} more came");
    }
    Ok(())
}

async fn unsub_of_an_unknown_sid_is_ignored(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("UNSUB 99\r\nUNSUB nothing 5\r\n").await?;
    client.settle().await
}

async fn a_sid_is_free_again_after_unsub(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB unsub.first 1\r\nUNSUB 1\r\nSUB unsub.second 1\r\n").await?;
    client.send("PUB unsub.first 0\r\n\r\nPUB unsub.second 0\r\n\r\n").await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 1 && messages[0].subject == "unsub.second", "{messages:?}");
    Ok(())
}

async fn unsub_while_messages_flow_is_final_at_the_pong(fixture: &Fixture) -> anyhow::Result<()> {
    let mut subscriber = RawClient::connect(fixture.shared.address()).await?;
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    subscriber.send("SUB unsub.flow 1\r\n").await?;
    subscriber.settle().await?;
    let batch = "PUB unsub.flow 4\r\ndata\r\n".repeat(500);
    let flow = async {
        for _ in 0..40 {
            publisher.send(&batch).await?;
        }
        publisher.settle().await
    };
    let leave = async {
        subscriber.messages(700).await?;
        subscriber.send("UNSUB 1\r\n").await?;
        let flowing = subscriber.sync_messages().await?.len();
        anyhow::Ok(700 + flowing)
    };
    let ((), received) = tokio::try_join!(flow, leave)?;
    ensure!(received <= 20_000, "more came than were published: {received}");
    subscriber.settle().await
}

async fn a_closed_connection_leaves_no_interest(fixture: &Fixture) -> anyhow::Result<()> {
    let mut leaving = RawClient::connect(fixture.shared.address()).await?;
    leaving.send("SUB unsub.closed 1\r\n").await?;
    leaving.settle().await?;
    leaving.close().await?;
    RawClient::connect(fixture.shared.address()).await?.until_nobody_listens("unsub.closed").await
}

//! Queue groups: each group gets one copy, whoever its members are.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{Message, RawClient};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        one_member_of_a_group_gets_each_message,
        all_members_get_a_share,
        each_group_and_each_plain_subscription_gets_a_copy,
        members_may_be_on_different_connections,
        a_group_spans_subjects_that_overlap,
        groups_of_one_name_on_other_subjects_are_apart,
        a_member_that_left_gets_nothing_more,
        a_closed_connection_leaves_its_groups,
    ]
}

fn by_sid(messages: &[Message]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(message.sid.clone()).or_default() += 1;
    }
    counts
}

async fn one_member_of_a_group_gets_each_message(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    for sid in 1..=5 {
        client.send(format!("SUB queue.one workers {sid}\r\n")).await?;
    }
    for number in 0..100 {
        client.publish("queue.one", number.to_string()).await?;
    }
    let mut numbers: Vec<String> = client.sync_messages().await?.iter().map(Message::text).collect();
    numbers.sort_by_key(|number| number.parse::<u32>().unwrap_or(u32::MAX));
    let due: Vec<String> = (0..100).map(|number: u32| number.to_string()).collect();
    ensure!(numbers == due, "each message was due once: {numbers:?}");
    Ok(())
}

async fn all_members_get_a_share(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    for sid in 1..=4 {
        client.send(format!("SUB queue.share workers {sid}\r\n")).await?;
    }
    for _ in 0..400 {
        client.publish("queue.share", "x").await?;
    }
    let counts = by_sid(&client.sync_messages().await?);
    // A fair choice gives one of 4 members fewer than 20 of 400 messages less often than once in 10^20 runs.
    ensure!(counts.len() == 4 && counts.values().all(|count| *count > 20), "not shared out: {counts:?}");
    Ok(())
}

async fn each_group_and_each_plain_subscription_gets_a_copy(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client
        .send(
            "SUB queue.mix red 1\r\nSUB queue.mix red 2\r\nSUB queue.mix blue 3\r\nSUB queue.mix blue 4\r\n\
             SUB queue.mix 5\r\nSUB queue.* 6\r\n",
        )
        .await?;
    for _ in 0..50 {
        client.publish("queue.mix", "x").await?;
        let counts = by_sid(&client.sync_messages().await?);
        let of = |sids: [&str; 2]| -> usize { sids.iter().filter_map(|sid| counts.get(*sid)).sum() };
        ensure!(of(["1", "2"]) == 1 && of(["3", "4"]) == 1, "a group got none or more than one: {counts:?}");
        ensure!(
            counts.get("5") == Some(&1) && counts.get("6") == Some(&1),
            "a plain one missed out: {counts:?}"
        );
    }
    Ok(())
}

async fn members_may_be_on_different_connections(fixture: &Fixture) -> anyhow::Result<()> {
    let mut one = RawClient::connect(fixture.shared.address()).await?;
    let mut two = RawClient::connect(fixture.shared.address()).await?;
    for client in [&mut one, &mut two] {
        client.send("SUB queue.far workers 1\r\n").await?;
        client.settle().await?;
    }
    let mut publisher = RawClient::connect(fixture.shared.address()).await?;
    for _ in 0..200 {
        publisher.publish("queue.far", "x").await?;
    }
    publisher.settle().await?;
    let (first, second) = (one.sync_messages().await?.len(), two.sync_messages().await?.len());
    ensure!(first + second == 200, "200 were due in all, {first} and {second} came");
    ensure!(first > 10 && second > 10, "not shared out: {first} and {second}");
    Ok(())
}

async fn a_group_spans_subjects_that_overlap(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client
        .send("SUB queue.span.a workers 1\r\nSUB queue.span.* workers 2\r\nSUB queue.span.> workers 3\r\n")
        .await?;
    for _ in 0..30 {
        client.publish("queue.span.a", "x").await?;
    }
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 30, "one group was due 30 messages, {} came", messages.len());
    Ok(())
}

async fn groups_of_one_name_on_other_subjects_are_apart(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB queue.apart.a workers 1\r\nSUB queue.apart.b workers 2\r\n").await?;
    for _ in 0..20 {
        client.publish("queue.apart.a", "x").await?;
    }
    let counts = by_sid(&client.sync_messages().await?);
    ensure!(counts == BTreeMap::from([("1".to_owned(), 20)]), "{counts:?}");
    Ok(())
}

async fn a_member_that_left_gets_nothing_more(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB queue.leave workers 1\r\nSUB queue.leave workers 2\r\nUNSUB 1\r\n").await?;
    for _ in 0..40 {
        client.publish("queue.leave", "x").await?;
    }
    let counts = by_sid(&client.sync_messages().await?);
    ensure!(counts == BTreeMap::from([("2".to_owned(), 40)]), "{counts:?}");
    Ok(())
}

async fn a_closed_connection_leaves_its_groups(fixture: &Fixture) -> anyhow::Result<()> {
    let mut staying = RawClient::connect(fixture.shared.address()).await?;
    let mut leaving = RawClient::connect(fixture.shared.address()).await?;
    staying.send("SUB queue.gone workers 1\r\n").await?;
    staying.settle().await?;
    leaving.send("SUB queue.gone workers 1\r\n").await?;
    leaving.settle().await?;
    leaving.close().await?;
    // The server may need some rounds to forget the member; the deadline of the case bounds them.
    loop {
        for _ in 0..40 {
            staying.publish("queue.gone", "x").await?;
        }
        if staying.sync_messages().await?.len() == 40 {
            return Ok(());
        }
    }
}

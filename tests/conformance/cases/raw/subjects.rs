//! Matching of subjects, and invalid subjects.

use std::fmt::Write as _;

use anyhow::ensure;

use crate::fixture::{Case, Fixture, cases};
use crate::raw::{Operation, RawClient};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        wildcards_match_as_documented,
        overlapping_subscriptions_get_one_copy_each,
        the_same_subject_twice_means_two_copies,
        a_sid_in_use_keeps_its_first_subject,
        subjects_are_case_sensitive,
        a_wildcard_that_is_part_of_a_token_is_literal,
        subjects_of_many_tokens_match,
        subjects_may_hold_any_visible_character,
        an_invalid_subject_in_sub_is_refused_and_the_connection_stays,
        publishing_to_a_subject_with_an_empty_token_reaches_nobody,
    ]
}

/// Pattern, matching subjects, other subjects.
const MATCHES: &[(&str, &[&str], &[&str])] = &[
    ("a", &["a"], &["b", "a.b", "aa"]),
    ("a.b", &["a.b"], &["a", "a.b.c", "a.c", "ab"]),
    ("*", &["a", "b"], &["a.b", "a.b.c"]),
    (">", &["a", "a.b", "a.b.c"], &[]),
    ("*.b", &["a.b", "b.b"], &["b", "a.c", "a.b.c", "a.a.b"]),
    ("a.*", &["a.b", "a.a"], &["a", "a.b.c", "b.a"]),
    ("a.*.c", &["a.b.c", "a.c.c"], &["a.c", "a.b.b", "a.b.b.c", "a.b.c.c"]),
    ("*.*", &["a.b", "b.a"], &["a", "a.b.c"]),
    ("*.b.*", &["a.b.c"], &["a.b", "b.a.c", "a.b.c.a"]),
    ("a.>", &["a.b", "a.b.c", "a.b.c.a"], &["a", "b.a", "aa.b"]),
    ("a.*.>", &["a.b.c", "a.b.c.a"], &["a.b", "a", "b.a.c"]),
    ("*.>", &["a.b", "a.b.c"], &["a"]),
    ("*.*.c", &["a.b.c", "b.b.c"], &["a.c", "a.b.b"]),
];

async fn wildcards_match_as_documented(fixture: &Fixture) -> anyhow::Result<()> {
    for (pattern, matching, others) in MATCHES {
        let mut client = RawClient::connect(fixture.shared.address()).await?;
        client.send(format!("SUB wild.{pattern} 1\r\n")).await?;
        for subject in matching.iter().chain(*others) {
            client.publish(&format!("wild.{subject}"), "x").await?;
        }
        let seen: Vec<String> =
            client.sync_messages().await?.into_iter().map(|message| message.subject).collect();
        let due: Vec<String> = matching.iter().map(|subject| format!("wild.{subject}")).collect();
        ensure!(seen == due, "wild.{pattern} got {seen:?}, but {due:?} match");
    }
    Ok(())
}

async fn overlapping_subscriptions_get_one_copy_each(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let patterns = ["overlap.a.b", "overlap.*.b", "overlap.a.*", "overlap.*.*", "overlap.>", "overlap.a.>"];
    for (sid, pattern) in patterns.iter().enumerate() {
        client.send(format!("SUB {pattern} {sid}\r\n")).await?;
    }
    client.publish("overlap.a.b", "x").await?;
    let mut sids: Vec<String> =
        client.sync_messages().await?.into_iter().map(|message| message.sid).collect();
    sids.sort();
    ensure!(sids == ["0", "1", "2", "3", "4", "5"], "each of 6 subscriptions was due a copy: {sids:?}");
    Ok(())
}

async fn the_same_subject_twice_means_two_copies(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB twice.x 1\r\nSUB twice.x 2\r\nPUB twice.x 1\r\nx\r\n").await?;
    let mut sids: Vec<String> =
        client.sync_messages().await?.into_iter().map(|message| message.sid).collect();
    sids.sort();
    ensure!(sids == ["1", "2"], "both subscriptions were due a copy: {sids:?}");
    Ok(())
}

async fn a_sid_in_use_keeps_its_first_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB sid.a 1\r\nSUB sid.b 1\r\nPUB sid.a 1\r\na\r\nPUB sid.b 1\r\nb\r\n").await?;
    let texts: Vec<String> = client.sync_messages().await?.iter().map(crate::raw::Message::text).collect();
    ensure!(texts == ["a"], "only the first SUB of a sid counts: {texts:?}");
    Ok(())
}

async fn subjects_are_case_sensitive(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB Case.Sensitive 1\r\nPUB case.sensitive 0\r\n\r\nPUB CASE.SENSITIVE 0\r\n\r\n").await?;
    client.settle().await
}

async fn a_wildcard_that_is_part_of_a_token_is_literal(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB literal.a* 1\r\nSUB literal.b> 2\r\n").await?;
    for subject in ["literal.ab", "literal.a", "literal.b.c", "literal.bc"] {
        client.publish(subject, "x").await?;
    }
    client.settle().await?;
    client.publish("literal.a*", "x").await?;
    client.publish("literal.b>", "x").await?;
    ensure!(client.sync_messages().await?.len() == 2, "a token like a* matches itself");
    Ok(())
}

async fn subjects_of_many_tokens_match(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let tokens: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let subject = tokens.join(".");
    let mut starred = tokens.clone();
    starred[50] = "*".to_owned();
    let (starred, tail) = (starred.join("."), format!("{}.>", tokens[..99].join(".")));
    client
        .send(format!("SUB {subject} 1\r\nSUB {starred} 2\r\nSUB {tail} 3\r\nSUB {subject}.* 4\r\n"))
        .await?;
    client.publish(&subject, "x").await?;
    ensure!(client.sync_messages().await?.len() == 3, "three of four subscriptions match 100 tokens");
    Ok(())
}

async fn subjects_may_hold_any_visible_character(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    let subject = "chars.!\"#$%&'()+,-/:;<=?@[]^_`{|}~.\u{fc}\u{4e2d}";
    let mut input = String::new();
    write!(input, "SUB chars.*.* 1\r\nSUB {subject} 2\r\n")?;
    client.send(input).await?;
    client.publish(subject, "x").await?;
    let messages = client.sync_messages().await?;
    ensure!(messages.len() == 2 && messages.iter().all(|message| message.subject == subject), "{messages:?}");
    Ok(())
}

async fn an_invalid_subject_in_sub_is_refused_and_the_connection_stays(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    for subject in ["a..b", ".a", "a.", "a.>.b", ">.a", "..", "."] {
        client.send(format!("SUB {subject} 1\r\n")).await?;
        let seen = client.sync().await?;
        let due = [Operation::Error("Invalid Subject".to_owned())];
        ensure!(seen == due, "SUB {subject} was due {due:?}, {seen:?} came");
    }
    client.send("SUB invalid.not 1\r\nPUB invalid.not 1\r\nx\r\n").await?;
    ensure!(client.sync_messages().await?.len() == 1, "the connection is of no more use");
    Ok(())
}

async fn publishing_to_a_subject_with_an_empty_token_reaches_nobody(fixture: &Fixture) -> anyhow::Result<()> {
    let mut watcher = RawClient::connect(fixture.shared.address()).await?;
    watcher.send("SUB empty.> 1\r\n").await?;
    watcher.settle().await?;
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    for subject in ["empty..b", "empty.", "empty.a..b"] {
        client.publish(subject, "x").await?;
    }
    // Some servers complain, some do not; the connection stays either way.
    client.sync().await?;
    watcher.settle().await
}

//! Reply subjects, and the answer for a request without responders.

use anyhow::{Context, ensure};

use crate::fixture::{Case, Fixture, cases};
use crate::raw::RawClient;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_reply_subject_is_passed_on,
        a_request_is_answered_over_the_reply_subject,
        a_request_that_nobody_hears_gets_503,
        a_request_with_headers_that_nobody_hears_gets_503,
        the_503_reaches_a_wildcard_inbox,
        without_no_responders_there_is_silence,
        a_heard_request_gets_no_503,
        an_echo_that_is_off_counts_as_nobody,
        no_responders_without_headers_is_refused,
    ]
}

async fn the_reply_subject_is_passed_on(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB reply.pass 1\r\nPUB reply.pass any.thing.at.all 1\r\nx\r\n").await?;
    client.send("HPUB reply.pass other.one 12 13\r\nNATS/1.0\r\n\r\nx\r\n").await?;
    let replies: Vec<_> = client.sync_messages().await?.into_iter().map(|message| message.reply).collect();
    ensure!(replies == [Some("any.thing.at.all".to_owned()), Some("other.one".to_owned())], "{replies:?}");
    Ok(())
}

async fn a_request_is_answered_over_the_reply_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut responder = RawClient::connect(fixture.shared.address()).await?;
    responder.send("SUB reply.service 1\r\n").await?;
    responder.settle().await?;
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB reply.inbox.* 0\r\nPUB reply.service reply.inbox.7 4\r\nask!\r\n").await?;
    let request = responder.message().await?;
    let inbox = request.reply.context("the request has no reply subject")?;
    responder.publish(&inbox, "answer").await?;
    let answer = client.message().await?;
    ensure!(
        answer.text() == "answer" && answer.subject == "reply.inbox.7" && answer.sid == "0",
        "{answer:?}"
    );
    client.settle().await
}

async fn a_request_that_nobody_hears_gets_503(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB reply.nobody.inbox 7\r\nPUB reply.nobody reply.nobody.inbox 3\r\nask\r\n").await?;
    let answers = client.sync_messages().await?;
    ensure!(answers.len() == 1 && answers[0].status().as_deref() == Some("503"), "{answers:?}");
    ensure!(answers[0].payload.is_empty() && answers[0].subject == "reply.nobody.inbox", "{answers:?}");
    Ok(())
}

async fn a_request_with_headers_that_nobody_hears_gets_503(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client
        .send("SUB reply.none.inbox 7\r\nHPUB reply.none reply.none.inbox 12 13\r\nNATS/1.0\r\n\r\nx\r\n")
        .await?;
    let answers = client.sync_messages().await?;
    ensure!(answers.len() == 1 && answers[0].status().as_deref() == Some("503"), "{answers:?}");
    Ok(())
}

async fn the_503_reaches_a_wildcard_inbox(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB reply.wild.* 0\r\nPUB reply.deaf reply.wild.abc 0\r\n\r\n").await?;
    let answers = client.sync_messages().await?;
    ensure!(answers.len() == 1 && answers[0].status().as_deref() == Some("503"), "{answers:?}");
    ensure!(answers[0].subject == "reply.wild.abc" && answers[0].sid == "0", "{answers:?}");
    Ok(())
}

async fn without_no_responders_there_is_silence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":false}\r\n").await?;
    client.send("SUB reply.quiet.inbox 1\r\nPUB reply.quiet reply.quiet.inbox 0\r\n\r\n").await?;
    client.settle().await
}

async fn a_heard_request_gets_no_503(fixture: &Fixture) -> anyhow::Result<()> {
    let mut queue = RawClient::connect(fixture.shared.address()).await?;
    queue.send("SUB reply.heard workers 1\r\n").await?;
    queue.settle().await?;
    let mut client = RawClient::connect(fixture.shared.address()).await?;
    client.send("SUB reply.heard.inbox 1\r\nPUB reply.heard reply.heard.inbox 0\r\n\r\n").await?;
    client.settle().await?;
    ensure!(queue.sync_messages().await?.len() == 1, "the member of the group did not get the request");
    Ok(())
}

async fn an_echo_that_is_off_counts_as_nobody(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client
        .send("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"echo\":false}\r\n")
        .await?;
    client
        .send("SUB reply.self 1\r\nSUB reply.self.inbox 2\r\nPUB reply.self reply.self.inbox 0\r\n\r\n")
        .await?;
    let answers = client.sync_messages().await?;
    ensure!(answers.len() == 1 && answers[0].status().as_deref() == Some("503"), "{answers:?}");
    Ok(())
}

async fn no_responders_without_headers_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut client = RawClient::open(fixture.shared.address()).await?;
    client.send("CONNECT {\"verbose\":false,\"headers\":false,\"no_responders\":true}\r\n").await?;
    client.expect_fatal("no responders requires headers support").await
}

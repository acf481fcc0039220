//! Requests: answered, without responders, and answered too late.

use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::{Client, HeaderMap, Request, RequestErrorKind, Subscriber};
use futures_util::StreamExt;
use futures_util::future::try_join_all;

use super::{connect, settle, text};
use crate::fixture::{Case, Fixture, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_request_is_answered,
        a_request_with_headers_is_answered_with_headers,
        two_hundred_requests_at_once_each_get_their_answer,
        a_group_of_responders_answers_once,
        a_request_that_nobody_hears_fails_at_once,
        a_request_that_is_not_answered_times_out,
    ]
}

/// Answers the next `count` requests with their own payload.
async fn answer(client: &Client, requests: &mut Subscriber, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        let request = requests.next().await.context("the subscription of the responder ended")?;
        let reply = request.reply.context("a request has no reply subject")?;
        let payload = format!("re: {}", String::from_utf8_lossy(&request.payload));
        match request.headers {
            Some(headers) => client.publish_with_headers(reply, headers, payload.into()).await?,
            None => client.publish(reply, payload.into()).await?,
        }
    }
    Ok(())
}

async fn a_request_is_answered(fixture: &Fixture) -> anyhow::Result<()> {
    let (client, responder) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut requests = responder.subscribe("rs.ask").await?;
    settle(&responder).await?;
    let ask = async { Ok(client.request("rs.ask", "what".into()).await?) };
    let (reply, ()) = tokio::try_join!(ask, answer(&responder, &mut requests, 1))?;
    ensure!(text(&reply) == "re: what", "{reply:?}");
    Ok(())
}

async fn a_request_with_headers_is_answered_with_headers(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let mut requests = client.subscribe("rs.ask.headers").await?;
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", "00-cc-dd-01");
    let ask =
        async { Ok(client.request_with_headers("rs.ask.headers", headers.clone(), "what".into()).await?) };
    let (reply, ()) = tokio::try_join!(ask, answer(&client, &mut requests, 1))?;
    ensure!(reply.headers == Some(headers), "{reply:?}");
    Ok(())
}

async fn two_hundred_requests_at_once_each_get_their_answer(fixture: &Fixture) -> anyhow::Result<()> {
    let (client, responder) = (connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut requests = responder.subscribe("rs.ask.many").await?;
    settle(&responder).await?;
    let asks = try_join_all((0..200).map(|number: u32| {
        let client = client.clone();
        async move {
            let reply = client.request("rs.ask.many", number.to_string().into()).await?;
            ensure!(text(&reply) == format!("re: {number}"), "request {number} got {reply:?}");
            Ok(())
        }
    }));
    tokio::try_join!(asks, answer(&responder, &mut requests, 200))?;
    Ok(())
}

async fn a_group_of_responders_answers_once(fixture: &Fixture) -> anyhow::Result<()> {
    let (client, one, two) =
        (connect(&fixture.shared).await?, connect(&fixture.shared).await?, connect(&fixture.shared).await?);
    let mut first = one.queue_subscribe("rs.ask.group", "g".to_owned()).await?;
    let mut second = two.queue_subscribe("rs.ask.group", "g".to_owned()).await?;
    settle(&one).await?;
    settle(&two).await?;
    let mut inbox = client.subscribe("rs.ask.group.inbox").await?;
    for _ in 0..20 {
        client.publish_with_reply("rs.ask.group", "rs.ask.group.inbox", "x".into()).await?;
    }
    settle(&client).await?;
    for (responder, requests) in [(&one, &mut first), (&two, &mut second)] {
        settle(responder).await?;
        requests.unsubscribe().await?;
        while let Some(request) = requests.next().await {
            responder.publish(request.reply.context("a request has no reply subject")?, "re".into()).await?;
        }
        settle(responder).await?;
    }
    settle(&client).await?;
    inbox.unsubscribe().await?;
    let answers = super::rest(&mut inbox).await?.len();
    ensure!(answers == 20, "20 answers were due, {answers} came");
    Ok(())
}

async fn a_request_that_nobody_hears_fails_at_once(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    match client.request("rs.ask.nobody", "x".into()).await {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
        other => anyhow::bail!("no responders was due, {other:?} came"),
    }
}

async fn a_request_that_is_not_answered_times_out(fixture: &Fixture) -> anyhow::Result<()> {
    let client = connect(&fixture.shared).await?;
    let _silent = client.subscribe("rs.ask.silent").await?;
    let request = Request::new().payload("x".into()).timeout(Some(Duration::from_millis(100)));
    match client.send_request("rs.ask.silent", request).await {
        Err(error) if error.kind() == RequestErrorKind::TimedOut => settle(&client).await,
        other => anyhow::bail!("a timeout was due, {other:?} came"),
    }
}

//! The stream part of async-nats, as publisher-api, edge and other programs use it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, RawMessageErrorKind, Republish, StorageType, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::TryStreamExt;

use super::{connect, next, settle};
use crate::fixture::{Case, Fixture, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_stream_is_created_or_found,
        a_stream_of_another_configuration_is_refused,
        a_stored_publish_is_acknowledged,
        a_publish_of_the_same_id_is_a_duplicate,
        an_unexpected_last_sequence_is_refused,
        a_publish_to_no_stream_is_stream_not_found,
        many_publishes_in_flight_are_all_acknowledged,
        a_stored_message_is_read_directly,
        a_stored_message_is_read_from_the_leader,
        info_tells_state_and_subjects,
        a_stream_is_purged_in_every_way,
        a_stored_message_is_deleted,
        a_stream_is_updated_and_deleted,
        streams_are_named_and_listed,
        the_account_is_queried,
        a_stored_message_is_republished,
        a_full_stream_refuses_a_publish,
    ]
}

/// A stream on `<name>.>` that the server knows to listen.
async fn open(fixture: &Fixture, config: Config) -> anyhow::Result<(Context, Stream)> {
    let context = async_nats::jetstream::new(connect(&fixture.shared).await?);
    let config = usual(fixture, config);
    let heard = format!("{}.heard", config.name);
    let stream = Box::pin(context.get_or_create_stream(config)).await?;
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    loop {
        poll.tick().await;
        let refused = PublishMessage::build().expected_stream("?");
        match context.send_publish(heard.clone(), refused).await?.await {
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                ensure!(fixture.kind().replicas() > 1, "the stream does not listen");
            }
            Err(_) => return Ok((context, stream)),
            Ok(ack) => anyhow::bail!("another stream was expected, {ack:?} came"),
        }
    }
}

/// As [`open`], on the heap: a configuration is large.
async fn boxed(fixture: &Fixture, config: Config) -> anyhow::Result<(Context, Stream)> {
    Box::pin(open(fixture, config)).await
}

fn usual(fixture: &Fixture, config: Config) -> Config {
    Config {
        subjects: vec![format!("{}.>", config.name)],
        storage: StorageType::Memory,
        num_replicas: fixture.kind().replicas(),
        allow_direct: true,
        ..config
    }
}

fn named(name: &str) -> Config {
    Config { name: name.to_owned(), ..Config::default() }
}

/// Publishes to each of these subjects, and waits until the replica that serves this client has the messages.
async fn fill(
    fixture: &Fixture,
    context: &Context,
    stream: &Stream,
    subjects: &[&str],
) -> anyhow::Result<()> {
    let mut seq = 0;
    for subject in subjects {
        seq = context.publish((*subject).to_owned(), (*subject).to_owned().into()).await?.await?.sequence;
    }
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    while let Err(error) = stream.direct_get(seq).await {
        poll.tick().await;
        ensure!(fixture.kind().replicas() > 1, "{seq} is not there: {error}");
    }
    Ok(())
}

async fn a_stream_is_created_or_found(fixture: &Fixture) -> anyhow::Result<()> {
    let config =
        || Config { max_messages_per_subject: 5, max_age: Duration::from_secs(3600), ..named("rustmade") };
    let (context, stream) = boxed(fixture, config()).await?;
    let info = stream.cached_info();
    ensure!(info.config.max_messages_per_subject == 5 && info.config.max_age.as_secs() == 3600, "{info:?}");
    ensure!(info.config.duplicate_window.as_secs() == 120 && info.config.max_bytes == -1, "{info:?}");
    let again = Box::pin(context.get_or_create_stream(usual(fixture, config()))).await?;
    ensure!(again.cached_info().created == info.created, "{:?}", again.cached_info());
    Box::pin(context.create_stream(usual(fixture, config()))).await?;
    Ok(())
}

async fn a_stream_of_another_configuration_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustother")).await?;
    let other = usual(fixture, Config { max_messages: 7, ..named("rustother") });
    let error = Box::pin(context.create_stream(other)).await.err().context("it was created")?;
    ensure!(format!("{error}").contains("10058") || format!("{error:?}").contains("10058"), "{error:?}");
    Ok(())
}

async fn a_stored_publish_is_acknowledged(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustack")).await?;
    for seq in 1..=3 {
        let ack = context.publish("rustack.a", "x".into()).await?.await?;
        ensure!(ack.stream == "rustack" && ack.sequence == seq && !ack.duplicate, "{ack:?}");
    }
    Ok(())
}

async fn a_publish_of_the_same_id_is_a_duplicate(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustdup")).await?;
    for duplicate in [false, true] {
        let message = PublishMessage::build().payload("x".into()).message_id("one");
        let ack = context.send_publish("rustdup.a", message).await?.await?;
        ensure!(ack.sequence == 1 && ack.duplicate == duplicate, "{ack:?}");
    }
    Ok(())
}

async fn an_unexpected_last_sequence_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustexp")).await?;
    context.publish("rustexp.a", "x".into()).await?.await?;
    let wrong = [
        PublishMessage::build().expected_last_sequence(9),
        PublishMessage::build().expected_last_subject_sequence(9),
    ];
    for message in wrong {
        let error = context.send_publish("rustexp.a", message).await?.await.err().context("it was stored")?;
        ensure!(error.kind() == PublishErrorKind::WrongLastSequence, "{error:?}");
    }
    Ok(())
}

async fn a_publish_to_no_stream_is_stream_not_found(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustnone")).await?;
    let error = context.publish("rust.no.stream", "x".into()).await?.await.err().context("it was stored")?;
    ensure!(error.kind() == PublishErrorKind::StreamNotFound, "{error:?}");
    Ok(())
}

async fn many_publishes_in_flight_are_all_acknowledged(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, mut stream) = boxed(fixture, named("rustmany")).await?;
    let mut acks = Vec::new();
    for number in 0..500 {
        acks.push(context.publish(format!("rustmany.{}", number % 10), "x".into()).await?);
    }
    for (seq, ack) in (1..).zip(acks) {
        let ack = ack.await?;
        ensure!(ack.sequence == seq, "{seq} was due, {ack:?} came");
    }
    ensure!(stream.info().await?.state.messages == 500, "{:?}", stream.cached_info());
    Ok(())
}

async fn a_stored_message_is_read_directly(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, stream) = boxed(fixture, named("rustdirect")).await?;
    let mut headers = HeaderMap::new();
    headers.append("X-One", "1");
    context.publish_with_headers("rustdirect.a", headers, "first".into()).await?.await?;
    fill(fixture, &context, &stream, &["rustdirect.b", "rustdirect.a"]).await?;
    let first = stream.direct_get(1).await?;
    ensure!(
        first.sequence == 1 && first.payload == "first" && &*first.subject == "rustdirect.a",
        "{first:?}"
    );
    ensure!(first.headers.get("X-One").is_some_and(|value| value.as_str() == "1"), "{first:?}");
    ensure!(stream.direct_get_last_for_subject("rustdirect.a").await?.sequence == 3, "the last is 3");
    ensure!(
        stream.direct_get_next_for_subject("rustdirect.a", Some(2)).await?.sequence == 3,
        "the next is 3"
    );
    ensure!(stream.direct_get_first_for_subject("rustdirect.b").await?.sequence == 2, "the first is 2");
    let missing = stream.direct_get(99).await.err().context("99 is there")?;
    ensure!(missing.kind() == DirectGetErrorKind::NotFound, "{missing:?}");
    Ok(())
}

async fn a_stored_message_is_read_from_the_leader(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, stream) = boxed(fixture, named("rustraw")).await?;
    for subject in ["rustraw.a", "rustraw.b", "rustraw.a"] {
        context.publish(subject, subject.into()).await?.await?;
    }
    let second = stream.get_raw_message(2).await?;
    ensure!(
        second.sequence == 2 && second.payload == "rustraw.b" && &*second.subject == "rustraw.b",
        "{second:?}"
    );
    ensure!(stream.get_last_raw_message_by_subject("rustraw.a").await?.sequence == 3, "the last is 3");
    ensure!(stream.get_first_raw_message_by_subject("rustraw.b", 1).await?.sequence == 2, "the first is 2");
    let missing = stream.get_raw_message(99).await.err().context("99 is there")?;
    ensure!(missing.kind() == RawMessageErrorKind::NoMessageFound, "{missing:?}");
    Ok(())
}

async fn info_tells_state_and_subjects(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, mut stream) = boxed(fixture, named("rustinfo")).await?;
    fill(fixture, &context, &stream, &["rustinfo.a", "rustinfo.b", "rustinfo.a"]).await?;
    let state = stream.info().await?.state.clone();
    ensure!((state.messages, state.first_sequence, state.last_sequence) == (3, 1, 3), "{state:?}");
    ensure!(state.subjects_count == 2 && state.consumer_count == 0 && state.bytes > 0, "{state:?}");
    let mut subjects: Vec<_> = stream.info_with_subjects(">").await?.try_collect().await?;
    subjects.sort();
    ensure!(subjects == [("rustinfo.a".to_owned(), 2), ("rustinfo.b".to_owned(), 1)], "{subjects:?}");
    Ok(())
}

async fn a_stream_is_purged_in_every_way(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, mut stream) = boxed(fixture, named("rustpurge")).await?;
    let (a, b) = ("rustpurge.a", "rustpurge.b");
    fill(fixture, &context, &stream, &[a, b, a, b, a, b]).await?;
    ensure!(stream.purge().filter(a).await?.purged == 3, "three were due");
    ensure!(stream.purge().sequence(3).await?.purged == 1, "one was due");
    ensure!(stream.purge().keep(1).await?.purged == 1, "one was due");
    ensure!(stream.purge().await?.purged == 1, "one was due");
    let state = &stream.info().await?.state;
    ensure!((state.messages, state.first_sequence, state.last_sequence) == (0, 7, 6), "{state:?}");
    Ok(())
}

async fn a_stored_message_is_deleted(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, stream) = boxed(fixture, named("rustdelmsg")).await?;
    fill(fixture, &context, &stream, &["rustdelmsg.a", "rustdelmsg.a"]).await?;
    ensure!(stream.delete_message(1).await?, "it is not deleted");
    ensure!(stream.delete_message(1).await.is_err(), "it is deleted twice");
    ensure!(stream.get_raw_message(1).await.is_err(), "it is still there");
    Ok(())
}

async fn a_stream_is_updated_and_deleted(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustupdate")).await?;
    let info =
        context.update_stream(usual(fixture, Config { max_messages: 9, ..named("rustupdate") })).await?;
    ensure!(info.config.max_messages == 9, "{info:?}");
    ensure!(context.delete_stream("rustupdate").await?.success, "it is not deleted");
    let error = context.get_stream("rustupdate").await.err().context("it is still there")?;
    ensure!(
        format!("{error:?}").contains("STREAM_NOT_FOUND") || has_code(&error, ErrorCode::STREAM_NOT_FOUND),
        "{error:?}"
    );
    Ok(())
}

fn has_code(error: &async_nats::jetstream::context::GetStreamError, code: ErrorCode) -> bool {
    use async_nats::jetstream::context::GetStreamErrorKind as Kind;
    match error.kind() {
        Kind::JetStream(answer) => answer.error_code() == code,
        Kind::EmptyName | Kind::Request | Kind::InvalidStreamName => false,
    }
}

async fn streams_are_named_and_listed(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustnamed")).await?;
    let names: Vec<String> = context.stream_names().try_collect().await?;
    ensure!(names.iter().any(|name| name == "rustnamed"), "{names:?}");
    let infos: Vec<_> = context.streams().try_collect().await?;
    ensure!(infos.iter().any(|info| info.config.name == "rustnamed"), "{infos:?}");
    ensure!(context.stream_by_subject("rustnamed.x").await? == "rustnamed", "another name");
    Ok(())
}

async fn the_account_is_queried(fixture: &Fixture) -> anyhow::Result<()> {
    let (context, _) = boxed(fixture, named("rustaccount")).await?;
    let account = context.query_account().await?;
    ensure!(account.streams >= 1 && account.limits.max_streams.is_none_or(|limit| limit != 0), "{account:?}");
    Ok(())
}

async fn a_stored_message_is_republished(fixture: &Fixture) -> anyhow::Result<()> {
    let republish = Republish {
        source: "rustlog.>".to_owned(),
        destination: "rustlive.>".to_owned(),
        headers_only: false,
    };
    let (context, stream) = boxed(fixture, Config { republish: Some(republish), ..named("rustlog") }).await?;
    ensure!(stream.cached_info().config.republish.is_some(), "{:?}", stream.cached_info());
    let client = connect(&fixture.shared).await?;
    let mut copies = client.subscribe("rustlive.>").await?;
    settle(&client).await?;
    // On a cluster the leader's node learns of the subscription late, so the first live copies may be missed.
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let copy = loop {
        poll.tick().await;
        context.publish("rustlog.a", "x".into()).await?.await?;
        if fixture.kind().replicas() == 1 {
            break next(&mut copies).await?;
        }
        if let Ok(copy) = tokio::time::timeout(Duration::from_millis(200), next(&mut copies)).await {
            break copy?;
        }
    };
    let headers = copy.headers.as_ref().context("it has headers")?;
    let field = |name: &str| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    ensure!(&*copy.subject == "rustlive.a" && copy.payload == "x" && copy.reply.is_none(), "{copy:?}");
    ensure!(field("Nats-Stream") == "rustlog" && field("Nats-Subject") == "rustlog.a", "{copy:?}");
    ensure!(field("Nats-Sequence").parse::<u64>()? > field("Nats-Last-Sequence").parse::<u64>()?, "{copy:?}");
    Ok(())
}

async fn a_full_stream_refuses_a_publish(fixture: &Fixture) -> anyhow::Result<()> {
    let config = Config { max_messages: 1, discard: DiscardPolicy::New, ..named("rustfull") };
    let (context, _) = boxed(fixture, config).await?;
    context.publish("rustfull.a", "x".into()).await?.await?;
    let error = context.publish("rustfull.a", "x".into()).await?.await.err().context("it was stored")?;
    ensure!(format!("{error:?}").contains("10077"), "{error:?}");
    Ok(())
}

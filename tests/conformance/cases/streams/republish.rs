//! Republishing: the live copy of a stored message on another subject.
//!
//! On a cluster the cases listen on the node that leads the stream, because that node learns late of a
//! subscription made on another node.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::raw::Message;
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_copy_tells_where_its_message_stands,
        the_copy_comes_before_the_acknowledgement,
        the_copy_names_the_message_before_it_of_its_subject,
        the_copy_keeps_headers_and_loses_the_reply,
        the_copy_can_be_headers_only,
        a_duplicate_has_no_copy,
        a_refused_publish_has_no_copy,
        nothing_is_republished_without_a_destination,
        only_what_the_source_matches_has_a_copy,
        copies_go_through_a_mapping_of_wildcards,
        copies_of_many_publishers_come_in_the_order_of_sequences,
        the_copy_before_one_that_a_limit_dropped_is_named,
    ]
}

/// A stream that republishes to `<name>-live.>`, and a client on its leader that listens there.
async fn listening(fixture: &Fixture, name: &str, settings: Value) -> anyhow::Result<Streams> {
    let lower = name.to_lowercase();
    let mut all = json!({"republish": {"src": format!("{lower}.>"), "dest": format!("{lower}-live.>")}});
    for (key, value) in settings.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    Streams::open(fixture).await?.create(name, all).await?;
    let mut leader = Streams::open_at_leader(fixture, name).await?;
    leader.client.send(format!("SUB {lower}-live.> 9\r\n")).await?;
    leader.client.settle().await?;
    Ok(leader)
}

/// Publishes; returns the live copy and the acknowledgement, which must come in this order.
async fn both(
    streams: &mut Streams,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> anyhow::Result<(Message, Value)> {
    streams.send(subject, headers, payload).await?;
    let messages = streams.client.messages(2).await?;
    ensure!(messages[0].sid == "9" && messages[1].sid == "1", "copy, then acknowledgement: {messages:?}");
    Ok((messages[0].clone(), messages[1].json()?))
}

async fn nothing_is_republished_without_a_destination(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for (name, republish) in [("NODEST", json!({"src": "nodest.>", "dest": ""})), ("NODESTATALL", json!({}))]
    {
        let answer = streams.create(name, json!({"republish": republish})).await?;
        ensure!(answer["config"]["republish"]["dest"] == "", "{answer}");
        let lower = name.to_lowercase();
        let mut leader = Streams::open_at_leader(fixture, name).await?;
        ensure!(
            leader.publish(&format!("{lower}.a"), "x").await? == json!({"stream": name, "seq": 1}),
            "{name}"
        );
    }
    Ok(())
}

async fn the_copy_tells_where_its_message_stands(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "COPY", json!({})).await?;
    let (copy, ack) = both(&mut streams, "copy.a.b", &[], "one").await?;
    ensure!(ack == json!({"stream": "COPY", "seq": 1}), "{ack}");
    ensure!(copy.subject == "copy-live.a.b" && copy.text() == "one", "{copy:?}");
    let fields = copy.fields();
    let names: Vec<_> = fields.iter().map(|field| field.0.as_str()).collect();
    let due = ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Last-Sequence"];
    ensure!(names == due, "{names:?}");
    ensure!(copy.field("Nats-Stream") == "COPY" && copy.field("Nats-Subject") == "copy.a.b", "{copy:?}");
    ensure!(copy.field("Nats-Sequence") == "1" && copy.field("Nats-Last-Sequence") == "0", "{copy:?}");
    streams.settle("COPY", 1).await?;
    let stored = streams.direct("COPY", json!({"seq": 1})).await?.remove(0);
    ensure!(stored.field("Nats-Time-Stamp") == copy.field("Nats-Time-Stamp"), "{stored:?} is not {copy:?}");
    Ok(())
}

/// Many publishes in flight at once; the client that publishes also listens.
async fn the_copy_comes_before_the_acknowledgement(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "BEFORE", json!({})).await?;
    let bytes: String = (0..300).map(|_| format!("PUB before.a {} 1\r\nx\r\n", streams.inbox)).collect();
    streams.client.send(bytes).await?;
    let (mut copied, mut acked) = (0, 0);
    for message in streams.client.messages(600).await? {
        if message.sid == "9" {
            copied += 1;
            ensure!(message.number("Nats-Sequence")? == copied, "{copied} was due, {message:?} came");
        } else {
            acked += 1;
            ensure!(message.json()?["seq"] == acked && copied >= acked, "ahead of its copy: {message:?}");
        }
    }
    Ok(())
}

async fn the_copy_names_the_message_before_it_of_its_subject(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "PREVIOUS", json!({})).await?;
    for (subject, due) in [("a", (1, 0)), ("b", (2, 0)), ("a", (3, 1)), ("a", (4, 3)), ("b", (5, 2))] {
        let (copy, _) = both(&mut streams, &format!("previous.{subject}"), &[], "").await?;
        let seqs = (copy.number("Nats-Sequence")?, copy.number("Nats-Last-Sequence")?);
        ensure!(seqs == due, "{due:?} was due, {copy:?} came");
    }
    Ok(())
}

async fn the_copy_keeps_headers_and_loses_the_reply(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "KEEPS", json!({})).await?;
    let headers = [("Nats-Msg-Id", "k-1"), ("traceparent", "00-x-y-01"), ("Mc-Receipt", "in.box")];
    let (copy, _) = both(&mut streams, "keeps.a", &headers, "x").await?;
    ensure!(copy.reply.is_none(), "{copy:?}");
    let fields = copy.fields();
    for (field, due) in fields.iter().zip(headers) {
        ensure!((field.0.as_str(), field.1.as_str()) == due, "{fields:?}");
    }
    ensure!(fields.len() == 8 && fields[3].0 == "Nats-Stream", "{fields:?}");
    Ok(())
}

async fn the_copy_can_be_headers_only(fixture: &Fixture) -> anyhow::Result<()> {
    let republish = json!({"src": "slim.>", "dest": "slim-live.>", "headers_only": true});
    let mut streams = listening(fixture, "SLIM", json!({"republish": republish})).await?;
    let (copy, _) = both(&mut streams, "slim.a", &[("X", "y")], "payload").await?;
    ensure!(copy.payload.is_empty() && copy.field("X") == "y", "{copy:?}");
    ensure!(copy.fields().last() == Some(&("Nats-Msg-Size".to_owned(), "7".to_owned())), "{copy:?}");
    Ok(())
}

async fn a_duplicate_has_no_copy(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "NOCOPY", json!({})).await?;
    let id = [("Nats-Msg-Id", "n-1")];
    both(&mut streams, "nocopy.a", &id, "one").await?;
    streams.send("nocopy.a", &id, "one").await?;
    let ack = streams.client.message().await?.json()?;
    ensure!(ack["duplicate"] == true, "{ack}");
    let (copy, _) = both(&mut streams, "nocopy.a", &[], "two").await?;
    ensure!(copy.field("Nats-Sequence") == "2", "{copy:?}");
    Ok(())
}

async fn a_refused_publish_has_no_copy(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "REFUSES", json!({"max_msgs": 1, "discard": "new"})).await?;
    both(&mut streams, "refuses.a", &[], "one").await?;
    streams.send("refuses.a", &[], "two").await?;
    let ack = streams.client.message().await?.json()?;
    ensure!(ack["error"]["err_code"] == 10077, "{ack}");
    streams.client.settle().await
}

async fn only_what_the_source_matches_has_a_copy(fixture: &Fixture) -> anyhow::Result<()> {
    let republish = json!({"src": "partly.in.>", "dest": "partly-live.>"});
    let mut streams = listening(fixture, "PARTLY", json!({"republish": republish})).await?;
    let ack = streams.publish("partly.out.a", "x").await?;
    ensure!(ack["seq"] == 1, "{ack}");
    let (copy, _) = both(&mut streams, "partly.in.a", &[], "x").await?;
    ensure!(copy.subject == "partly-live.a" && copy.field("Nats-Sequence") == "2", "{copy:?}");
    Ok(())
}

async fn copies_go_through_a_mapping_of_wildcards(fixture: &Fixture) -> anyhow::Result<()> {
    let republish = json!({"src": "swaps.*.*", "dest": "swaps-live.{{wildcard(2)}}.{{wildcard(1)}}"});
    let mut streams = listening(fixture, "SWAPS", json!({"republish": republish})).await?;
    let (copy, _) = both(&mut streams, "swaps.a.b", &[], "x").await?;
    ensure!(copy.subject == "swaps-live.b.a", "{copy:?}");
    Ok(())
}

async fn copies_of_many_publishers_come_in_the_order_of_sequences(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "INORDER", json!({})).await?;
    let publishers = (0..4).map(|number| async move {
        let mut publisher = Streams::open_at_leader(fixture, "INORDER").await?;
        let bytes: String = (0..100)
            .map(|turn| format!("PUB inorder.{} {} 1\r\nx\r\n", (turn + number) % 5, publisher.inbox))
            .collect();
        publisher.client.send(bytes).await?;
        publisher.client.messages(100).await
    });
    let (copies, acks) =
        tokio::join!(streams.client.messages(400), futures_util::future::try_join_all(publishers));
    ensure!(acks?.concat().len() == 400, "not all are acknowledged");
    let mut last = std::collections::HashMap::new();
    for (seq, copy) in (1_u64..).zip(copies?) {
        ensure!(copy.number("Nats-Sequence")? == seq, "{seq} was due, {copy:?} came");
        let before = last.insert(copy.subject.clone(), seq).unwrap_or(0);
        ensure!(copy.number("Nats-Last-Sequence")? == before, "{before} is before {copy:?}");
    }
    Ok(())
}

/// A limit drops the old message before the new one is stored. The new live copy still names the old message,
/// or 0: never a wrong sequence.
async fn the_copy_before_one_that_a_limit_dropped_is_named(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = listening(fixture, "DROPSONE", json!({"max_msgs_per_subject": 1})).await?;
    for (seq, before) in [(1, 0), (2, 1), (3, 2)] {
        let (copy, _) = both(&mut streams, "dropsone.a", &[], "x").await?;
        let seqs = (copy.number("Nats-Sequence")?, copy.number("Nats-Last-Sequence")?);
        ensure!(seqs == (seq, before), "{copy:?}");
    }
    Ok(())
}

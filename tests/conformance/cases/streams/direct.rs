//! DIRECT.GET of one message.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_direct_get_tells_where_the_message_stands,
        a_direct_get_keeps_the_headers_in_front,
        the_last_message_of_a_subject_is_read_in_three_ways,
        the_next_message_of_a_subject_is_read,
        the_first_message_from_a_time_on_is_read,
        a_direct_get_of_what_is_not_there_is_404,
        a_direct_get_that_asks_for_nothing_is_408,
        a_direct_get_that_asks_for_too_much_is_408,
        a_direct_get_that_is_no_request_is_408,
        a_direct_get_without_permission_has_no_responder,
    ]
}

async fn filled(fixture: &Fixture, name: &str) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    streams.create(name, json!({})).await?;
    let subjects = ["a", "b", "a", "b"].map(|end| format!("{}.{end}", name.to_lowercase()));
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    streams.fill(name, 0, &subjects).await?;
    Ok(streams)
}

/// The sequence of the only message in the answer to this request.
async fn got(streams: &mut Streams, name: &str, request: Value) -> anyhow::Result<u64> {
    let found = streams.direct(name, request.clone()).await?.remove(0);
    ensure!(found.status_line().is_empty(), "{request} gets {found:?}");
    found.number("Nats-Sequence")
}

async fn a_direct_get_tells_where_the_message_stands(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "DIRECT").await?;
    let found = streams.direct("DIRECT", json!({"seq": 2})).await?.remove(0);
    let names: Vec<_> = found.fields().into_iter().map(|field| field.0).collect();
    ensure!(names == ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp"], "{found:?}");
    ensure!(found.field("Nats-Stream") == "DIRECT" && found.field("Nats-Subject") == "direct.b", "{found:?}");
    ensure!(found.field("Nats-Sequence") == "2" && found.text() == "direct.b 2", "{found:?}");
    let time = found.field("Nats-Time-Stamp");
    ensure!(time.len() > 20 && time.contains('T') && time.ends_with('Z'), "{time}");
    Ok(())
}

async fn a_direct_get_keeps_the_headers_in_front(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("HEADED", json!({})).await?;
    streams
        .publish_with("headed.a", &[("X-One", "1"), ("Nats-Msg-Id", "h-1"), ("x-one", "2")], "body")
        .await?;
    streams.settle("HEADED", 1).await?;
    let found = streams.direct("HEADED", json!({"seq": 1})).await?.remove(0);
    let fields = found.fields();
    let kept = [("X-One", "1"), ("Nats-Msg-Id", "h-1"), ("x-one", "2"), ("Nats-Stream", "HEADED")];
    for (field, due) in fields.iter().zip(kept) {
        ensure!((field.0.as_str(), field.1.as_str()) == due, "{fields:?}");
    }
    ensure!(fields.len() == 7 && found.text() == "body", "{found:?}");
    Ok(())
}

async fn the_last_message_of_a_subject_is_read_in_three_ways(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "LASTONE").await?;
    let found = streams.ask("$JS.API.DIRECT.GET.LASTONE.lastone.a", "").await?;
    ensure!(found.field("Nats-Sequence") == "3", "{found:?}");
    for (subject, seq) in [("lastone.a", 3), ("lastone.b", 4), ("lastone.*", 4), ("lastone.>", 4)] {
        ensure!(got(&mut streams, "LASTONE", json!({"last_by_subj": subject})).await? == seq, "{subject}");
    }
    let found = streams.ask("$JS.API.DIRECT.GET.LASTONE.lastone.z", "").await?;
    ensure!(found.status_line() == "404 Message Not Found", "{found:?}");
    Ok(())
}

async fn the_next_message_of_a_subject_is_read(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "NEXTONE").await?;
    let due = [
        (json!({"next_by_subj": "nextone.b"}), 2),
        (json!({"seq": 2, "next_by_subj": "nextone.b"}), 2),
        (json!({"seq": 3, "next_by_subj": "nextone.b"}), 4),
        (json!({"seq": 2, "next_by_subj": "nextone.*"}), 2),
    ];
    for (request, seq) in due {
        ensure!(got(&mut streams, "NEXTONE", request.clone()).await? == seq, "{request}");
    }
    Ok(())
}

async fn the_first_message_from_a_time_on_is_read(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TIMED").await?;
    let start = "2020-01-01T00:00:00Z";
    ensure!(got(&mut streams, "TIMED", json!({"start_time": start})).await? == 1, "not the first");
    let request = json!({"start_time": start, "next_by_subj": "timed.b"});
    ensure!(got(&mut streams, "TIMED", request).await? == 2, "not the first of its subject");
    // A start time equal to the message's own, to the nanosecond, includes the message.
    let third = streams.direct("TIMED", json!({"seq": 3})).await?.remove(0);
    let request = json!({"start_time": third.field("Nats-Time-Stamp"), "next_by_subj": "timed.>"});
    ensure!(got(&mut streams, "TIMED", request).await? == 3, "not the one stored at that time");
    Ok(())
}

async fn a_direct_get_of_what_is_not_there_is_404(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "NOTTHERE").await?;
    let requests = [
        json!({"seq": 5}),
        json!({"last_by_subj": "notthere.z"}),
        json!({"last_by_subj": "not.in.this.stream"}),
        json!({"seq": 4, "next_by_subj": "notthere.a"}),
        json!({"seq": 400, "next_by_subj": "notthere.a"}),
        json!({"next_by_subj": "notthere.z"}),
    ];
    for request in requests {
        streams.direct_status("NOTTHERE", request, "404 Message Not Found").await?;
    }
    Ok(())
}

async fn a_direct_get_that_asks_for_nothing_is_408(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "NOTHING").await?;
    for body in ["", "{}", "null", r#"{"seq":0}"#, r#"{"multi_last":[]}"#, r#"{"batch":2}"#] {
        let answer = streams.ask("$JS.API.DIRECT.GET.NOTHING", body).await?;
        ensure!(answer.status_line() == "408 Empty Request", "{body} gets {answer:?}");
    }
    Ok(())
}

async fn a_direct_get_that_asks_for_too_much_is_408(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "TOOMUCH").await?;
    let requests = [
        json!({"seq": 1, "last_by_subj": "toomuch.a"}),
        json!({"last_by_subj": "toomuch.a", "batch": 2}),
        json!({"last_by_subj": "toomuch.a", "multi_last": ["toomuch.a"]}),
        json!({"seq": 1, "start_time": "2020-01-01T00:00:00Z"}),
        json!({"multi_last": ["toomuch.a"], "up_to_seq": 3, "up_to_time": "2020-01-01T00:00:00Z"}),
    ];
    for request in requests {
        streams.direct_status("TOOMUCH", request, "408 Bad Request").await?;
    }
    Ok(())
}

async fn a_direct_get_that_is_no_request_is_408(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "MALFORMED").await?;
    for body in
        ["no JSON", r#"{"seq":"1"}"#, r#"{"seq":-1}"#, r#"{"start_time":"today"}"#, r#"{"multi_last":"a"}"#]
    {
        let answer = streams.ask("$JS.API.DIRECT.GET.MALFORMED", body).await?;
        ensure!(answer.status_line() == "408 Malformed Request", "{body} gets {answer:?}");
    }
    Ok(())
}

async fn a_direct_get_without_permission_has_no_responder(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("INDIRECT", json!({"allow_direct": false})).await?;
    streams.publish("indirect.a", "x").await?;
    for subject in ["INDIRECT", "INDIRECT.indirect.a", "NOSUCHSTREAM"] {
        let answer = streams.ask(&format!("$JS.API.DIRECT.GET.{subject}"), r#"{"seq":1}"#).await?;
        ensure!(answer.status_line() == "503", "{subject} gets {answer:?}");
    }
    // STREAM.MSG.GET, which asks the leader, is still allowed.
    streams.done("STREAM.MSG.GET.INDIRECT", json!({"seq": 1})).await?;
    Ok(())
}

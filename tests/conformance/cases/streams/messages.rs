//! STREAM.MSG.GET, which the leader answers, and STREAM.MSG.DELETE.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a_message_is_got_by_sequence,
        the_last_message_of_a_subject_is_got,
        the_next_message_of_a_subject_is_got,
        a_message_from_a_time_on_is_got,
        headers_and_payload_are_got_as_base64,
        a_message_that_is_not_there_is_10037,
        a_get_that_does_not_say_which_is_refused,
        a_get_from_a_missing_stream_is_10059,
        a_deleted_message_is_gone_for_good,
        a_delete_of_what_is_not_there_is_10043,
        a_delete_that_does_not_say_which_is_refused,
    ]
}

const GET: &str = "STREAM.MSG.GET";
const DELETE: &str = "STREAM.MSG.DELETE";

async fn filled(fixture: &Fixture, name: &str) -> anyhow::Result<Streams> {
    let mut streams = Streams::open(fixture).await?;
    streams.create(name, json!({})).await?;
    let subjects = ["a", "b", "a", "b"].map(|end| format!("{}.{end}", name.to_lowercase()));
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    streams.fill(name, 0, &subjects).await?;
    Ok(streams)
}

/// Sequence and subject of the answer to this request.
async fn got(streams: &mut Streams, name: &str, request: Value) -> anyhow::Result<(u64, String)> {
    let answer = streams.done(&format!("{GET}.{name}"), request).await?;
    ensure!(answer["type"] == "io.nats.jetstream.api.v1.stream_msg_get_response", "{answer}");
    let message = &answer["message"];
    ensure!(message["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{answer}");
    Ok((message["seq"].as_u64().unwrap_or(0), message["subject"].as_str().unwrap_or("").to_owned()))
}

async fn a_message_is_got_by_sequence(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "GETSEQ").await?;
    for (seq, subject) in [(1, "getseq.a"), (4, "getseq.b")] {
        let found = got(&mut streams, "GETSEQ", json!({"seq": seq})).await?;
        ensure!(found == (seq, subject.to_owned()), "{found:?}");
    }
    Ok(())
}

async fn the_last_message_of_a_subject_is_got(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "GETLAST").await?;
    for (subject, seq) in [("getlast.a", 3), ("getlast.b", 4), ("getlast.*", 4)] {
        let found = got(&mut streams, "GETLAST", json!({"last_by_subj": subject})).await?;
        ensure!(found.0 == seq, "{subject} is {found:?}");
    }
    Ok(())
}

async fn the_next_message_of_a_subject_is_got(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "GETNEXT").await?;
    let due = [
        (json!({"next_by_subj": "getnext.b"}), 2),
        (json!({"seq": 2, "next_by_subj": "getnext.b"}), 2),
        (json!({"seq": 3, "next_by_subj": "getnext.b"}), 4),
        (json!({"seq": 2, "next_by_subj": "getnext.*"}), 2),
    ];
    for (request, seq) in due {
        let found = got(&mut streams, "GETNEXT", request.clone()).await?;
        ensure!(found.0 == seq, "{request} is {found:?}");
    }
    Ok(())
}

async fn a_message_from_a_time_on_is_got(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "GETTIME").await?;
    let start = "2020-01-01T00:00:00Z";
    ensure!(got(&mut streams, "GETTIME", json!({"start_time": start})).await?.0 == 1, "not the first");
    let request = json!({"start_time": start, "next_by_subj": "gettime.b"});
    ensure!(got(&mut streams, "GETTIME", request).await?.0 == 2, "not the first of its subject");
    Ok(())
}

async fn headers_and_payload_are_got_as_base64(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("GETBYTES", json!({})).await?;
    streams.publish_with("getbytes.a", &[("X-One", "1")], [0_u8, 255, 13, 10]).await?;
    streams.publish("getbytes.a", "").await?;
    let answer = streams.done("STREAM.MSG.GET.GETBYTES", json!({"seq": 1})).await?;
    // "NATS/1.0\r\nX-One: 1\r\n\r\n"
    ensure!(answer["message"]["hdrs"] == "TkFUUy8xLjANClgtT25lOiAxDQoNCg==", "{answer}");
    ensure!(answer["message"]["data"] == "AP8NCg==", "{answer}");
    let answer = streams.done("STREAM.MSG.GET.GETBYTES", json!({"seq": 2})).await?;
    ensure!(answer["message"]["hdrs"].is_null() && answer["message"]["data"].is_null(), "{answer}");
    Ok(())
}

async fn a_message_that_is_not_there_is_10037(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "GETNONE").await?;
    let requests = [
        json!({"seq": 5}),
        json!({"last_by_subj": "getnone.z"}),
        json!({"seq": 4, "next_by_subj": "getnone.a"}),
        json!({"seq": 500, "next_by_subj": "getnone.a"}),
    ];
    for request in requests {
        streams.refused("STREAM.MSG.GET.GETNONE", request, (404, 10037), "no message found").await?;
    }
    Ok(())
}

async fn a_get_that_does_not_say_which_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "GETWHICH").await?;
    let requests =
        ["", "{}", r#"{"seq":0}"#, r#"{"seq":1,"last_by_subj":"getwhich.a"}"#, r#"{"seq":1,"batch":2}"#];
    for request in requests {
        streams.refused("STREAM.MSG.GET.GETWHICH", request, (400, 10003), "bad request").await?;
    }
    for request in ["no JSON", r#"{"seq":"1"}"#, r#"{"seq":-1}"#, r#"{"seqq":1}"#] {
        streams.refused("STREAM.MSG.GET.GETWHICH", request, (400, 10025), "invalid JSON").await?;
    }
    Ok(())
}

async fn a_get_from_a_missing_stream_is_10059(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for path in [GET, DELETE] {
        streams
            .refused(&format!("{path}.MISSINGGET"), json!({"seq": 1}), (404, 10059), "stream not found")
            .await?;
    }
    Ok(())
}

async fn a_deleted_message_is_gone_for_good(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "DELETES").await?;
    let answer = streams.done("STREAM.MSG.DELETE.DELETES", json!({"seq": 4})).await?;
    ensure!(
        answer == json!({"type": "io.nats.jetstream.api.v1.stream_msg_delete_response", "success": true}),
        "{answer}"
    );
    streams.done("STREAM.MSG.DELETE.DELETES", json!({"seq": 1, "no_erase": true})).await?;
    // The last sequence stays, and is not given again.
    streams.expect_state("DELETES", [2, 2, 4]).await?;
    streams.fill("DELETES", 4, &["deletes.b"]).await?;
    streams.refused("STREAM.MSG.GET.DELETES", json!({"seq": 4}), (404, 10037), "no message found").await?;
    streams.direct_status("DELETES", json!({"seq": 4}), "404 Message Not Found").await?;
    ensure!(
        got(&mut streams, "DELETES", json!({"seq": 3, "next_by_subj": "deletes.b"})).await?.0 == 5,
        "not 5"
    );
    Ok(())
}

async fn a_delete_of_what_is_not_there_is_10043(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "DELETENONE").await?;
    streams.done("STREAM.MSG.DELETE.DELETENONE", json!({"seq": 2})).await?;
    for seq in [2, 99, 0] {
        let words = format!("sequence {seq} not found");
        streams.refused("STREAM.MSG.DELETE.DELETENONE", json!({"seq": seq}), (400, 10043), &words).await?;
    }
    streams.expect_state("DELETENONE", [3, 1, 4]).await?;
    Ok(())
}

async fn a_delete_that_does_not_say_which_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = filled(fixture, "DELETEWHICH").await?;
    streams.refused("STREAM.MSG.DELETE.DELETEWHICH", "", (400, 10003), "bad request").await?;
    for request in ["no JSON", r#"{"seq":"1"}"#] {
        streams.refused("STREAM.MSG.DELETE.DELETEWHICH", request, (400, 10025), "invalid JSON").await?;
    }
    streams.expect_state("DELETEWHICH", [4, 1, 4]).await?;
    Ok(())
}

//! STREAM.CREATE with invalid configurations.

use serde_json::json;

use crate::fixture::{Case, Fixture, cases};
use crate::stream::Streams;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_name_in_the_subject_and_in_the_body_are_the_same,
        names_with_separators_are_refused,
        subjects_that_overlap_within_a_stream_are_refused,
        subjects_of_another_stream_are_refused,
        subjects_that_are_none_are_refused,
        subjects_of_the_api_are_refused,
        ages_and_windows_below_100_ms_are_refused,
        a_window_longer_than_the_age_is_refused,
        replicas_that_cannot_be_are_refused,
        discard_new_per_subject_needs_what_it_counts,
        a_republish_loop_is_refused,
        a_republish_that_cannot_be_mapped_is_refused,
        descriptions_and_metadata_have_a_bound,
        a_sealed_stream_cannot_be_created,
    ]
}

/// Sends a STREAM.CREATE with each of `settings`, and expects this refusal.
async fn refuse(
    fixture: &Fixture,
    name: &str,
    code: (u64, u64),
    attempts: Vec<(serde_json::Value, &str)>,
) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for (settings, words) in attempts {
        let config = streams.config(name, settings);
        streams.refused(&format!("STREAM.CREATE.{name}"), config, code, words).await?;
    }
    streams.refused(&format!("STREAM.INFO.{name}"), "", (404, 10059), "stream not found").await
}

async fn the_name_in_the_subject_and_in_the_body_are_the_same(fixture: &Fixture) -> anyhow::Result<()> {
    let words = "stream name in subject does not match request";
    let attempts = ["", "OTHER", "a b", "a/b", "a.b"].map(|name| (json!({"name": name}), words));
    refuse(fixture, "NAMED", (400, 10056), attempts.into()).await?;
    let mut streams = Streams::open(fixture).await?;
    for body in ["", "{}", "null"] {
        streams.refused("STREAM.CREATE.NAMED", body, (400, 10056), words).await?;
    }
    Ok(())
}

async fn names_with_separators_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    for (name, code) in [("a/b", (400, 10128)), ("a>b", (500, 10052)), ("a*b", (500, 10052))] {
        let config = streams.config(name, json!({"subjects": ["separators.x"]}));
        streams.refused(&format!("STREAM.CREATE.{name}"), config, code, "an not contain").await?;
    }
    Ok(())
}

async fn subjects_that_overlap_within_a_stream_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"subjects": ["inner.a", "inner.*"]}), "overlaps with"),
        (json!({"subjects": ["inner.a", "inner.a"]}), "overlaps with"),
        (json!({"subjects": ["inner.*.a", "inner.>"]}), "overlaps with"),
    ];
    refuse(fixture, "INNER", (500, 10052), attempts.into()).await
}

async fn subjects_of_another_stream_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let mut streams = Streams::open(fixture).await?;
    streams.create("HOLDER", json!({"subjects": ["holder.*.b", "holder.one"]})).await?;
    let words = "subjects overlap with an existing stream";
    let subjects = ["holder.a.b", "holder.a.*", "holder.>", "holder.one", "*.one"];
    let attempts = subjects.map(|subject| (json!({"subjects": [subject], "no_ack": true}), words));
    refuse(fixture, "LATECOMER", (400, 10065), attempts.into()).await?;
    streams.create("NEIGHBOUR", json!({"subjects": ["holder.a.c", "holder.two"]})).await?;
    Ok(())
}

async fn subjects_that_are_none_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let subjects = ["none..a", ".none", "none.", "none.>.a", "", "none a"];
    let attempts = subjects.map(|subject| (json!({"subjects": [subject]}), "invalid subject"));
    refuse(fixture, "NOSUBJECT", (500, 10052), attempts.into()).await
}

async fn subjects_of_the_api_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"subjects": ["$JS.API.x"]}), "overlap with jetstream api"),
        (json!({"subjects": ["$JS.>"]}), "overlap with jetstream api"),
        (json!({"subjects": ["$SYS.x"]}), "overlap with system api"),
        (json!({"subjects": [">"]}), "capturing all subjects"),
    ];
    refuse(fixture, "APILISTENER", (500, 10052), attempts.into()).await
}

async fn ages_and_windows_below_100_ms_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"max_age": 1_000_000}), "max age needs to be >= 100ms"),
        (json!({"max_age": -1_000_000_000}), "max age can not be negative"),
        (json!({"duplicate_window": 1_000_000}), "duplicates window needs to be >= 100ms"),
        (json!({"duplicate_window": -1_000_000_000}), "duplicates window can not be negative"),
    ];
    refuse(fixture, "TOOSHORT", (500, 10052), attempts.into()).await
}

async fn a_window_longer_than_the_age_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let settings = json!({"max_age": 1_000_000_000, "duplicate_window": 2_000_000_000_u64});
    let words = "duplicates window can not be larger then max age";
    refuse(fixture, "TOOLONG", (500, 10052), vec![(settings, words)]).await
}

async fn replicas_that_cannot_be_are_refused(fixture: &Fixture) -> anyhow::Result<()> {
    refuse(fixture, "COPIES", (400, 10133), vec![(json!({"num_replicas": -1}), "cannot be negative")])
        .await?;
    refuse(fixture, "COPIES", (500, 10052), vec![(json!({"num_replicas": 7}), "maximum replicas is 5")])
        .await?;
    if fixture.kind().replicas() == 1 {
        let words = "replicas > 1 not supported in non-clustered mode";
        refuse(fixture, "COPIES", (500, 10074), vec![(json!({"num_replicas": 3}), words)]).await?;
    }
    Ok(())
}

async fn discard_new_per_subject_needs_what_it_counts(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"discard_new_per_subject": true}), "requires discard new policy"),
        (json!({"discard_new_per_subject": true, "discard": "new"}), "requires max msgs per subject > 0"),
    ];
    refuse(fixture, "PERSUBJECT", (500, 10052), attempts.into()).await
}

async fn a_republish_loop_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"republish": {"src": "loop.>", "dest": "loop.live.>"}}), "forms a cycle"),
        (json!({"republish": {"src": ">", "dest": "loop.>"}}), "forms a cycle"),
    ];
    refuse(fixture, "LOOP", (500, 10052), attempts.into()).await
}

async fn a_republish_that_cannot_be_mapped_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"republish": {"src": "mapped.>", "dest": "one.subject"}}), "not valid"),
        (json!({"republish": {"src": "mapped.>", "dest": "live..>"}}), "not valid"),
        (json!({"republish": {"src": "mapped.*", "dest": "live.*.*"}}), "not valid"),
    ];
    refuse(fixture, "MAPPED", (500, 10052), attempts.into()).await
}

async fn descriptions_and_metadata_have_a_bound(fixture: &Fixture) -> anyhow::Result<()> {
    let attempts = [
        (json!({"description": "x".repeat(5000)}), "maximum allowed is 4096"),
        (json!({"metadata": {"key": "x".repeat(130 * 1024)}}), "maximum size of 131072 bytes"),
    ];
    refuse(fixture, "BOUND", (500, 10052), attempts.into()).await
}

async fn a_sealed_stream_cannot_be_created(fixture: &Fixture) -> anyhow::Result<()> {
    refuse(fixture, "SEALED", (500, 10052), vec![(json!({"sealed": true}), "can not be sealed")]).await
}

//! The status of the history as text for operators.

use std::time::Duration;

use shared::history::HistoryConfig;
use shared::history::admin::StreamStatus;

const HEAD: [&str; 10] =
    ["stream", "messages", "bytes", "first", "last", "of", "generation", "epoch", "copies", "leader"];

/// Returns a table with one line per stream, and notes about streams that do not fit the configuration.
pub(super) fn status(streams: &[StreamStatus], config: &HistoryConfig) -> String {
    if streams.is_empty() {
        return "There is no history on this bus yet; the first part that starts makes it.\n".to_owned();
    }
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(streams.iter().map(row));
    let mut text = table(&rows);
    if let Some(StreamStatus { config: stream, .. }) = streams.first() {
        let age = humantime::format_duration(Duration::from_nanos(stream.max_age));
        let full = if stream.discard == "new" { "then publishes are refused" } else { "then the oldest go" };
        text.push_str(&format!(
            "Kept: {} messages a channel, for {age}, {} bytes a stream; {full}.\n",
            stream.max_msgs_per_subject, stream.max_bytes
        ));
    }
    for StreamStatus { config: stream, notes, .. } in streams {
        match notes {
            None => text.push_str(&format!("{} is none of message center's; remove or rename it.\n", stream.name)),
            Some(notes) if notes.partitions as usize != streams.len() => text.push_str(&format!(
                "{} was made for {} partitions, but there are {} streams: a change broke off; repeat `message-center \
                 partitions`.\n",
                stream.name,
                notes.partitions,
                streams.len()
            )),
            Some(_) => {}
        }
    }
    if streams.len() != config.partitions as usize {
        text.push_str(&format!(
            "The configuration here says history.partitions = {}; parts that say so are not ready.\n",
            config.partitions
        ));
    }
    text
}

fn row(stream: &StreamStatus) -> Vec<String> {
    let StreamStatus { config, state, leader, notes, .. } = stream;
    let of = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        config.name.clone(),
        state.messages.to_string(),
        state.bytes.to_string(),
        state.first_seq.to_string(),
        state.last_seq.to_string(),
        of(notes.map(|notes| notes.partitions.to_string())),
        of(notes.map(|notes| notes.generation.to_string())),
        of(notes.map(|notes| format!("{:016x}", notes.epoch.0))),
        config.num_replicas.to_string(),
        of(leader.clone()),
    ]
}

fn table(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

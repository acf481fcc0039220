//! `message-center partitions <n>`: divides the history into another number of streams, and deletes every
//! message in it.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use futures_util::future::BoxFuture;
use shared::bus::Bus;
use shared::history::admin::{self, StreamStatus};
use shared::history::{HistoryConfig, MAX_PARTITIONS};

use super::alive::{self, Alive};
use super::{BusLocation, Settings, show, streams};

/// The flags of `partitions`.
#[derive(Debug, Args)]
pub struct Partitions {
    /// Number of streams, 1 to 256
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    partitions: u32,
    #[command(flatten)]
    location: BusLocation,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Do it although parts run: messages that they accept meanwhile may be lost
    #[arg(long)]
    force: bool,
}

impl Partitions {
    /// Runs the command.
    pub fn run(self) -> BoxFuture<'static, ExitCode> {
        // Boxed, so that only this crate compiles the code that it starts.
        Box::pin(async move {
            let Self { partitions, location, yes, force } = self;
            location
                .run(async move |settings, bus, _| divide(&settings, &bus, partitions, yes, force).await)
                .await
        })
    }
}

async fn divide(
    settings: &Settings,
    bus: &Bus,
    partitions: u32,
    yes: bool,
    force: bool,
) -> anyhow::Result<String> {
    let streams = streams(bus).await?;
    if is_divided(&streams, partitions) {
        let status = show::status(&streams, &settings.history);
        return Ok(format!("{status}There are {partitions} partitions already; nothing was changed.\n"));
    }
    let alive = alive::look(bus).await?;
    ensure!(alive.is_nobody() || force, "{}", refusal(&alive));
    let messages: u64 = streams.iter().map(|stream| stream.state.messages).sum();
    ensure!(
        yes,
        "{}This would delete {messages} messages and divide the empty history into {partitions}. Devices keep what they \
         received; every device that recovers would be told to reload from the business system.\nNothing was changed. \
         Repeat with --yes to do it.",
        show::status(&streams, &settings.history)
    );
    let config = HistoryConfig { partitions, ..settings.history.clone() };
    let made = admin::divide(bus, &streams, &config)
        .await
        .context("it broke off, and no part will take the history as it is; begin again")?;
    let next = match settings.history.partitions == partitions {
        true => "Start the parts now.\n".to_owned(),
        false => format!(
            "Set history.partitions = {partitions} in the configuration of every part, then start them.\n"
        ),
    };
    Ok(format!("{}{next}", show::status(&made, &config)))
}

/// Returns whether `streams` are exactly the streams of a history with `partitions` partitions.
fn is_divided(streams: &[StreamStatus], partitions: u32) -> bool {
    streams.len() == partitions as usize
        && streams.iter().zip(0..).all(|(stream, number)| {
            stream.partition == number && stream.notes.is_some_and(|notes| notes.partitions == partitions)
        })
}

fn refusal(alive: &Alive) -> String {
    let mut parts: Vec<String> =
        alive.edges.iter().map(|(edge, sessions)| format!("edge {edge} with {sessions} sessions")).collect();
    if alive.publishers {
        parts.push("a publisher-api".to_owned());
    }
    format!(
        "These parts still run: {}. What they accept meanwhile would be lost. Stop every edge and every publisher-api, and \
         repeat it. (--force does it all the same.)",
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_parts_are_named() {
        let mut alive = Alive::default();
        assert!(alive.is_nobody());
        alive.edges.insert("e1".into(), 7);
        alive.publishers = true;
        let text = refusal(&alive);
        assert!(text.contains("edge e1 with 7 sessions, a publisher-api"), "{text}");
    }
}
